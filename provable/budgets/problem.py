"""What every kind of budget is told, and what it has to do: one interface."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from provable.allocation.budget import AllocateByCost, Allocation, Budget
from provable.allocation.widths import Widths
from provable.channels import ChannelGroup
from verify.network.graph import Network


@dataclass(frozen=True)
class Problem:
    """An allocation to make.

    Attributes:
        network: the original.
        groups: the groups that may lose channels.
        budget: how much may stay.
        widths: group -> widths it may take.
        by_cost: the recipe's rule for a cost that is known as a function of the counts.
        batch: samples per call where time is measured.
    """

    network: Network
    groups: Sequence[ChannelGroup]
    budget: Budget
    widths: Mapping[str, Widths]
    by_cost: AllocateByCost
    batch: int


class Kind(Protocol):
    """A kind of budget."""

    def meet(self, problem: Problem) -> Allocation:
        """Counts that meet the budget.

        Raises:
            BudgetError: no network in the problem's widths is that small; the message names the smallest fraction.
        """
