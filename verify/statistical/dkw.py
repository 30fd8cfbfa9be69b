"""The whole curve at once: for every threshold, an upper bound on the probability of exceeding it.

    P( for all t:  P(X > t) <= #{x_i > t}/n + s ) >= 1 - exp(-2 n s^2)     for exp(-2 n s^2) <= 1/2

Reference: Dvoretzky, Kiefer, Wolfowitz 1956; Massart, Annals of Probability 1990 (the constant 1).
Theory note: theory_notes/tolerance.md, section 4.
Not claimed: tightness at one threshold chosen in advance; `clopper_pearson` is sharper there.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verify.errors import DataError, SpecificationError
from verify.network.graph import Array
from verify.statistical.bounded import pushed_up
from verify.statistical.confidence import Level, exact


@dataclass(frozen=True)
class ExceedanceCurve:
    """With the stated confidence, for all t at once: ``P(X > t) <= rate_upper(t)``.

    Attributes:
        values: the sample, sorted upwards, ``(n,)``.
        width: the band's width s, rounded up.
    """

    values: NDArray[np.float64]
    width: float

    def rate_upper(self, threshold: float) -> float:
        """Upper bound on the probability that a fresh value exceeds `threshold`."""
        above = len(self.values) - int(np.searchsorted(self.values, threshold, side="right"))
        return pushed_up(above / len(self.values) + self.width)


def exceedance_curve(values: Array, confidence: Level) -> ExceedanceCurve:
    """The band for a sample of independent values ``(n,)``.

    Raises:
        DataError: no values, or one that is not a number.
        SpecificationError: confidence below 1/2.
    """
    x, delta = np.sort(np.asarray(values, dtype=np.float64).ravel()), 1 - exact(confidence)
    if not len(x) or bool(np.isnan(x).any()):
        raise DataError("exceedance curve: need at least one value, none NaN")
    if 2 * delta > 1:
        raise SpecificationError(f"the one-sided band needs a confidence of at least 1/2, got {confidence}")
    return ExceedanceCurve(x, pushed_up(math.sqrt(math.log(1.0 / float(delta)) / (2 * len(x)))))
