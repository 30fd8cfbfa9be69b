"""compress_exact(...): the smaller network that computes the same on a declared domain. No calibration data.

    trace ─► groups ─► bounds on the domain ─► neurons that never fire leave ─► neurons that always fire merge ─► shrink

Theory: theory_notes/exact_pruning.md. Not claimed: anything outside the domain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from provable.channels import ChannelGroup
from provable.cost import count_flops, count_parameters
from provable.errors import InputError
from provable.exact.merge import mergeable, merged
from provable.exact.zeros import Mask, zero_elements
from provable.method import Method
from provable.pipeline import module_state, prunable
from provable.records import Compression, Cost, GroupReport
from provable.surgery import check_surgery, masked, shrink
from verify.formal.backward.inactive import Stable, stable_elements
from verify.network.graph import Network
from verify.spec.box import Box

PIECES = 256
FEW_INPUTS = 16  # up to here cutting the domain into pieces decides more neurons


@dataclass(frozen=True)
class Exact:
    """What left one group."""

    silent: tuple[int, ...]
    merged: tuple[int, ...]

    @property
    def words(self) -> str:
        parts = [(len(self.silent), "never fire on the domain"), (len(self.merged), "always fire and depend on others")]
        return "; ".join(f"{count} {what}" for count, what in parts if count) or "kept whole"


def compress_exact(
    model: nn.Module | Network,
    boxes: Sequence[Box],
    *,
    merge: bool = True,
    scope: str = "all",
    pieces: int | None = None,
    example: NDArray[np.float32] | None = None,
) -> Compression:
    """A smaller network with the same output for every input of the domain, in real arithmetic.

    Args:
        model: a `Network`, or a torch module with `example`.
        boxes: the domain, their union.
        merge: also merge neurons that always fire. Weights are then recomputed and rounded once to their dtype;
            without it every weight that stays keeps its bits and the deviation is exactly 0.
        scope: "all" or "inner", as in `provable.compress`.
        pieces: parts each box is cut into for the bounds; more of them decide more neurons. Default: 256 for networks
            of at most 16 inputs, else 1.
        example: one input batch (1, *input shape) to trace a module with.

    Raises:
        InputError: the domain does not fit the network, or there is none.
        GroupingError: the network has no channels that may leave.
        verify.errors.UnsupportedOperation: an operation has no bounds.
    """
    network = _network(model, example)
    _check(network, boxes)
    groups = prunable(network, scope)
    count = pieces if pieces is not None else PIECES if boxes[0].dimension <= FEW_INPUTS else 1
    stable = stable_elements(network, boxes, pieces=count)
    changed, left = _without(network, groups, stable, merge)
    kept = {g.name: _staying(g, left[g.name]) for g in groups}
    surgery = shrink(changed, kept)
    samples = boxes[0].sample(np.random.default_rng(0), 2).reshape(2, *network.input_shape)
    error = check_surgery(changed, kept, surgery, samples)
    state, notes = module_state(model, network, surgery) if isinstance(model, nn.Module) else (None, ())
    return Compression(
        original=network, compact=surgery.compact, channels=surgery.channels, kept=kept,
        groups=tuple(_report(g, left[g.name], kept[g.name]) for g in groups), layers=(),
        before=Cost(count_flops(network), count_parameters(network)),
        after=Cost(count_flops(surgery.compact), count_parameters(surgery.compact)),
        settings={"recipe": "exact", "merge": merge, "scope": scope, "boxes": len(boxes), "pieces": count},
        knob=0.0, knob_meaning="none: what leaves is decided by proof", surgery_error=error, samples=0,
        calibration_digest="", calibration_rows=(), seconds={}, state_dict=state, notes=notes,
    )  # fmt: skip


def _network(model: nn.Module | Network, example: NDArray[np.float32] | None) -> Network:
    if isinstance(model, Network):
        return model
    if example is None:
        raise InputError("a torch module needs an example input to be traced with; pass example=")
    import torch

    from verify.network.read_export import trace

    return trace(model, torch.from_numpy(np.asarray(example)))


def _check(network: Network, boxes: Sequence[Box]) -> None:
    if not boxes:
        raise InputError("the domain has no boxes; nothing is active or inactive on an empty set")
    size = int(np.prod(network.input_shape))
    wrong = [box.dimension for box in boxes if box.dimension != size]
    if wrong:
        raise InputError(f"the domain has {wrong[0]} input coordinates, the network has {size}")


def _without(
    network: Network, groups: Sequence[ChannelGroup], stable: Mapping[str, Stable], merge: bool
) -> tuple[Network, dict[str, Exact]]:
    """The network whose consumers ignore what may leave, group by group in network order."""
    zeros = zero_elements(network, {name: known.inactive for name, known in stable.items()})
    silent = {g.name: _silent(network, g, zeros) for g in groups}
    current = masked(network, {g.name: _others(g, silent[g.name]) for g in groups if silent[g.name]})
    left = {}
    for group in groups:
        gone: tuple[int, ...] = ()
        if merge and mergeable(network, group):
            current, gone = merged(current, group, _always(network, group, stable, silent[group.name]))
        left[group.name] = Exact(silent[group.name], gone)
    return current, left


def _silent(network: Network, group: ChannelGroup, zeros: Mapping[str, Mask]) -> tuple[int, ...]:
    """Slots that every consumer reads as 0; one slot of a group always stays."""
    found = [
        i
        for i in range(len(group.slots))
        if all(_reads_zero(network, group, c.node, i, zeros) for c in group.consumers)
    ]
    return tuple(found[:-1] if len(found) == len(group.slots) else found)


def _reads_zero(network: Network, group: ChannelGroup, consumer: str, slot: int, zeros: Mapping[str, Mask]) -> bool:
    source = network.node(consumer).inputs[0]
    positions = group.slots[slot].positions[source]
    return bool(zeros[source].take(positions, axis=group.axes[source]).all())


def _always(network: Network, group: ChannelGroup, stable: Mapping[str, Stable], silent: Sequence[int]) -> list[int]:
    """Neurons of a mergeable group that fire on the whole domain."""
    relu = network.node(group.consumers[0].node).inputs[0]
    gone = set(silent)
    return [i for i in np.flatnonzero(stable[relu].active).tolist() if i not in gone]


def _others(group: ChannelGroup, leaving: Sequence[int]) -> tuple[int, ...]:
    gone = set(leaving)
    return tuple(i for i in range(len(group.slots)) if i not in gone)


def _staying(group: ChannelGroup, left: Exact) -> tuple[int, ...]:
    return _others(group, (*left.silent, *left.merged)) or (0,)


def _report(group: ChannelGroup, left: Exact, kept: Sequence[int]) -> GroupReport:
    return GroupReport(
        group=group.name, consumers=tuple(c.node for c in group.consumers), kept=len(kept), total=len(group.slots),
        total_sensitivity=None, sensitivity_images=0, bound=None, method=left.words, loss=None, held_out_loss=None,
        ridge=None, note=f"{group.name}: {left.words}",
    )  # fmt: skip


METHODS = (
    Method(
        name="exact", summary="neurons that never fire on a domain, or repeat others there, leave",
        granularity="channel", when="after training", criterion="exact bounds", data="none", recovery="closed form",
        guarantee="exact", reference="Serra, Kumar & Ramalingam, CPAIOR 2020",
        cost="bounds of every neuron on the domain", use="provable exact MODEL --domain D.vnnlib",
    ),
)  # fmt: skip
