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


@pytest.mark.parametrize("remainder", [0, 3, 40])
@pytest.mark.parametrize(("centre", "radius"), [(0, 8), (5, 9), (-5, 9), (7, 2), (30, 4), (-30, 4), (-1, 1), (1, 1)])
@pytest.mark.parametrize("budget", [0.0, 1.0])
@pytest.mark.parametrize("exponent", [-3, 0, 3])
def test_a_line_leaves_room_for_the_remainder(
    centre: int, radius: int, remainder: int, budget: float, exponent: int
) -> None:
    """x = centre + radius xi + remainder eta: for every xi all relu(x) must lie in what the line says at that xi."""
    x = Form(0, (*CENTRE, (1, 1)), np.array([[[float(centre)], [float(radius)]]]), np.array([[float(remainder)]]))
    low, high = x.bounds(exponent)
    found = rules.relu_line(x, low, high, exponent, Symbols(2, np.array([budget])))
    unit = Fraction(2) ** found.exponent
    columns = [int(v) * unit for v in found.body[0, :, 0].tolist()]
    slope = columns[1] if (1, 1) in found.blocks else Fraction(0)
    room = sum(abs(v) for v in columns[2:]) + int(found.rem[0, 0]) * unit
    widths = []
    for xi in (Fraction(i, 4) for i in range(-4, 5)):
        value = columns[0] + slope * xi
        ends = [max(centre + radius * xi + eta * remainder, Fraction(0)) for eta in (-1, 0, 1)]
        assert value - room <= min(ends)
        assert max(ends) <= value + room
        widths.append(room)
    linear = centre - radius - remainder >= 0 or centre + radius + remainder <= 0
    if budget and not linear:  # half the height at most half of the triangle's, and the remainder
        assert max(widths) <= (radius + remainder) * Fraction(51, 100) + remainder + 2**exponent * 2
    if linear:
        assert max(widths) <= remainder + Fraction(1, 2**20)


def shared(centre: int, slope: int, remainder: int, exponent: int) -> Form:
    """centre + slope xi + remainder eta in units of 2^exponent, for multiples of it."""
    scale = 2.0**-exponent
    body = np.array([[[centre * scale], [slope * scale]]])
    return Form(exponent, (*CENTRE, (1, 1)), body, np.array([[remainder * scale]]))


@pytest.mark.parametrize(
    ("z", "d"),
    [
        ((0, 8, 0), (0, 2, 0)), ((0, 8, 3), (1, 0, 2)), ((0, 8, 3), (1, -3, 2)), ((6, 8, 5), (4, 2, 3)),
        ((-6, 8, 5), (-4, 2, 3)), ((20, 8, 5), (4, 2, 3)), ((-20, 8, 5), (-4, 2, 3)), ((20, 4, 5), (40, 2, 3)),
        ((-20, 4, 5), (-40, 2, 3)), ((0, 1, 9), (0, 0, 9)), ((3, 0, 2), (3, 0, 2)), ((9, 2, 7), (0, 1, 0)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("budget", [0.0, 9.0])
@pytest.mark.parametrize("exponents", [(0, 0), (-2, 0), (0, -3)])
def test_a_plane_leaves_room_for_both_remainders(
    z: tuple[int, int, int], d: tuple[int, int, int], budget: float, exponents: tuple[int, int]
) -> None:
    """For every xi and all remainders, relu(z) - relu(z - D) must lie in what the plane says at that xi."""
    first, second = (shared(*v, e) for v, e in zip((z, d), exponents, strict=True))
    ends = [pair(v[0] - abs(v[1]) - v[2], v[0] + abs(v[1]) + v[2]) for v in (z, d)]
    reach = abs(z[1] - d[1]) + z[2] + d[2]
    y = pair(z[0] - d[0] - reach, z[0] - d[0] + reach)
    found = rules._relu_difference(first, second, Bounds(0, ends[0], y, ends[1]), KEPT, Symbols(2, np.array([budget])))
    unit = Fraction(2) ** found.exponent
    columns = [int(v) * unit for v in found.body[0, :, 0].tolist()]
    slope = columns[1] if (1, 1) in found.blocks else Fraction(0)
    others = columns[2:] if (1, 1) in found.blocks else columns[1:]
    room = sum(abs(v) for v in others) + int(found.rem[0, 0]) * unit
    for xi, at, by in product((Fraction(i, 4) for i in range(-4, 5)), (-1, 0, 1), (-1, 0, 1)):
        here, apart = z[0] + z[1] * xi + at * z[2], d[0] + d[1] * xi + by * d[2]
        value = max(here, Fraction(0)) - max(here - apart, Fraction(0))
        assert columns[0] + slope * xi - room <= value <= columns[0] + slope * xi + room
    active = ends[0][0][0, 0] >= 0 and y[0][0, 0] >= 0
    dead = ends[0][1][0, 0] <= 0 and y[1][0, 0] <= 0
    assert not active or room <= d[2] + Fraction(1, 2**20)
    assert not dead or (room, columns[0], slope) == (0, 0, 0)


@pytest.mark.parametrize("widths", [(3, 2), (2, 3), (1, 3), (3, 1), (3, 3)])
@pytest.mark.parametrize("largest", [0, 1, 2])
def test_windows_of_other_widths_are_each_taken_whole(widths: tuple[int, int], largest: int) -> None:
    """One window a network, of one to three elements: the maximum is over all of its own and none of the other's."""
    from verify.audit.lift import Stage
    from verify.audit.program import Step

    values = [-7.0, -8.0, -9.0]
    values[largest] = -2.0
    taps = [np.arange(width)[None] for width in widths]
    steps = [Step("m", "max", ("x",), (1,), t) for t in taps]
    x = Form(0, CENTRE, np.array(values)[:, None, None], np.zeros((3, 1)))
    stage = Stage(steps[0], (0,), steps[1], (0,), kept=KEPT)
    (found,) = rules.propagate([stage], Values(x, x, None), Symbols(2, np.array([9.0])), (1,))
    assert found.y is not None
    assert found.d is not None
    z, y = (max(values[:width]) for width in widths)
    for form, value in ((found.z, z), (found.y, y), (found.d, z - y)):
        low, high = form.bounds(-10)
        assert low[0, 0] <= value * 2**10 <= high[0, 0]
        assert high[0, 0] - low[0, 0] <= 2


@pytest.mark.parametrize("window", [[2, 1, 0], [1, 0, 2], [0, 1, -1], [2, -1, 0], [2, -1, -1]])
@pytest.mark.parametrize("values", [[5.0, 6.0, 4.0], [-5.0, -6.0, -4.0], [9.0, -6.0, 4.0]])
def test_elements_of_a_window_come_in_any_order_and_missing_ones_count_as_absent(
    window: list[int], values: list[float]
) -> None:
    from verify.audit.lift import Stage
    from verify.audit.program import Step

    step = Step("m", "max", ("x",), (1,), np.array([window]))
    x = Form(0, CENTRE, np.array(values)[:, None, None], np.zeros((3, 1)))
    stage = Stage(step, (0,), step, (0,), kept=KEPT)
    (found,) = rules.propagate([stage], Values(x, x, None), Symbols(2, np.array([9.0])), (1,))
    assert found.y is not None
    for form in (found.z, found.y):
        low, high = form.bounds(-10)
        assert low[0, 0] <= 2**10 * max(values[i] for i in window if i >= 0) <= high[0, 0]
        assert high[0, 0] - low[0, 0] <= 2
