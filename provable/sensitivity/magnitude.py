"""The two baselines every other score is compared with: the filters' own size, and chance.

    l1-norm    I_m = sum of |w| over the rows of the layers that produce channel m     (Li et al., ICLR 2017)
    random     I_m uniform on [0, 1], independent

Each layer's scores are divided by their mean, so that one ranking can serve all layers. Theory note: scores.md. Not
claimed: that a small filter matters little.
"""

import numpy as np

from provable.channels import ChannelGroup
from provable.compensation.moments import Matrix
from provable.method import Method
from provable.selection.finding import Finding, Inquiry
from verify.network.graph import Network


def by_norm(inquiry: Inquiry) -> dict[str, Finding]:
    """L1 norms of the producers' rows; looks at no data."""
    return {g.name: Finding(relative(norms(inquiry.network, g))) for g in inquiry.groups}


def by_chance(inquiry: Inquiry) -> dict[str, Finding]:
    """Random scores."""
    return {g.name: Finding(relative(inquiry.generator.random(len(g.slots)))) for g in inquiry.groups}


def norms(network: Network, group: ChannelGroup) -> Matrix:
    """(slots,) sum of |w| over the rows that produce each slot."""
    total = np.zeros(len(group.slots))
    for producer in group.producers:
        weight = network.parameters[network.node(producer).parameters["weight"]].astype(np.float64)
        rows = np.abs(weight).reshape(len(weight), -1).sum(1)
        total += np.array([rows[list(slot.positions[producer])].sum() for slot in group.slots])
    return total


def relative(scores: Matrix) -> Matrix:
    """Scores over their mean; zeros stay zeros."""
    mean = float(scores.mean())
    return scores / mean if mean > 0.0 else scores


METHODS = tuple(
    Method(
        name=name, summary=summary, granularity="channel", when="after training", criterion=criterion, data="none",
        recovery="closed form", guarantee="none", reference=reference, cost="none worth naming",
        use=f"provable compress --recipe {name}",
    )
    for name, summary, criterion, reference in (
        ("l1-norm", "smallest filters leave first (baseline)", "magnitude",
         "Li, Kadav, Durdanovic, Samet, Graf, ICLR 2017, arXiv 1608.08710"),
        ("random", "filters leave by chance (baseline)", "probabilistic", "baseline of every comparison"),
    )
)  # fmt: skip
