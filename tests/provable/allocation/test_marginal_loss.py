"""Counts meet the budget, cost no more loss than any other counts that do, and say so when nothing can."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provable.allocation.budget import Budget, budget_of
from provable.allocation.marginal_loss import allocate, lower_hull, outlasting
from provable.allocation.uniform import uniform
from provable.allocation.widths import allowed, allowed_widths
from provable.errors import BudgetError, InputError

curves = st.lists(st.lists(st.floats(0.0, 10.0), min_size=2, max_size=7), min_size=1, max_size=3)


def falling(steps: list[float]) -> np.ndarray:
    """A curve that never rises, ending at 0."""
    return np.append(np.cumsum(steps[::-1])[::-1], 0.0)


def convex(steps: list[float]) -> np.ndarray:
    return falling(sorted(steps, reverse=True))


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.floats(0.0, 10.0), min_size=1, max_size=12))
def test_hull_is_convex_below_and_touches_the_ends(steps: list[float]) -> None:
    losses = falling(steps)
    hull = lower_hull(losses)
    assert (hull <= losses + 1e-9).all()
    assert (hull[0], hull[-1]) == (losses[0], losses[-1])
    assert (np.diff(hull, 2) >= -1e-9).all()


@settings(max_examples=60, deadline=None)
@given(steps=curves, fraction=st.floats(0.3, 1.0), price=st.integers(1, 5))
def test_counts_meet_the_budget_and_are_the_best_that_pay_as_much(steps, fraction: float, price: int) -> None:
    """On convex curves with equal prices the greedy counts are optimal for the cost they reach."""
    losses = {str(i): convex(s) for i, s in enumerate(steps)}
    sizes = [len(s) for s in steps]
    widths = {name: allowed(len(losses[name]) - 1) for name in losses}

    def cost(counts: np.ndarray) -> np.ndarray:
        return price * counts.sum(axis=-1)

    if len(steps) > fraction * sum(sizes):
        with pytest.raises(BudgetError, match="cannot be met"):
            allocate(losses, cost, Budget("flops", fraction), widths)
        return
    found = allocate(losses, cost, Budget("flops", fraction), widths)
    reached = sum(found.counts.values())
    assert len(steps) <= reached <= fraction * sum(sizes) + 1e-9
    assert reached > fraction * sum(sizes) - 1  # no slot more than needed was removed
    paid = sum(losses[name][count] for name, count in found.counts.items())
    others = itertools.product(*(range(1, size + 1) for size in sizes))
    best = min(sum(losses[str(i)][k] for i, k in enumerate(c)) for c in others if sum(c) == reached)
    assert paid == pytest.approx(best, abs=1e-9)


def test_cost_counts_at_the_current_widths() -> None:
    """A chain's cost is a product: removing from one layer makes the other cheaper."""
    losses = {"a": convex([1.0] * 4), "b": convex([1.1] * 4)}
    found = allocate(losses, lambda c: c[..., 0] * c[..., 1], Budget("flops", 0.25), {"a": allowed(4), "b": allowed(4)})
    assert found.counts["a"] * found.counts["b"] <= 4


def test_everything_stays_at_fraction_one() -> None:
    found = allocate({"a": convex([1.0, 2.0])}, lambda c: c[..., 0], Budget("flops", 1.0), {"a": allowed(2)})
    assert found.counts == {"a": 2}


def test_floors_hold() -> None:
    losses = {"a": convex([0.0] * 8), "b": convex([5.0] * 8)}
    found = allocate(losses, lambda c: c.sum(-1), Budget("flops", 0.5), {"a": allowed(8, 3), "b": allowed(8)})
    assert found.counts == {"a": 3, "b": 5}


