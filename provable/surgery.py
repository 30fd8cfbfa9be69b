"""Removing channels: a smaller network from the slots that stay, and the proof that nothing else changed.

    masked(network, kept)          the original in which every layer ignores the removed channels
    shrink(network, kept).compact  the same function without them

Both compute the same real numbers at every kept position of every value; `check_surgery` evaluates both and
compares. Theory note: theory_notes/channel_groups.md. Not claimed: closeness to the original; that is the
business of selection and compensation, and of the verifier.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, cast

import numpy as np

from provable.channel_rules import is_depthwise
from provable.channels import ChannelGroup, channel_groups
from provable.errors import CalibrationError, SelectionError, SurgeryError
from provable.parameter_axes import followed
from verify.network.evaluate import evaluate_values
from verify.network.graph import Array, Attribute, Network, Node, Shape


@dataclass(frozen=True)
class Cut:
    """What is left of one axis: the kept indices, ascending."""

    axis: int
    kept: tuple[int, ...]


@dataclass(frozen=True)
class Surgery:
    """A smaller network and where its channels come from.

    Attributes:
        compact: the network that is left; node names are the original's.
        kept: group name -> kept slots, for every group, removable or not.
        removed: group name -> number of slots removed, for every group.
        values: value name -> cut, for every value that is smaller than the original's.
        parameters: parameter key -> cuts, for every parameter that is smaller than the original's.
    """

    compact: Network
    kept: Mapping[str, tuple[int, ...]]
    removed: Mapping[str, int]
    values: Mapping[str, Cut]
    parameters: Mapping[str, tuple[Cut, ...]]

    @property
    def channels(self) -> dict[str, Any]:
        """The content of channels.json: where every smaller value's positions come from."""
        values = {name: {"axis": cut.axis, "kept": list(cut.kept)} for name, cut in self.values.items()}
        return {"version": 1, "values": values}


def shrink(
    network: Network, kept: Mapping[str, Sequence[int]], *, groups: Sequence[ChannelGroup] | None = None
) -> Surgery:
    """The network without the slots that are not kept.

    Args:
        network: the original.
        kept: group name -> slots that stay, in any order; groups not named stay whole.
        groups: `channel_groups(network)`, where the caller has them already.

    Returns:
        The surgery; parameters keep their dtype and, where they stay, their bits.

    Raises:
        SelectionError: an unknown group, a slot out of range or named twice, a group left empty, or a cut
            through a group that is not removable.
        GroupingError: the network has no removable group.
    """
    groups = channel_groups(network) if groups is None else groups
    stays = checked_selection(groups, kept)
    values = _value_cuts(network, groups, stays)
    axes = {name: cut.axis for name, cut in values.items()}
    parameters = {
        key: cuts
        for node in network
        for role, key in node.parameters.items()
        if (cuts := _parameter_cuts(network.parameters[key].shape, followed(network, node, axes)[role], values))
    }
    compact = Network(
        network.input,
        network.input_shape,
        tuple(_smaller(network, node, values) for node in network),
        network.output,
        {key: take(array, parameters.get(key, ())) for key, array in network.parameters.items()},
    )
    removed = {group.name: len(_leaving(group, stays)) for group in groups}
    return Surgery(compact, stays, removed, values, parameters)


def masked(
    network: Network, kept: Mapping[str, Sequence[int]], *, groups: Sequence[ChannelGroup] | None = None
) -> Network:
    """The original, except that every consumer's weights for removed slots are zero.

    The removed channels are still computed, and reach each other through the ops between, but no kept
    element depends on them: a network of the original's shapes that equals the shrunken one.

    Raises:
        SelectionError, GroupingError: as `shrink`.
    """
    groups = channel_groups(network) if groups is None else groups
    stays = checked_selection(groups, kept)
    changed: dict[str, Array] = {}
    for group in groups:
        leaving = _leaving(group, stays)
        for consumer in group.consumers if leaving else ():
            key = network.node(consumer.node).parameters["weight"]
            weight = changed.setdefault(key, network.parameters[key].copy())
            columns = [p for slot in leaving for p in consumer.positions[slot] if p < weight.shape[1]]
            weight[:, columns] = 0.0  # a grouped convolution's groups lose the same columns
    return network.with_parameters(changed)


