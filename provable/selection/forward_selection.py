"""Compensation-aware pruning: channels ranked by how much variance of the target they explain beyond those before them.

    F(A) = tr( B_A^T C_AA^{-1} B_A )        variance explained by the kept coordinates A after compensation
    gain of channel t = tr( S_t^T R_tt^{-1} S_t ),   R, S = C, B with the coordinates of A regressed out

The channel with the largest gain comes next; the last ranked leave first. R and S are updated by block Schur
complements (pivoted block Cholesky), so one ranking serves every number of kept channels.

Reference: Xie, Fu, Tian, Zhou, Chen, "Pruning with Compensation", 2021, arXiv 2108.13728. Difference: a ridge of 1e-6
of the mean variance instead of skipping channels that are numerically dependent. Theory note: scores.md. Not claimed:
that the ranking is optimal for any count.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from provable.compensation.moments import Matrix
from provable.method import Method
from provable.selection.evidence import Choice, Evidence
from provable.selection.greedy_elimination import View

RIDGE = 1e-6
TINY = 1e-12
"""Variance over the mean below which a channel counts as constant: it explains nothing, the intercept has it."""


@dataclass(frozen=True)
class Ranking:
    """An order of importance.

    Attributes:
        order: channels, first chosen first; a full permutation.
        losses: (channels + 1,) losses[k] = ridge loss with the first k channels, never rising.
    """

    order: tuple[int, ...]
    losses: Matrix

    def kept(self, count: int) -> tuple[int, ...]:
        """The first `count` channels, ascending."""
        return tuple(sorted(self.order[:count]))


def rank(views: Sequence[View], ridge: float = RIDGE) -> Ranking:
    """Forward selection by explained variance, summed over the consumers.

    Args:
        views: one per consumer; the same channels in each.
        ridge: relative to the mean diagonal of each covariance, > 0.
    """
    sides = [_Side(view, ridge) for view in views]
    losses = [sum(side.loss for side in sides)]
    remaining, order = list(range(len(views[0].blocks))) if views else [], list[int]()
    while remaining:
        gains = np.sum([side.gains(remaining) for side in sides], axis=0)
        best = int(np.argmax(gains))
        channel = remaining.pop(best)
        for side in sides:
            side.add(channel)
        order.append(channel)
        losses.append(max(losses[-1] - float(gains[best]), 0.0))
    return Ranking(tuple(order), np.array(losses))


class _Side:
    """One consumer's residual covariances, updated in place."""

    def __init__(self, view: View, ridge: float) -> None:
        regression = view.regression
        self.scale, self.blocks = view.scale, view.blocks
        mean = float(np.trace(regression.covariance)) / max(regression.dimension, 1) or 1.0
        self.inner = regression.covariance + ridge * mean * np.eye(regression.dimension)
        self.cross = regression.cross.copy()
        self.loss = view.scale * regression.total
        self.least = TINY * mean
        fixed = np.setdiff1d(np.arange(regression.dimension), view.blocks.ravel())
        if len(fixed):
            self.loss -= self.scale * float(np.sum(self.cross[fixed] * self._solved(fixed)))
            self._regress_out(fixed)

    def gains(self, channels: list[int]) -> Matrix:
        """Explained variance that each of the channels would add."""
        blocks = self.blocks[channels]
        inner = self.inner[blocks[:, :, None], blocks[:, None, :]]  # (channels, size, size)
        cross = self.cross[blocks]  # (channels, size, n)
        found: Matrix = np.einsum("csn,csn->c", cross, np.linalg.solve(inner, cross))
        return self.scale * np.maximum(found, 0.0)

    def add(self, channel: int) -> None:
        self._regress_out(self.blocks[channel])

    def _solved(self, t: NDArray[np.intp]) -> Matrix:
        return np.asarray(np.linalg.solve(self.inner[np.ix_(t, t)], self.cross[t]))

    def _regress_out(self, t: NDArray[np.intp]) -> None:
        column = self.inner[:, t]
        weight = np.linalg.solve(self.inner[np.ix_(t, t)], column.T)  # (size, d)
        self.cross = self.cross - weight.T @ self.cross[t]
        self.inner = self.inner - column @ weight
        self.inner[t, t] += self.least + 1.0  # the channel is done: never read again, but kept invertible


def forward(evidence: Evidence, count: int, generator: Generator) -> Choice:
    """The first `count` channels of the ranking."""
    return Choice(_ranking(evidence).kept(count), None, method="forward selection by explained variance")


def forward_curve(evidence: Evidence) -> Matrix:
    """Relative loss after compensation for 0, 1, ... kept slots, along the ranking."""
    return _ranking(evidence).losses


def _ranking(evidence: Evidence) -> Ranking:
    if evidence.views:
        return rank(evidence.views)
    return Ranking(tuple(range(evidence.slots)), np.zeros(evidence.slots + 1))


def explained(total: float, loss: float) -> float:
    """Share of the target's variance that is left, 1 - loss / total; 1 where there is none."""
    return 1.0 - loss / total if total > 0.0 else 1.0


METHODS = (
    Method(
        name="cap", summary="pruning with compensation: forward selection by explained variance", granularity="channel",
        when="after training", criterion="reconstruction error", data="unlabelled", recovery="closed form",
        guarantee="none", reference="Xie, Fu, Tian, Zhou, Chen 2021, arXiv 2108.13728",
        cost="one pass for moments, O(c^2 k^2 d) per layer", use="provable compress --recipe cap",
    ),
)  # fmt: skip
