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

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from provable.atoms import Atoms, Labels, first_along, reduced, varying
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
    reason: str = ""


def channel_groups(network: Network) -> tuple[ChannelGroup, ...]:
    """All groups, removable or not, in the order of their first producers.

    Raises:
        GroupingError: no group is removable (the message lists what pinned them), or an op has no rule.
    """
    atoms, labels = _trace(network)
    groups = tuple(_numbered(_groups(network, atoms, labels)))
    if not any(group.removable for group in groups):
        reasons = "; ".join(atoms.reasons()) or "no linear or conv layer defines more than one channel"
        raise GroupingError(f"no channel of the network can leave: {reasons}")
    return groups


def _trace(network: Network) -> tuple[Atoms, dict[str, Labels]]:
    """Labels of every value, each varying along one axis at most, and the classes they name."""
    atoms = Atoms()
    labels = _flow(network, atoms)
    atoms.pin(labels[network.output], f"{network.output!r} is the network's output")
    for value in labels.values():
        _settle(atoms, value)
    for name, value in labels.items():
        if not varying(reduced(atoms.roots(value))):
            atoms.pin(value, f"nothing of {name!r} can leave without the rest of it")
    return atoms, {name: reduced(atoms.roots(value)) for name, value in labels.items()}


def _flow(network: Network, atoms: Atoms) -> dict[str, Labels]:
    """Labels of every value by the rules of the ops, in network order."""
    shared = _shared_parameters(network)
    labels = {network.input: atoms.pinned(len(network.input_shape), "it is the network's input")}
    for node in network:
        if node.op not in CHANNEL_RULES:
            raise GroupingError(f"op {node.op!r} at node {node.name!r} has no rule for its channels")
        inputs = [reduced(atoms.roots(labels[source])) for source in node.inputs]
        labels[node.name] = CHANNEL_RULES[node.op](atoms, network, node, inputs)
        for key in sorted(shared & set(node.parameters.values())):
            for value in (*inputs, labels[node.name]):
                atoms.pin(value, f"{node.op} at node {node.name!r} shares parameter {key!r}")
    return labels


def _shared_parameters(network: Network) -> set[str]:
    """Parameters that are read more than once, scalars aside."""
    uses = Counter(key for node in network for key in node.parameters.values())
    return {key for key, count in uses.items() if count > 1 and network.parameters[key].size > 1}


def _settle(atoms: Atoms, labels: Labels) -> None:
    """Where labels vary along several axes, let them vary along the one that leaves most classes."""
    labels = reduced(atoms.roots(labels))
    if len(varying(labels)) > 1:
        axis = max(varying(labels), key=lambda a: _classes_along(labels, a))
        atoms.unite(labels, first_along(labels, (axis,)))


def _classes_along(labels: Labels, axis: int) -> int:
    """Number of classes left when labels that share a position along `axis` are united."""
    trial = Atoms()
    atoms, local = np.unique(labels, return_inverse=True)
    trial.fresh(atoms.shape)
    rows = np.moveaxis(local.reshape(labels.shape), axis, 0).reshape(labels.shape[axis], -1)
    trial.unite(rows, rows[:, :1])
    return len(np.unique(trial.roots(rows)))


def _groups(network: Network, atoms: Atoms, labels: Mapping[str, Labels]) -> Iterator[ChannelGroup]:
    """A group for every set of like slots that a layer defines; constants alone are not worth a group."""
    axes = {name: varying(value)[0] for name, value in labels.items() if varying(value)}
    for slots, reason in _like_slots(atoms, {name: labels[name].ravel().tolist() for name in axes}):
        reached = [node for node in network if node.name in slots[0].positions]
        depthwise = [node for node in reached if is_depthwise(network, node)]
        producers = [node for node in reached if _defines(node, axes) and node not in depthwise]
        if producers:
            yield ChannelGroup(
                name=producers[0].name,
                slots=slots,
                axes={name: axes[name] for name in slots[0].positions},
                producers=_names(producers),
                norms=_names(node for node in reached if node.op == "batch_norm"),
                depthwise=_names(depthwise),
                consumers=tuple(_consumers(network, axes, slots)),
                inner=len(producers) == 1 and not depthwise and not any(map(_combines, reached)),
                removable=not reason,
                reason=reason,
            )


def _like_slots(atoms: Atoms, labels: Mapping[str, list[int]]) -> Iterator[tuple[tuple[Slot, ...], str]]:
    """Slots that fill the same values equally often, and why they stay if they do."""
    classes: dict[int, dict[str, list[int]]] = {}
    for name, roots in labels.items():
        for position, root in enumerate(roots):
            classes.setdefault(root, {}).setdefault(name, []).append(position)
    like: dict[tuple[object, ...], list[int]] = {}
    for root, filled in classes.items():
        counts = ((name, len(positions)) for name, positions in filled.items())
        like.setdefault((bool(atoms.reason(root)), *counts), []).append(root)
    for roots in like.values():
        slots = tuple(Slot({name: tuple(p) for name, p in classes[root].items()}) for root in roots)
        yield slots, atoms.reason(roots[0]) or ("it is the only slot of its group" if len(slots) == 1 else "")


def _numbered(groups: Iterable[ChannelGroup]) -> Iterator[ChannelGroup]:
    """The groups under unique names."""
    seen: Counter[str] = Counter()
    for group in groups:
        seen[group.name] += 1
        yield group if seen[group.name] == 1 else replace(group, name=f"{group.name}#{seen[group.name]}")


def _names(nodes: Iterable[Node]) -> tuple[str, ...]:
    return tuple(node.name for node in nodes)


def _combines(node: Node) -> bool:
    return len(node.inputs) > 1 and node.op != "concat"


def _defines(node: Node, axes: Mapping[str, int]) -> bool:
    """Whether the channels of the node's value are rows of its weight."""
    return node.op == "conv" or (node.op == "linear" and axes[node.name] == len(node.shape) - 1)


def _consumers(network: Network, axes: Mapping[str, int], slots: tuple[Slot, ...]) -> Iterator[Consumer]:
    for node in network:
        if node.inputs and node.inputs[0] in slots[0].positions and reads_channels(network, node, axes):
            yield Consumer(node.name, tuple(slot.positions[node.inputs[0]] for slot in slots))


def reads_channels(network: Network, node: Node, axes: Mapping[str, int]) -> bool:
    """Whether the node's weight has columns for the channels of its input (given their axis)."""
    if node.op == "linear":
        return axes.get(node.inputs[0]) == len(network.shape_of(node.inputs[0])) - 1
    return node.op == "conv" and node.inputs[0] in axes and not is_depthwise(network, node)