def check_surgery(
    network: Network, kept: Mapping[str, Sequence[int]], surgery: Surgery, inputs: Array, *, tolerance: float = 1e-5
) -> float:
    """Compare the shrunken network with the masked original, value by value, in float64.

    Args:
        network: the original.
        kept: the selection given to `shrink`.
        surgery: what `shrink` returned.
        inputs: ``(batch, *network.input_shape)``; one sample at a time is held in memory.
        tolerance: largest difference allowed, relative to the value's largest magnitude.

    Returns:
        The largest relative difference over all values and inputs.

    Raises:
        SurgeryError: a value differs by more, or is not finite; the message names the worst one.
        CalibrationError: there are no inputs.
        verify.errors.DataError: the inputs do not fit the network.
    """
    if len(inputs) == 0:
        raise CalibrationError("no inputs to compare the shrunken network on; give at least one")
    reference = masked(network, kept)
    worst, where = 0.0, ""
    for sample in np.asarray(inputs)[:, None]:
        for name, difference in _differences(reference, surgery, sample).items():
            if difference > worst:
                worst, where = difference, name
    if worst > tolerance:
        raise SurgeryError(
            f"the shrunken network differs from the masked original by {worst:.3g} (relative) at value {where!r}, "
            f"more than {tolerance:g}; the result is not kept"
        )
    return worst


