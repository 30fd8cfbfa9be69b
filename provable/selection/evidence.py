"""What a selection may look at, and what it answers.

Losses of all views are relative to the variance of the stream that the consumer feeds, so that layers and consumers
compare.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from provable.bounds.a_priori import APrioriBound
from provable.bounds.volume_bound import Consumer
from provable.channels import ChannelGroup
from provable.compensation.consumers import Reading, views
from provable.compensation.least_squares import SMALLEST_RIDGE, fit, solve_ridge
from provable.compensation.moments import Matrix, Regression
from provable.observe import Statistics
from provable.selection.finding import Finding
from provable.selection.greedy_elimination import View
from provable.sensitivity.record import Sensitivity
from verify.network.graph import Network


@dataclass(frozen=True)
class Evidence:
    """What is known about one group.

    Attributes:
        group: the group.
        views: least-squares problems of its consumers, scaled by 1 / stream variance.
        sensitivity: of its slots; None where it was not measured.
        sums: same-sign sums behind the sensitivity theorem: consumers' filters x positions x 2.
        finding: what the recipe's own look found; None for recipes without one.
    """

    group: ChannelGroup
    views: tuple[View, ...]
    sensitivity: Sensitivity | None
    sums: int
    finding: Finding | None = field(default=None)

    @property
    def slots(self) -> int:
        return len(self.group.slots)


def evidence_of(
    network: Network, statistics: Statistics, group: ChannelGroup, finding: Finding | None = None
) -> Evidence:
    """Evidence about a group from the original network's statistics."""
    found: list[View] = []
    for consumer in group.consumers:
        known = statistics.consumers[consumer.node]
        problems = [moments.centred() for moments in known.moments]
        scale = 1.0 / known.stream if known.stream > 0.0 else 1.0
        found += views(network, known.target, Reading(group.name, consumer.positions), problems, scale)
    sums = 2 * sum(math.prod(network.shape_of(consumer.node)) for consumer in group.consumers)
    return Evidence(group, tuple(found), statistics.sensitivities.get(group.name), sums, finding)


@dataclass(frozen=True)
class Choice:
    """Slots that stay.

    Attributes:
        kept: ascending.
        bound: what was promised about this choice before it was made, if anything.
        factors: multiplier of each kept slot's consumer weights (reweighted designs); None: all 1.
        merged: (removed slot, kept slot that stands for it): the consumers' weights of the first are added to the
            second's.
        method: how the choice was made, in words.
    """

    kept: tuple[int, ...]
    bound: APrioriBound | None
    factors: tuple[float, ...] | None = field(default=None)
    method: str = field(default="")
    merged: tuple[tuple[int, int], ...] = field(default=())


def relative_loss(views: Sequence[View], kept: Sequence[int], ridge: float = SMALLEST_RIDGE) -> float:
    """Loss after compensation when the slots `kept` stay, summed over the views, relative to their streams."""
    return sum(v.scale * fit(v.regression, staying(v, kept), ridge=ridge).loss for v in views)


def staying(view: View, kept: Sequence[int]) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
    """Coordinates of the view that stay with the slots `kept`: theirs, and those of no slot."""
    stays = np.ones(view.regression.dimension, dtype=bool)
    stays[view.blocks.ravel()] = False
    stays[view.blocks[list(kept)].ravel()] = True
    return np.flatnonzero(stays)


def as_consumer(view: View) -> Consumer:
    """The view as the volume bound reads it: best weights on all coordinates, covariance given the fixed ones.

    The promise then bounds the loss above that of the best fit on all slots.
    """
    covariance, cross = _given_fixed(view)
    slots, size = view.blocks.shape
    weight, _ = solve_ridge(covariance, cross, SMALLEST_RIDGE)  # (slots * size, n)
    shaped = weight.T.reshape(-1, slots, size) * np.sqrt(view.scale)
    return Consumer(np.ascontiguousarray(shaped), covariance)


def _given_fixed(view: View) -> tuple[Matrix, Matrix]:
    """Covariances of the slots' coordinates after regressing out the coordinates that always stay."""
    regression: Regression = view.regression
    owned = view.blocks.ravel()
    fixed = np.setdiff1d(np.arange(regression.dimension), owned)
    covariance, cross = regression.covariance[np.ix_(owned, owned)], regression.cross[owned]
    if len(fixed):
        between = regression.covariance[np.ix_(fixed, owned)]
        inner = regression.covariance[np.ix_(fixed, fixed)]
        explained, _ = solve_ridge(inner, between, SMALLEST_RIDGE)
        covariance, cross = covariance - between.T @ explained, cross - explained.T @ regression.cross[fixed]
    return (covariance + covariance.T) / 2.0, cross
