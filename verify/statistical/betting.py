"""Upper bound on the mean of independent values in [0, 1] by betting against every candidate mean.

A gambler who doubts that the mean is m >= mu stakes lambda_i, chosen before x_i is seen:

    K_t(m) = prod_{i<=t} ( 1 + min(lambda_i, c/(1-m)) (m - x_i) ),      0 <= lambda_i,  0 < c <= 1

At m = mu the wealth K_t has expectation 1 and is a non-negative martingale, so it ever reaches 1/delta with probability
at most delta (Ville). K_t grows with m, hence every m with max_t K_t(m) >= 1/delta is rejected together with all above.
The bound may be read at any time, also after a peek: each prefix of the data gives a valid one.

Stakes: lambda_i = sqrt( 2 ln(1/delta) / (n v_{i-1}) ), v the variance seen so far, started at 1/4.
Reference: Waudby-Smith, Ramdas, JRSS B 2024. Theory note: theory_notes/mean_bounds.md, section 3.
Not claimed: that the stakes are the best ones. The rejection is checked in integer arithmetic, rounded against us.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from verify.network.graph import Array
from verify.statistical.bounded import unit_values
from verify.statistical.confidence import Level, exact

UNIT = 53  # candidate means and values are multiples of 2^-53
STAKE = 32  # stakes are multiples of 2^-32
CAP = Fraction(3, 4)
KEPT_BITS = 160


def betting_upper(values: Array, confidence: Level) -> float:
    """Upper bound on the mean of the distribution of `values` ``(n,)`` in [0, 1].

    The order of the values must not depend on the values. Values are rounded up to multiples of 2^-53.

    Returns:
        The smallest rejected mean found, rounded up; 1.0 if none is rejected.

    Raises:
        DataError: no values, or one outside [0, 1].
    """
    x, delta = unit_values(values), 1 - exact(confidence)
    bets = stakes(x, float(delta))
    points = [math.ceil(Fraction(v) * 2**UNIT) for v in x.tolist()]
    low, high = _proposal(x, bets, float(delta)), 1.0
    step = 2.0**-40
    while low < high:
        mean = min(2**UNIT - 1, math.ceil(Fraction(low) * 2**UNIT))
        if rejects(points, bets, mean, delta):
            return math.ldexp(mean, -UNIT)
        low, step = low + step, 2.0 * step
    return 1.0


def stakes(values: NDArray[np.float64], delta: float) -> list[int]:
    """``lambda_i * 2^32`` before the cap; entry i depends on ``values[:i]`` and on n alone."""
    n = len(values)
    counts = np.arange(1, n + 1)
    means = (0.5 + np.cumsum(values)) / (counts + 1)
    variances = (0.25 + np.cumsum((values - means) ** 2)) / (counts + 1)
    before = np.concatenate([[0.25], variances[:-1]])
    lambdas = np.sqrt(2.0 * math.log(1.0 / delta) / (n * before))
    return [int(v) for v in np.floor(np.minimum(lambdas, 2.0**20) * 2.0**STAKE)]


def rejects(points: Sequence[int], bets: Sequence[int], mean: int, delta: Fraction) -> bool:
    """Whether the wealth against ``mean / 2^53`` certainly reaches 1/delta at some time.

    Every product is truncated downwards, so an answer True is exact.
    """
    cap = math.floor(CAP * 2 ** (STAKE + UNIT) / (2**UNIT - mean))
    wealth, exponent = 1, 0  # wealth * 2**exponent
    target, one = 1 / delta, 1 << (UNIT + STAKE)
    for point, bet in zip(points, bets, strict=True):
        wealth *= one + min(bet, cap) * (mean - point)
        surplus = max(0, wealth.bit_length() - KEPT_BITS)
        wealth, exponent = wealth >> surplus, exponent + surplus - UNIT - STAKE
        if wealth.bit_length() + exponent > target.numerator.bit_length() - target.denominator.bit_length() - 2 and (
            wealth * Fraction(2) ** exponent >= target
        ):
            return True
    return False


def wealth(points: Sequence[int], bets: Sequence[int], mean: int) -> Fraction:
    """Exact final wealth ``K_n`` against ``mean / 2^53``; the definition that `rejects` rounds down."""
    cap = math.floor(CAP * 2 ** (STAKE + UNIT) / (2**UNIT - mean))
    factors = (
        1 + Fraction(min(bet, cap) * (mean - point), 2 ** (UNIT + STAKE))
        for point, bet in zip(points, bets, strict=True)
    )
    return math.prod(factors, start=Fraction(1))


def _proposal(x: NDArray[np.float64], bets: Sequence[int], delta: float) -> float:
    """Smallest mean that float64 arithmetic rejects, by bisection (K grows with the mean)."""
    lambdas, target = np.array(bets, dtype=np.float64) * 2.0**-STAKE, math.log(1.0 / delta)
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        if middle <= 0.0 or middle >= 1.0:
            break
        capped = np.minimum(lambdas, float(CAP) / (1.0 - middle))
        if np.cumsum(np.log1p(capped * (middle - x))).max() >= target:
            high = middle
        else:
            low = middle
    return high