def checked_selection(groups: Sequence[ChannelGroup], kept: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Group name -> kept slots, ascending, for every group; groups not named stay whole.

    Raises:
        SelectionError: as `shrink`.
    """
    unknown = sorted(set(kept) - {group.name for group in groups})
    if unknown:
        known = ", ".join(group.name for group in groups if group.removable)
        raise SelectionError(f"no group named {unknown[0]!r}; removable groups: {known}")
    return {group.name: _checked_slots(group, kept.get(group.name, range(len(group.slots)))) for group in groups}


def take(array: Array, cuts: Sequence[Cut]) -> Array:
    """The array with every cut applied."""
    for cut in cuts:
        array = array.take(cut.kept, cut.axis)
    return array


def _checked_slots(group: ChannelGroup, slots: Sequence[int]) -> tuple[int, ...]:
    count = len(group.slots)
    chosen = sorted(_index(group, slot) for slot in slots)
    if not chosen:
        raise SelectionError(f"group {group.name!r}: nothing is kept; at least one of its {count} slots must stay")
    outside = [slot for slot in chosen if not 0 <= slot < count]
    if outside:
        raise SelectionError(f"group {group.name!r} has slots 0 to {count - 1}, got {outside[0]}")
    twice = [slot for slot, following in pairwise(chosen) if slot == following]
    if twice:
        raise SelectionError(f"group {group.name!r}: slot {twice[0]} is named twice")
    if len(chosen) < count and not group.removable:
        raise SelectionError(f"group {group.name!r} must stay whole: {group.reason}")
    return tuple(chosen)


def _index(group: ChannelGroup, slot: object) -> int:
    if isinstance(slot, bool | np.bool_) or not isinstance(slot, int | np.integer):
        raise SelectionError(f"group {group.name!r}: slots are integers, got {slot!r}; masks must be turned to indices")
    return int(slot)


def _value_cuts(network: Network, groups: Sequence[ChannelGroup], stays: Mapping[str, Sequence[int]]) -> dict[str, Cut]:
    leaves: dict[str, set[int]] = {}
    axes: dict[str, int] = {}
    for group in groups:
        for slot in _leaving(group, stays):
            for value, positions in group.slots[slot].positions.items():
                leaves.setdefault(value, set()).update(positions)
                axes[value] = group.axes[value]
    return {
        node.name: Cut(axis, tuple(i for i in range(node.shape[axis]) if i not in leaves[node.name]))
        for node in network
        if (axis := axes.get(node.name)) is not None
    }


def _leaving(group: ChannelGroup, stays: Mapping[str, Sequence[int]]) -> list[int]:
    return sorted(set(range(len(group.slots))) - set(stays[group.name]))


def _parameter_cuts(shape: Shape, follows: Sequence[str | None], values: Mapping[str, Cut]) -> tuple[Cut, ...]:
    return tuple(
        Cut(axis, tuple(p for p in values[value].kept if p < shape[axis]))
        for axis, value in enumerate(follows)
        if value is not None
    )


def _smaller(network: Network, node: Node, values: Mapping[str, Cut]) -> Node:
    """The node with the shape and the attributes that are left of it."""
    if not values.keys() & {node.name, *node.inputs}:
        return node
    smaller = replace(node, shape=_cut_shape(node.shape, values.get(node.name)))
    if node.op not in _ATTRIBUTES:
        return smaller
    return replace(smaller, attributes={**node.attributes, **_ATTRIBUTES[node.op](network, smaller, values)})


def _cut_shape(shape: Shape, cut: Cut | None) -> Shape:
    return shape if cut is None else _with(shape, cut.axis, len(cut.kept))


def _conv(network: Network, node: Node, values: Mapping[str, Cut]) -> dict[str, Attribute]:
    """A depthwise convolution has as many groups as channels."""
    return {"groups": len(values[node.inputs[0]].kept)} if is_depthwise(network, node) else {}


def _reshape(network: Network, node: Node, values: Mapping[str, Cut]) -> dict[str, Attribute]:
    return {"shape": node.shape}


def _slice(network: Network, node: Node, values: Mapping[str, Cut]) -> dict[str, Attribute]:
    """Bounds count the kept positions before them."""
    cut = values[node.inputs[0]]
    return {
        bound: _with(cast(Shape, node.attributes[bound]), cut.axis, _below(cut, node.attributes[bound]))
        for bound in ("starts", "stops")
    }


def _pad(network: Network, node: Node, values: Mapping[str, Cut]) -> dict[str, Attribute]:
    """Constant channels at both ends may leave."""
    cut, rank = values[node.name], len(node.shape)
    padding = cast(Shape, node.attributes["padding"])
    begin = padding[cut.axis]
    end = begin + network.shape_of(node.inputs[0])[cut.axis]
    before, after = sum(p < begin for p in cut.kept), sum(p >= end for p in cut.kept)
    return {"padding": _with(_with(padding, cut.axis, before), cut.axis + rank, after)}


_ATTRIBUTES = {"conv": _conv, "reshape": _reshape, "slice": _slice, "pad": _pad}


def _below(cut: Cut, bounds: Attribute) -> int:
    return sum(p < cast(Shape, bounds)[cut.axis] for p in cut.kept)


def _with(numbers: Shape, position: int, number: int) -> Shape:
    return (*numbers[:position], number, *numbers[position + 1 :])


def _differences(reference: Network, surgery: Surgery, sample: Array) -> dict[str, float]:
    """Per value: largest difference at kept positions, relative to the value's largest magnitude."""
    names = [node.name for node in reference]
    whole = evaluate_values(reference, sample, names)
    small = evaluate_values(surgery.compact, sample, names)
    return {name: _relative(small[name], whole[name], surgery.values.get(name)) for name in names}


def _relative(small: Array, whole: Array, cut: Cut | None) -> float:
    expected = whole if cut is None else whole.take(cut.kept, cut.axis + 1)
    if expected.shape != small.shape or not (np.isfinite(expected).all() and np.isfinite(small).all()):
        return math.inf
    size, error = float(np.abs(expected).max()), float(np.abs(small - expected).max())
    return error / size if size else error
