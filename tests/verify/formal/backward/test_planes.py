"""Planes and lines with any slopes hold on their region; settled neurons cost nothing."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.formal.backward.planes import Slopes, best_slopes, corners
from verify.formal.pair_relu import Region


def region_around(z, y, rng):
    """A region that contains the points ``(points, m)``, sometimes touching them."""
    d = z - y
    parts = []
    for v in (z, y, d):
        slack = rng.exponential(1.0, (2, v.shape[1])) * rng.integers(0, 2, (2, v.shape[1]))
        parts += [v.min(0) - slack[0], v.max(0) + slack[1]]
    return Region(*(torch.from_numpy(p)[None] for p in parts))


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_planes_of_any_slopes_hold(seed):
    rng = np.random.default_rng(seed)
    scale = 2.0 ** rng.integers(-30, 30)
    z = rng.normal(rng.normal(), 1.0, (20, 9)) * scale
    y = z + rng.normal(rng.normal(), 1.0, (20, 9)) * scale * 2.0 ** -rng.integers(0, 20)
    region = region_around(z, y, rng)
    corner = corners(region)
    low, high = best_slopes(region, corner)
    any_slopes = tuple(torch.from_numpy(rng.normal(0, 2, (1, 3, 9))) for _ in range(4))
    for slopes in (
        Slopes(z=torch.zeros(1), upper=high, lower=low),
        Slopes(torch.zeros(1), None, any_slopes[:2], any_slopes[2:]),
    ):
        below, over = corner.planes(slopes)
        d = torch.from_numpy(np.maximum(z, 0) - np.maximum(y, 0))[:, None]
        zt, dt = torch.from_numpy(z)[:, None], torch.from_numpy(z - y)[:, None]
        noise = 1e-13 * scale
        assert (d <= over.a * zt + over.b * dt + over.offset + noise).all()
        assert (d >= below.a * zt + below.b * dt + below.offset - noise).all()


def test_the_offset_is_attained():
    """Without slack the plane touches the function: the vertices are neither too few nor too many."""
    rng = np.random.default_rng(5)
    grid = np.linspace(-1, 1, 201)
    z, y = (g.ravel() for g in np.meshgrid(grid, grid))
    inside = np.abs(z - y) <= 0.3 + 1e-9
    z, y = z[inside], y[inside]
    one = torch.ones(1, 1).double()
    corner = corners(Region(-one, one, -one, one, -0.3 * one, 0.3 * one))
    for _ in range(20):
        a, b = (torch.full((1, 1, 1), float(v)).double() for v in rng.normal(size=2))
        below, over = corner.planes(Slopes(torch.zeros(1), None, (a, b), (a, b)))
        rest = np.maximum(z, 0) - np.maximum(y, 0) - float(a) * z - float(b) * (z - y)
        np.testing.assert_allclose([float(below.offset), float(over.offset)], [rest.min(), rest.max()], atol=1e-9)


def test_settled_neurons_are_exact():
    bounds = torch.tensor([[1.0, -2.0, 1.0, -2.0]]).double(), torch.tensor([[2.0, -1.0, 2.0, -1.0]]).double()
    other = torch.tensor([[1.0, -2.0, -2.0, 1.0]]).double(), torch.tensor([[2.0, -1.0, -1.0, 2.0]]).double()
    wide = torch.full((1, 4), 9.0).double()
    region = Region(*bounds, *other, -wide, wide)
    corner = corners(region)
    low, high = best_slopes(region, corner)
    for plane in corner.planes(Slopes(torch.zeros(1), None, high, low)):
        assert plane.a.flatten().tolist() == [0.0, 0.0, 1.0, -1.0]
        assert plane.b.flatten().tolist() == [1.0, 0.0, 0.0, 1.0]
        assert plane.offset.flatten().tolist() == [0.0] * 4
