"""Bounds on means: exact expectation of the wealth, seeded peeking bug, coverage by simulation, published widths."""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from verify.errors import DataError, SpecificationError
from verify.statistical.betting import UNIT, betting_upper, rejects, stakes, wealth
from verify.statistical.dkw import exceedance_curve
from verify.statistical.empirical_bernstein import empirical_bernstein_upper
from verify.statistical.hoeffding import hoeffding_upper

Bets = Callable[[np.ndarray], list[int]]
BOUNDS = [hoeffding_upper, empirical_bernstein_upper, betting_upper]


def honest(x: np.ndarray) -> list[int]:
    return stakes(x, 0.9)  # a level at which few stakes are capped, so that they differ


def peeking(x: np.ndarray) -> list[int]:
    """Seeded bug: the stake on x_i uses x_i itself."""
    return stakes(np.append(x, 0.0), 0.9)[1:]


def expected_wealth(bets: Bets, n: int, mean: int) -> Fraction:
    """``E[K_n]`` when the mean is truly ``mean / 2^53``, over all 0-1 sequences, in rational arithmetic."""
    p, total = Fraction(mean, 2**UNIT), Fraction(0)
    for bits in itertools.product((0, 1), repeat=n):
        weight = p ** sum(bits) * (1 - p) ** (n - sum(bits))
        total += weight * wealth([b << UNIT for b in bits], bets(np.array(bits, float)), mean)
    return total


@pytest.mark.parametrize("n", [1, 2, 5, 8])
@pytest.mark.parametrize("mean", [2**UNIT // 3, 2**50, 7 * 2**50])
def test_expected_wealth_is_exactly_one(n: int, mean: int) -> None:
    assert expected_wealth(honest, n, mean) == 1


@pytest.mark.slow
def test_expected_wealth_is_exactly_one_for_ten() -> None:
    assert expected_wealth(honest, 10, 2**UNIT // 3) == 1


def test_peeking_is_seen() -> None:
    assert expected_wealth(peeking, 6, 2**UNIT // 3) > 1


def test_the_cap_keeps_the_wealth_positive() -> None:
    """Without it a stake of 4 against mean 1/2 and value 1 would leave a debt, and Ville's inequality fails."""
    assert 1 + 4 * (Fraction(1, 2) - 1) < 0
    assert wealth([0, 0, 0, 1 << UNIT], [4 * 2**32] * 4, 2**52) > 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(1, 2**UNIT - 1))
@settings(deadline=None, max_examples=60)
def test_integer_wealth_never_exceeds_the_exact_one(values: list[float], mean: int) -> None:
    x = np.array(values)
    points, bets = [math.ceil(Fraction(v) * 2**UNIT) for v in values], stakes(x, 0.05)
    exact = max(wealth(points[:t], bets[:t], mean) for t in range(1, len(points) + 1))
    above = min(Fraction(1), 1 / exact * (1 - Fraction(1, 2**100))) if exact > 0 else Fraction(1)
    assert not (above < 1 and rejects(points, bets, mean, above))  # target just above the true maximum
    if exact > 1:
        assert rejects(points, bets, mean, 1 / exact * (1 + Fraction(1, 2**100)))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.data())
@settings(deadline=None, max_examples=40)
def test_rejected_means_form_an_upper_interval(values: list[float], data: st.DataObject) -> None:
    low, high = sorted(data.draw(st.tuples(st.integers(0, 2**UNIT - 1), st.integers(0, 2**UNIT - 1))))
    points, bets = [math.ceil(Fraction(v) * 2**UNIT) for v in values], stakes(np.array(values), 0.05)
    assert wealth(points, bets, low) <= wealth(points, bets, high) * (1 + Fraction(1, 2**20))


def test_widths_against_published_runs() -> None:
    """Beta(1, 20), n = 1000, delta = 0.05: about .086 / .060 / .053 (assurance notes)."""
    x = np.random.default_rng(3).beta(1, 20, size=1000)
    hoeffding, bernstein, betting = (bound(x, "0.95") for bound in BOUNDS)
    assert hoeffding == pytest.approx(0.086, abs=0.004)
    assert bernstein == pytest.approx(0.061, abs=0.004)
    assert betting == pytest.approx(0.053, abs=0.004)
    assert x.mean() < betting < bernstein < hoeffding


DISTRIBUTIONS: dict[str, tuple[Callable[[np.random.Generator, int], np.ndarray], float]] = {
    "rare one": (lambda g, n: (g.random(n) < 0.02).astype(float), 0.02),
    "constant": (lambda g, n: np.full(n, 0.25), 0.25),
    "half": (lambda g, n: (g.random(n) < 0.5).astype(float), 0.5),
    "ties": (lambda g, n: g.integers(0, 3, n) / 4.0, 0.25),
}


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda b: b.__name__)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_simulated_coverage(bound: Callable[[np.ndarray, str], float], name: str) -> None:
    """Alarm iff the misses are impossible (1e-6) at the nominal level."""
    draw, mean = DISTRIBUTIONS[name]
    generator, repeats = np.random.default_rng(11), 120
    misses = sum(bound(draw(generator, 60), "0.9") < mean for _ in range(repeats))
    assert misses <= binom.isf(1e-6, repeats, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_simulated_coverage_of_betting_at_length(name: str) -> None:
    draw, mean = DISTRIBUTIONS[name]
    generator, repeats = np.random.default_rng(12), 5000
    misses = sum(betting_upper(draw(generator, 80), "0.9") < mean for _ in range(repeats))
    assert misses <= binom.isf(1e-6, repeats, 0.1)


def test_every_prefix_is_valid_at_once() -> None:
    """Stopping at the luckiest moment does not break the bound (Ville); 300 runs, delta = 0.1."""
    generator, repeats, mean, delta = np.random.default_rng(5), 300, 2**UNIT // 4, Fraction(1, 10)
    misses = 0
    for _ in range(repeats):
        bits = (generator.random(80) < 0.25).astype(int)
        misses += rejects([int(b) << UNIT for b in bits], stakes(bits.astype(float), 0.1), mean, delta)
    assert misses <= binom.isf(1e-6, repeats, 0.1)


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda b: b.__name__)
def test_bad_values_are_refused(bound: Callable[[np.ndarray, str], float]) -> None:
    for values in ([], [0.5, 1.5], [0.5, float("nan")], [-0.1, 0.2]):
        with pytest.raises(DataError):
            bound(np.array(values), "0.95")


def test_exceedance_curve_covers_at_every_threshold() -> None:
    generator, repeats, misses = np.random.default_rng(8), 200, 0
    for _ in range(repeats):
        curve = exceedance_curve(generator.random(40), "0.9")
        worst = np.append(curve.values, 0.0)
        misses += any(curve.rate_upper(float(t)) < 1.0 - t for t in worst)
    assert misses <= binom.isf(1e-6, repeats, 0.1)


def test_exceedance_curve_refuses_low_confidence_and_nan() -> None:
    with pytest.raises(SpecificationError, match="at least 1/2"):
        exceedance_curve(np.zeros(4), "0.4")
    with pytest.raises(DataError, match="NaN"):
        exceedance_curve(np.array([np.nan]), "0.9")
