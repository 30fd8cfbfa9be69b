"""Laws of the ridge leverage scores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provable.sensitivity import effective_dimension, ridge_for_dimension, ridge_leverage_scores
from verify.errors import DataError


def gram(size, seed):
    x = np.random.default_rng(seed).normal(size=(size + 3, size))
    return x.T @ x


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 8), st.integers(0, 2**32), st.floats(1e-3, 1e3))
def test_scores_are_the_diagonal_of_the_smoother(size, seed, ridge):
    matrix = gram(size, seed)
    smoother = matrix @ np.linalg.inv(matrix + ridge * np.eye(size))
    scores = ridge_leverage_scores(matrix, ridge)
    np.testing.assert_allclose(scores, np.diag(smoother), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(scores.sum(), effective_dimension(matrix, ridge), rtol=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 8), st.integers(0, 2**32), st.floats(0.05, 0.95))
def test_ridge_is_found_for_a_dimension(size, seed, share):
    matrix = gram(size, seed)
    ridge = ridge_for_dimension(matrix, share * size)
    assert effective_dimension(matrix, ridge) == pytest.approx(share * size, rel=1e-9)


def test_duplicates_share_one_score():
    matrix = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(ridge_leverage_scores(matrix, 1e-9), [0.5, 0.5, 1.0], atol=1e-6)


@pytest.mark.parametrize(
    ("matrix", "ridge"), [(np.eye(2), 0.0), (np.ones((2, 3)), 1.0), (np.full((2, 2), np.inf), 1.0)]
)
def test_refuses_ill_formed_input(matrix, ridge):
    with pytest.raises(DataError):
        ridge_leverage_scores(matrix, ridge)
