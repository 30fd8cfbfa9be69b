"""Upper tolerance bounds: a number that a stated share of the distribution stays below.

Of n independent values sorted upwards, the r-th largest X_(n-r+1) satisfies

    P( P(X <= X_(n-r+1)) >= q ) >= 1 - delta   iff (continuous case)   P(Bin(n, 1-q) <= r-1) <= delta

and at least so with ties. Reference: Wilks, Annals of Mathematical Statistics 1941.
Theory note: theory_notes/tolerance.md.
Not claimed: anything about the values beyond the share q.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from verify.errors import DataError
from verify.network.graph import Array
from verify.statistical.binomial import binomial_tail_upper
from verify.statistical.confidence import Level, exact


@dataclass(frozen=True)
class Tolerance:
    """With the stated confidence, at least `coverage` of the distribution is at most `bound`.

    Attributes:
        bound: the `rank`-th largest value of the sample.
        rank: 1 for the largest.
        coverage: share of the distribution covered, exact.
        samples: size of the sample.
    """

    bound: float
    rank: int
    coverage: Fraction
    samples: int


def tolerance_rank(samples: int, coverage: Level, confidence: Level) -> int:
    """Largest r such that the r-th largest of `samples` values is a tolerance bound; 0 if there is none."""
    missed, delta = 1 - exact(coverage, "coverage"), 1 - exact(confidence)
    low, high = 0, samples + 1  # rank `low` is good (0 is vacuous), rank `high` is not
    while high - low > 1:
        middle = (low + high) // 2
        if binomial_tail_upper(samples, middle - 1, missed) <= delta:
            low = middle
        else:
            high = middle
    return low


def tolerance_upper(values: Array, coverage: Level, confidence: Level) -> Tolerance:
    """The smallest sample value that is an upper tolerance bound.

    Args:
        values: ``(n,)`` independent values, finite.

    Raises:
        DataError: the values are empty or not finite, or too few for this coverage and confidence.
    """
    x = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if not len(x) or not np.isfinite(x).all():
        raise DataError("tolerance bound: need at least one value, all finite")
    rank = tolerance_rank(len(x), coverage, confidence)
    if rank == 0:
        raise DataError(
            f"{len(x)} samples are too few for coverage {coverage} with confidence {confidence}: "
            "lower one of them or draw more samples (verify.statistical.samples_needed)"
        )
    return Tolerance(float(x[len(x) - rank]), rank, exact(coverage, "coverage"), len(x))
