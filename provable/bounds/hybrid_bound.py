"""Hybrid bound: some channels kept for sure, the rest (total sensitivity T_r) sampled with replacement m times.

    m >= log(2N/delta) (2 a b + (2/3) a e) / e^2,      a = K T_r,  b = min(1, K T_r)

Given E_K(x), with probability >= 1 - delta over the draws: |z_hat_u - z_u| <= e (z_u^+ + z_u^-) for every u.
With T_r = T and K T >= 1 this is the layer theorem; the smaller the rest, the fewer draws.

Proof: theory_notes/deterministic_and_hybrid.md.
"""

import math

from provable.bounds.a_priori import RELATIVE_ERROR, APrioriBound, checked_failure, checked_positive
from provable.bounds.event_bound import Coverage
from verify.errors import DataError


def hybrid_sample_size(error: float, rest: float, sums: int, failure: float, slack: float = 1.0) -> int:
    """Draws from the rest that guarantee `error`; `rest` is T_r, `sums` N."""
    checked_positive("the error", error)
    a, logarithm = _check(rest, sums, failure, slack)
    return math.ceil(logarithm * (2 * a * min(1.0, a) + 2 / 3 * a * error) / error**2)


def hybrid_error(draws: int, rest: float, sums: int, failure: float, slack: float = 1.0) -> float:
    """Smallest e that `draws` from the rest guarantee; 0 when the rest has no sensitivity."""
    a, logarithm = _check(rest, sums, failure, slack)
    if a == 0:
        return 0.0
    if draws < 1:
        raise DataError(f"a rest of total sensitivity {rest} needs at least one draw; got {draws}")
    linear = a * logarithm / (3 * draws)
    return linear + math.sqrt(linear**2 + 2 * a * min(1.0, a) * logarithm / draws)


def hybrid_bound(draws: int, rest: float, sums: int, failure: float, coverage: Coverage) -> APrioriBound:
    """The promise for one fresh input x and one layer."""
    return APrioriBound(
        name="hybrid bound",
        value=hybrid_error(draws, rest, sums, failure, coverage.slack),
        trivial=1.0,
        confidence=max(0.0, coverage.probability - failure),
        assumption=f"{coverage.assumption}; {draws} draws with replacement from the rest, reweighted",
        quantity=RELATIVE_ERROR,
    )


def _check(rest: float, sums: int, failure: float, slack: float) -> tuple[float, float]:
    if not (rest >= 0 and slack >= 1) or sums < 1:
        raise DataError(f"need rest >= 0, slack >= 1 and at least one sum; got {rest}, {slack}, {sums}")
    return slack * rest, math.log(2 * sums / checked_failure(failure))
