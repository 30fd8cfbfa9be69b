"""Stored numbers, the running statistics of batch norm aside.

Intercepts that compensation gives to layers without a bias come on top.
"""

from provable.allocation.budget import Allocation
from provable.budgets.problem import Problem
from provable.cost import cost_model


class Parameters:
    """The fraction of the original's parameters that stays."""

    def meet(self, problem: Problem) -> Allocation:
        """See `problem.Kind`."""
        return problem.by_cost(cost_model(problem.network, problem.groups).parameter_terms.value, problem.budget)
