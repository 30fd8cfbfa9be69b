"""The bounds on the relative error of one layer hold as often as they promise, and say when they say nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from provable.bounds import (
    coverage_by_assumption,
    coverage_by_exchangeability,
    deterministic_bound,
    deterministic_error,
    escape_estimate,
    hybrid_bound,
    hybrid_error,
    hybrid_sample_size,
    images_for_assumption,
    images_for_coverage,
    layer_bound,
    layer_error,
    layer_sample_size,
    same_sign_sums,
    without_replacement_bound,
    without_replacement_error,
    without_replacement_size,
)
from provable.sampling import DESIGNS, Hybrid, WithReplacement
from provable.sampling.inclusion import inclusion_probabilities
from provable.sensitivity import Sensitivity
from verify.errors import DataError

FAILURE = 0.25
COVERED = coverage_by_exchangeability(10, 999)


def layer(seed, channels, units, skew, signs=True):
    """Contributions c_uj of one input for which E_1 holds, and scores that are at least its importances."""
    generator = np.random.default_rng(seed)
    contributions = generator.exponential(size=(units, channels)) * np.arange(1, channels + 1) ** -skew
    if signs:
        contributions *= generator.choice([-1, 1], size=contributions.shape)
    plus, minus = np.maximum(contributions, 0), np.maximum(-contributions, 0)
    importance = np.zeros(channels)
    for part in (plus, minus):
        total = part.sum(axis=1, keepdims=True)
        importance = np.maximum(
            importance, np.divide(part, total, out=np.zeros_like(part), where=total > 0).max(axis=0)
        )
    return contributions, np.abs(contributions).sum(axis=1), importance


def failures(contributions, mass, factors, error):
    """Draws ``(n, c)`` in which some unit deviates by more than error x mass."""
    deviation = np.abs((factors - 1.0) @ contributions.T)
    return int((deviation > error * mass * (1 + 1e-12)).any(axis=1).sum())


def draws_of(name, scores, times, generator, **size):
    if name == "with_replacement":
        q = scores / scores.sum()
        return generator.multinomial(size["m"], q, size=times) / (size["m"] * q)
    design = {"hybrid": Hybrid(size.get("certain"))}.get(name) or DESIGNS[name]
    return np.array([design.draw(scores, size["count"], generator).factors() for _ in range(times)])


def hardest(channels, units=1):
    """Units fed by one channel each, scores all 1: the draws vary as much as Bernstein's inequality allows."""
    return np.eye(units, channels), np.ones(units), np.ones(channels)


@pytest.mark.parametrize("kind", ["hardest", "mixed", "positive"])
@pytest.mark.parametrize("m", [8, 60, 600])
def test_layer_theorem_fails_at_most_as_often_as_promised(m, kind):
    trials, generator = 4000, np.random.default_rng(m)
    contributions, mass, scores = hardest(12) if kind == "hardest" else layer(1, 12, 3, 0.0, kind == "mixed")
    error = layer_error(m, scores.sum(), same_sign_sums(len(mass)), FAILURE)
    factors = draws_of("with_replacement", scores, trials, generator, m=m)
    allowed = binom.ppf(1 - 1e-6, trials, FAILURE)
    assert failures(contributions, mass, factors, error) <= allowed
    if kind == "hardest" and m > 8:  # so that the test can fail: the constant cannot be four times smaller
        assert failures(contributions, mass, factors, error / 4) > allowed


@pytest.mark.parametrize("certain", [0, 3, 8])
def test_hybrid_bound_fails_at_most_as_often_as_promised(certain):
    trials, m, generator = 3000, 12, np.random.default_rng(certain)
    contributions, mass, scores = layer(2, 20, 3, 1.0)
    sure = np.argsort(-scores)[:certain]
    rest = np.setdiff1d(np.arange(20), sure)
    q = scores[rest] / scores[rest].sum()
    factors = np.ones((trials, 20))
    factors[:, rest] = generator.multinomial(m, q, size=trials) / (m * q)
    error = hybrid_error(m, scores[rest].sum(), same_sign_sums(3), FAILURE)
    allowed = binom.ppf(1 - 1e-6, trials, FAILURE)
    assert failures(contributions, mass, factors, error) <= allowed
    if certain == 0:
        assert failures(contributions, mass, factors, error / 10) > allowed  # so that the test can fail


