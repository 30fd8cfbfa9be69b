"""Bytes of everything that is stored, running statistics included, each number at the size of its type.

What a weights file holds apart from its header. Intercepts that compensation gives to layers without a bias come on
top.
"""

from provable.allocation.budget import Allocation
from provable.budgets.problem import Problem
from provable.cost import cost_model


class Bytes:
    """The fraction of the original's bytes that stays."""

    def meet(self, problem: Problem) -> Allocation:
        """See `problem.Kind`."""
        return problem.by_cost(cost_model(problem.network, problem.groups).byte_terms.value, problem.budget)
