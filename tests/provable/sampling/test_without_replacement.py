"""Laws of the inclusion probabilities and of dependent rounding."""

import itertools
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from provable.sampling import dependent_rounding, draws_for_distinct, expected_distinct, inclusion_probabilities

SCORES = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.25, 1e-300, 1e-9]), min_size=1, max_size=12)


@settings(deadline=None, max_examples=200)
@given(SCORES, st.data())
def test_inclusion_probabilities_sum_to_the_count_and_follow_the_scores(scores, data):
    s = np.array(scores)
    count = data.draw(st.integers(1, s.size))
    pi = inclusion_probabilities(s, count)
    assert np.all((pi >= 0) & (pi <= 1))
    assert abs(float(sum(map(Fraction, pi.tolist())) - count)) <= 1e-13 * count
    support = np.count_nonzero(s)
    if count < support:
        order = np.argsort(s)
        assert np.all(np.diff(pi[order]) >= 0)
        fractional = (pi > 0) & (pi < 1) & (s > 1e-305)  # rates of subnormal scores are not accurate
        if fractional.any():
            rates = pi[fractional] / s[fractional]
            np.testing.assert_allclose(rates, rates[0], rtol=1e-9)
            assert np.all(rates[0] * s[pi >= 1] >= 1 - 1e-9)
    else:
        assert np.all(pi[s > 0] == 1)


def test_dependent_rounding_keeps_each_probability_and_never_correlates_positively():
    pi = np.array([0.2, 0.5, 0.7, 0.9, 0.3, 0.4])
    draws, generator = 20000, np.random.default_rng(0)
    included = np.array([dependent_rounding(pi, generator) for _ in range(draws)])
    assert np.all(included.sum(axis=1) == 3)
    for subset in itertools.chain.from_iterable(itertools.combinations(range(6), n) for n in (1, 2, 3)):
        for present in (True, False):
            hits = int((included[:, subset] == present).all(axis=1).sum())
            product = float(np.prod(pi[list(subset)] if present else 1 - pi[list(subset)]))
            assert hits <= binom.ppf(1 - 1e-8, draws, product)
            if len(subset) == 1:
                assert hits >= binom.ppf(1e-8, draws, product)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 40), st.integers(0, 2**32))
def test_dependent_rounding_has_the_exact_size(channels, seed):
    generator = np.random.default_rng(seed)
    scores = generator.random(channels) ** 8
    count = int(generator.integers(1, channels + 1))
    assert dependent_rounding(inclusion_probabilities(scores, count), generator).sum() == count


@settings(deadline=None, max_examples=100)
@given(st.integers(2, 30), st.integers(0, 2**32), st.floats(0, 0.999))
def test_expected_distinct_and_its_inverse(channels, seed, share):
    q = np.random.default_rng(seed).random(channels) ** 3 + 1e-6
    q /= q.sum()
    count = share * channels
    m = draws_for_distinct(q, count)
    assert expected_distinct(q, m) >= count
    assert m == 0 or expected_distinct(q, m - 1) < count


def test_expected_distinct_in_known_cases():
    assert expected_distinct(np.array([1.0]), 0) == 0
    assert expected_distinct(np.array([1.0, 0.0]), 5) == 1
    np.testing.assert_allclose(expected_distinct(np.array([0.5, 0.5]), 2), 1.5)
    np.testing.assert_allclose(expected_distinct(np.array([1e-20, 1 - 1e-20]), 1000) - 1, 1e-17, atol=1e-16)
    assert draws_for_distinct(np.array([1.0, 0.0]), 1) == 1
