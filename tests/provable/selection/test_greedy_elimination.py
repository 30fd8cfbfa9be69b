"""Laws of backward elimination: its running costs are the losses one gets by solving again from scratch."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from provable.compensation.least_squares import fit
from provable.compensation.moments import Moments, Regression
from provable.selection import greedy_elimination
from provable.selection.greedy_elimination import View, eliminate


def problem(seed: int, channels: int, size: int, targets: int) -> Regression:
    generator = np.random.default_rng(seed)
    d = channels * size
    x = generator.normal(size=(5 * d, d)) @ (np.eye(d) + 0.5 * generator.normal(size=(d, d)))
    return Moments.of(x, np.maximum(x @ generator.normal(size=(d, targets)), 0.0)).centred()


def blocks(channels: int, size: int) -> np.ndarray:
    return np.arange(channels * size).reshape(channels, size)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000), channels=st.integers(1, 7), size=st.integers(1, 3), targets=st.sampled_from([1, 4, 40])
)
def test_costs_equal_refactorised_losses(seed: int, channels: int, size: int, targets: int) -> None:
    regression, index = problem(seed, channels, size, targets), blocks(channels, size)
    assume(np.linalg.cond(regression.covariance) < 1e6)  # float64 loses up to the square of it, see the note
    result = eliminate([View(regression, index)], ridge=1e-12)
    assert sorted(result.order) == list(range(channels))
    for count in range(channels + 1):
        again = fit(regression, index[list(result.kept(count))].ravel(), ridge=1e-12).loss
        assert result.losses[count] == pytest.approx(again, rel=1e-6, abs=1e-9 * regression.total)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_each_step_removes_the_cheapest_channel(seed: int) -> None:
    regression, index = problem(seed, 5, 2, 3), blocks(5, 2)
    result = eliminate([View(regression, index)], ridge=1e-12)
    for count in range(5):
        present = result.kept(count + 1)
        options = [fit(regression, index[[c for c in present if c != out]].ravel()).loss for out in present]
        assert result.losses[count] <= min(options) * (1 + 1e-6)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_losses_never_rise_with_a_kept_channel(seed: int) -> None:
    regression = problem(seed, 6, 2, 4)
    losses = eliminate([View(regression, blocks(6, 2))]).losses
    assert (np.diff(losses) <= 0.0).all()
    assert losses[0] == pytest.approx(regression.total, rel=1e-6)


def test_duplicate_dead_and_constant_channels_leave_first_at_no_loss() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(400, 3))
    x = np.column_stack([x, x[:, 1], np.zeros(400), np.full(400, 2.0)])
    t = x @ generator.normal(size=(6, 4))
    result = eliminate([View(Moments.of(x, t).centred(), blocks(6, 1))])
    assert set(result.order[:3]) in ({3, 4, 5}, {1, 4, 5})
    assert result.losses[3] <= 1e-6 * result.losses[0]
    assert result.losses[2] > 1e-2 * result.losses[0]


def test_two_consumers_add_their_scaled_losses() -> None:
    first, second = problem(1, 4, 1, 2), problem(2, 4, 2, 3)
    result = eliminate([View(first, blocks(4, 1), 2.0), View(second, blocks(4, 2), 0.5)], ridge=1e-12)
    for count in range(5):
        kept = list(result.kept(count))
        expected = 2.0 * fit(first, np.array(kept, dtype=int)).loss + 0.5 * fit(second, blocks(4, 2)[kept].ravel()).loss
        assert result.losses[count] == pytest.approx(expected, rel=1e-6)


def test_coordinates_outside_the_blocks_always_stay() -> None:
    regression = problem(3, 6, 1, 2)
    result = eliminate([View(regression, np.arange(2, 6)[:, None])], ridge=1e-12)
    assert result.losses[0] == pytest.approx(fit(regression, np.arange(2)).loss, rel=1e-6)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(0, 6))
def test_stopping_early_keeps_the_same_channels(seed: int, count: int) -> None:
    views = [View(problem(seed, 6, 2, 4), blocks(6, 2))]
    whole, early = eliminate(views), eliminate(views, down_to=count)
    assert early.kept(count) == whole.kept(count)
    np.testing.assert_allclose(early.losses[count:], whole.losses[count:])
    assert np.isinf(early.losses[:count]).all()


def test_a_free_channel_that_contributes_least_leaves_first() -> None:
    """Three channels span two dimensions: any of them is free, but only the small one is nearly without trace."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(300, 2))
    x = np.column_stack([0.01 * (x[:, 0] + x[:, 1]), x])
    weight = np.ones((2, 3))
    view = View(Moments.of(x, x @ weight.T).centred(), blocks(3, 1), weight=weight)
    assert eliminate([view]).order[0] == 0
    assert view.contributions()[0] == pytest.approx(2 * x[:, 0].var())


@pytest.mark.parametrize("pending", [1, 5, 1000])
def test_collected_downdates_change_nothing(monkeypatch, pending: int) -> None:
    views = [View(problem(4, 12, 3, 5), blocks(12, 3))]
    usual = eliminate(views)
    monkeypatch.setattr(greedy_elimination, "PENDING", pending)
    again = eliminate(views)
    assert again.order == usual.order
    np.testing.assert_allclose(again.losses, usual.losses, rtol=1e-8, atol=1e-10 * usual.losses[0])
