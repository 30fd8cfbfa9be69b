"""Provable filter pruning: channels by empirical sensitivity, deterministic or sampled with reweighting.

    deterministic    the largest s_j stay, weights unchanged           bound: tail of the sensitivities
    sampled          m draws from q = s / T, W_hat = n_j / (m q_j) W   bound: the layer theorem

Reference: Liebenwein et al., ICLR 2020. Theory: theory_notes/sensitivity_sampling.md. The bounds are about the layer
before compensation; least squares afterwards only lowers the calibration loss.
"""

from numpy.random import Generator

from provable.bounds.deterministic_bound import deterministic_bound
from provable.bounds.event_bound import Coverage, coverage_by_exchangeability
from provable.bounds.layer_theorem import layer_bound
from provable.errors import CalibrationError
from provable.method import Method
from provable.sampling.top_k import TopK
from provable.sampling.with_replacement import WithReplacement
from provable.selection.evidence import Choice, Evidence
from provable.sensitivity.record import Sensitivity

FAILURE = 0.05
"""Probability, over the draws, that the layer theorem's error is exceeded."""


def measured(evidence: Evidence) -> Sensitivity:
    """The group's sensitivity, which this family of methods cannot do without."""
    if evidence.sensitivity is None:
        raise CalibrationError(f"group {evidence.group.name!r} has no measured sensitivity; observe it with one")
    return evidence.sensitivity


def coverage(sensitivity: Sensitivity) -> Coverage:
    """Probability that the sensitivities cover a fresh input, without assumptions beyond i.i.d. images."""
    return coverage_by_exchangeability(len(sensitivity.scores), sensitivity.images)


def largest(evidence: Evidence, count: int, generator: Generator) -> Choice:
    """The `count` most sensitive slots."""
    sensitivity = measured(evidence)
    kept = TopK().draw(sensitivity.scores, count, generator).kept
    return Choice(kept, deterministic_bound(sensitivity.scores, kept, coverage(sensitivity)), method="largest s_j")


def sampled(evidence: Evidence, count: int, generator: Generator) -> Choice:
    """As many draws with replacement as leave `count` distinct slots in expectation, weights reweighted.

    The number that stays is random; redrawing until it fits would void the theorem.
    """
    sensitivity = measured(evidence)
    drawn = WithReplacement().draw(sensitivity.scores, count, generator)
    bound = None
    if drawn.draws is not None:
        bound = layer_bound(drawn.draws, sensitivity.total, evidence.sums, FAILURE, coverage(sensitivity))
    return Choice(drawn.kept, bound, drawn.reweights, "drawn with replacement")


METHODS = tuple(
    Method(
        name=name, summary=summary, granularity="channel", when="after training", criterion="sensitivity",
        data="unlabelled", recovery="closed form", guarantee=guarantee,
        reference="Liebenwein, Baykal, Lang, Feldman, Rus, ICLR 2020, arXiv 1911.07412",
        cost="one pass with every single contribution, a few times a forward pass",
        use=f"provable compress --recipe {name}",
    )
    for name, summary, guarantee in (
        ("pfp", "largest relative-importance sensitivities", "deterministic bound"),
        ("pfp-sampled", "channels drawn by their sensitivities, reweighted", "probabilistic bound"),
    )
)  # fmt: skip
