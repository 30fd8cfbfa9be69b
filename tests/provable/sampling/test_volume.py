"""Laws of volume sampling: exact probabilities, exact mean, derandomisation, block channels."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from provable.sampling import (
    DerandomisedVolume,
    Volume,
    channel_matrix,
    column_norms,
    coordinates,
    draw_until,
    residual_covariance,
)
from provable.sampling.derandomised_volume import conditional_residuals, tilted_leave_out
from provable.sampling.elementary_symmetric import log_elementary, log_leave_one_out, residual_shares
from verify.errors import DataError


def gram(coordinates, seed, rank=None):
    generator = np.random.default_rng(seed)
    mix = generator.normal(size=(rank or coordinates, coordinates)) * np.exp(generator.normal(size=coordinates))
    return mix.T @ mix


def subsets(channels, count):
    return list(itertools.combinations(range(channels), count))


def e(numbers, order):
    """Elementary symmetric polynomial by enumeration."""
    return float(sum(np.prod(c) for c in itertools.combinations(numbers, order)))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.just(0.0) | st.floats(1e-30, 10), min_size=1, max_size=7), st.data())
def test_elementary_symmetric_polynomials_against_enumeration(values, data):
    x = np.array(values)
    order = data.draw(st.integers(0, x.size))
    np.testing.assert_allclose(np.exp(log_elementary(x, order)), [e(x, r) for r in range(order + 1)], rtol=1e-9)
    others = [e(np.delete(x, i), order) for i in range(x.size)]
    np.testing.assert_allclose(np.exp(log_leave_one_out(x, order)), others, rtol=1e-9, atol=1e-300)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.floats(0, 12), st.integers(0, 2**32))
def test_shares_of_all_sizes_at_once(size, spread, seed):
    x = np.exp(spread * np.random.default_rng(seed).normal(size=size))
    one = [x * np.exp(log_leave_one_out(x, r) - log_elementary(x, r)[-1]) for r in range(1, size + 1)]
    np.testing.assert_allclose(residual_shares(x), one, rtol=1e-9, atol=1e-13 * x.max())


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 8), st.data(), st.floats(0, 4), st.integers(0, 2**32))
def test_leaving_two_out_against_enumeration(size, data, spread, seed):
    x = np.exp(spread * np.random.default_rng(seed).normal(size=size))
    order = data.draw(st.integers(0, size - 2))
    single, pair = tilted_leave_out(x, order)
    one = np.array([x[i] * e(np.delete(x, i), order) for i in range(size)])
    two = np.array(
        [[x[i] * x[j] * e(np.delete(x, [i, j]), order) * (i != j) for i in range(size)] for j in range(size)]
    )
    factor = one.sum() / single.sum()
    np.testing.assert_allclose(single * factor, one, rtol=1e-8, atol=1e-9 * one.max())
    np.testing.assert_allclose(pair * factor, two, rtol=1e-8, atol=1e-9 * two.max())


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.data(), st.integers(0, 2**32))
def test_probabilities_are_determinants_over_their_sum(channels, data, seed):
    matrix, count = gram(channels, seed), data.draw(st.integers(1, channels))
    volumes = np.array([np.linalg.det(matrix[np.ix_(a, a)]) for a in subsets(channels, count)])
    stated = np.exp([Volume().log_probability(matrix, a) for a in subsets(channels, count)])
    np.testing.assert_allclose(stated.sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(stated, volumes / volumes.sum(), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_draws_follow_the_probabilities(count):
    """Chi-square test against enumeration, alarm level 1e-6."""
    matrix, draws, generator = gram(6, 11) + np.eye(6), 1500, np.random.default_rng(count)
    expected = {a: draws * np.exp(Volume().log_probability(matrix, a)) for a in subsets(6, count)}
    seen = dict.fromkeys(expected, 0)
    for _ in range(draws):
        seen[Volume().draw(matrix, count, generator).kept] += 1
    rare = [a for a in expected if expected[a] < 8]
    cells = [(seen[a], expected[a]) for a in expected if a not in rare]
    cells += [(sum(seen[a] for a in rare), sum(expected[a] for a in rare))] if rare else []
    statistic = sum((s - e) ** 2 / e for s, e in cells if e > 0)
    assert statistic <= chi2.isf(1e-6, max(1, len(cells) - 1))


def mean_residual(matrix, count, weights=None, containing=()):
    """E tr(H E_A) under volume sampling by enumeration, given that some channels are in A."""
    h = np.eye(matrix.shape[0]) if weights is None else weights
    sets = [a for a in subsets(matrix.shape[0], count) if set(containing) <= set(a)]
    p = np.exp([Volume().log_probability(matrix, a) for a in sets])
    return float(p @ [np.sum(h * residual_covariance(matrix, a)) for a in sets] / p.sum())


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 6), st.data(), st.booleans(), st.integers(0, 2**32))
def test_conditional_expectations_and_the_set_they_lead_to(channels, data, identity, seed):
    matrix, count = gram(channels, seed) + np.eye(channels), data.draw(st.integers(1, channels - 1))
    weights = None if identity else gram(channels, seed + 1, rank=data.draw(st.integers(1, channels)))
    h = np.eye(channels) if identity else weights
    scale = 1e-8 * np.trace(matrix) * np.trace(h)
    expected = [mean_residual(matrix, count, weights, (j,)) for j in range(channels)]
    np.testing.assert_allclose(conditional_residuals(matrix, h, count), expected, rtol=1e-6, atol=scale)
    kept = DerandomisedVolume(weights).draw(matrix, count, np.random.default_rng(0)).kept
    residual = np.sum(h * residual_covariance(matrix, kept))
    assert residual <= mean_residual(matrix, count, weights) * (1 + 1e-6) + scale


def test_a_duplicate_is_never_kept_twice():
    x = np.random.default_rng(0).normal(size=(20, 4))
    doubled = np.concatenate([x, x], axis=1)
    generator = np.random.default_rng(1)
    for design in (Volume(), DerandomisedVolume()):
        for _ in range(50):
            kept = design.draw(doubled.T @ doubled, 4, generator).kept
            assert sorted(j % 4 for j in kept) == [0, 1, 2, 3]


def test_more_channels_than_the_rank_can_be_kept():
    matrix = gram(6, 2, rank=2)
    for design in (Volume(), DerandomisedVolume()):
        kept = design.draw(matrix, 5, np.random.default_rng(0)).kept
        assert len(set(kept)) == 5
        assert np.trace(residual_covariance(matrix, kept)) <= 1e-8 * np.trace(matrix)


def test_a_dead_channel_is_dropped_first():
    matrix = gram(5, 3)
    matrix[2], matrix[:, 2] = 0.0, 0.0
    generator = np.random.default_rng(0)
    for design in (Volume(), DerandomisedVolume()):
        assert all(2 not in design.draw(matrix, 4, generator).kept for _ in range(50))


def test_a_large_ridge_approaches_uniform_sampling():
    matrix = gram(4, 5)
    probabilities = [np.exp(Volume(ridge=1e9 * np.trace(matrix)).log_probability(matrix, a)) for a in subsets(4, 2)]
    np.testing.assert_allclose(probabilities, 1 / 6, rtol=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 5), st.integers(1, 4), st.data(), st.integers(0, 2**32))
def test_the_channel_matrix_leaves_at_least_the_block_residual(channels, positions, data, seed):
    """The lemma behind the bound for convolutions, for every kept set, with and without scaling."""
    block_gram = gram(channels * positions, seed, rank=channels * positions + 2)
    kept = data.draw(st.sampled_from(subsets(channels, data.draw(st.integers(1, channels - 1)))))
    scale = np.exp(np.random.default_rng(seed).normal(size=channels))
    matrix = channel_matrix(block_gram, positions, scale)
    diagonal = np.repeat(scale, positions) ** 2
    block = float(diagonal @ np.diag(residual_covariance(block_gram, kept, positions)))
    coarse = np.trace(residual_covariance(matrix, kept))
    assert block <= coarse * (1 + 1e-9) + 1e-9 * np.trace(matrix)
    np.testing.assert_allclose(np.trace(matrix), diagonal @ np.diag(block_gram))
    if positions == 1:
        np.testing.assert_allclose(block, coarse, rtol=1e-6, atol=1e-9 * np.trace(matrix))


def test_adding_the_matrices_of_two_consumers_leaves_at_least_both_residuals():
    one, two = gram(5, 1), gram(5, 2)
    for kept in subsets(5, 2):
        apart = sum(np.trace(residual_covariance(m, kept)) for m in (one, two))
        assert apart <= np.trace(residual_covariance(one + two, kept)) * (1 + 1e-9)


def test_residual_covariance_is_the_least_squares_residual():
    x = np.random.default_rng(4).normal(size=(50, 12))
    a = coordinates([0, 2], 3)
    fit, *_ = np.linalg.lstsq(x[:, a], x, rcond=None)
    residual = x - x[:, a] @ fit
    np.testing.assert_allclose(residual_covariance(x.T @ x, [0, 2], 3), residual.T @ residual, atol=1e-9)
    np.testing.assert_allclose(residual_covariance(x.T @ x, [], 3), x.T @ x)


def test_column_norms_are_spectral_and_positive():
    weight = np.random.default_rng(5).normal(size=(4, 3, 9))
    weight[:, 1] = 0.0
    norms = column_norms(weight)
    np.testing.assert_allclose(norms[0], np.linalg.norm(weight[:, 0], 2))
    assert np.all(norms > 0)
    assert np.all(column_norms(np.zeros((2, 2, 1))) == 1)


def test_drawing_until_a_limit_is_met():
    matrix, generator = gram(6, 7), np.random.default_rng(0)
    limit = 2 * mean_residual(matrix, 3)

    def loss(selection):
        return float(np.trace(residual_covariance(matrix, selection.kept)))

    accepted = draw_until(Volume(), matrix, 3, loss=loss, limit=limit, generator=generator, attempts=40)
    assert accepted.met
    assert loss(accepted.selection) == accepted.loss <= limit
    hopeless = draw_until(Volume(), matrix, 3, loss=loss, limit=0.0, generator=generator, attempts=5)
    assert not hopeless.met
    assert hopeless.attempts == 5
    with pytest.raises(DataError):
        draw_until(Volume(), matrix, 3, loss=loss, limit=limit, generator=generator, attempts=0)


@pytest.mark.parametrize(("shape", "positions"), [((4, 4), 3), ((4, 5), 1), ((4, 4), 0)])
def test_refuses_matrices_that_are_not_blocks(shape, positions):
    with pytest.raises(DataError):
        channel_matrix(np.ones(shape), positions)


def test_refuses_a_scale_that_is_not_positive():
    with pytest.raises(DataError):
        channel_matrix(np.eye(2), 1, np.array([1.0, 0.0]))
    with pytest.raises(DataError):
        Volume(ridge=-1.0).draw(np.eye(2), 1, np.random.default_rng(0))
    with pytest.raises(DataError):
        DerandomisedVolume(weights=np.eye(3)).draw(np.eye(2), 1, np.random.default_rng(0))
