"""Selections by design: sizes, promises that hold, and a best of several that is the best."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provable.compensation.moments import Moments
from provable.pipeline import compress
from provable.selection import by_loss, forward_selection
from provable.selection.by_design import best, best_of, leverage, leverage_scores, pivotal
from provable.selection.evidence import Evidence, relative_loss
from provable.selection.greedy_elimination import View
from provable.sensitivity.record import Sensitivity


def evidence(seed: int, channels: int, size: int = 1, targets: int = 3, dead: int = 0) -> Evidence:
    random = np.random.default_rng(seed)
    d = channels * size
    x = random.normal(size=(200, d)) @ random.normal(size=(d, d))
    blocks = np.arange(d).reshape(channels, size)
    x[:, blocks[:dead].ravel()] = 0.0
    weight = random.normal(size=(targets, d))
    regression = Moments.of(x, np.maximum(x @ weight.T, 0.0)).centred()
    scores = np.r_[np.zeros(dead), random.uniform(0.1, 1.0, channels - dead)]
    sensitivity = Sensitivity(scores, 200, np.zeros(channels, dtype=np.int64))
    group = SimpleNamespace(name="g", slots=range(channels))
    return Evidence(group, (View(regression, blocks, 1.0 / regression.total, weight),), sensitivity, 10)  # type: ignore[arg-type]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 500), channels=st.integers(2, 7), size=st.integers(1, 2), data=st.data())
def test_the_best_is_the_best_and_keeps_the_promise(seed, channels, size, data) -> None:
    known, count = evidence(seed, channels, size), data.draw(st.integers(1, channels - 1))
    members = (by_loss.greedy, forward_selection.forward, by_loss.volume, leverage)
    random, again = np.random.default_rng(seed), np.random.default_rng(seed)
    losses = [relative_loss(known.views, member(known, count, again).kept) for member in members]
    found = best(known, count, random)
    reached = relative_loss(known.views, found.kept)
    assert reached == pytest.approx(min(losses), abs=1e-12)
    assert len(found.kept) == count
    assert found.bound is not None
    assert found.bound.confidence == 1.0
    assert reached - relative_loss(known.views, range(channels)) <= found.bound.value * (1 + 1e-9) + 1e-12


def test_the_first_member_wins_ties() -> None:
    known = evidence(0, 4)
    select = best_of(by_loss.greedy, by_loss.greedy)
    assert "greedy" in select(known, 2, np.random.default_rng(0)).method


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 500), channels=st.integers(3, 8), data=st.data())
def test_exact_size_and_dead_channels_last(seed, channels, data) -> None:
    known, count = evidence(seed, channels, dead=1), data.draw(st.integers(1, channels - 1))
    for select in (pivotal, leverage):
        choice = select(known, count, np.random.default_rng(seed))
        assert len(choice.kept) == count
        assert 0 not in choice.kept
    assert choice.factors is None
    assert choice.bound is None


def test_pivotal_reweights_without_bias() -> None:
    known, random, total = evidence(3, 6), np.random.default_rng(0), np.zeros(6)
    for _ in range(4000):
        choice = pivotal(known, 3, random)
        assert choice.factors is not None
        total[list(choice.kept)] += choice.factors
    np.testing.assert_allclose(total / 4000, 1.0, atol=0.1)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 500), channels=st.integers(1, 7), data=st.data())
def test_leverage_scores_have_the_dimension_that_was_asked_for(seed, channels, data) -> None:
    random, count = np.random.default_rng(seed), data.draw(st.integers(1, channels))
    rank = data.draw(st.integers(0, channels))
    half = random.normal(size=(channels, rank))
    scores = leverage_scores(half @ half.T, count)
    assert scores.shape == (channels,)
    if rank:
        assert scores.sum() == pytest.approx(min(count, rank - 0.5), rel=1e-3)


@pytest.mark.parametrize("name", ["pivotal", "leverage", "best"])
def test_as_recipes(sketch, name: str) -> None:
    s = sketch((5,), seed=1, dtype="float32")
    x = s.add("relu", s.linear(s.add("relu", s.linear("x", 12)), 10))
    network = s.network(s.linear(x, 3))
    inputs = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
    result = compress(network, inputs, keep={"flops": 0.5}, recipe=name, generator=0)
    assert result.after.flops <= 0.5 * result.before.flops
    losing = [report for report in result.groups if report.kept < report.total]
    assert all((report.bound is None) == (name == "leverage") for report in losing)
