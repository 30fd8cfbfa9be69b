"""One row per group: promised before, measured after."""

from collections.abc import Mapping, Sequence

from provable.compensation.sequential import LayerFit
from provable.records import GroupReport
from provable.selection.evidence import Choice, Evidence


def group_reports(
    evidence: Sequence[Evidence], choices: Mapping[str, Choice], layers: Sequence[LayerFit]
) -> tuple[GroupReport, ...]:
    """Reports in the groups' order."""
    by_node = {layer.node: layer for layer in layers}
    return tuple(_report(known, choices.get(known.group.name), by_node) for known in evidence)


def _report(known: Evidence, choice: Choice | None, layers: Mapping[str, LayerFit]) -> GroupReport:
    consumers = tuple(consumer.node for consumer in known.group.consumers)
    fits = [layers[node] for node in consumers if node in layers]
    variance = sum(fit.variance for fit in fits) or 1.0
    held_out = [fit.held_out for fit in fits if fit.held_out is not None]
    ridges = [fit.ridge for fit in fits if fit.ridge is not None]
    return GroupReport(
        group=known.group.name,
        consumers=consumers,
        kept=len(choice.kept) if choice else known.slots,
        total=known.slots,
        total_sensitivity=known.sensitivity.total if known.sensitivity else None,
        sensitivity_images=known.sensitivity.images if known.sensitivity else 0,
        bound=choice.bound if choice else None,
        method=choice.method if choice else "kept whole",
        loss=sum(fit.loss for fit in fits) / variance,
        held_out_loss=sum(held_out) / variance if held_out else None,
        ridge=max(ridges) if ridges else None,
        note="; ".join(dict.fromkeys(fit.note for fit in fits if fit.note)),
    )