@pytest.mark.parametrize("name", ["poisson", "pivotal"])
@pytest.mark.parametrize("kind", ["hardest", "mixed"])
@pytest.mark.parametrize("count", [2, 6, 15])
def test_without_replacement_bound_fails_at_most_as_often_as_promised(name, kind, count):
    trials, generator = 1000, np.random.default_rng(count)
    contributions, mass, scores = hardest(20, 20) if kind == "hardest" else layer(3, 20, 3, 0.5)
    factors = draws_of(name, scores, trials, generator, count=count)
    error = without_replacement_error(scores, count, same_sign_sums(len(mass)), FAILURE)
    allowed = binom.ppf(1 - 1e-6, trials, FAILURE)
    assert failures(contributions, mass, factors, error) <= allowed
    if kind == "hardest" and count == 15:
        assert failures(contributions, mass, factors, error / 6) > allowed  # so that the test can fail


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 5), st.data())
def test_deterministic_bound_is_never_violated_under_its_event(seed, channels, units, data):
    contributions, mass, scores = layer(seed, channels, units, 0.5)
    kept = data.draw(st.sets(st.integers(0, channels - 1)))
    factors = np.zeros((1, channels))
    factors[0, sorted(kept)] = 1.0
    error = deterministic_error(scores, sorted(kept))
    assert failures(contributions, mass, factors, error + 1e-12) == 0
    larger = np.maximum(np.maximum(contributions, 0).sum(1), np.maximum(-contributions, 0).sum(1))
    assert failures(contributions, larger, factors, error + 1e-12) == 0  # the sharper form of the note


@settings(deadline=None, max_examples=100)
@given(st.floats(0.01, 5), st.floats(1, 50), st.integers(1, 10**6), st.floats(1e-9, 0.5), st.floats(1, 4))
def test_sample_sizes_and_errors_are_inverse(error, total, sums, failure, slack):
    m = layer_sample_size(error, total, sums, failure, slack)
    assert layer_error(m, total, sums, failure, slack) <= error * (1 + 1e-9)
    assert m == 1 or layer_error(m - 1, total, sums, failure, slack) > error * (1 - 1e-9)
    m = hybrid_sample_size(error, total, sums, failure, slack)
    assert hybrid_error(m, total, sums, failure, slack) <= error * (1 + 1e-9)
    assert m == 1 or hybrid_error(m - 1, total, sums, failure, slack) > error * (1 - 1e-9)
    assert m <= layer_sample_size(error, total, sums, failure, slack)


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 25), st.integers(0, 2**32), st.floats(0, 2), st.floats(1, 3), st.data())
def test_without_replacement_is_never_worse_than_hybrid_and_improves_with_size(channels, seed, skew, slack, data):
    _, _, scores = layer(seed, channels, 3, skew)
    errors = [without_replacement_error(scores, n, 6, FAILURE, slack) for n in range(1, channels + 1)]
    assert np.all(np.diff(errors) <= 1e-12)
    assert errors[-1] == 0
    count = data.draw(st.integers(1, channels - 1))
    pi = inclusion_probabilities(scores, count)
    rest = scores[pi < 1].sum()
    hybrid = hybrid_error(count - int((pi >= 1).sum()), rest, 6, FAILURE, slack)
    assert errors[count - 1] <= hybrid * (1 + 1e-9)
    target = errors[count - 1]
    if target > 0:
        size = without_replacement_size(target, scores, 6, FAILURE, slack)
        assert errors[size - 1] <= target
        assert size == 1 or errors[size - 2] > target


def test_the_example_of_the_design_notes():
    """eta = 200 skewed channels, e = 0.5: the hybrid scheme needs a fraction of the plain scheme's draws."""
    scores = 4.0 * np.arange(1, 201) ** -0.9
    scores = np.minimum(scores, 1.0)
    plain = layer_sample_size(0.5, scores.sum(), same_sign_sums(64), 0.05)
    hybrid = 60 + hybrid_sample_size(0.5, scores[60:].sum(), same_sign_sums(64), 0.05)
    assert hybrid < plain / 1.5


def test_bounds_say_when_they_say_nothing():
    scores = np.full(10, 0.5)
    few = layer_bound(3, 5.0, 100, 0.05, COVERED)
    assert few.vacuous
    assert few.value >= few.trivial == 1
    many = layer_bound(10**6, 5.0, 100, 0.05, COVERED)
    assert not many.vacuous
    assert many.confidence == pytest.approx(1 - 10 / 1000 - 0.05)
    assert deterministic_bound(scores, [0, 1], COVERED).vacuous
    assert not deterministic_bound(scores, range(9), COVERED).vacuous
    uncovered = coverage_by_exchangeability(10, 5)
    assert uncovered.probability == 0
    assert layer_bound(10**6, 5.0, 100, 0.05, uncovered).vacuous
    assert without_replacement_bound(scores, 2, 100, 0.05, COVERED).vacuous
    assert not without_replacement_bound(scores, 10, 100, 0.05, COVERED).vacuous
    assert hybrid_bound(5, 0.0, 100, 0.05, COVERED).value == 0


