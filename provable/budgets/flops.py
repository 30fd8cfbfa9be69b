"""Multiply-adds of convolutions and linear layers for one input."""

from provable.allocation.budget import Allocation
from provable.budgets.problem import Problem
from provable.cost import cost_model


class Flops:
    """The fraction of the original's multiply-adds that stays."""

    def meet(self, problem: Problem) -> Allocation:
        """See `problem.Kind`."""
        return problem.by_cost(cost_model(problem.network, problem.groups).flop_terms.value, problem.budget)
