"""Layer theorem: sampling with replacement in proportion to the sensitivities.

    m >= (6 + 2e) K T log(2N/delta) / (3 e^2)   draws,      N = 2 x units x patches (both signs)

Given E_K(x), with probability >= 1 - delta over the draws, for EVERY output unit u of the layer:
    |z_hat_u - z_u| <= e (z_u^+ + z_u^-)
Where all contributions to a unit have one sign this is the relative error |z_hat_u - z_u| <= e |z_u - b_u|.

Reference: Liebenwein et al., ICLR 2020, with the constant that Bernstein's inequality gives; the published
implementation draws 18 times as often for the same logarithm, and its epsilon is an allocation knob, not this e.
Proof: theory_notes/sensitivity_sampling.md. Not claimed: anything for x outside E_K, or about later layers.
"""

import math

from provable.bounds.a_priori import RELATIVE_ERROR, APrioriBound, checked_failure, checked_positive
from provable.bounds.event_bound import Coverage
from verify.errors import DataError


def same_sign_sums(units: int, patches: int = 1) -> int:
    """N: output filters (of all consumers) x output positions x two signs."""
    if units < 1 or patches < 1:
        raise DataError(f"a layer has at least one output unit and patch; got {units}, {patches}")
    return 2 * units * patches


def layer_sample_size(error: float, total: float, sums: int, failure: float, slack: float = 1.0) -> int:
    """Draws m that guarantee `error`; `total` is T, `sums` N, `failure` delta, `slack` K."""
    checked_positive("the error", error)
    mass = _range(total, slack) * _logarithm(sums, failure)
    return math.ceil((6 + 2 * error) * mass / (3 * error**2))


def layer_error(draws: int, total: float, sums: int, failure: float, slack: float = 1.0) -> float:
    """Smallest e that `draws` guarantee: the positive root of 3 m e^2 - 2 a e - 6 a = 0, a = K T log(2N/delta)."""
    if draws < 1:
        raise DataError(f"at least one draw is needed; got {draws}")
    mass = _range(total, slack) * _logarithm(sums, failure)
    return (mass + math.sqrt(mass**2 + 18 * draws * mass)) / (3 * draws)


def layer_bound(draws: int, total: float, sums: int, failure: float, coverage: Coverage) -> APrioriBound:
    """The theorem's promise for one fresh input x and one layer."""
    return APrioriBound(
        name="layer theorem",
        value=layer_error(draws, total, sums, failure, coverage.slack),
        trivial=1.0,
        confidence=max(0.0, coverage.probability - failure),
        assumption=f"{coverage.assumption}; {draws} draws with replacement, reweighted",
        quantity=RELATIVE_ERROR,
    )


def _range(total: float, slack: float) -> float:
    """K T, at least 1: under E_K the importances sum to at least 1 wherever anything is summed at all."""
    if not (total >= 0 and slack >= 1):
        raise DataError(f"total sensitivity {total} must not be negative and the slack {slack} not below 1")
    return max(1.0, slack * total)


def _logarithm(sums: int, failure: float) -> float:
    if sums < 1:
        raise DataError(f"a layer has at least one sum; got {sums}")
    return math.log(2 * sums / checked_failure(failure))
