"""Backward elimination: remove, again and again, the channel whose loss after compensation is smallest.

With H = (C_AA + lambda I)^{-1} and the current solution S = H B_A, removing the coordinates t of one channel raises the
optimal (ridge) loss by exactly

    cost_t = tr( S_t^T (H_tt)^{-1} S_t ),

after which  H <- H - H_:t H_tt^{-1} H_t:   and   S <- S - H_:t H_tt^{-1} S_t   are the inverse and the solution for the
smaller set (structured optimal brain surgery with the exact least-squares Hessian). One pass gives the order of
removal and the loss for every number of kept channels. A channel read by several consumers costs the weighted sum of
their losses.

Reference: Hassibi & Stork 1993 (OBS); Xie et al. 2021 for the forward twin. Theory: theory_notes/greedy_elimination.md.
Not claimed: that the set is optimal; backward elimination has no useful worst-case ratio.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotri

from provable.compensation.least_squares import SMALLEST_RIDGE
from provable.compensation.moments import Matrix, Regression

Blocks = NDArray[np.intp]

PENDING = 128
"""Coordinates whose downdates are collected before they are applied to the whole inverse."""

TIE = 1e-6
"""Weight of a channel's own contribution in the choice: breaks ties between channels that others can replace."""


@dataclass(frozen=True)
class View:
    """How one consumer sees the channels of a group.

    Attributes:
        regression: the consumer's least-squares problem.
        blocks: (channels, size) coordinates of each channel; coordinates in no block always stay.
        scale: factor of this consumer's loss in the group's loss.
        weight: (n, d) the consumer's weights before compensation, in the target's units; None if there are none.
    """

    regression: Regression
    blocks: Blocks
    scale: float = 1.0
    weight: Matrix | None = None

    def contributions(self) -> Matrix:
        """Variance that each channel contributes on its own through the weights before compensation, (channels,)."""
        if self.weight is None:
            return np.zeros(len(self.blocks))
        inner = self.regression.covariance[self.blocks[:, :, None], self.blocks[:, None, :]]  # (channels, size, size)
        own = np.moveaxis(self.weight[:, self.blocks], 0, 2)  # (channels, size, n)
        energy: Matrix = np.einsum("csn,cst,ctn->c", own, inner, own, optimize=True)
        return self.scale * energy


@dataclass(frozen=True)
class Elimination:
    """The order in which channels leave, and what each count costs.

    Attributes:
        order: channels, first removed first, then those that were never removed; a full permutation.
        losses: (channels + 1,) losses[k] = ridge loss with k channels kept, never rising with k; infinite where
            elimination stopped before.
    """

    order: tuple[int, ...]
    losses: Matrix

    def kept(self, count: int) -> tuple[int, ...]:
        """The `count` channels that stay, in increasing order."""
        return tuple(sorted(self.order[len(self.order) - count :]))


def eliminate(views: Sequence[View], *, down_to: int = 0, ridge: float = SMALLEST_RIDGE) -> Elimination:
    """Order of removal by exact loss after compensation, summed over the consumers.

    Args:
        views: one per consumer; the same channels in each.
        down_to: stop with that many channels left.
        ridge: relative to the mean diagonal of each covariance, > 0.

    Returns:
        Order and losses. Where several channels cost (nearly) nothing, the one that contributes least on its own
        leaves first, so that the others' weights need not change; then the one with the larger index.
    """
    own = TIE * np.sum([view.contributions() for view in views], axis=0)
    sides = [_Side(view, ridge) for view in views]
    alive = list(range(len(views[0].blocks)))
    losses = [sum(side.loss for side in sides)]
    order: list[int] = []
    while len(alive) > down_to:
        costs = np.sum([side.costs(alive) for side in sides], axis=0)
        last = len(costs) - 1 - int(np.argmin((costs + own[alive])[::-1]))
        channel = alive[last]
        for side in sides:
            side.remove(channel)
        alive.remove(channel)
        order.append(channel)
        losses.append(losses[-1] + max(float(costs[last]), 0.0))
    unknown = [np.inf] * len(alive)  # losses of fewer channels than `down_to`
    return Elimination(tuple(order + alive), np.array(unknown + losses[::-1]))


