"""Lines and planes that bound a ReLU and the difference of two, with any slopes and the offsets that make them valid.

On the region lz <= z <= uz, ly <= z - D <= uy, dl <= D <= du the function relu(z) - relu(z - D) - a z - b D is linear
on pieces whose vertices are all among 21 candidates, so its extremes over the candidates inside are the offsets. All
numbers are integers below 2^52. Theory notes: pair_relu.md, backward_pair.md.
"""

from collections.abc import Sequence

import numpy as np

from verify.audit.exact import Array, Mask

SLOPE_BITS = 10
ONE = float(2**SLOPE_BITS)


class Inconsistent(Exception):
    """Two enclosures of the same value do not meet: a fault of this program, never a proof."""


def slopes(low: Array, high: Array) -> Array:
    """Slope of the ReLU's line in units of 1/ONE: 1 or 0 where it is linear, else about high / (high - low)."""
    with np.errstate(all="ignore"):
        proposed = np.nan_to_num(np.rint(high / (high - low) * ONE))
    return np.where(low >= 0, ONE, np.where(high <= 0, 0.0, np.clip(proposed, 0.0, ONE)))


def best_plane(ends: Sequence[Array], sloped: Mask) -> Array:
    """Slopes s_z, s_D and offsets bottom, top (rows of the result) of the narrowest candidate plane.

    `ends` are vectors lz, uz, ly, uy, dl, du. Slopes are in units of 1/ONE, offsets in units of the bounds over
    ONE. Where `sloped` is false, both slopes are 0.
    """
    lz, uz, ly, uy, dl, du = ends
    s_z, s_y, zero = slopes(lz, uz), slopes(ly, uy), np.zeros_like(lz)
    one = zero + ONE
    a = np.stack([zero, zero, zero, s_z, s_z - s_y, one - s_y, s_z - one])
    b = np.stack([zero, one, slopes(dl, du), zero, s_y, s_y, one])
    bottom, top = offsets(ends, a, b)
    best = np.where(sloped, np.argmin(top - bottom, axis=0), 0)
    chosen: Array = np.stack([a, b, bottom, top])[:, best, np.arange(len(best))]
    return chosen


def offsets(ends: Sequence[Array], a: Array, b: Array) -> tuple[Array, Array]:
    """Extremes of relu(z) - relu(z - D) - a z - b D on the regions, for slopes (candidates, N): over all vertices."""
    z, d, inside = vertices(*ends)
    value = ONE * (np.maximum(z, 0.0) - np.maximum(z - d, 0.0))
    rest = value - a[:, None] * z - b[:, None] * d  # (candidates, vertices, N)
    return np.where(inside, rest, np.inf).min(axis=1), np.where(inside, rest, -np.inf).max(axis=1)


def vertices(lz: Array, uz: Array, ly: Array, uy: Array, dl: Array, du: Array) -> tuple[Array, Array, Mask]:
    """The 21 candidate vertices (z, D), each (21, N), of the pieces on which relu(z) - relu(z - D) is linear.

    The region is lz <= z <= uz, ly <= z - D <= uy, dl <= D <= du; the pieces end at z = 0 and z - D = 0. The mask says
    which candidates lie in the region; every vertex of every piece is among them.
    """
    zero = np.zeros_like(lz)
    points = [(z, z - y) for z in (lz, zero, uz) for y in (ly, zero, uy)]
    points += [(z, d) for z in (lz, zero, uz) for d in (dl, du)]
    points += [(y + d, d) for y in (ly, zero, uy) for d in (dl, du)]
    z, d = (np.stack([p[i] for p in points]) for i in (0, 1))
    y = z - d
    inside = (lz <= z) & (z <= uz) & (ly <= y) & (y <= uy) & (dl <= d) & (d <= du)
    if not inside.any(axis=0).all():
        raise Inconsistent("the region of a ReLU pair is empty")
    return z, d, inside


def two_planes(ends: Sequence[Array], mixed: Mask | None = None) -> Array:
    """Slopes and offset of a lower and of an upper plane, each the candidate that is tightest mid-region.

    `ends` are vectors lz, uz, ly, uy, dl, du. Rows of the result: a, b, offset of the lower plane, then of the upper
    one; slopes in units of 1/ONE, offsets in units of the bounds over ONE. Where both ReLUs are linear, so are both
    planes, exactly; but where they are `mixed`, one open and one shut, the planes are 0 and D.
    """
    lz, uz, ly, uy, dl, du = ends
    s_z, s_y, rise, zero = slopes(lz, uz), slopes(ly, uy), slopes(dl, du), np.zeros_like(lz)
    one, half = zero + ONE, zero + ONE / 2
    a = np.stack([zero, zero, zero, zero, zero, s_z, s_z - s_y, one - s_y, s_z - one])
    b = np.stack([zero, one, rise, one - rise, half, zero, s_y, s_y, one])
    bottom, top = offsets(ends, a, b)
    middle = 0.5 * (a * (lz + uz) + b * (dl + du))
    linear = ((lz >= 0) | (uz <= 0)) & ((ly >= 0) | (uy <= 0))  # then candidate 6, s_z z - s_y y, is exact
    low, high = (np.where(linear, 6, n) for n in (np.argmax(middle + bottom, axis=0), np.argmin(middle + top, axis=0)))
    if mixed is not None:
        falls, rises = mixed & (uz <= 0) & (ly >= 0), mixed & (lz >= 0) & (uy <= 0)  # candidates 0 and 1 are 0 and D
        low, high = (np.where(falls, f, np.where(rises, r, n)) for n, f, r in ((low, 1, 0), (high, 0, 1)))
    at = np.arange(len(lz))
    return np.stack([a[low, at], b[low, at], bottom[low, at], a[high, at], b[high, at], top[high, at]])
