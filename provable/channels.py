"""Which channels must leave together.

    atoms          one per channel that a linear or conv node defines (and per padded or stored constant)
    channel rules  op by op, which atoms reach which elements of its value, and which leave together
    slots          classes of atoms that share a producer: removing a slot removes a set of positions
                   along one axis of every value it reaches
    groups         slots that reach the same values, equally often: they are interchangeable, and as long as
                   one slot of every group stays no value of the network is empty

Theory note: theory_notes/channel_groups.md. Not claimed: that the groups are the finest possible. A group
may be coarser than necessary, or be refused; removing whole slots is always exact.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from provable.atoms import Atoms, Labels, reduced, varying
from provable.channel_rules import CHANNEL_RULES, is_depthwise
from provable.errors import GroupingError
from verify.network.graph import Network, Node


@dataclass(frozen=True)
class Slot:
    """One set of channels that leave together.

    Attributes:
        positions: value name -> the positions it fills along that value's channel axis, ascending. A slot
            has several positions in a flattened value (one per pixel) or when channels are coupled.
    """

    positions: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Consumer:
    """A linear or conv node that reads a group and loses weights with it.

    Attributes:
        node: its name.
        positions: per slot of the group, positions along the channel axis of the node's input: columns of a
            linear weight, input channels of a convolution (each with all its kernel coordinates).
    """

    node: str
    positions: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ChannelGroup:
    """Slots that reach the same values, equally often.

    Attributes:
        name: the first producer's node name; "#2", "#3", ... when a producer starts several groups.
        slots: in the order of their channels.
        axes: value name -> the channel axis of every value the slots reach.
        producers: linear and conv nodes whose output rows leave with a slot, in network order.
        norms: batch_norm nodes the slots pass through.
        depthwise: depthwise conv nodes the slots pass through.
        consumers: linear and conv nodes that read the slots.
        inner: one producer, no depthwise convolution, never combined with another value: the channels of
            an ordinary hidden layer. Residual streams and gated channels are not inner.
        removable: whether slots may leave.
        reason: why not, where they may not.
    """

    name: str
    slots: tuple[Slot, ...]
    axes: Mapping[str, int]
    producers: tuple[str, ...]
    norms: tuple[str, ...]
    depthwise: tuple[str, ...]
    consumers: tuple[Consumer, ...]
    inner: bool
    removable: bool = True
    reason: str = field(default="")


def channel_groups(network: Network) -> tuple[ChannelGroup, ...]:
    """All groups, removable or not, in the order of their first producers.

    Raises:
        GroupingError: no group is removable (the message lists what pinned them), or an op has no rule.
    """
    atoms, labels = _trace(network)
    groups = tuple(_groups(network, atoms, labels))
    if not any(group.removable for group in groups):
        reasons = "; ".join(atoms.reasons()) or "no linear or conv layer defines more than one channel"
        raise GroupingError(f"no channel of the network can leave: {reasons}")
    return groups


def _trace(network: Network) -> tuple[Atoms, dict[str, Labels]]:
    """Labels of every value, each varying along one axis at most."""
    atoms, shared = Atoms(), _shared_parameters(network)
    labels = {network.input: atoms.pinned(len(network.input_shape), "it is the network's input")}
    for node in network:
        inputs = [reduced(atoms.roots(labels[source])) for source in node.inputs]
        if node.op not in CHANNEL_RULES:
            raise GroupingError(f"op {node.op!r} at node {node.name!r} has no rule for its channels")
        labels[node.name] = CHANNEL_RULES[node.op](atoms, network, node, inputs)
        for role in sorted(set(node.parameters) & {r for n, r in shared if n == node.name}):
            why = f"{node.op} at node {node.name!r} shares its {role} with another node"
            for value in (*inputs, labels[node.name]):
                atoms.pin(value, why)
    atoms.pin(labels[network.output], f"{network.output!r} is the network's output")
    for name in labels:
        _settle(atoms, labels[name])
    for name in labels:
        if not varying(reduced(atoms.roots(labels[name]))):
            atoms.pin(labels[name], f"nothing of {name!r} can leave without the rest of it")
    return atoms, {name: reduced(atoms.roots(value)) for name, value in labels.items()}


def _shared_parameters(network: Network) -> set[tuple[str, str]]:
    """(node, role) of every parameter array that more than one role reads, scalars aside."""
    uses: dict[str, list[tuple[str, str]]] = {}
    for node in network:
        for role, key in node.parameters.items():
            uses.setdefault(key, []).append((node.name, role))
    return {use for key, all_uses in uses.items() if len(all_uses) > 1 and network.parameters[key].size > 1
            for use in all_uses}  # fmt: skip


def _settle(atoms: Atoms, labels: Labels) -> None:
    """Where labels vary along several axes, let them vary along the one that leaves most classes."""
    labels = reduced(atoms.roots(labels))
    if len(varying(labels)) > 1:
        axis = max(varying(labels), key=lambda a: _classes_along(labels, a))
        first = labels[tuple(slice(None) if a == axis else slice(0, 1) for a in range(labels.ndim))]
        atoms.unite(labels, first)


def _classes_along(labels: Labels, axis: int) -> int:
    """Number of classes left when labels that share a position along `axis` are united."""
    trial = Atoms()
    atoms, local = np.unique(labels, return_inverse=True)
    trial.fresh(atoms.shape)
    rows = np.moveaxis(local.reshape(labels.shape), axis, 0).reshape(labels.shape[axis], -1)
    trial.unite(rows, rows[:, :1])
    return len(np.unique(trial.roots(rows)))


def _groups(network: Network, atoms: Atoms, labels: Mapping[str, Labels]) -> Iterator[ChannelGroup]:
    axes = {name: varying(value)[0] for name, value in labels.items() if varying(value)}
    classes: dict[int, dict[str, list[int]]] = {}
    for name in axes:
        for position, root in enumerate(labels[name].ravel().tolist()):
            classes.setdefault(root, {}).setdefault(name, []).append(position)
    alike: dict[tuple[object, ...], list[int]] = {}
    for root, reached in classes.items():
        signature = (atoms.reason(root) == "", *((name, len(positions)) for name, positions in reached.items()))
        alike.setdefault(signature, []).append(root)
    started: dict[str, int] = {}
    for roots in alike.values():
        slots = [Slot({n: tuple(p) for n, p in classes[root].items()}) for root in roots]
        group = _group(network, axes, tuple(slots), atoms.reason(roots[0]), started)
        if group is not None:
            yield group


def _group(
    network: Network, axes: Mapping[str, int], slots: tuple[Slot, ...], reason: str, started: dict[str, int]
) -> ChannelGroup | None:
    """The record of a group, or None where no layer defines its channels."""
    reached = [node for node in network if node.name in slots[0].positions]
    depthwise = tuple(node.name for node in reached if is_depthwise(network, node))
    producers = tuple(n.name for n in reached if _defines(n, axes) and n.name not in depthwise)
    if not producers:
        return None
    reason = reason or ("it is the only slot of its group" if len(slots) == 1 else "")
    started[producers[0]] = count = started.get(producers[0], 0) + 1
    return ChannelGroup(
        name=producers[0] if count == 1 else f"{producers[0]}#{count}",
        slots=slots,
        axes={name: axes[name] for name in slots[0].positions},
        producers=producers,
        norms=tuple(node.name for node in reached if node.op == "batch_norm"),
        depthwise=depthwise,
        consumers=tuple(_consumers(network, axes, slots)),
        inner=len(producers) == 1
        and not depthwise
        and not any(len(node.inputs) > 1 and node.op != "concat" for node in reached),
        removable=not reason,
        reason=reason,
    )


def _defines(node: Node, axes: Mapping[str, int]) -> bool:
    """Whether the channels of the node's value are rows of its weight."""
    return node.op == "conv" or (node.op == "linear" and axes[node.name] == len(node.shape) - 1)


def _consumers(network: Network, axes: Mapping[str, int], slots: tuple[Slot, ...]) -> Iterator[Consumer]:
    for node in network:
        if reads_channels(network, node, axes) and node.inputs[0] in slots[0].positions:
            yield Consumer(node.name, tuple(slot.positions[node.inputs[0]] for slot in slots))


def reads_channels(network: Network, node: Node, axes: Mapping[str, int]) -> bool:
    """Whether the node's weight has columns for the channels of its input (given their axis)."""
    if node.op == "linear":
        return axes.get(node.inputs[0]) == len(network.shape_of(node.inputs[0])) - 1
    return node.op == "conv" and node.inputs[0] in axes and not is_depthwise(network, node)