def test_uniform_rounds_and_keeps_the_floor() -> None:
    found = uniform({"a": allowed(10), "b": allowed(3), "c": allowed(64, 20)}, 0.25)
    assert found.counts == {"a": 3, "b": 1, "c": 20}


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ({}, "names 0 budgets"),
        ({"flops": 0.5, "params": 0.5}, "names 2 budgets"),
        ({"time": 0.5}, "unknown budget 'time'"),
        ({"flops": 0.0}, "a number in"),
        ({"flops": 1.5}, "a number in"),
        ({"flops": float("nan")}, "a number in"),
        ({"flops": True}, "a number in"),
        ({"flops": "half"}, "a number in"),
    ],
)
def test_senseless_budgets_are_refused(keep: dict, words: str) -> None:
    with pytest.raises(BudgetError, match=words):
        budget_of(keep)


@settings(max_examples=80, deadline=None)
@given(size=st.integers(1, 70), floor=st.integers(1, 80), multiple=st.integers(1, 16))
def test_allowed_widths_are_multiples_from_the_floor_on(size: int, floor: int, multiple: int) -> None:
    widths = allowed(size, floor, multiple)
    assert widths[-1] == size
    assert list(widths) == sorted(set(widths))
    assert widths[0] >= min(floor, size)
    assert all(width % multiple == 0 for width in widths[:-1]) or size <= multiple


def test_a_group_no_wider_than_the_multiple_may_take_any_width() -> None:
    assert allowed(16, 1, 16) == tuple(range(1, 17))
    assert allowed(15, 4, 16) == tuple(range(4, 16))
    assert allowed(17, 1, 16) == (16, 17)
    assert allowed(64, 1, 16) == (16, 32, 48, 64)


@settings(max_examples=40, deadline=None)
@given(steps=curves, fraction=st.floats(0.3, 1.0), multiple=st.integers(2, 4))
def test_rounded_counts_meet_the_budget_and_are_allowed(steps, fraction: float, multiple: int) -> None:
    losses = {str(i): falling(s) for i, s in enumerate(steps)}
    widths = allowed_widths({name: len(curve) - 1 for name, curve in losses.items()}, 1, multiple)
    try:
        found = allocate(losses, lambda c: c.sum(-1), Budget("flops", fraction), widths)
    except BudgetError:
        assert sum(w[0] for w in widths.values()) > fraction * sum(w[-1] for w in widths.values())
        return
    assert sum(found.counts.values()) <= fraction * sum(w[-1] for w in widths.values())
    assert all(found.counts[name] in widths[name] for name in widths)


def test_floors_by_share_and_by_group() -> None:
    assert allowed_widths({"a": 10, "b": 3}, 0.25, 1)["a"][0] == 3
    found = allowed_widths({"a": 10, "b": 8}, {"b": 5}, 1)
    assert (found["a"][0], found["b"][0]) == (1, 5)


@pytest.mark.parametrize("floor", [0, -1, 1.5, 0.0, True, {"a": 0}, {"nobody": 2}])
def test_senseless_floors_are_refused(floor) -> None:
    with pytest.raises(InputError, match="floor"):
        allowed_widths({"a": 4}, floor, 1)


def test_senseless_multiple_is_refused() -> None:
    with pytest.raises(InputError, match="round_to"):
        allowed_widths({"a": 4}, 1, 0)


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.lists(st.floats(0.01, 10.0), min_size=2, max_size=7), min_size=2, max_size=4))
def test_a_later_layer_never_loses_more_than_its_twin_in_front(steps) -> None:
    """What outlasts the refits behind a layer: nothing is taken from the last, and more from every earlier one."""
    losses = {str(i): convex(steps[0]) for i in range(len(steps))}
    left = outlasting(losses)
    assert list(left) == list(losses)
    assert (left[str(len(steps) - 1)] == losses["0"]).all()
    widths = {name: allowed(len(curve) - 1) for name, curve in losses.items()}
    counts = allocate(left, lambda counts: counts.sum(axis=-1), Budget("flops", 0.6), widths).counts
    assert list(counts.values()) == sorted(counts.values())
