"""How many channels each group keeps: always remove where the loss rises least per unit of cost saved.

Each group g has a curve loss_g(k), the loss after compensation with k slots, relative to the variance of the
stream it feeds. On the lower convex hull of the curves, go to the next smaller allowed width j < k of the group with
the smallest

    (hull_g(j) - hull_g(k)) / (cost(k) - cost(j))        loss per cost, cost at the current widths

until the budget is met. For costs that are linear in each k this is the optimum of sum loss_g subject to the cost
on the hulls (a Lagrangian whose multiplier is the last rate paid); for bilinear costs it is a greedy heuristic.
Where layers are refitted one after the other, the curves may be those that `outlasting` gives: an early error is partly
taken back behind it, a late one stays.

Theory: theory_notes/allocation.md. Not claimed: that losses of layers add up exactly.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from provable.allocation.budget import Allocation, Budget, check_reachable
from provable.allocation.widths import Widths
from provable.compensation.moments import Matrix
from provable.cost import Counts

KNOB = "largest relative loss paid per unit of cost"
REPAIRED = 0.05
"""Share of an earlier layer's squared error that each refit behind it is taken to undo; measured, see the note."""


def outlasting(curves: Mapping[str, Matrix]) -> dict[str, Matrix]:
    """Group, in network order -> what is left of its loss when all groups behind it are refitted."""
    refits = range(len(curves) - 1, -1, -1)
    return {name: curve * (1.0 - REPAIRED) ** n for n, (name, curve) in zip(refits, curves.items(), strict=True)}


def lower_hull(losses: Matrix, at: Sequence[int] | None = None) -> Matrix:
    """Largest convex function below losses[k] at the points k of `at`, there; default k = 0 ... c."""
    points = list(range(len(losses)) if at is None else at)
    corners: list[int] = []
    for k in points:
        while len(corners) >= 2 and _above(losses, corners[-2], corners[-1], k):
            corners.pop()
        corners.append(k)
    return np.interp(points, corners, losses[corners])


def _above(losses: Matrix, a: int, b: int, c: int) -> bool:
    """Whether point b lies on or above the chord from a to c."""
    return bool((losses[b] - losses[a]) * (c - a) >= (losses[c] - losses[a]) * (b - a))


def allocate(
    curves: Mapping[str, Matrix],
    cost: Callable[[Counts], Counts],
    budget: Budget,
    widths: Mapping[str, Widths],
) -> Allocation:
    """Counts that meet the budget.

    Args:
        curves: group -> loss for 0, 1, ..., c kept slots, in comparable units.
        cost: cost of arrays of counts (..., groups), in the order of `curves`.
        budget: what fraction of the cost may stay.
        widths: group -> widths it may take, ascending, the last one c.

    Raises:
        BudgetError: the budget is below the cost of the narrowest widths.
    """
    names = list(curves)
    ladders = [np.array(widths[name], dtype=np.int64) for name in names]
    counts = np.array([ladder[-1] for ladder in ladders], dtype=np.int64)
    limit = budget.fraction * int(cost(counts))
    check_reachable(cost(np.array([ladder[0] for ladder in ladders])), cost(counts), budget)
    # the part of a curve below the narrowest width must not bend its hull
    hulls = [lower_hull(curves[name], ladder.tolist()) for name, ladder in zip(names, ladders, strict=True)]
    rungs = [len(ladder) - 1 for ladder in ladders]
    current, knob = int(cost(counts)), 0.0
    while current > limit:
        steps = np.array([ladder[r] - ladder[max(r - 1, 0)] for ladder, r in zip(ladders, rungs, strict=True)])
        saved = current - cost(counts - np.diag(steps))
        rise = np.array([hull[max(r - 1, 0)] - hull[r] for hull, r in zip(hulls, rungs, strict=True)])
        rates = np.where((steps > 0) & (saved > 0), rise / np.maximum(saved, 1), np.inf)
        best = int(np.argmin(rates))
        knob = max(knob, float(rates[best]))
        rungs[best] -= 1
        counts[best] -= steps[best]
        current -= int(saved[best])
    return Allocation(dict(zip(names, counts.tolist(), strict=True)), knob, KNOB)
