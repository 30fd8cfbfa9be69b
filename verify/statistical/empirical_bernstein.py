"""Upper bound on the mean of independent values in [0, 1] that profits from a small sample variance.

    mu <= mean + sqrt( 2 V ln(2/delta) / n ) + 7 ln(2/delta) / (3 (n-1)),    V = sum (x_i - mean)^2 / (n-1)

with probability >= 1 - delta. Reference: Maurer, Pontil, COLT 2009, theorem 4.
Theory note: theory_notes/mean_bounds.md, section 2.
Not claimed: validity when looking repeatedly; `betting` has that.
"""

import math

from verify.network.graph import Array
from verify.statistical.bounded import pushed_up, unit_values
from verify.statistical.confidence import Level, exact


def empirical_bernstein_upper(values: Array, confidence: Level) -> float:
    """Upper bound on the mean of the distribution of `values` ``(n,)`` in [0, 1], n >= 2, rounded up.

    Raises:
        DataError: fewer than two values, or one outside [0, 1].
    """
    x, delta = unit_values(values, least=2), float(1 - exact(confidence))
    n, log_term, variance = len(x), math.log(2.0 / delta), float(x.var(ddof=1))
    return pushed_up(float(x.mean()) + math.sqrt(2.0 * variance * log_term / n) + 7.0 * log_term / (3.0 * (n - 1)))
