"""Named methods: a choice at each stage.

    recipe         counts per group                 which slots stay                        promise beforehand
    greedy         marginal loss after compensation backward elimination, compressed stats  volume bound
    volume         marginal promised loss           volume sampling with acceptance         volume bound, factor 2
    cap            marginal loss after compensation forward selection, original stats       none
    pfp            one global error                 largest sensitivities                   tail of the sensitivities
    pfp-sampled    one global error                 with replacement, reweighted            layer theorem
    pivotal        one global error                 without replacement, reweighted         without-replacement bound
    leverage       marginal loss after compensation without replacement, by ridge leverage  none
    best           marginal loss after compensation the best of four, compressed stats      volume bound
    taylor...      all scores ranked together       largest Taylor importance               none
    similarity...  one distance for all layers      one of each cluster, merged             none
    functionality  redundant ones first             least contributing of each cluster      none
    l1-norm, random                                 baselines                               none

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
from provable.selection import by_design, by_loss, by_score, by_sensitivity, by_similarity, forward_selection
from provable.selection.evidence import Choice, Evidence
from provable.selection.finding import Look
from provable.sensitivity import functionality, magnitude, similarity, taylor

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
        look: what it finds out about the groups beforehand, beyond the layers' statistics.
        labels: its look needs labels; a look without is never handed any.
    """

    name: str
    summary: str
    allocate: Allocate
    select: Select
    sequential: bool
    sensitivity: bool
    random: bool
    look: Look | None = None
    labels: bool = False


def _by_curve(curve: Callable[[Evidence], Matrix]) -> Allocate:
    def allocate(
        evidence: Sequence[Evidence], cost: Callable[[Counts], Counts], budget: Budget, widths: Mapping[str, Widths]
    ) -> Allocation:
        curves = marginal_loss.outlasting({known.group.name: curve(known) for known in evidence})
        return marginal_loss.allocate(curves, cost, budget, widths)

    return allocate


def _scored(name: str, summary: str, look: Look, random: bool = False, *, labels: bool = False) -> Recipe:
    """Largest scores of a look, all groups ranked together."""
    return Recipe(name, summary, by_score.ranked_together, by_score.largest, False, False, random, look, labels)


def _merged(name: str, summary: str, look: Look) -> Recipe:
    """Representatives of clusters, one threshold for all groups."""
    return Recipe(name, summary, by_score.ranked_together, by_similarity.representatives, False, False, False, look)


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
                "cap", "forward selection by explained variance", _by_curve(forward_selection.forward_curve),
                forward_selection.forward, False, False, False,
            ),
            Recipe(
                "pfp", "provable filter pruning: largest empirical sensitivities",
                global_error.allocate, by_sensitivity.largest, False, True, False,
            ),
            Recipe(
                "pfp-sampled", "provable filter pruning: sampled by sensitivity, reweighted",
                global_error.allocate, by_sensitivity.sampled, False, True, True,
            ),
            Recipe(
                "pivotal", "sampled by sensitivity without replacement, reweighted",
                global_error.allocate, by_design.pivotal, False, True, True,
            ),
            Recipe(
                "leverage", "sampled by ridge leverage scores, without replacement",
                _by_curve(by_loss.greedy_curve), by_design.leverage, True, False, True,
            ),
            Recipe(
                "best", "the best of greedy, forward, volume and leverage in every layer",
                _by_curve(by_loss.greedy_curve), by_design.best, True, False, True,
            ),
            _scored("taylor", "Taylor importance of gates", taylor.by_gates, labels=True),
            _scored("taylor-parameters", "Taylor importance of filters' parameters", taylor.by_parameters, labels=True),
            _scored("taylor-second-order", "Taylor importance with curvature", taylor.by_curvature, True, labels=True),
            _scored("taylor-output", "Taylor importance for the network's own output", taylor.by_output, True),
            _merged("similarity", "channels alike by their batch norms merge", similarity.by_model),
            _merged("similarity-measured", "channels alike on the inputs merge", similarity.by_measurement),
            _scored("functionality", "least contributing of filters with one function leave",
                    functionality.by_functionality, True, labels=True),
            _scored("l1-norm", "smallest filters leave", magnitude.by_norm),
            _scored("random", "filters leave by chance", magnitude.by_chance, True),
        )
    }
)  # fmt: skip
