"""The volume bound against enumeration: every set, every probability, every exact loss."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from provable.bounds import Consumer, expected_residual, tail_bound, volume_evidence
from provable.bounds.volume_bound import largest_eigenvalue_upper
from provable.sampling import (
    Volume,
    channel_matrix,
    column_norms,
    draw_until,
    residual_covariance,
)
from provable.sampling.elementary_symmetric import log_elementary, log_leave_one_out
from verify.errors import DataError


def consumer(seed, filters, channels, positions, smooth=0.0):
    """Positions of one channel share a common part of weight `smooth`, as neighbouring pixels do."""
    generator = np.random.default_rng(seed)
    n = channels * positions + 3
    x = generator.normal(size=(n, channels, positions)) + smooth * generator.normal(size=(n, channels, 1))
    x = np.einsum("ncp,cd->ndp", x, generator.normal(size=(channels, channels))).reshape(n, -1)
    return Consumer(generator.normal(size=(filters, channels, positions)), x.T @ x / n)


def loss(consumers, kept):
    """Exact loss after least squares over whole blocks."""
    total = 0.0
    for g in consumers:
        flat = g.weight.reshape(g.weight.shape[0], -1)
        total += float(np.sum((flat @ residual_covariance(g.gram, kept, g.weight.shape[2])) * flat))
    return total


def enumeration(matrix, count):
    sets = list(itertools.combinations(range(matrix.shape[0]), count))
    return sets, np.exp([Volume().log_probability(matrix, a) for a in sets])


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.data(), st.integers(0, 2**32))
def test_mean_residual_is_exact_and_below_the_tail_bound(channels, data, seed):
    matrix = channel_matrix(consumer(seed, 1, channels, 1).gram)
    count = data.draw(st.integers(1, channels))
    sets, p = enumeration(matrix, count)
    mean = float(p @ [np.trace(residual_covariance(matrix, a)) for a in sets])
    values, vectors = np.linalg.eigh(matrix)
    scale = 1e-8 * np.trace(matrix)
    assert expected_residual(values, count) == pytest.approx(mean, rel=1e-6, abs=scale)
    assert expected_residual(values, count) <= tail_bound(values, count) * (1 + 1e-12)
    assert expected_residual(values, count) >= values[: channels - count].sum() * (1 - 1e-9)  # no better than PCA
    mean_matrix = sum(w * residual_covariance(matrix, a) for w, a in zip(p, sets, strict=True))
    weights = values * np.exp(log_leave_one_out(values, count) - log_elementary(values, count)[-1])
    np.testing.assert_allclose((vectors * weights) @ vectors.T, mean_matrix, rtol=1e-5, atol=scale)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.just(0.0) | st.floats(1e-30, 100), min_size=2, max_size=8), st.data())
def test_mean_residual_grows_with_every_eigenvalue_and_falls_with_the_size(values, data):
    x = np.array(values)
    count = data.draw(st.integers(1, x.size - 1))
    more = x.copy()
    more[data.draw(st.integers(0, x.size - 1))] += data.draw(st.floats(0, 10))
    assert expected_residual(more, count) >= expected_residual(x, count) * (1 - 1e-9) - 1e-12
    assert expected_residual(x, count + 1) <= expected_residual(x, count) * (1 + 1e-9) + 1e-12


@settings(deadline=None, max_examples=60)
@given(
    st.integers(2, 5),
    st.integers(1, 4),
    st.integers(1, 4),
    st.floats(0, 3),
    st.booleans(),
    st.data(),
    st.integers(0, 2**32),
)
def test_expected_loss_of_whole_blocks_is_below_the_promise(channels, positions, filters, smooth, scaled, data, seed):
    g = consumer(seed, filters, channels, positions, smooth)
    count = data.draw(st.integers(1, channels))
    scale = column_norms(g.weight) if scaled else None
    promise = volume_evidence([g], scale).promise(count)
    sets, p = enumeration(promise.matrix, count)
    mean = float(p @ [loss([g], a) for a in sets])
    slack = 1e-8 * promise.trivial
    assert mean <= promise.spectral * (1 + 1e-6) + slack
    assert mean <= promise.weighted * (1 + 1e-6) + slack
    assert (
        promise.weighted <= volume_evidence([g], scale, whitened_up_to=0).promise(count).weighted * (1 + 1e-6) + slack
    )
    assert promise.trivial == pytest.approx(loss([g], []))
    if positions == 1:
        assert promise.weighted == pytest.approx(mean, rel=1e-5, abs=slack)  # an equality without blocks
        assert promise.weighted <= promise.spectral * (1 + 1e-6) + slack
    kept = promise.derandomised_design().draw(promise.matrix, count, np.random.default_rng(0)).kept
    assert loss([g], kept) <= promise.derandomised().value * (1 + 1e-6) + slack


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 5), st.data(), st.integers(0, 2**32))
def test_several_consumers_of_one_group(channels, data, seed):
    both = [consumer(seed, 3, channels, 2, 1.0), consumer(seed + 1, 2, channels, 1)]
    count = data.draw(st.integers(1, channels - 1))
    promise = volume_evidence(both).promise(count)
    sets, p = enumeration(promise.matrix, count)
    mean = float(p @ [loss(both, a) for a in sets])
    assert mean <= min(promise.spectral, promise.weighted) * (1 + 1e-6)
    kept = promise.derandomised_design().draw(promise.matrix, count, np.random.default_rng(0)).kept
    assert loss(both, kept) <= promise.expected_upper * (1 + 1e-6)


def test_sampled_mean_is_below_the_bound_at_a_real_width():
    """64 channels of 9 positions: one-sided z-test at 1e-6, and the figure is not vacuous."""
    g = consumer(0, 16, 64, 9, smooth=3.0)
    promise = volume_evidence([g], column_norms(g.weight)).promise(32)
    generator = np.random.default_rng(1)
    losses = [loss([g], Volume().draw(promise.matrix, 32, generator).kept) for _ in range(25)]
    assert np.mean(losses) <= promise.expected_upper + norm.isf(1e-6) * np.std(losses) / 5
    accepted = draw_until(
        Volume(),
        promise.matrix,
        32,
        loss=lambda s: loss([g], s.kept),
        limit=promise.sampled().value,
        generator=generator,
    )
    assert accepted.met


def test_simulated_figures_of_the_design_notes():
    """Eigenvalues 1/i, 64 of them: best possible 0.285, sampled mean 0.536, closed bound 1.89 at 48 channels."""
    values = 1.0 / np.arange(1, 65)
    assert tail_bound(values, 48) == pytest.approx(1.89, abs=0.01)
    assert expected_residual(values, 48) == pytest.approx(0.536, abs=0.005)
    assert tail_bound(values, 16) == pytest.approx(3.48, abs=0.01)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 80), st.floats(0, 3), st.integers(0, 2**32))
def test_largest_eigenvalue_is_bounded_above(size, spread, seed):
    generator = np.random.default_rng(seed)
    vectors = np.linalg.qr(generator.normal(size=(size, size)))[0]
    values = np.exp(spread * generator.normal(size=size))
    upper = largest_eigenvalue_upper((vectors * values) @ vectors.T)
    assert values.max() * (1 - 1e-12) <= upper <= values.max() * 1.03


def test_a_guess_that_misses_the_largest_eigenvalue_is_rejected():
    """The start vector of the guess is orthogonal to the top eigenvector."""
    top = np.zeros(40)
    top[:2] = [1, -1]
    matrix = np.diag(np.linspace(0.1, 1, 40)) + 500 * np.outer(top, top)
    assert largest_eigenvalue_upper(matrix) >= np.linalg.eigvalsh(matrix)[-1]


def test_the_curve_holds_every_promise():
    g = consumer(4, 5, 12, 3, smooth=1.0)
    evidence = volume_evidence([g], column_norms(g.weight))
    one_by_one = [evidence.promise(count).expected_upper for count in range(1, 13)]
    np.testing.assert_allclose(evidence.curve(), [evidence.trivial, *one_by_one], rtol=1e-9, atol=1e-12)


def test_promises_are_labelled():
    g = consumer(3, 4, 6, 1)
    promise = volume_evidence([g]).promise(5)
    sampled = promise.sampled(factor=2.0, attempts=10)
    assert sampled.confidence == 1 - 2.0**-10
    assert sampled.value == 2 * promise.expected_upper
    assert promise.derandomised().confidence == 1
    assert volume_evidence([g]).promise(6).expected_upper <= 1e-9 * promise.trivial
    with pytest.raises(DataError):
        promise.sampled(factor=1.0)


def test_a_dead_layer_promises_nothing_wrong():
    dead = Consumer(np.zeros((2, 3, 4)), np.zeros((12, 12)))
    assert volume_evidence([dead]).promise(2).sampled().vacuous


@pytest.mark.parametrize("wrong", [
    lambda: Consumer(np.ones((2, 3, 4)), np.eye(3)),
    lambda: Consumer(np.ones((2, 3)), np.eye(3)),
    lambda: volume_evidence([]),
    lambda: volume_evidence([consumer(0, 1, 2, 1), consumer(0, 1, 3, 1)]),
    lambda: volume_evidence([consumer(0, 1, 2, 1)]).promise(3),
    lambda: expected_residual(np.array([np.nan]), 1),
    lambda: tail_bound(np.ones(3), 0),
])  # fmt: skip
def test_refuses_what_does_not_fit(wrong):
    with pytest.raises(DataError):
        wrong()
