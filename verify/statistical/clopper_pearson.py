"""Upper bound on the probability of an event seen k times in n independent trials.

    U(k; n, delta) = sup{ p : P(Bin(n, p) <= k) >= delta },   P_p( p <= U(K) ) >= 1 - delta  for every p

U is the (1 - delta)-quantile of Beta(k+1, n-k). SciPy's value is only a proposal: it may be too small by
1e-4 relative; it is raised until an integer computation confirms the tail.

Reference: Clopper, Pearson, Biometrika 1934. Theory note: theory_notes/clopper_pearson.md.
Not claimed: anything about trials that are not independent draws from one distribution.
"""

import math
from fractions import Fraction

from verify.errors import DataError
from verify.statistical.binomial import binomial_tail_upper
from verify.statistical.confidence import Level, exact


def rate_upper(violations: int, samples: int, confidence: Level) -> float:
    """An upper bound, holding with at least `confidence`, on the probability of a violation.

    Args:
        violations: how many of the samples violate.
        samples: number of independent samples.
        confidence: in (0, 1), see `verify.statistical.confidence.exact`.

    Returns:
        The Clopper-Pearson bound, rounded up; 1.0 if every sample violates.

    Raises:
        DataError: no samples, or more violations than samples.
        SpecificationError: the confidence lies outside (0, 1).
    """
    delta = 1 - exact(confidence)
    if samples < 1 or not 0 <= violations <= samples:
        raise DataError(f"{violations} violations in {samples} samples: need 0 <= violations <= samples, samples >= 1")
    return 1.0 if violations == samples else _raised(_proposal(violations, samples, delta), violations, samples, delta)


def rate_lower(successes: int, samples: int, confidence: Level) -> float:
    """A lower bound, holding with at least `confidence`, on the probability of a success, rounded down."""
    failing = Fraction(rate_upper(samples - successes, samples, confidence))
    lower = float(1 - failing)
    return lower if Fraction(lower) <= 1 - failing else math.nextafter(lower, 0.0)


def samples_needed(rate: Level, confidence: Level, violations: int = 0) -> int:
    """Smallest n for which `violations` in n samples give ``rate_upper <= rate`` (exact tail, up to 1e-40)."""
    p, delta = exact(rate, "rate"), 1 - exact(confidence)
    high = violations + 1
    while binomial_tail_upper(high, violations, p) > delta:
        high *= 2
    low = max(violations, high // 2)  # at `low` the condition fails
    while high - low > 1:
        middle = (low + high) // 2
        if binomial_tail_upper(middle, violations, p) <= delta:
            high = middle
        else:
            low = middle
    return high


def _proposal(violations: int, samples: int, delta: Fraction) -> float:
    from scipy.stats import beta

    proposal = float(beta.isf(float(delta), violations + 1, samples - violations))
    return proposal if 0.0 < proposal < 1.0 else (violations + 1.0) / (samples + 1.0)


def _raised(proposal: float, violations: int, samples: int, delta: Fraction) -> float:
    """The proposal, raised by relative steps 2^-52, 2^-51, ... until its tail is at most delta."""
    bound, step = proposal, 2.0**-52
    while bound < 1.0 and binomial_tail_upper(samples, violations, Fraction(bound)) > delta:
        bound, step = math.nextafter(bound * (1.0 + step), 2.0), 2.0 * step
    return min(bound, 1.0)
