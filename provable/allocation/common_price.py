"""All groups ranked together: the cheapest removal of the whole network comes first, until the budget is met.

    prices_g[0] <= prices_g[1] <= ...      what the first, second, ... removal from group g costs

With scores as prices this is the global ranking of Molchanov et al. 2019; with merge heights of a clustering it is
one distance threshold for all layers. The price paid last is the answer's knob. Theory note: scores.md. Not claimed:
that prices of different layers compare well; that is the score's business.
"""

from collections.abc import Callable, Mapping

import numpy as np

from provable.allocation.budget import Allocation, Budget, check_reachable
from provable.compensation.moments import Matrix
from provable.cost import Counts


def allocate(
    prices: Mapping[str, Matrix],
    cost: Callable[[Counts], Counts],
    budget: Budget,
    floors: Mapping[str, int],
    *,
    meaning: str,
) -> Allocation:
    """Counts that meet the budget.

    Args:
        prices: group -> (slots,) price of each removal in order, never falling.
        cost: cost of arrays of counts (..., groups), in the order of `prices`.
        budget: what fraction of the cost may stay.
        floors: group -> smallest count allowed.
        meaning: what a price is, in words.

    Raises:
        BudgetError: the budget is below the cost of the floors.
    """
    names = list(prices)
    counts = np.array([len(prices[name]) for name in names], dtype=np.int64)
    floor = np.array([floors[name] for name in names], dtype=np.int64)
    limit = budget.fraction * int(cost(counts))
    check_reachable(cost(np.minimum(counts, floor)), cost(counts), budget)
    removals = sorted((float(p), g, k) for g, n in enumerate(names) for k, p in enumerate(prices[n]))
    knob = 0.0
    for price, group, _ in removals:
        if int(cost(counts)) <= limit:
            break
        if counts[group] > floor[group]:
            counts[group] -= 1
            knob = price
    return Allocation(dict(zip(names, counts.tolist(), strict=True)), knob, f"largest price paid: {meaning}")
