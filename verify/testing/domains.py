"""Hypothesis strategies for what networks are run on: boxes, points inside them, calibration batches."""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from verify.network.graph import Network
from verify.spec.box import Box

Floats = NDArray[np.float64]


@st.composite
def boxes(
    draw: st.DrawFn,
    network: Network,
    *,
    radius: float = 1.0,
    center: float = 2.0,
    thin: bool = True,
    decimals: bool = True,
) -> Box:
    """Boxes over the flattened input of `network`.

    Args:
        radius: largest half-width.
        center: centres lie within ``[-center, center]``.
        thin: some coordinates may have zero width (at a float32 number).
        decimals: bounds may be decimals such as 1/10 that are no floating-point numbers.
    """
    dimension = math.prod(network.input_shape)
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    unit = Fraction(1, draw(st.sampled_from([16, 10, 1024] if decimals else [16, 1024])))
    reach, step = Fraction(radius) / unit, Fraction(center) / unit
    largest = draw(st.integers(1, max(1, math.floor(reach))))
    middle = [int(m) for m in generator.integers(-math.floor(step), math.floor(step) + 1, dimension)]
    widths = [int(w) for w in generator.integers(1, largest + 1, dimension)]
    if thin and unit.denominator != 10:
        widths = [w * int(k) for w, k in zip(widths, generator.random(dimension) < draw(_SHARES), strict=True)]
    bounds = [((m - w) * unit, (m + w) * unit) for m, w in zip(middle, widths, strict=True)]
    return Box(tuple(low for low, _ in bounds), tuple(high for _, high in bounds))


_SHARES = st.sampled_from([1.0, 0.7, 0.0])  # of coordinates that have a width


@st.composite
def inputs_inside(draw: st.DrawFn, box: Box, *, max_rows: int = 8) -> Floats:
    """Points ``(rows, dimension)`` inside the exact box: centre, corners, edges and random points, float32 values."""
    low, high = box.inner()
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    rows = draw(st.lists(st.sampled_from(["low", "high", "corner", "edge", "random"]), min_size=1, max_size=max_rows))
    shares = np.array([_SHARE_OF_WIDTH[row](generator, box.dimension) for row in rows])
    points = (low + shares * (high - low)).astype(np.float32).astype(np.float64)
    clipped: Floats = np.clip(points, low, high)
    return clipped


def _edge(generator: np.random.Generator, dimension: int) -> Floats:
    """Some coordinates at a bound, the others anywhere."""
    share = generator.random(dimension)
    return np.where(generator.random(dimension) < 0.5, share.round(), share)


_SHARE_OF_WIDTH: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "low": lambda generator, n: np.zeros(n),
    "high": lambda generator, n: np.ones(n),
    "corner": lambda generator, n: generator.integers(0, 2, n).astype(np.float64),
    "edge": _edge,
    "random": lambda generator, n: generator.random(n),
}


@st.composite
def calibration_batches(
    draw: st.DrawFn, network: Network, *, min_rows: int = 1, max_rows: int = 32, max_batches: int = 4
) -> list[NDArray[np.float32]]:
    """Batches ``(rows, *input_shape)`` of uneven sizes; sometimes with the inputs that methods trip over.

    Those are: all rows equal, coordinates that never vary, all zeros, fewer rows than inputs.
    """
    sizes = draw(st.lists(st.integers(min_rows, max_rows), min_size=1, max_size=max_batches))
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    rows = generator.standard_normal((sum(sizes), math.prod(network.input_shape)))
    trouble = draw(st.sampled_from(["none", "constant coordinates", "equal rows", "zeros"]))
    if trouble == "constant coordinates":
        rows[:, generator.random(rows.shape[1]) < 0.5] = 0.5
    elif trouble == "equal rows":
        rows[:] = rows[:1]
    elif trouble == "zeros":
        rows[:] = 0.0
    shaped = rows.reshape(len(rows), *network.input_shape).astype(np.float32)
    return np.split(shaped, np.cumsum(sizes)[:-1])
