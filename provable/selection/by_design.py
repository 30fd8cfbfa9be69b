"""Selections drawn without replacement, and the best of several.

    pivotal     exactly `count` slots, each with probability min(1, t s_j), s_j its sensitivity; reweighted, unbiased
    leverage    the same with ridge leverage scores at the ridge whose effective dimension is `count`; not reweighted
    best        greedy, forward, leverage and a volume draw on the same statistics: the smallest exact loss stays

Every selection has one interface, (evidence, count, generator) -> Choice, so "the best of" is a function of selections.
Greedy is among them, and its set or what replaces it meets the volume bound, so the best of them does.

Reference: Deville & Tille 1998; Alaoui & Mahoney 2015. Theory notes: without_replacement.md, volume_sampling.md. Not
claimed: that leverage scores promise anything at these widths, or that the best on calibration inputs is the best
elsewhere.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from provable.bounds.without_replacement_bound import without_replacement_bound
from provable.compensation.moments import Matrix
from provable.method import Method
from provable.sampling.pivotal import Pivotal
from provable.selection import by_loss, forward_selection
from provable.selection.by_sensitivity import FAILURE, coverage, measured
from provable.selection.evidence import Choice, Evidence, relative_loss
from provable.sensitivity.ridge_leverage import ridge_for_dimension, ridge_leverage_scores

Select = Callable[[Evidence, int, Generator], Choice]


def pivotal(evidence: Evidence, count: int, generator: Generator) -> Choice:
    """Exactly `count` slots, likely as they are sensitive, with the weights that keep the layer unbiased."""
    sensitivity = measured(evidence)
    drawn = Pivotal().draw(sensitivity.scores, count, generator)
    bound = without_replacement_bound(sensitivity.scores, count, evidence.sums, FAILURE, coverage(sensitivity))
    return Choice(drawn.kept, bound, drawn.reweights, "pivotal sampling by sensitivity")


def leverage(evidence: Evidence, count: int, generator: Generator) -> Choice:
    """Exactly `count` slots, likely as the others cannot explain them."""
    scores = leverage_scores(by_loss.promise(by_loss.volume_options(evidence), count).matrix, count)
    return Choice(Pivotal().draw(scores, count, generator).kept, None, method="pivotal sampling by ridge leverage")


def leverage_scores(matrix: Matrix, count: int) -> Matrix:
    """Ridge leverage of each slot ``(c,)`` at effective dimension `count`, or just below the rank if that is less."""
    values = np.linalg.eigvalsh(matrix)
    rank = int(np.count_nonzero(values > max(float(values[-1]), 0.0) * values.size * np.finfo(float).eps))
    if rank == 0:
        return np.ones(len(matrix))
    return ridge_leverage_scores(matrix, ridge_for_dimension(matrix, min(float(count), rank - 0.5)))


def best_of(*members: Select) -> Select:
    """The member's choice with the smallest exact loss after compensation; the first one's on ties.

    The promise is the smallest of those that were made in the same quantity: what holds for a larger loss holds for
    the smallest one.
    """

    def select(evidence: Evidence, count: int, generator: Generator) -> Choice:
        choices = [member(evidence, count, generator) for member in members]
        losses = [relative_loss(evidence.views, choice.kept) for choice in choices]
        found = choices[int(np.argmin(losses))]
        certain = [c.bound for c in choices if c.bound is not None and c.bound.confidence == 1.0]
        bound = min(certain, key=lambda b: b.value) if certain else found.bound
        return Choice(found.kept, bound, method=f"best of {len(members)}: {found.method}")

    return select


best = best_of(by_loss.greedy, forward_selection.forward, by_loss.volume, leverage)


METHODS = (
    Method(
        name="pivotal", summary="exactly as many channels as asked for, drawn by their sensitivities, reweighted",
        granularity="channel", when="after training", criterion="sensitivity", data="unlabelled",
        recovery="closed form", guarantee="probabilistic bound",
        reference="after Deville & Tille 1998, Srinivasan 2001 and Liebenwein et al. 2020; this project",
        cost="one pass with every single contribution, a few times a forward pass",
        use="provable compress --recipe pivotal",
    ),
    Method(
        name="leverage", summary="channels drawn by their ridge leverage scores", granularity="channel",
        when="after training", criterion="probabilistic", data="unlabelled", recovery="closed form", guarantee="none",
        reference="after Alaoui & Mahoney 2015; this project",
        cost="one pass for moments, one eigendecomposition per layer", use="provable compress --recipe leverage",
    ),
    Method(
        name="best", summary="greedy, forward, volume and leverage; per layer the one with the smallest exact loss",
        granularity="channel", when="after training", criterion="reconstruction error", data="unlabelled",
        recovery="closed form", guarantee="a-priori bound", reference="this project",
        cost="the four together", use="provable compress --recipe best",
    ),
)  # fmt: skip
