"""Laws that every registered sampling design keeps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from provable.sampling import DESIGNS, Hybrid, Selection, TopK
from verify.errors import DataError

NAMES = sorted(DESIGNS)


def evidence_for(design, channels, seed, zeros=0):
    generator = np.random.default_rng(seed)
    if design.evidence == "matrix":
        x = generator.normal(size=(channels + 2, channels)) * generator.random(channels)
        return x.T @ x
    scores = generator.random(channels) ** 3
    scores[:zeros] = 0.0
    return scores


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.data(), st.integers(0, 2**32))
def test_a_selection_is_well_formed_and_repeatable(name, channels, data, seed):
    design = DESIGNS[name]
    count = data.draw(st.integers(1, channels))
    evidence = evidence_for(design, channels, seed, data.draw(st.integers(0, channels)))
    one = design.draw(evidence, count, np.random.default_rng(seed))
    assert one == design.draw(evidence, count, np.random.default_rng(seed))
    assert list(one.kept) == sorted(set(one.kept))
    assert all(0 <= j < channels for j in one.kept)
    assert not design.exact_size or len(one.kept) == count
    assert (one.reweights is not None) == design.unbiased
    assert np.flatnonzero(one.factors()).tolist() == list(one.kept)


@pytest.mark.parametrize("name", [n for n in NAMES if DESIGNS[n].unbiased])
@pytest.mark.parametrize("count", [2, 5, 8])
def test_the_reweighted_layer_is_unbiased(name, count):
    """Two-sided z-test of every channel's mean factor at an alarm level of 1e-6 in total."""
    channels, draws = 9, 1500
    scores = np.array([0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.9, 1.0])
    generator = np.random.default_rng(count)
    factors = np.array([DESIGNS[name].draw(scores, count, generator).factors() for _ in range(draws)])[:, 1:]
    error = np.abs(factors.mean(axis=0) - 1)
    sampled = factors.std(axis=0) > 0
    assert np.all(error[~sampled] <= 1e-12)
    z = error[sampled] / (factors.std(axis=0)[sampled] / np.sqrt(draws))
    assert np.all(z <= norm.isf(0.5e-6 / channels))


@pytest.mark.parametrize("name", [n for n in NAMES if DESIGNS[n].evidence == "scores"])
def test_the_size_is_the_one_asked_for_in_expectation(name):
    scores, generator = np.random.default_rng(1).random(30) ** 4, np.random.default_rng(2)
    sizes = np.array([len(DESIGNS[name].draw(scores, 11, generator).kept) for _ in range(1000)])
    assert abs(sizes.mean() - 11) <= 5 * sizes.std() / np.sqrt(1000) + (
        0.5 if name in {"with_replacement", "hybrid"} else 0
    )


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_kept_when_everything_is_asked_for(name):
    design = DESIGNS[name]
    selection = design.draw(evidence_for(design, 7, 3), 7, np.random.default_rng(0))
    np.testing.assert_array_equal(selection.factors(), np.ones(7))


@pytest.mark.parametrize("name", NAMES)
def test_no_evidence_at_all_still_gives_a_selection(name):
    design = DESIGNS[name]
    nothing = np.zeros((6, 6)) if design.evidence == "matrix" else np.zeros(6)
    assert len(design.draw(nothing, 2, np.random.default_rng(0)).kept) == 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [0, -1, 4])
def test_refuses_a_count_out_of_range(name, count):
    design = DESIGNS[name]
    with pytest.raises(DataError, match="channels"):
        design.draw(evidence_for(design, 3, 0), count, np.random.default_rng(0))


@pytest.mark.parametrize("name", NAMES)
def test_refuses_evidence_that_is_not_evidence(name):
    generator = np.random.default_rng(0)
    asymmetric = np.array([[1.0, 0.5], [0.0, 1.0]])
    bad = [
        np.full(3, np.nan),
        np.full((3, 3), np.nan),
        np.zeros((2, 3)),
        np.zeros(0),
        np.zeros((0, 0)),
        asymmetric,
        -np.ones(3),
    ]
    for evidence in bad:
        with pytest.raises(DataError):
            DESIGNS[name].draw(evidence, 1, generator)


def test_top_k_takes_the_earlier_of_two_equals():
    assert TopK().draw(np.array([0.5, 0.7, 0.5, 0.5]), 2, np.random.default_rng(0)).kept == (0, 1)


def test_hybrid_always_keeps_its_certain_part_at_weight_one():
    scores, generator = np.array([1.0, 0.9, 0.3, 0.2, 0.1, 0.1, 0.05]), np.random.default_rng(0)
    for _ in range(200):
        assert np.all(Hybrid(certain=2).draw(scores, 4, generator).factors()[:2] == 1.0)
    with pytest.raises(DataError, match="certain"):
        Hybrid(certain=5).draw(scores, 4, generator)


def test_hybrid_keeps_what_inclusion_would_keep_for_sure():
    scores = np.array([1.0, 0.01, 0.01, 0.01, 0.01])
    assert Hybrid().certain_channels(scores, 2).tolist() == [0]


def test_factors_of_a_plain_selection_are_ones():
    np.testing.assert_array_equal(Selection(4, (1, 3)).factors(), [0, 1, 0, 1])