def test_a_bound_with_nan_is_vacuous():
    bound = layer_bound(10**6, 5.0, 100, 0.05, COVERED)
    assert type(bound)(bound.name, float("nan"), 1.0, 0.9, "", "").vacuous


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 10**5), st.floats(1e-4, 0.5), st.floats(0.5, 10))
def test_images_for_a_coverage_are_the_fewest(channels, failure, rate):
    n = images_for_coverage(channels, failure)
    assert channels / (n + 1) <= failure
    assert n == 0 or channels / n > failure
    n = images_for_assumption(channels, failure, rate)
    assert coverage_by_assumption(channels, n, 3, rate).probability >= 1 - failure - 1e-9


def test_known_image_counts():
    assert images_for_coverage(64, 0.05) == 1279
    assert coverage_by_exchangeability(200, 2000).probability == pytest.approx(1 - 200 / 2001)


def test_assumption_one_is_named_and_holds_where_it_is_true():
    """One channel, g uniform on [0, 1]: F(M/2) = 1/2 = exp(-1/K') with K' = 1/log 2, K = 2."""
    images, trials = 4, 20000
    coverage = coverage_by_assumption(1, images, 2.0, 1 / np.log(2))
    assert "Assumption 1" in coverage.assumption
    assert coverage.probability == pytest.approx(1 - 2.0**-images)
    maxima = np.random.default_rng(0).random((trials, images)).max(axis=1)
    violated = int((2 * maxima < 1).sum())
    assert violated <= binom.ppf(1 - 1e-6, trials, 1 - coverage.probability)


def test_escape_estimate_counts_images_that_hold_a_maximum():
    g = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.9, 0.8, 0.0], [0.1, 0.1, 0.0]])
    assert escape_estimate(Sensitivity.of(g)) == 0.5
    with pytest.raises(DataError):
        escape_estimate(Sensitivity.empty(3))


def test_escape_estimate_is_on_average_at_least_the_escape_rate():
    generator, trials, images = np.random.default_rng(5), 3000, 20
    common = generator.random((trials, images + 1, 1))
    g = common * generator.random((trials, images + 1, 6)) ** 0.2
    estimates = np.array([escape_estimate(Sensitivity.of(one[:-1])) for one in g])
    escaped = (g[:, -1] > g[:, :-1].max(axis=1)).any(axis=1)
    spread = np.sqrt(estimates.var() + escaped.var()) / np.sqrt(trials)
    assert estimates.mean() >= escaped.mean() - 5 * spread
    assert estimates.mean() <= 6 / images


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: layer_error(0, 1.0, 2, 0.1),
        lambda: layer_error(5, -1.0, 2, 0.1),
        lambda: layer_error(5, 1.0, 0, 0.1),
        lambda: layer_error(5, 1.0, 2, 0.0),
        lambda: layer_error(5, 1.0, 2, 1.0),
        lambda: layer_error(5, 1.0, 2, 0.1, slack=0.5),
        lambda: layer_sample_size(0.0, 1.0, 2, 0.1),
        lambda: hybrid_error(0, 1.0, 2, 0.1),
        lambda: hybrid_sample_size(0.1, -1.0, 2, 0.1),
        lambda: without_replacement_error(np.ones(3), 2, 2, 2.0),
        lambda: without_replacement_error(np.ones(3), 4, 2, 0.1),
        lambda: deterministic_error(np.ones(3), [0], slack=0.0),
        lambda: coverage_by_exchangeability(0, 10),
        lambda: coverage_by_assumption(3, 10, 0.5, 1.0),
        lambda: coverage_by_assumption(3, 10, 1.0, 0.0),
        lambda: same_sign_sums(0),
    ],
)
def test_refuses_numbers_without_a_meaning(wrong):
    with pytest.raises(DataError):
        wrong()


def test_with_replacement_draws_exactly_as_told():
    selection = WithReplacement().draw_times(np.array([0.5, 0.5]), 10, np.random.default_rng(0))
    assert selection.draws == 10
    assert selection.factors().sum() == pytest.approx(2)
