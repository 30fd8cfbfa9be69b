"""How many channels each group keeps: always remove where the loss rises least per unit of cost saved.

Each group g has a curve loss_g(k), the loss after compensation with k slots, relative to the variance of the
stream it feeds. On the lower convex hull of the curves, remove one slot at a time from the group with the smallest

    (hull_g(k) - hull_g(k - 1)) / (cost(k) - cost(k - 1))        loss per cost, cost at the current widths

until the budget is met. For costs that are linear in each k this is the optimum of sum loss_g subject to the cost
on the hulls (a Lagrangian whose multiplier is the last rate paid); for bilinear costs it is a greedy heuristic.

Theory: theory_notes/allocation.md. Not claimed: that losses of layers add up exactly.
"""

from collections.abc import Callable, Mapping

import numpy as np

from provable.allocation.budget import Allocation, Budget, check_reachable
from provable.compensation.moments import Matrix
from provable.cost import Counts

KNOB = "largest relative loss paid per unit of cost"


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
    budget: Budget,
    floors: Mapping[str, int],
) -> Allocation:
    """Counts that meet the budget.

    Args:
        curves: group -> loss for 0, 1, ..., c kept slots, in comparable units.
        cost: cost of arrays of counts (..., groups), in the order of `curves`.
        budget: what fraction of the cost may stay.
        floors: group -> smallest count allowed.

    Raises:
        BudgetError: the budget is below the cost of the floors.
    """
    names = list(curves)
    counts = np.array([len(curves[name]) - 1 for name in names], dtype=np.int64)
    floor = np.array([floors[name] for name in names], dtype=np.int64)
    limit = budget.fraction * int(cost(counts))
    check_reachable(cost(np.minimum(counts, floor)), cost(counts), budget)
    # the part of a curve below the floor must not bend its hull
    rises = [
        -np.diff(np.concatenate([np.zeros(f), lower_hull(curves[n][f:])])) for n, f in zip(names, floor, strict=True)
    ]
    current, knob = int(cost(counts)), 0.0
    while current > limit:
        saved = current - cost(counts - np.eye(len(names), dtype=np.int64))
        rise = np.array([r[k - 1] if k > 0 else 0.0 for r, k in zip(rises, counts, strict=True)])
        rates = np.where((counts > floor) & (saved > 0), rise / np.maximum(saved, 1), np.inf)
        best = int(np.argmin(rates))
        knob = max(knob, float(rates[best]))
        counts[best] -= 1
        current -= int(saved[best])
    return Allocation(dict(zip(names, counts.tolist(), strict=True)), knob, KNOB)
