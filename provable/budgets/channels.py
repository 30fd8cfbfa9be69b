"""The same share of every prunable group."""

from provable.allocation.budget import Allocation
from provable.allocation.uniform import uniform
from provable.budgets.problem import Problem


class Channels:
    """The fraction of every group's channels that stays, to the nearest width it may take."""

    def meet(self, problem: Problem) -> Allocation:
        """See `problem.Kind`."""
        return uniform(problem.widths, problem.budget.fraction)
