"""The Clopper-Pearson bound is a true upper bound: exact tails, exact coverage, and seeded bugs that must show."""

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from verify.errors import DataError, SpecificationError
from verify.statistical.binomial import binomial_tail, binomial_tail_upper
from verify.statistical.clopper_pearson import rate_lower, rate_upper, samples_needed

rates = st.integers(1, 2**20 - 1).map(lambda a: Fraction(a, 2**20)) | st.fractions(0, 1, max_denominator=97)


@given(st.data(), st.integers(1, 120), rates)
@settings(deadline=None, max_examples=100)
def test_rounded_tail_is_an_upper_bound_and_tight(data: st.DataObject, n: int, rate: Fraction) -> None:
    k = data.draw(st.integers(0, n))
    tail, upper = binomial_tail(n, k, rate), binomial_tail_upper(n, k, rate)
    assert upper >= tail
    assert upper <= tail * (1 + Fraction(1, 10**35))


def _exact_tail(n: int, k: int, bound: float) -> Fraction:
    return binomial_tail(n, k, Fraction(bound))


@pytest.mark.parametrize("confidence", ["0.5", "0.95", "0.999", "0.999999"])
@pytest.mark.parametrize("n", [1, 2, 10, 59, 150])
def test_bound_satisfies_the_exact_tail(n: int, confidence: str) -> None:
    delta = 1 - Fraction(confidence)
    for k in range(0, n, max(1, n // 12)):
        assert _exact_tail(n, k, rate_upper(k, n, confidence)) <= delta


@pytest.mark.parametrize("confidence", ["0.95", "0.999"])
def test_bound_is_within_1e_6_of_the_true_quantile(confidence: str) -> None:
    for k in range(0, 60, 7):
        bound = Fraction(rate_upper(k, 59, confidence))
        assert binomial_tail(59, k, bound * (1 - Fraction(1, 10**6))) > 1 - Fraction(confidence)


def test_scipy_alone_is_not_an_upper_bound() -> None:
    """The reason for the outward rounding: SciPy's quantile misses the exact tail somewhere."""
    delta = Fraction(1, 1000)
    misses = [
        (n, k)
        for n in (10, 59, 100, 150)
        for k in range(0, n, 5)
        if _exact_tail(n, k, float(beta.isf(float(delta), k + 1, n - k))) > delta
    ]
    assert misses


def coverage(bounds: list[float], rate: Fraction) -> Fraction:
    """``P(rate <= bound(K))`` for K ~ Bin(n, rate), exact up to n = 60 and rounded down beyond.

    Bounds grow with k, so it is an upper tail.
    """
    n = len(bounds) - 1
    uncovered = sum(1 for b in bounds if Fraction(b) < rate)
    tail = binomial_tail if n <= 60 else binomial_tail_upper
    return Fraction(1) if uncovered == 0 else 1 - tail(n, uncovered - 1, rate)


def hardest_rates(bounds: list[float]) -> list[Fraction]:
    """Coverage falls between the values of the bound and jumps up at each: just above a bound it is smallest."""
    tiny = Fraction(1, 2**70)
    return [Fraction(b) + tiny for b in bounds[:-1] if Fraction(b) + tiny < 1]


def smallest_coverage(bound: Callable[[int, int], float], n: int, stride: int = 1) -> Fraction:
    bounds = [bound(k, n) for k in range(n + 1)]
    return min(coverage(bounds, rate) for rate in hardest_rates(bounds)[::stride])


@pytest.mark.parametrize("n", [1, 2, 3, 10, 25, 59])
def test_exact_coverage_is_at_least_nominal(n: int) -> None:
    for confidence in ("0.95", "0.999"):
        assert smallest_coverage(lambda k, n, c=confidence: rate_upper(k, n, c), n) >= Fraction(confidence)


@pytest.mark.parametrize("n", [100, 299])
def test_exact_coverage_is_at_least_nominal_at_some_rates(n: int) -> None:
    assert smallest_coverage(lambda k, n: rate_upper(k, n, "0.95"), n, stride=n // 10) >= Fraction(95, 100)


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 200, 299, 500])
def test_exact_coverage_is_at_least_nominal_at_every_breakpoint(n: int) -> None:
    for confidence in ("0.95", "0.999"):
        assert smallest_coverage(lambda k, n, c=confidence: rate_upper(k, n, c), n) >= Fraction(confidence)


BUGS: dict[str, Callable[[int, int], float]] = {
    "off by one": lambda k, n: float(beta.isf(0.05, max(k, 1e-9), n - k + 1)) if k < n else 1.0,
    "lower for upper": lambda k, n: float(beta.ppf(0.05, k + 1, n - k)) if k < n else 1.0,
    "normal approximation": lambda k, n: min(1.0, k / n + 1.645 * math.sqrt(k * (n - k) / n**3)),
    "SciPy at 1e-4 below": lambda k, n: float(beta.isf(0.05, k + 1, n - k)) * (1 - 1e-4) if k < n else 1.0,
}


@pytest.mark.parametrize("bug", BUGS)
def test_coverage_check_sees_seeded_bugs(bug: str) -> None:
    assert smallest_coverage(BUGS[bug], 25) < Fraction(95, 100)


def test_two_sided_level_is_seen_as_too_wide() -> None:
    """Spending delta/2 on one side is sound but not our bound: the swap shows as a larger number."""
    assert rate_upper(3, 100, "0.975") > rate_upper(3, 100, "0.95")


def test_published_sample_sizes() -> None:
    assert samples_needed("0.001", "0.95") == 2995
    assert samples_needed("0.001", "0.999") == 6905
    assert samples_needed("0.0001", "0.999999") == 138149


@given(st.integers(0, 30), st.integers(1, 200))
@settings(deadline=None, max_examples=50)
def test_monotone_in_violations_and_samples(k: int, extra: int) -> None:
    n = k + extra
    assert rate_upper(k, n, "0.99") <= rate_upper(k + 1, n + 1, "0.99")
    assert rate_upper(k, n + 1, "0.99") <= rate_upper(k, n, "0.99")
    assert rate_lower(n - k, n, "0.99") + rate_upper(k, n, "0.99") <= 1.0


def test_large_samples_are_fast_enough() -> None:
    assert 1.64e-8 < rate_upper(5, 10**9, "0.999") < 1.65e-8


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_bad_counts_are_refused(k: int, n: int) -> None:
    with pytest.raises(DataError, match="violations"):
        rate_upper(k, n, "0.95")


@pytest.mark.parametrize("confidence", ["0", "1", "nan", "two", 1.5, float("inf")])
def test_bad_confidence_is_refused(confidence: str | float) -> None:
    with pytest.raises(SpecificationError, match="confidence"):
        rate_upper(0, 10, confidence)


def test_float_confidence_is_read_as_its_decimal() -> None:
    assert rate_upper(2, 40, 0.999) == rate_upper(2, 40, "0.999") == rate_upper(2, 40, Fraction(999, 1000))
