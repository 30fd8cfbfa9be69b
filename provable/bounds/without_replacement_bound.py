"""Sampling without replacement: Poisson and pivotal designs with pi_j = min(1, t s_j).

    a = K / t,    V = max { sum_j g_j (1 - pi_j) : 0 <= g_j <= K s_j, sum_j g_j <= 1 },    L = log(2N/delta)
    e = a L / 3 + sqrt( (a L / 3)^2 + 2 a V L )

Given E_K(x), with probability >= 1 - delta over the draw: |z_hat_u - z_u| <= e (z_u^+ + z_u^-) for every u.
It is never above the hybrid bound with the certain channels of the design and as many draws for the rest as
it keeps of them, although repeats make those draws fewer distinct channels. The fixed-size pivotal design
has the same bound, because negative dependence keeps Bernstein's inequality for sums of one sign.

Reference: Srinivasan, FOCS 2001 (dependent rounding). Proof: theory_notes/without_replacement.md.
"""

import math

import numpy as np

from provable.bounds.a_priori import RELATIVE_ERROR, APrioriBound, checked_failure, checked_positive
from provable.bounds.event_bound import Coverage
from provable.sampling.design import Array
from provable.sampling.inclusion import inclusion_probabilities
from verify.errors import DataError


def without_replacement_error(scores: Array, count: int, sums: int, failure: float, slack: float = 1.0) -> float:
    """e for a design that keeps `count` channels (in expectation, or exactly); 0 when every score > 0 is kept."""
    if not slack >= 1 or sums < 1:
        raise DataError(f"need a slack of at least 1 and at least one sum; got {slack}, {sums}")
    pi = inclusion_probabilities(scores, count)
    logarithm = math.log(2 * sums / checked_failure(failure))
    uncertain = (pi < 1) & (scores > 0)
    if not uncertain.any():
        return 0.0
    a = slack * float(np.max(scores[uncertain] / pi[uncertain]))
    linear = a * logarithm / 3
    return linear + math.sqrt(linear**2 + 2 * a * _largest_variance(scores, pi, slack) * logarithm)


def without_replacement_size(error: float, scores: Array, sums: int, failure: float, slack: float = 1.0) -> int:
    """Smallest number of channels that guarantees `error`; all of them, if it must be."""
    checked_positive("the error", error)
    low, high = 0, scores.size
    while high - low > 1:
        middle = (low + high) // 2
        enough = without_replacement_error(scores, middle, sums, failure, slack) <= error
        low, high = (low, middle) if enough else (middle, high)
    return high


def without_replacement_bound(scores: Array, count: int, sums: int, failure: float, coverage: Coverage) -> APrioriBound:
    """The promise for one fresh input x and one layer."""
    return APrioriBound(
        name="without-replacement bound",
        value=without_replacement_error(scores, count, sums, failure, coverage.slack),
        trivial=1.0,
        confidence=max(0.0, coverage.probability - failure),
        assumption=f"{coverage.assumption}; {count} channels without replacement, reweighted",
        quantity=RELATIVE_ERROR,
    )


def _largest_variance(scores: Array, pi: Array, slack: float) -> float:
    """V: fractional knapsack, the least likely channels first."""
    order = np.argsort(pi, kind="stable")
    shares = np.minimum(1.0, slack * scores[order])
    before = np.concatenate([[0.0], np.cumsum(shares)[:-1]])
    taken = np.clip(1.0 - before, 0.0, shares)
    return float(np.sum(taken * (1.0 - pi[order])))
