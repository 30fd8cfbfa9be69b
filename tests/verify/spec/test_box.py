"""Boxes are exact: what is inside, outward bounds, samples."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.errors import SpecificationError
from verify.spec.box import Box

FRACTIONS = st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=10**9)
TINY = st.builds(lambda a, b: Fraction(a) / 10**b, st.integers(-1000, 1000), st.integers(0, 60))
INTERVALS = st.lists(st.tuples(FRACTIONS | TINY, FRACTIONS | TINY).map(sorted), min_size=1, max_size=5)


def box_of(intervals):
    return Box(tuple(a for a, _ in intervals), tuple(b for _, b in intervals))


@given(INTERVALS)
@settings(deadline=None)
def test_outward_is_the_smallest_containing_float_box(intervals):
    lower, upper = box_of(intervals).outward()
    for (a, b), low, high in zip(intervals, lower.tolist(), upper.tolist(), strict=True):
        assert Fraction(low) <= a < Fraction(math.nextafter(low, math.inf))
        assert Fraction(math.nextafter(high, -math.inf)) < b <= Fraction(high)


@given(INTERVALS, st.data())
@settings(deadline=None)
def test_halves_share_the_cut_and_nothing_is_lost(intervals, data):
    box = box_of(intervals)
    i = data.draw(st.integers(0, box.dimension - 1))
    at = box.lower[i] + (box.upper[i] - box.lower[i]) * data.draw(st.fractions(0, 1))
    below, above = box.halves(i, at)
    assert (below.lower, above.upper, below.upper[i], above.lower[i]) == (box.lower, box.upper, at, at)
    assert [j for j in range(box.dimension) if below.upper[j] != box.upper[j] or above.lower[j] != box.lower[j]] in (
        [],
        [i],
    )
    with pytest.raises(SpecificationError, match="empty"):
        box.halves(i, box.upper[i] + 1)


@given(INTERVALS)
@settings(deadline=None)
def test_the_middle_cuts_the_widest_side_strictly_inside(intervals):
    box = box_of(intervals)
    found = box.middle()
    widths = [b - a for a, b in zip(box.lower, box.upper, strict=True)]
    if found is None:
        middle = (box.lower[i := widths.index(max(widths))] + box.upper[i]) / 2
        assert not box.lower[i] < Fraction(float(middle)) < box.upper[i]
    else:
        i, at = found
        assert widths[i] == max(widths)
        assert box.lower[i] < at < box.upper[i]
        assert at.denominator & (at.denominator - 1) == 0


@given(INTERVALS, st.integers(0, 2**32))
@settings(deadline=None)
def test_samples_lie_inside_and_are_float32_where_possible(intervals, seed):
    box = box_of(intervals)
    points = box.sample(np.random.default_rng(seed), 5)
    first, _ = box.inner()
    for i, (a, b) in enumerate(intervals):
        single = np.float32(float(b))
        if a <= Fraction(float(single)) <= b:
            assert (points[:, i] == points[:, i].astype(np.float32)).all()
        if a <= Fraction(float(first[i])) <= b:
            assert all(a <= Fraction(v) <= b for v in points[:, i].tolist())
        else:  # no float at all inside: the nearest one
            assert abs(Fraction(float(points[0, i])) - a) <= Fraction(math.ulp(float(a)))
    assert all(box.contains(box.nearest(p)) for p in points)


def test_contains_compares_exactly():
    box = Box((Fraction(1, 10),), (Fraction(2, 10),))
    assert not box.contains([math.nextafter(0.1, 0)])
    assert box.contains([0.1])  # the float is slightly above 1/10
    assert not box.contains([0.2])  # this one is slightly above 2/10
    assert box.contains([Fraction(2, 10)])
    assert not box.contains([math.nan])
    assert not box.contains([0.15, 0.15])


def test_around_cuts_and_reads_decimals():
    box = Box.around(np.array([[0.0, 0.5], [1.0, 0.25]], dtype=np.float32), "0.1", minimum=0, maximum=1)
    assert box.dimension == 4
    assert box.lower == (Fraction(0), Fraction(4, 10), Fraction(9, 10), Fraction(15, 100))
    assert box.upper == (Fraction(1, 10), Fraction(6, 10), Fraction(1), Fraction(35, 100))
    assert Box.around([1.0], 0.1).upper == (1 + Fraction(0.1),)


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        ([0.0], [-1.0], "coordinate 0 has lower bound 0 above upper -1"),
        ([0.0, 0.0], [1.0], "as many lower"),
        ([], [], "as many lower"),
        ([math.nan], [1.0], "NaN or infinity"),
        ([0.0], [math.inf], "NaN or infinity"),
        (["0"], ["1"], "dtype"),
        ([True], [True], "dtype"),
    ],
)
def test_ill_formed_boxes_are_refused(lower, upper, message):
    with pytest.raises(SpecificationError, match=message):
        Box.from_floats(np.array(lower), np.array(upper))


@pytest.mark.parametrize(
    ("radius", "minimum", "message"),
    [
        (-1, None, "negative"),
        ("1e999999", None, "exponents"),
        ("x", None, "decimal"),
        (math.inf, None, "finite"),
        (1, 9, "empty"),
    ],
)
def test_ill_formed_radius_is_refused(radius, minimum, message):
    with pytest.raises(SpecificationError, match=message):
        Box.around([0.0], radius, minimum=minimum)


def test_bounds_beyond_float64_are_refused():
    with pytest.raises(SpecificationError, match="float64"):
        Box((Fraction(0),), (Fraction(10) ** 400,))
