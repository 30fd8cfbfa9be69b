"""Named methods: a choice at each stage.

    recipe         counts per group                 which slots stay                        promise beforehand
    greedy         marginal loss after compensation backward elimination, compressed stats  volume bound
    volume         marginal promised loss           volume sampling with acceptance         volume bound, factor 2
    pfp            one global error                 largest sensitivities                   tail of the sensitivities
    pfp-sampled    one global error                 with replacement, reweighted            layer theorem

A new method is one entry here. Compensation follows in every recipe unless the caller says "none".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from numpy.random import Generator

from provable.allocation import global_error, marginal_loss
from provable.allocation.budget import Allocation, Budget
from provable.allocation.widths import Widths
from provable.compensation.moments import Matrix
from provable.cost import Counts
from provable.selection import by_loss, by_sensitivity
from provable.selection.evidence import Choice, Evidence

Allocate = Callable[[Sequence[Evidence], Callable[[Counts], Counts], Budget, Mapping[str, Widths]], Allocation]
Select = Callable[[Evidence, int, Generator], Choice]


@dataclass(frozen=True)
class Recipe:
    """A method.

    Attributes:
        name: as the caller names it.
        summary: one line.
        allocate: (evidence of every group, cost, budget, widths) -> counts.
        select: (evidence of one group, count, generator) -> which slots stay.
        sequential: select again on the already compressed network's statistics, where a group has one consumer.
        sensitivity: needs sensitivities of all calibration images.
        random: draws from the generator.
    """

    name: str
    summary: str
    allocate: Allocate
    select: Select
    sequential: bool
    sensitivity: bool
    random: bool


def _by_curve(curve: Callable[[Evidence], Matrix]) -> Allocate:
    def allocate(
        evidence: Sequence[Evidence], cost: Callable[[Counts], Counts], budget: Budget, widths: Mapping[str, Widths]
    ) -> Allocation:
        return marginal_loss.allocate({known.group.name: curve(known) for known in evidence}, cost, budget, widths)

    return allocate


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Recipe(
                "greedy", "backward elimination by exact loss after compensation",
                _by_curve(by_loss.greedy_curve), by_loss.greedy, True, False, False,
            ),
            Recipe(
                "volume", "volume sampling, accepted when it meets its bound",
                _by_curve(by_loss.volume_curve), by_loss.volume, True, False, True,
            ),
            Recipe(
                "pfp", "provable filter pruning: largest empirical sensitivities",
                global_error.allocate, by_sensitivity.largest, False, True, False,
            ),
            Recipe(
                "pfp-sampled", "provable filter pruning: sampled by sensitivity, reweighted",
                global_error.allocate, by_sensitivity.sampled, False, True, True,
            ),
        )
    }
)  # fmt: skip
