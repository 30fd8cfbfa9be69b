"""Trimming after centripetal training: of every cluster one channel stays, and its consumers take over the others'.

    consumer weight[:, first] <- sum over the cluster of weight[:, member]

If the members compute the same values, the network's function does not change: sum_k W_k y_k = (sum_k W_k) y_first.
That covers followers, batch norm with its statistics, flattened features (position by position) and grouped consumers.

Reference: Ding et al., Centripetal SGD, CVPR 2019. Theory: theory_notes/training.md. Not claimed: equality to the bit;
sums are rounded once to the weights' dtype, and members equal up to the stated spread.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from provable.channels import ChannelGroup, channel_groups
from provable.errors import CollapseError, SurgeryError
from provable.records import Compression
from provable.surgery import check_surgery, shrink
from provable.training.clusters import CollapsePlan
from provable.training.result import as_compression, traced
from verify.network.evaluate import evaluate
from verify.network.graph import Array, Network

TOLERANCE = 1e-5
AMPLIFICATION = 1e3  # what layers may make of the spread before the result is thrown away
SAMPLES = 4


@dataclass(frozen=True)
class Spread:
    """The largest distance of a row from its cluster's first, relative to the parameter's largest magnitude."""

    deviation: float
    parameter: str
    group: str


def cluster_spread(network: Network, plan: CollapsePlan) -> Spread:
    """How far the clusters are from collapsed."""
    worst = Spread(0.0, "", "")
    for key, collapse in plan.collapses.items():
        rows = np.moveaxis(network.parameters[key], collapse.axis, 0).astype(np.float64)
        first = {label: i for i, label in reversed(list(enumerate(collapse.labels)))}
        leaders = rows[[first[label] for label in collapse.labels]]
        size = float(np.abs(rows).max(initial=0.0))
        deviation = float(np.abs(rows - leaders).max(initial=0.0)) / size if size else 0.0
        if deviation > worst.deviation or not np.isfinite(deviation):
            worst = Spread(deviation, key, collapse.group)
    return worst


def trim(
    model: nn.Module | Network, plan: CollapsePlan, example: Tensor | None = None, *, tolerance: float = TOLERANCE
) -> Compression:
    """The network with one channel per cluster.

    Args:
        model: trained under the plan; a module needs `example`, one input with a batch axis of 1.
        plan: the clusters.
        tolerance: largest relative spread within a cluster.

    Returns:
        The compression; `settings` has the spread and the largest difference of outputs on random inputs, relative to
        the largest output.

    Raises:
        CollapseError: the clusters have not collapsed.
        SurgeryError: the trimmed network computes something else.
    """
    network = model if isinstance(model, Network) else traced(model, example)
    spread = cluster_spread(network, plan)
    if not spread.deviation <= tolerance:
        raise CollapseError(
            f"clusters have not collapsed: within group {spread.group!r}, rows of {spread.parameter!r} differ by "
            f"{spread.deviation:.3g} of its largest entry, more than {tolerance:g}; train longer or with more strength"
        )
    groups = channel_groups(network)
    gathered = _gathered(network, groups, plan)
    kept = {name: tuple(cluster[0] for cluster in clusters) for name, clusters in plan.clusters.items()}
    surgery = shrink(gathered, kept, groups=groups)
    samples = np.random.default_rng(0).normal(size=(SAMPLES, *network.input_shape))
    error = check_surgery(gathered, kept, surgery, samples)
    difference = _difference(network, surgery.compact, samples)
    if not difference <= tolerance + AMPLIFICATION * spread.deviation:
        raise SurgeryError(f"the trimmed network's outputs differ by {difference:.3g} (relative); it is not kept")
    settings = {"spread": spread.deviation, "difference": difference, "tolerance": tolerance}
    return as_compression("C-SGD", network, surgery, [g for g in groups if g.name in kept], error, settings, model)


def _gathered(network: Network, groups: Sequence[ChannelGroup], plan: CollapsePlan) -> Network:
    """The network whose consumers read of every cluster only the first member, with the weights of all."""
    changed: dict[str, Array] = {}
    for group in (g for g in groups if g.name in plan.clusters):
        for consumer in group.consumers:
            key = network.node(consumer.node).parameters["weight"]
            weight = changed.setdefault(key, network.parameters[key].astype(np.float64))
            held = [[p for p in positions if p < weight.shape[1]] for positions in consumer.positions]
            for first, *others in plan.clusters[group.name]:
                for other in others:
                    weight[:, held[first]] += weight[:, held[other]]
                    weight[:, held[other]] = 0.0
    return network.with_parameters({key: w.astype(network.parameters[key].dtype) for key, w in changed.items()})


def _difference(network: Network, compact: Network, samples: Array) -> float:
    expected, found = evaluate(network, samples), evaluate(compact, samples)
    return float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), np.finfo(np.float64).tiny))
