"""Importance sampling with replacement: the design of provable filter pruning.

    n ~ Multinomial(m, q),      W_hat[:, j] = n_j / (m q_j) W[:, j],      channel j vanishes iff n_j = 0

    E[distinct channels after m draws] = sum_j 1 - (1 - q_j)^m

Reference: Liebenwein et al., ICLR 2020. Bound: provable.bounds.layer_theorem, in the number of DRAWS m;
`draw` takes the number of distinct channels wanted and draws as often as yields it in expectation.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from provable.sampling.design import Array, Evidence, Selection, checked_scores, first_of_support
from verify.errors import DataError

MOST_DRAWS = 1 << 60  # what a 64-bit count holds


@dataclass(frozen=True)
class WithReplacement:
    """Draw with replacement in proportion to the scores; multiplicities become weights."""

    evidence: ClassVar[Evidence] = "scores"
    unbiased: ClassVar[bool] = True
    exact_size: ClassVar[bool] = False

    def draw(self, evidence: Array, count: int, generator: Generator) -> Selection:
        """As many draws as leave `count` distinct channels in expectation.

        No finite number of draws collects every channel of positive score surely; when `count` asks for
        that, all of them are kept with weight 1, and the first channels of score 0 fill the rest.
        """
        scores = checked_scores(evidence, count)
        if count >= np.count_nonzero(scores):
            kept = first_of_support(scores, count)
            return Selection(scores.size, tuple(kept.tolist()), (1.0,) * count)
        q = scores / scores.sum()
        return self.draw_times(q, draws_for_distinct(q, count), generator)

    def draw_times(self, distribution: Array, draws: int, generator: Generator) -> Selection:
        """Exactly `draws` draws from `distribution` ``(c,)`` (non-negative, sum 1)."""
        times = generator.multinomial(draws, distribution / distribution.sum())
        kept = np.flatnonzero(times)
        weights = times[kept] / (draws * distribution[kept])
        return Selection(distribution.size, tuple(kept.tolist()), tuple(weights.tolist()), draws)


def expected_distinct(distribution: Array, draws: float) -> float:
    """Expected number of distinct channels after `draws` >= 0 draws, accurate for tiny probabilities too."""
    if draws == 0:
        return 0.0
    with np.errstate(divide="ignore"):
        missed = draws * np.log1p(-np.minimum(distribution, 1.0))
    return float(np.sum(-np.expm1(missed)))


def draws_for_distinct(distribution: Array, count: float) -> int:
    """Smallest number of draws with at least `count` distinct channels in expectation.

    Raises:
        DataError: `count` is not below the number of channels of positive probability, or needs more than
            2**60 draws (probabilities too small to tell from 0).
    """
    support = int(np.count_nonzero(distribution))
    if not 0 <= count < support:
        if count == support == 1:
            return 1
        raise DataError(
            f"no number of draws collects {count} of {support} channels in expectation; keep them all instead"
        )
    low, high = 0, max(1, math.ceil(count))
    while expected_distinct(distribution, high) < count:
        low, high = high, 2 * high
        if high > MOST_DRAWS:
            raise DataError(f"{count} distinct channels need more than 2**60 draws: drop the vanishing scores first")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if expected_distinct(distribution, middle) < count else (low, middle)
    return high if count > 0 else 0
