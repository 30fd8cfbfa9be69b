"""Boxes: the domain of a claim, one closed interval of exact rationals per input coordinate.

A decimal such as 0.1 is no floating-point number, so a box keeps fractions; whoever computes in floating
point asks for `outward()` (a float64 box that contains it) or `inner()` (floats that lie inside it).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from verify.errors import SpecificationError

Number = int | float | str | Fraction
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Box:
    """``{x : lower[i] <= x[i] <= upper[i]}`` over the flattened input (row-major).

    Attributes:
        lower, upper: exact bounds, one fraction per coordinate; a width of zero is allowed.

    Raises:
        SpecificationError: no coordinate, different lengths, an inverted interval, or a bound beyond float64.
    """

    lower: tuple[Fraction, ...]
    upper: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        if len(self.lower) != len(self.upper) or not self.lower:
            raise SpecificationError(
                f"a box needs as many lower as upper bounds, got {len(self.lower)}, {len(self.upper)}"
            )
        for i, (low, high) in enumerate(zip(self.lower, self.upper, strict=True)):
            if not (isinstance(low, Fraction) and isinstance(high, Fraction)):
                raise SpecificationError(f"bounds of coordinate {i} are not fractions: {low!r}, {high!r}")
            if low > high:
                raise SpecificationError(
                    f"empty box: coordinate {i} has lower bound {_show(low)} above upper {_show(high)}"
                )
            if max(abs(low), abs(high)) > _LARGEST:
                raise SpecificationError(f"bounds of coordinate {i} exceed the range of float64")

    @classmethod
    def from_floats(cls, lower: ArrayLike, upper: ArrayLike) -> Self:
        """The box with exactly these floating-point bounds (any equal shapes, flattened row-major)."""
        return cls(_fractions(lower, "lower bounds"), _fractions(upper, "upper bounds"))

    @classmethod
    def around(
        cls, center: ArrayLike, radius: Number, minimum: Number | None = None, maximum: Number | None = None
    ) -> Self:
        """``center ± radius`` in the max norm, cut to ``[minimum, maximum]`` where given.

        Args:
            center: floats, taken exactly; any shape.
            radius: non-negative; a string such as "0.01" is the exact decimal, a float its binary value.
        """
        r = exact(radius, "radius")
        if r < 0:
            raise SpecificationError(f"radius must not be negative, got {radius}")
        low = None if minimum is None else exact(minimum, "minimum")
        high = None if maximum is None else exact(maximum, "maximum")
        middle = _fractions(center, "center")
        return cls(
            tuple(c - r if low is None else max(c - r, low) for c in middle),
            tuple(c + r if high is None else min(c + r, high) for c in middle),
        )

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return len(self.lower)

    def contains(self, x: Sequence[Number] | Floats) -> bool:
        """Whether the point lies in the box, compared exactly; NaN and infinity never do."""
        values = np.asarray(x).ravel().tolist()
        if len(values) != self.dimension or any(isinstance(v, float) and not math.isfinite(v) for v in values):
            return False
        return all(a <= Fraction(v) <= b for a, v, b in zip(self.lower, values, self.upper, strict=True))

    def halves(self, dimension: int, at: Fraction) -> tuple["Box", "Box"]:
        """The closed parts below and above `at` in one coordinate.

        Raises:
            SpecificationError: `at` lies outside the interval of the coordinate.
        """
        below = (*self.upper[:dimension], at, *self.upper[dimension + 1 :])
        above = (*self.lower[:dimension], at, *self.lower[dimension + 1 :])
        return Box(self.lower, below), Box(above, self.upper)

    def middle(self) -> tuple[int, Fraction] | None:
        """The widest coordinate and the float64 nearest its middle; None if that does not lie strictly inside."""
        widths = [high - low for low, high in zip(self.lower, self.upper, strict=True)]
        widest = widths.index(max(widths))
        low, high = self.lower[widest], self.upper[widest]
        at = Fraction(float((low + high) / 2))
        return (widest, at) if low < at < high else None

    def outward(self) -> tuple[Floats, Floats]:
        """The smallest float64 box that contains this one: ``(lower, upper)``, each ``(dimension,)``."""
        return np.array([_below(v) for v in self.lower]), np.array([-_below(-v) for v in self.upper])

    def inner(self) -> tuple[Floats, Floats]:
        """Bounds of the floats to sample from, each ``(dimension,)``, as float64.

        Per coordinate the outermost float32 numbers inside the interval; where there is none, the outermost
        float64 numbers; where there is none either (a decimal of zero width), twice the nearest float64.
        """
        pairs = [_inner(a, b) for a, b in zip(self.lower, self.upper, strict=True)]
        return np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])

    def nearest(self, x: ArrayLike) -> tuple[Fraction, ...]:
        """The point of the box closest to the finite floats `x`, exactly."""
        return tuple(min(max(v, a), b) for a, v, b in zip(self.lower, _fractions(x, "point"), self.upper, strict=True))

    def sample(self, generator: np.random.Generator, n: int) -> Floats:
        """`n` points ``(n, dimension)``, uniform, rounded to float32 values inside the box (see `inner`)."""
        low, high = self.inner()
        points = (low + (high - low) * generator.random((n, self.dimension))).astype(np.float32).astype(np.float64)
        return np.clip(points, low, high)


_LARGEST = Fraction(np.finfo(np.float64).max)


def exact(value: Number, what: str) -> Fraction:
    """The fraction a number stands for: decimal strings exactly, floats by their binary value.

    Raises:
        SpecificationError: NaN, infinity, or text that is no number.
    """
    if isinstance(value, str):
        from verify.spec.decimal import read_decimal

        return read_decimal(value, what)
    if isinstance(value, float | np.floating) and not math.isfinite(value):
        raise SpecificationError(f"{what} is {value}, expected a finite number")
    return Fraction(value.item() if isinstance(value, np.generic) else value)


def _fractions(values: ArrayLike, what: str) -> tuple[Fraction, ...]:
    array: NDArray[Any] = np.asarray(values)
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise SpecificationError(f"{what} have dtype {array.dtype}, expected floating point up to 64 bits or integers")
    if not np.isfinite(array).all():
        raise SpecificationError(f"{what} hold NaN or infinity")
    return tuple(Fraction(v) for v in array.ravel().tolist())


def _below(value: Fraction) -> float:
    """The largest float64 that does not exceed `value`."""
    nearest = float(value)
    return nearest if Fraction(nearest) <= value else math.nextafter(nearest, -math.inf)


def _below32(value: Fraction) -> float:
    """The largest float32 that does not exceed `value`, or minus infinity."""
    nearest = np.float32(float(value)) if abs(value) < 2**127 else np.float32(np.inf if value > 0 else -np.inf)
    if np.isfinite(nearest) and Fraction(float(nearest)) <= value:
        return float(nearest)
    return float(np.nextafter(nearest, np.float32(-np.inf)))


def _inner(low: Fraction, high: Fraction) -> tuple[float, float]:
    single = -_below32(-low), _below32(high)
    if single[0] <= single[1] and all(map(math.isfinite, single)):
        return single
    double = -_below(-low), _below(high)
    return double if double[0] <= double[1] else (float(low), float(low))


def _show(value: Fraction) -> str:
    return str(value) if value.denominator < 10**6 else repr(float(value))
