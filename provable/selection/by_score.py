"""The slots with the largest scores stay; all groups are ranked together.

Theory note: scores.md.
"""

from collections.abc import Callable, Mapping, Sequence

from numpy.random import Generator

from provable.allocation import common_price
from provable.allocation.budget import Allocation, Budget
from provable.cost import Counts
from provable.errors import CalibrationError
from provable.selection.evidence import Choice, Evidence
from provable.selection.finding import Finding


def found(evidence: Evidence) -> Finding:
    """What the recipe's look found about the group, which this family of methods cannot do without."""
    if evidence.finding is None:
        raise CalibrationError(f"group {evidence.group.name!r} has no score: nothing was looked at")
    return evidence.finding


def largest(evidence: Evidence, count: int, generator: Generator) -> Choice:
    """The `count` slots that leave last."""
    order, _ = found(evidence).removals()
    return Choice(tuple(sorted(order[len(order) - count :])), None, method="largest scores")


def ranked_together(
    evidence: Sequence[Evidence], cost: Callable[[Counts], Counts], budget: Budget, floors: Mapping[str, int]
) -> Allocation:
    """Counts from one ranking of all slots of all groups."""
    prices = {known.group.name: found(known).removals()[1] for known in evidence}
    return common_price.allocate(prices, cost, budget, floors, meaning="score of the last slot removed")
