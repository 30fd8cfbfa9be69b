"""Laws of the closed form: it is least squares, and its loss is the squared error."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provable.compensation.least_squares import fit, loss, of_weight
from provable.compensation.moments import Moments, total
from verify.errors import DataError


def samples(seed: int, count: int = 60, d: int = 6, n: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, d)) @ generator.normal(size=(d, d)) + generator.normal(size=d)
    return x, x @ generator.normal(size=(d, n)) + generator.normal(size=(count, n)) + 1.0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 6))
def test_closed_form_is_least_squares_with_intercept(seed: int, size: int) -> None:
    x, t = samples(seed)
    kept = np.sort(np.random.default_rng(seed).permutation(6)[:size])
    found = fit(Moments.of(x, t).centred(), kept, ridge=0.0)
    design = np.hstack([x[:, kept], np.ones((len(x), 1))])
    expected, *_ = np.linalg.lstsq(design, t, rcond=None)
    np.testing.assert_allclose(np.vstack([found.weight.T, found.intercept]), expected, rtol=1e-8, atol=1e-8)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(0, 6), ridge=st.sampled_from([0.0, 1e-6, 1.0]))
def test_loss_is_the_empirical_squared_error(seed: int, size: int, ridge: float) -> None:
    x, t = samples(seed)
    kept = np.arange(size)
    regression = Moments.of(x, t).centred()
    found = fit(regression, kept, ridge=ridge)
    error = t - x[:, kept] @ found.weight.T - found.intercept
    assert found.loss == pytest.approx(np.mean(np.sum(error**2, axis=1)), rel=1e-8)
    shifted = t - x[:, kept] @ found.weight.T
    assert loss(regression, kept, found.weight, 0.0 * found.intercept) == pytest.approx(
        np.mean(np.sum(shifted**2, axis=1)), rel=1e-8
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_loss_never_rises_with_a_kept_coordinate(seed: int) -> None:
    regression = Moments.of(*samples(seed)).centred()
    order = np.random.default_rng(seed).permutation(6)
    losses = [fit(regression, np.sort(order[:k])).loss for k in range(7)]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in pairwise(losses))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(1, 59))
def test_moments_add_up(seed: int, cut: int) -> None:
    x, t = samples(seed)
    whole, parts = Moments.of(x, t), total([Moments.of(x[:cut], t[:cut]), Moments.of(x[cut:], t[cut:])])
    assert whole.count == parts.count
    for name in ("sum_x", "sum_t", "gram", "cross", "energy"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-10, atol=1e-10)


def test_linear_moments_are_those_of_the_affine_image() -> None:
    x, _ = samples(3)
    weight, bias = np.arange(12.0).reshape(2, 6), np.array([0.5, -2.0])
    expected, found = Moments.of(x, x @ weight.T + bias), Moments.linear(len(x), x.sum(0), x.T @ x, weight, bias)
    for name in ("sum_t", "cross", "energy"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-10)


def test_prior_is_returned_under_infinite_ridge_and_ignored_without() -> None:
    regression = Moments.of(*samples(5)).centred()
    kept, prior = np.arange(4), np.ones((3, 4))
    np.testing.assert_allclose(fit(regression, kept, ridge=1e12, prior=prior).weight, prior, atol=1e-8)
    plain = fit(regression, kept, ridge=0.0).weight
    np.testing.assert_allclose(fit(regression, kept, ridge=0.0, prior=prior).weight, plain, atol=1e-8)


def test_dependent_and_constant_regressors_never_abort() -> None:
    x, t = samples(7)
    x = np.hstack([x, x[:, :2], np.ones((len(x), 2))])
    found = fit(Moments.of(x, t).centred(), np.arange(10), ridge=0.0)
    best = fit(Moments.of(x, t).centred(), np.arange(6), ridge=0.0).loss
    assert found.ridge > 0.0 or np.isfinite(found.weight).all()
    assert found.loss == pytest.approx(best, rel=1e-6)
    constant = fit(Moments.of(np.ones((9, 2)), t[:9]).centred(), np.arange(2))
    assert constant.loss == pytest.approx(t[:9].var(axis=0).sum())


def test_given_weights_get_their_best_intercept() -> None:
    x, t = samples(8)
    found = of_weight(Moments.of(x, t).centred(), np.arange(6), np.ones((3, 6)))
    np.testing.assert_allclose(found.intercept, (t - x @ np.ones((6, 3))).mean(axis=0), atol=1e-10)


def test_no_samples_is_refused() -> None:
    with pytest.raises(DataError, match="no samples"):
        Moments.of(np.empty((0, 2)), np.empty((0, 1))).centred()