class _Side:
    """One consumer's inverse H and solution S, downdated in place.

    H is held as `inverse` - `columns` `gains` and S as `solution` - `gains`^T `gone`: downdates are collected and
    applied `PENDING` coordinates at a time, by one matrix product each instead of many passes over large matrices. The
    diagonal blocks H_tt and the products S_t S_t^T are always up to date.
    """

    def __init__(self, view: View, ridge: float) -> None:
        covariance, cross = view.regression.covariance, _in_row_space(view.regression.cross)
        self.scale = view.scale
        self.blocks = view.blocks.copy()
        self.inverse = _inverse(covariance, ridge)
        self.solution = self.inverse @ cross
        self.loss = view.scale * max(view.regression.total - float(np.einsum("dn,dn->", cross, self.solution)), 0.0)
        self.live = np.ones(len(covariance), dtype=bool)
        self.diagonal = self.inverse[self.blocks[:, :, None], self.blocks[:, None, :]]  # (channels, size, size)
        self._begin()

    def _begin(self) -> None:
        """Nothing is collected."""
        room = PENDING + self.blocks.shape[1]
        self.collected = 0
        self.columns, self.gains = np.empty((len(self.inverse), room)), np.empty((room, len(self.inverse)))
        self.gone = np.empty((room, self.solution.shape[1]))
        inside = self.solution[self.blocks]  # (channels, size, n)
        self.energy = inside @ inside.transpose(0, 2, 1)  # (channels, size, size)

    def costs(self, alive: list[int]) -> Matrix:
        """Rise of the loss for each channel in `alive`."""
        rise: Matrix = np.trace(np.linalg.solve(self.diagonal[alive], self.energy[alive]), axis1=1, axis2=2)
        return self.scale * rise

    def remove(self, channel: int) -> None:
        """Downdate to the set without `channel`."""
        t, k = self.blocks[channel], self.collected
        earlier = self.gains[:k, t]  # (collected, size)
        column = self.inverse[t].T - self.columns[:, :k] @ earlier  # (d, size)
        gain = np.linalg.solve(column[t], column.T)  # (size, d)
        gone = self.solution[t] - earlier.T @ self.gone[:k]  # (size, n): S_t
        shared = self.solution @ gone.T - self.gains[:k].T @ (self.gone[:k] @ gone.T)  # (d, size): S S_t^T
        own = gain[:, self.blocks].transpose(1, 0, 2)  # (channels, size, size)
        mixed = shared[self.blocks] @ own
        self.energy += own.transpose(0, 2, 1) @ (gone @ gone.T) @ own - mixed - mixed.transpose(0, 2, 1)
        self.diagonal -= column[self.blocks] @ own
        self.collected = k + len(t)
        self.columns[:, k : self.collected], self.gains[k : self.collected] = column, gain
        self.gone[k : self.collected] = gone
        self.live[t] = False
        halved = 0 < 2 * int(self.live.sum()) < len(self.live)
        if halved or self.collected >= PENDING:
            self._settle(halved)

    def _settle(self, halved: bool) -> None:
        """Apply the collected downdates; drop the rows and columns that removal has emptied once they are half."""
        k = self.collected
        self.inverse -= self.columns[:, :k] @ self.gains[:k]
        self.solution -= self.gains[:k].T @ self.gone[:k]
        if halved:
            where = np.flatnonzero(self.live)
            self.inverse, self.solution = self.inverse[np.ix_(where, where)], self.solution[where]
            self.blocks = np.maximum(np.cumsum(self.live) - 1, 0)[self.blocks]  # of removed channels: never read again
            self.live = np.ones(len(where), dtype=bool)
        self._begin()


def _inverse(covariance: Matrix, ridge: float) -> Matrix:
    mean = float(np.trace(covariance)) / max(len(covariance), 1) or 1.0
    if not len(covariance):
        return np.zeros((0, 0))
    while True:
        factor, failed = dpotrf(covariance + ridge * mean * np.eye(len(covariance)), lower=1, clean=0)
        if not failed:
            half: Matrix = np.tril(dpotri(factor, lower=1, overwrite_c=1)[0])
            half += np.tril(half, -1).T
            return half
        ridge *= 10.0


def _in_row_space(cross: Matrix) -> Matrix:
    """The targets rotated into their own row space: the same losses with at most d columns."""
    if cross.shape[1] <= cross.shape[0]:
        return cross
    left, values, _ = np.linalg.svd(cross, full_matrices=False)
    rotated: Matrix = left * values
    return rotated
