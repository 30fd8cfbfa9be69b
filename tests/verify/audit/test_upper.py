"""Exact sums of products, example by example (quick; the laws with random numbers are in test_backward.py)."""

from fractions import Fraction

import numpy as np
import pytest

from verify.audit.exact import Resource
from verify.audit.upper import MOST_PARTS, _limbs, products, total, upward

TOP = 2**41 - 1  # the largest integer of a product


def value(parts: list[tuple[np.ndarray, int]], r: int = 0, leaf: int = 0) -> Fraction:
    for part, _ in parts:
        assert (np.abs(part) < 2.0**52).all()
        assert (part == np.rint(part)).all()
    return sum((int(part[r, leaf]) * Fraction(2) ** e for part, e in parts), start=Fraction(0))


@pytest.mark.parametrize("leaves", [1, 2])
@pytest.mark.parametrize(("body", "factor"), [(TOP, TOP), (-TOP, TOP), (TOP - 2**20, 3), (7, TOP), (2**19 + 3, -5)])
@pytest.mark.parametrize("count", [1, 3, 600, 5000])
def test_products_of_the_largest_integers_are_exact(body: int, factor: int, leaves: int, count: int) -> None:
    """Odd limbs, so that a sum of too many of them is rounded; the second leaf has other numbers."""
    bodies, values = np.full((count, 1, 2), float(body)), np.full((count, leaves), float(factor))
    bodies[:, :, 1] = 2.0**21 + 1
    parts = products(bodies, values, 3)
    assert value(parts) == 8 * count * body * factor
    assert value(parts, leaf=1) == 8 * count * (2**21 + 1) * factor
    odd = products(np.full((count, 1, 1), 2.0**41 - 2.0**20 - 3), np.full((count, 1), 2.0**41 - 2.0**20 - 5), 0)
    assert value(odd) == count * (2**41 - 2**20 - 3) * (2**41 - 2**20 - 5)


@pytest.mark.parametrize("sign", [1, -1])
def test_larger_integers_are_refused(sign: int) -> None:
    body, one = np.ones((1, 1, 1)), np.ones((1, 1))
    assert value(products(sign * TOP * body, one, 0)) == sign * TOP
    for pair in (
        (sign * 2.0**41 * body, one),
        (body, sign * 2.0**41 * one),
        (np.nan * body, one),
        (body, np.nan * one),
    ):
        with pytest.raises(Resource, match="exact products"):
            products(*pair, 0)


def test_limbs_are_the_nearest_integers() -> None:
    values = np.array([0.0, 5.0, 2.0**19, 2.0**19 + 1, 3 * 2.0**20 - 1, -(2.0**40) - 7, 2.0**41 - 1])
    hi, lo = _limbs(values)
    assert (hi * 2.0**20 + lo == values).all()
    assert (hi == np.rint(hi)).all()
    assert (np.abs(lo) <= 2.0**19).all()
    assert (np.abs(hi) <= 2.0**21).all()


def test_small_integers_are_not_rounded_up_and_large_ones_are() -> None:
    found, exponent = upward(np.array([2.0**40 - 1, -3.0]), 5)
    assert (found.tolist(), exponent) == ([2.0**40 - 1, -3.0], 5)
    found, exponent = upward(np.array([2.0**42 + 1, -(2.0**42) - 1, 0.0]), 5)
    assert (found.tolist(), exponent) == ([2.0**39 + 1, -(2.0**39), 0.0], 8)
    found, exponent = upward(np.array([3.0, -(2.0**42)]), 5)
    assert (found.tolist(), exponent) == ([1.0, -(2.0**39)], 8)


def test_a_total_is_not_below_the_sum_and_close_to_it() -> None:
    zero = np.zeros((1, 1))

    def one(number: float, exponent: int) -> tuple[np.ndarray, int]:
        return zero + number, exponent

    for parts in (
        [one(2.0**40 - 1, 0), one(1.0, -60)], [one(1.0, -60), one(2.0**40 - 1, 0)], [one(-(2.0**50), 0), one(3.0, -1)],
        [one(5.0, 0), one(0.0, 190)], [one(2.0**51, 7)] * 40, [one(3.0, 0)],
        [one(2.0**40 - 1, 100), one(1.0, 60)],
    ):  # fmt: skip
        bound, unit = total(parts, zero)
        above = value([(bound, unit)]) - sum(int(p[0, 0]) * Fraction(2) ** e for p, e in parts)
        largest = max(abs(int(p[0, 0])) * Fraction(2) ** e for p, e in parts)
        assert 0 <= above <= len(parts) * largest * Fraction(2) ** -38
    assert [(b.tolist(), unit) for b, unit in (total([], zero),)] == [([[0.0]], -40)]


def test_zeros_among_the_numbers_cost_nothing_of_the_others() -> None:
    """As many terms as leaves; a row of zeros, one that is zero on some leaves, small numbers beside large ones."""
    values = np.array([[0.0, 0.0, 0.0], [7.0, 0.0, -(2.0**30)], [2.0**35, 0.0, 1.0]])
    body = np.arange(18, dtype=np.float64).reshape(3, 2, 3) * 2.0**22 - 5
    parts = products(body, values, 0)
    bound, unit = total(parts, np.zeros((2, 3)))
    for r in range(2):
        for leaf in range(3):
            exact = sum(int(body[i, r, leaf]) * int(values[i, leaf]) for i in range(3))
            assert value(parts, r, leaf) == exact
            assert value([(bound, unit)], r, leaf) >= exact
    assert value(products(body, 0 * values, 0)) == 0
    some = np.array([[1.0, 0.0]])
    assert [value([total([(some, 0), (3 * some, 5)], np.zeros((1, 2)))], 0, leaf) for leaf in (0, 1)] == [97, 0]


def test_there_is_a_limit_to_the_parts_of_a_total() -> None:
    part = (np.ones((1, 1)), 0)
    bound, unit = total([part] * MOST_PARTS, np.zeros((1, 1)))
    assert value([(bound, unit)]) == MOST_PARTS
    with pytest.raises(Resource, match="too many parts"):
        total([part] * (MOST_PARTS + 1), np.zeros((1, 1)))


@pytest.mark.parametrize("shape", [(1, 2, 3), (3, 1, 1), (3, 2, 1), (2, 3, 2), (1, 1, 1)])
def test_every_leaf_and_row_has_its_own_sum(shape: tuple[int, int, int]) -> None:
    n, rows, leaves = shape
    body = np.arange(n * rows * leaves, dtype=np.float64).reshape(shape) + 2.0**30
    for count in {1, leaves}:
        values = np.arange(n * count, dtype=np.float64).reshape(n, count) - 2.0**25
        parts = products(body, values, -3)
        for r in range(rows):
            for leaf in range(leaves):
                exact = sum(int(body[i, r, leaf]) * int(values[i, leaf % count]) for i in range(n))
                assert value(parts, r, leaf) * 8 == exact
        assert all(part.shape == (rows, leaves) for part, _ in parts)
