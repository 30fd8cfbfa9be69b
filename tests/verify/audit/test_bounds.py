"""Bounds of a pair: each side sharpened by the right sides of the other two, in a unit in which products stay exact."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from verify.audit import rules
from verify.audit.form import CENTRE, Form
from verify.audit.planes import Inconsistent
from verify.audit.rules import Bounds, Symbols, Values, bounds_of, sharpened

KEPT = np.array([0])


def pair(*ends: int) -> tuple[np.ndarray, np.ndarray]:
    low, high = (np.array([[float(v)]]) for v in ends)
    return low, high


CASES = [
    ((5, 6), (-10, 10), (-1, 1)), ((-10, 10), (5, 6), (-1, 1)), ((5, 6), (1, 3), (-90, 90)),
    ((-9, 9), (-9, 9), (4, 5)), ((-9, 9), (-9, 9), (-5, -4)), ((-3, 8), (2, 3), (-7, 7)), ((2, 3), (-3, 8), (-7, 7)),
    ((0, 0), (0, 0), (0, 0)), ((-8, 3), (-2, 9), (-4, 4)), ((-2, 9), (-8, 3), (-4, 4)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_sharpened_bounds_hold_and_are_the_intervals_of_the_equation(case: tuple[tuple[int, int], ...]) -> None:
    """Against all integer points of z - y = D: none is lost, and D is as narrow as one look at z and y makes it."""
    (lz, uz), (ly, uy), (dl, du) = case
    b = sharpened(Bounds(0, *(pair(*ends) for ends in case)), KEPT)
    assert b.y is not None
    assert b.d is not None
    found = [(float(p[0][0, 0]), float(p[1][0, 0])) for p in (b.z, b.y, b.d)]
    points = [(z, y, z - y) for z, y in product(range(lz, uz + 1), range(ly, uy + 1)) if dl <= z - y <= du]
    for k, (low, high) in enumerate(found):
        assert (low, high) == (min(p[k] for p in points), max(p[k] for p in points))


def test_only_the_kept_elements_are_sharpened() -> None:
    z = np.array([[-9.0], [-9.0], [-9.0]]), np.array([[9.0], [9.0], [9.0]])
    y, d = (np.array([[1.0], [2.0]]), np.array([[1.0], [2.0]])), (np.zeros((2, 1)), np.zeros((2, 1)))
    b = sharpened(Bounds(0, z, y, d), np.array([2, 0]))
    assert b.z[0].ravel().tolist() == [2, -9, 1]
    assert b.z[1].ravel().tolist() == [2, 9, 1]
    assert z[0].ravel().tolist() == [-9, -9, -9]  # what was given stays as it was


def test_contradictions_are_seen_in_every_place() -> None:
    good, bad = pair(0, 0), pair(5, 6)
    for case in ((bad, good, good), (good, bad, good), (good, good, bad)):
        with pytest.raises(Inconsistent, match="do not meet"):
            sharpened(Bounds(0, *case), KEPT)
        beside = (tuple(np.concatenate([g, c], axis=1) for g, c in zip(good, ends, strict=True)) for ends in case)
        with pytest.raises(Inconsistent, match="do not meet"):  # in the second leaf only
            sharpened(Bounds(0, *beside), KEPT)  # type: ignore[arg-type]


def test_without_y_or_d_there_is_nothing_to_sharpen() -> None:
    z = pair(0, 1)
    for b in (Bounds(0, z), Bounds(0, z, z), Bounds(0, z, None, z)):
        assert sharpened(b, KEPT) is b


def test_bounds_on_some_leaves_are_those_of_these_leaves() -> None:
    low, high = np.array([[1.0, 2.0, 3.0]]), np.array([[4.0, 5.0, 6.0]])
    some = Bounds(-3, (low, high), (low + 10, high + 10), None).some(np.array([2, 0]))
    assert some.y is not None
    assert [a.tolist() for a in (*some.z, *some.y)] == [[[3, 1]], [[6, 4]], [[13, 11]], [[16, 14]]]
    assert (some.d, some.unit) == (None, -3)


def wide(exponent: int) -> Form:
    """A form that fills its range: |value| below 2^40 units."""
    return Form(exponent, CENTRE, np.full((1, 1, 1), 2.0**39), np.full((1, 1), 2.0**39 - 1))


@pytest.mark.parametrize("z", [-60, 0, 30])
@pytest.mark.parametrize("y", [-60, 0, 30])
def test_bounds_are_outward_in_a_unit_with_room_for_products(z: int, y: int) -> None:
    """Whatever the units of the forms: integers of at most 39 bits, so that 3 ONE times them stays below 2^52."""
    first, second = wide(z), wide(y)
    d = Form(max(z, y) + 1, CENTRE, np.zeros((1, 1, 1)), np.full((1, 1), 2.0**39))
    for values in (Values(first), Values(first, second), Values(first, second, d)):
        b = bounds_of(values, KEPT)
        for form, ends in ((first, b.z), (second, b.y)):
            if ends is None:
                continue
            assert max(abs(a[0, 0]) for a in ends) <= 2**39
            low, high = (int(a[0, 0]) * Fraction(2) ** b.unit for a in ends)
            unit = Fraction(2) ** form.exponent
            assert low <= unit
            assert high >= unit * (2**40 - 1)
        assert (b.y is None) is (values.y is None)
        assert (b.d is None) is (values.d is None)
        if b.d is not None:
            assert max(abs(a[0, 0]) for a in b.d) <= 2**40


@pytest.mark.parametrize("y", [None, 1])
def test_a_relu_bounds_only_what_it_is_given(y: int | None) -> None:
    one = Form(0, CENTRE, np.ones((1, 1, 1)), np.zeros((1, 1)))
    found = rules.relu(Values(one, None if y is None else one), KEPT, Symbols(2, np.array([9.0])))
    assert (found.y is None) is (y is None)
    assert found.d is None
