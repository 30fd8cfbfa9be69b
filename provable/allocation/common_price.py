"""All groups ranked together: the cheapest removal of the whole network comes first, until the budget is met.

    prices_g[0] <= prices_g[1] <= ...      what the first, second, ... removal from group g costs

With scores as prices this is the global ranking of Molchanov et al. 2019; with merge heights of a clustering it is
one distance threshold for all layers. The price paid last is the answer's knob. Theory note: scores.md. Not claimed:
that prices of different layers compare well; that is the score's business.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping

import numpy as np

from provable.allocation.budget import Allocation, Budget, check_reachable
from provable.allocation.widths import Widths
from provable.compensation.moments import Matrix
from provable.cost import Counts


def allocate(
    prices: Mapping[str, Matrix],
    cost: Callable[[Counts], Counts],
    budget: Budget,
    widths: Mapping[str, Widths],
    *,
    meaning: str,
) -> Allocation:
    """Counts that meet the budget.

    Args:
        prices: group -> (slots,) price of each removal in order, never falling.
        cost: cost of arrays of counts (..., groups), in the order of `prices`.
        budget: what fraction of the cost may stay.
        widths: group -> widths it may take, ascending; a group that wants another one gets the next wider one.
        meaning: what a price is, in words.

    Raises:
        BudgetError: the budget is below the cost of the narrowest widths.
    """
    names = list(prices)
    ladders = [widths[name] for name in names]
    wanted = [len(prices[name]) for name in names]
    counts = np.array(wanted, dtype=np.int64)
    limit = budget.fraction * int(cost(counts))
    check_reachable(cost(np.array([ladder[0] for ladder in ladders], dtype=np.int64)), cost(counts), budget)
    removals = sorted((float(p), g, k) for g, n in enumerate(names) for k, p in enumerate(prices[n]))
    knob = 0.0
    for price, group, _ in removals:
        if int(cost(counts)) <= limit:
            break
        if wanted[group] > ladders[group][0]:
            wanted[group] -= 1
            counts[group] = ladders[group][bisect_left(ladders[group], wanted[group])]
            knob = price
    return Allocation(dict(zip(names, counts.tolist(), strict=True)), knob, f"largest price paid: {meaning}")
