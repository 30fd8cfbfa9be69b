"""Keep the most important channels for sure, sample the rest with replacement.

    certain set A = the h largest scores, weight 1;
    the rest: n ~ Multinomial(m, s_j / T_r),  T_r = sum of the other scores,  weight n_j T_r / (m s_j)

Reference: the published partial derandomisation (PFPNetTop); bound and default choice of h are our own: the
channels that a design without replacement of the same size would include for sure.
Bound: provable.bounds.hybrid_bound, in the number of draws m. Proof: theory_notes/deterministic_and_hybrid.md.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from provable.sampling.design import Array, Evidence, Selection, checked_scores
from provable.sampling.inclusion import inclusion_probabilities
from provable.sampling.top_k import largest
from provable.sampling.with_replacement import WithReplacement
from verify.errors import DataError


@dataclass(frozen=True)
class Hybrid:
    """Certain part plus sampled part.

    Attributes:
        certain: channels kept for sure; None: those with inclusion probability 1 at the size asked for.
    """

    certain: int | None = None
    evidence: ClassVar[Evidence] = "scores"
    unbiased: ClassVar[bool] = True
    exact_size: ClassVar[bool] = False

    def draw(self, evidence: Array, count: int, generator: Generator) -> Selection:
        """`count` distinct channels in expectation."""
        scores = checked_scores(evidence, count)
        sure = self.certain_channels(scores, count)
        if sure.size == count:
            return Selection(scores.size, tuple(sorted(sure.tolist())), (1.0,) * count)
        others = np.setdiff1d(np.arange(scores.size), sure)
        sampled = WithReplacement().draw(scores[others], count - sure.size, generator)
        factors = np.zeros(scores.size)
        factors[sure], factors[others] = 1.0, sampled.factors()
        kept = np.flatnonzero(factors)
        return Selection(scores.size, tuple(kept.tolist()), tuple(factors[kept].tolist()), sampled.draws)

    def certain_channels(self, scores: Array, count: int) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
        """Indices of the channels that every draw keeps, most important first."""
        if self.certain is not None and not 0 <= self.certain <= count:
            raise DataError(f"{self.certain} certain channels do not fit into a selection of {count}")
        certain = self.certain
        if certain is None:
            certain = int(np.count_nonzero(inclusion_probabilities(scores, count) >= 1.0))
        return largest(scores, certain)
