"""Offsets of planes are the extremes over the whole points of regions whose corners are whole: counted, not argued."""

import itertools

import numpy as np
import pytest

from verify.audit.planes import ONE, Inconsistent, best_plane, offsets, slopes, two_planes, vertices

INTERVALS = [(-2, -1), (-1, -1), (-2, 1), (-1, 0), (0, 0), (0, 2), (-1, 2), (1, 2)]
REGIONS = [
    (*z, *y, *d)
    for z, y in itertools.product(INTERVALS, INTERVALS)
    for d in [(-3, 3), (-2, -1), (-1, 0), (0, 0), (-1, 2), (1, 3)]
    if any(d[0] <= p - q <= d[1] for p in range(z[0], z[1] + 1) for q in range(y[0], y[1] + 1))
]
ENDS = [np.array(column, dtype=np.float64) for column in zip(*REGIONS, strict=True)]


def points(region: tuple[int, ...]) -> list[tuple[int, int]]:
    """All whole (z, D) of a region."""
    lz, uz, ly, uy, dl, du = region
    pairs = ((z, z - y) for z in range(lz, uz + 1) for y in range(ly, uy + 1))
    return [(z, d) for z, d in pairs if dl <= d <= du]


def extremes(region: tuple[int, ...], a: float, b: float) -> tuple[float, float]:
    values = [ONE * (max(z, 0) - max(z - d, 0)) - a * z - b * d for z, d in points(region)]
    return min(values), max(values)


@pytest.mark.parametrize("scale", [1.0, 2.0**36])
def test_offsets_are_the_extremes(scale: float) -> None:
    """Also where numbers are so large that a factor 1 + 1e-12 would move a corner."""
    rng = np.random.default_rng(0)
    a, b = np.rint(rng.uniform(-ONE, ONE, (2, 5, len(REGIONS))))
    bottom, top = offsets([scale * e for e in ENDS], a, b)
    for i, region in enumerate(REGIONS):
        for k in range(5):
            low, high = extremes(region, a[k, i], b[k, i])
            assert (bottom[k, i], top[k, i]) == (scale * low, scale * high), region


def test_vertices_inside_are_all_corners_of_the_pieces() -> None:
    z, d, inside = vertices(*ENDS)
    assert z.shape == d.shape == inside.shape == (21, len(REGIONS))
    for i, region in enumerate(REGIONS):
        found = {(int(p), int(q)) for p, q in zip(z[inside[:, i], i], d[inside[:, i], i], strict=True)}
        assert found <= set(points(region))
        lz, uz, ly, uy, _, _ = region
        assert {(p, p - q) for p, q in itertools.product({lz, uz, 0}, {ly, uy, 0})} & set(points(region)) <= found


def test_a_region_without_points_is_a_fault() -> None:
    assert vertices(*(np.array([e]) for e in (1.0, 2.0, 1.0, 2.0, -1.0, 1.0)))[2].any()  # its zeros lie outside
    for empty in [(0, 1, 5, 6, 0, 1), (0, 1, 0, 1, 3, 4), (2, 3, 0, 1, 0, 0)]:
        ends = [np.array([float(e), other]) for e, other in zip(empty, (0, 1, 0, 1, 0, 0), strict=True)]
        with pytest.raises(Inconsistent, match="empty"):
            vertices(*ends)


@pytest.mark.parametrize("mixed", [None, True])
def test_planes_hold_and_touch(mixed: bool | None) -> None:
    rows = two_planes(ENDS, None if mixed is None else np.full(len(REGIONS), mixed))
    best = best_plane(ENDS, np.ones(len(REGIONS), dtype=bool))
    flat = best_plane(ENDS, np.zeros(len(REGIONS), dtype=bool))
    assert not flat[:2].any()
    for i, region in enumerate(REGIONS):
        assert extremes(region, *rows[:2, i])[0] == rows[2, i]
        assert extremes(region, *rows[3:5, i])[1] == rows[5, i]
        for plane in (best[:, i], flat[:, i]):
            assert extremes(region, *plane[:2]) == (plane[2], plane[3])
        assert best[3, i] - best[2, i] <= flat[3, i] - flat[2, i]


def test_slopes_are_those_of_the_chord() -> None:
    low, high = np.array([-1.0, -3.0, 0.0, 1.0, -2.0, -2.0]), np.array([1.0, 1.0, 2.0, 2.0, 0.0, -1.0])
    assert slopes(low, high).tolist() == [512.0, 256.0, 1024.0, 1024.0, 0.0, 0.0]
