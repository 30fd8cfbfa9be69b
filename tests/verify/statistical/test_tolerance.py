"""Wilks' tolerance bound: published sample sizes, exact coverage by enumeration, ties, seeded bugs."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from verify.errors import DataError, SpecificationError
from verify.statistical.binomial import binomial_tail
from verify.statistical.tolerance import tolerance_rank, tolerance_upper

PUBLISHED = [(59, "0.95", 1), (93, "0.95", 2), (124, "0.95", 3), (181, "0.95", 5), (459, "0.99", 1), (662, "0.99", 2)]


@pytest.mark.parametrize(("n", "level", "rank"), PUBLISHED)
def test_published_sample_sizes(n: int, level: str, rank: int) -> None:
    assert tolerance_rank(n, level, level) == rank
    assert tolerance_rank(n - 1, level, level) == rank - 1


def exact_confidence(n: int, rank: int, coverage: Fraction) -> Fraction:
    """``P(at least `coverage` of a continuous distribution lies below the r-th largest of n)``, from the definition.

    It fails iff fewer than r of the n values exceed the true quantile, each with probability 1 - coverage.
    """
    return 1 - binomial_tail(n, rank - 1, 1 - coverage)


@pytest.mark.parametrize("level", ["0.9", "0.95", "0.99"])
@pytest.mark.parametrize("n", [1, 10, 22, 59, 100, 200, 300, 500])
def test_exact_confidence_is_at_least_nominal_and_the_rank_is_the_largest(n: int, level: str) -> None:
    rank, q = tolerance_rank(n, level, "0.95"), Fraction(level)
    assert rank == 0 or exact_confidence(n, rank, q) >= Fraction(95, 100)
    assert exact_confidence(n, rank + 1, q) < Fraction(95, 100)  # an off-by-one rank would be a false claim


@pytest.mark.parametrize(("n", "level", "rank"), PUBLISHED)
def test_confidence_agrees_with_the_law_of_order_statistics(n: int, level: str, rank: int) -> None:
    """The share below the r-th largest of n is Beta(n - r + 1, r): an independent way to the same number."""
    expected = beta.sf(float(level), n - rank + 1, rank)
    assert float(exact_confidence(n, rank, Fraction(level))) == pytest.approx(expected, rel=1e-9)
    assert expected >= float(level)


@pytest.mark.parametrize("levels", [(1, 3), (1, 1, 2), (5, 1, 1, 1)])
def test_exact_confidence_on_discrete_distributions(levels: tuple[int, ...]) -> None:
    """Heavy ties: enumerate all multisets of a distribution on len(levels) points, n = 30."""
    n, q = 30, Fraction(9, 10)
    shares = [Fraction(w, sum(levels)) for w in levels]
    rank = tolerance_rank(n, q, "0.9")
    cumulative = [sum(shares[: i + 1], Fraction(0)) for i in range(len(shares))]
    first_good = next(i for i, c in enumerate(cumulative) if c >= q)
    below = sum(shares[:first_good], Fraction(0))  # a value below `first_good` does not cover q
    # the r-th largest is a bad value iff fewer than r values are good
    failure = binomial_tail(n, rank - 1, 1 - below)
    assert rank > 0
    assert failure <= Fraction(1, 10)


@given(st.lists(st.integers(0, 5), min_size=59, max_size=130))
@settings(deadline=None, max_examples=30)
def test_bound_is_the_ranked_sample_value(values: list[int]) -> None:
    found = tolerance_upper(np.array(values, float), "0.95", "0.95")
    assert sum(v > found.bound for v in values) <= found.rank - 1
    assert sum(v >= found.bound for v in values) >= found.rank


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(DataError, match="58 samples are too few"):
        tolerance_upper(np.zeros(58), "0.95", "0.95")


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_bad_values_are_refused(values: list[float]) -> None:
    with pytest.raises(DataError, match="finite"):
        tolerance_upper(np.array(values), "0.5", "0.5")


def test_bad_coverage_is_refused() -> None:
    with pytest.raises(SpecificationError, match="coverage"):
        tolerance_upper(np.zeros(5), "1.0", "0.5")
