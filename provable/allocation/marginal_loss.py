"""How many channels each group keeps: always remove where the loss rises least per unit of cost saved.

Each group g has a curve loss_g(k), the loss after compensation with k slots, relative to the variance of the
stream it feeds. On the lower convex hull of the curves, remove one slot at a time from the group with the smallest

    (hull_g(k) - hull_g(k - 1)) / (cost(k) - cost(k - 1))        loss per cost, cost at the current widths

until the budget is met. For costs that are linear in each k this is the optimum of sum loss_g subject to the cost
on the hulls (a Lagrangian whose multiplier is the last rate paid); for bilinear costs it is a greedy heuristic.

Theory: theory_notes/allocation.md. Not claimed: that losses of layers add up exactly.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from provable.compensation.moments import Matrix
from provable.cost import Counts
from provable.errors import BudgetError


@dataclass(frozen=True)
class Allocation:
    """How many slots each group keeps.

    Attributes:
        counts: group name -> kept slots.
        cost: cost at these counts, in the budget's unit.
        budget: what was asked for.
        knob: the value that settled it: highest loss per cost paid, or the global error.
    """

    counts: Mapping[str, int]
    cost: int
    budget: float
    knob: float


def lower_hull(losses: Matrix) -> Matrix:
    """Largest convex function below losses[k], k = 0 ... c, at every k."""
    corners: list[int] = []
    for k in range(len(losses)):
        while len(corners) >= 2 and _above(losses, corners[-2], corners[-1], k):
            corners.pop()
        corners.append(k)
    return np.interp(np.arange(len(losses)), corners, losses[corners])


def _above(losses: Matrix, a: int, b: int, c: int) -> bool:
    """Whether point b lies on or above the chord from a to c."""
    return bool((losses[b] - losses[a]) * (c - a) >= (losses[c] - losses[a]) * (b - a))


def allocate(
    curves: Mapping[str, Matrix],
    cost: Callable[[Counts], Counts],
    budget: float,
    floors: Mapping[str, int],
) -> Allocation:
    """Counts that meet the budget.

    Args:
        curves: group -> loss for 0, 1, ..., c kept slots, in comparable units.
        cost: cost of arrays of counts (..., groups), in the order of `curves`.
        budget: largest cost allowed.
        floors: group -> smallest count allowed.

    Raises:
        BudgetError: the budget is below the cost of the floors.
    """
    names = list(curves)
    counts = np.array([len(curves[name]) - 1 for name in names], dtype=np.int64)
    floor = np.array([floors[name] for name in names], dtype=np.int64)
    check_reachable(cost(np.minimum(counts, floor)), budget)
    # the part of a curve below the floor must not bend its hull
    rises = [
        -np.diff(np.concatenate([np.zeros(f), lower_hull(curves[n][f:])])) for n, f in zip(names, floor, strict=True)
    ]
    current, knob = int(cost(counts)), 0.0
    while current > budget:
        saved = current - cost(counts - np.eye(len(names), dtype=np.int64))
        rise = np.array([r[k - 1] if k > 0 else 0.0 for r, k in zip(rises, counts, strict=True)])
        rates = np.where((counts > floor) & (saved > 0), rise / np.maximum(saved, 1), np.inf)
        best = int(np.argmin(rates))
        knob = max(knob, float(rates[best]))
        counts[best] -= 1
        current -= int(saved[best])
    return Allocation(dict(zip(names, counts.tolist(), strict=True)), current, budget, knob)


def check_reachable(smallest: Counts, budget: float) -> None:
    """Raise BudgetError if the smallest reachable cost exceeds the budget."""
    if int(smallest) > budget:
        raise BudgetError(
            f"the budget {budget:,.0f} cannot be met: with every group at its floor the cost is {int(smallest):,}"
        )
