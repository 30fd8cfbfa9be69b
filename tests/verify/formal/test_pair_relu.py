"""The vertex rule: offsets bound the difference of two ReLUs for any slopes, and are attained."""

from fractions import Fraction
from itertools import product

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.formal.pair_relu import Region, best_plane, offsets
from verify.formal.relu import SLOPE_BITS, chord_slope

NUMBERS = st.one_of(
    st.integers(-8, 8).map(float),
    st.floats(-100, 100, allow_nan=False, width=32),
    st.floats(-(2.0**-20), 2.0**-20, allow_nan=False, width=32),
    st.just(0.0),
)
WIDTHS = st.one_of(st.just(0.0), st.floats(0, 50, allow_nan=False, width=32), st.floats(0, 2.0**-20, width=32))
SLOPES = st.integers(0, 2**SLOPE_BITS).map(lambda k: k * 2.0**-SLOPE_BITS)


@st.composite
def regions(draw):
    """Bounds that hold for at least one pair of values (z, y), as six floats, and that pair."""
    z, y = draw(NUMBERS), draw(NUMBERS)
    d = z - y  # exact enough: the bounds are drawn outward from it
    bounds = []
    for value in (z, y, d):
        bounds += [value - draw(WIDTHS), value + draw(WIDTHS)]
    if Fraction(bounds[4]) > Fraction(z) - Fraction(y) or Fraction(bounds[5]) < Fraction(z) - Fraction(y):
        bounds[4] -= 1e-5 * (1 + abs(d))
        bounds[5] += 1e-5 * (1 + abs(d))
    return tuple(bounds), (Fraction(z), Fraction(y))


def relu(v):
    return max(v, Fraction(0))


def exact_vertices(bounds):
    """All vertices of all cells, in exact arithmetic: every pair of lines that meets inside the region."""
    lz, uz, ly, uy, dl, du = map(Fraction, bounds)
    zs, ys, ds = (lz, Fraction(0), uz), (ly, Fraction(0), uy), (dl, du)
    points = [*product(zs, ys)] + [(z, z - d) for z, d in product(zs, ds)] + [(y + d, y) for y, d in product(ys, ds)]
    return [(z, y) for z, y in points if lz <= z <= uz and ly <= y <= uy and dl <= z - y <= du]


def rest(point, a, b):
    z, y = point
    return relu(z) - relu(y) - Fraction(a) * z - Fraction(b) * (z - y)


def one(value):
    return torch.tensor([value], dtype=torch.float64)


def region_of(bounds):
    return Region(*map(one, bounds))


@given(regions(), SLOPES, SLOPES)
@settings(deadline=None, max_examples=150)
def test_offsets_bound_every_vertex_and_are_attained(drawn, total, b):
    bounds, inside = drawn
    a = total - b
    lower, upper = (float(t) for t in offsets(region_of(bounds), one(a)[:, None], one(b)[:, None]))
    vertices = exact_vertices(bounds)
    values = [rest(p, a, b) for p in [*vertices, inside]]
    assert Fraction(lower) <= min(values)
    assert max(values) <= Fraction(upper)
    room = Fraction(2) ** -40 * (1 + max(abs(Fraction(v)) for v in bounds))
    assert Fraction(upper) <= max(values) + room
    assert Fraction(lower) >= min(values) - room


@given(regions(), st.randoms(use_true_random=False), SLOPES, SLOPES)
@settings(deadline=None, max_examples=60)
def test_planes_bound_every_point_of_the_region(drawn, random, slope_z, slope_y):
    bounds, inside = drawn
    lz, uz, ly, uy, dl, du = map(Fraction, bounds)
    plane = best_plane(region_of(bounds), one(slope_z), one(slope_y), torch.tensor([False]))
    a, b, middle, half = (Fraction(float(t)) for t in (plane.a, plane.b, plane.middle, plane.half))
    shares = [(Fraction(random.random()), Fraction(random.random())) for _ in range(20)]
    points = [inside] + [(lz + s * (uz - lz), ly + t * (uy - ly)) for s, t in shares]
    for z, y in points:
        if dl <= z - y <= du:
            assert abs(relu(z) - relu(y) - a * z - b * (z - y) - middle) <= half


@given(regions(), SLOPES, SLOPES)
@settings(deadline=None, max_examples=60)
def test_without_a_symbol_the_plane_is_the_interval_hull(drawn, slope_z, slope_y):
    bounds, inside = drawn
    plane = best_plane(region_of(bounds), one(slope_z), one(slope_y), torch.tensor([True]))
    assert float(plane.a) == 0.0
    assert float(plane.b) == 0.0
    values = [rest(p, 0, 0) for p in [*exact_vertices(bounds), inside]]
    assert abs(max(values) - Fraction(float(plane.middle + plane.half))) <= Fraction(2) ** -38 * 200
    assert abs(min(values) - Fraction(float(plane.middle - plane.half))) <= Fraction(2) ** -38 * 200


@given(regions())
@settings(deadline=None, max_examples=60)
def test_sharpened_bounds_keep_every_point(drawn):
    bounds, (z, y) = drawn
    margin = Fraction(2) ** -49
    wide = [
        Fraction(v) + (margin * abs(Fraction(v)) if i % 2 else -margin * abs(Fraction(v))) for i, v in enumerate(bounds)
    ]
    sharp = Region(*(one(float(v)) for v in wide)).sharpened()
    lz, uz, ly, uy, dl, du = (Fraction(float(t)) for t in sharp.parts())
    assert lz <= z <= uz
    assert ly <= y <= uy
    assert dl <= z - y <= du


def test_known_phases_are_exact():
    cases = {
        (1.0, 2.0, 1.0, 3.0): (0.0, 1.0),  # both active: D
        (-2.0, -1.0, -3.0, -1.0): (0.0, 0.0),  # both inactive: 0
        (1.0, 2.0, -3.0, -1.0): (1.0, 0.0),  # only z active: z
        (-2.0, -1.0, 1.0, 3.0): (-1.0, 1.0),  # only y active: -y = D - z
    }
    for (lz, uz, ly, uy), (a, b) in cases.items():
        lower, upper = offsets(Region(*map(one, (lz, uz, ly, uy, lz - uy, uz - ly))), one(a)[:, None], one(b)[:, None])
        assert float(upper) <= 1e-12
        assert float(lower) >= -1e-12


@given(st.floats(-1e3, 0), st.floats(0, 1e3))
def test_chord_slopes_are_short_and_close(lower, upper):
    slope = float(chord_slope(one(lower), one(upper)))
    assert 0.0 <= slope <= 1.0
    assert slope * 2.0**SLOPE_BITS == int(slope * 2.0**SLOPE_BITS)
    if lower < 0 < upper:
        assert abs(slope - upper / (upper - lower)) <= 2.0**-SLOPE_BITS
