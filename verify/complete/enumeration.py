"""The exact range of the difference of two ReLU networks: every activation region, in rational arithmetic.

On a region all units keep their phase, so the difference is affine and attains its extremes at vertices of the
region. Unit after unit, a region is kept if the unit's argument has one sign at all its vertices, and cut along
``a_i = 0`` otherwise.

Theory: theory_notes/milp.md, section 2. The result is exact, not rounded. Not claimed: that it is feasible; the number
of regions grows like units^inputs, and past `most_regions` the enumeration stops without an answer.
"""

import math
import time
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from verify.complete.polytope import Point, Polytope, box_polytope, cut
from verify.complete.system import ReluSystem, dot
from verify.errors import MismatchError
from verify.spec.box import Box

MOST_INPUTS = 10  # a box has 2^inputs vertices


@dataclass(frozen=True)
class Extremes:
    """The exact range of every output over a box.

    Attributes:
        lower, upper: smallest and largest value of every output.
        lower_at, upper_at: points of the box where they are attained.
        regions: activation regions visited.
    """

    lower: tuple[Fraction, ...]
    upper: tuple[Fraction, ...]
    lower_at: tuple[Point, ...]
    upper_at: tuple[Point, ...]
    regions: int

    def per_output(self) -> tuple[Fraction, ...]:
        """Largest absolute value of every output."""
        return tuple(max(-low, high) for low, high in zip(self.lower, self.upper, strict=True))

    def deviation(self) -> Fraction:
        """Largest absolute value of all outputs: the smallest epsilon that holds."""
        return max(self.per_output())


def enumerate_regions(
    system: ReluSystem, box: Box, *, most_regions: int = 100_000, deadline: float = math.inf
) -> Extremes | None:
    """Range of the outputs over a box, exactly; None if there are more than `most_regions` regions.

    Args:
        deadline: time (of `time.monotonic`) after which the answer is None as well.

    Raises:
        MismatchError: the box has another dimension, or more than `MOST_INPUTS` coordinates of positive width.
    """
    if box.dimension != system.inputs:
        raise MismatchError(f"the box has {box.dimension} coordinates, the networks take {system.inputs}")
    wide = sum(low < high for low, high in zip(box.lower, box.upper, strict=True))
    if wide > MOST_INPUTS:
        raise MismatchError(f"{wide} coordinates of positive width; regions are enumerated for at most {MOST_INPUTS}")
    start, constraints = box_polytope(box)
    pending: list[tuple[int, Polytope]] = [(0, start)]
    found: Extremes | None = None
    regions = 0
    while pending:
        unit, region = pending.pop()
        if time.monotonic() >= deadline:
            return None
        if unit == len(system.units):
            regions += 1
            found = _joined(found, system, region)
            if regions + len(pending) > most_regions:
                return None
        else:
            pending += [(unit + 1, part) for part in _phases(system, unit, region, constraints + unit)]
    return None if found is None else replace(found, regions=regions)


def _phases(system: ReluSystem, unit: int, region: Polytope, constraint: int) -> list[Polytope]:
    """The region's parts in which a unit keeps its phase, its value appended to their vertices."""
    row = system.units[unit]
    heights = [dot(row, np.array(v.point, dtype=object)) for v in region]
    if min(heights) >= 0:
        return [_extended(region, heights)]
    if max(heights) <= 0:
        return [_extended(region, [Fraction(0)] * len(region))]
    above, below = cut(tuple(_extended(region, heights)), heights, constraint)
    return [above, tuple(replace(v, point=(*v.point[:-1], Fraction(0))) for v in below)]


def _extended(region: Polytope, values: list[Fraction]) -> Polytope:
    return tuple(replace(v, point=(*v.point, value)) for v, value in zip(region, values, strict=True))


def _joined(found: Extremes | None, system: ReluSystem, region: Polytope) -> Extremes:
    """The extremes so far and those of one more region."""
    points = [np.array(v.point, dtype=object) for v in region]
    values = [[dot(row, p) for p in points] for row in system.outputs]
    low, high = ([pick(range(len(points)), key=v.__getitem__) for v in values] for pick in (min, max))
    inputs = slice(1, 1 + system.inputs)
    lower = [(values[o][i], region[i].point[inputs]) for o, i in enumerate(low)]
    upper = [(values[o][i], region[i].point[inputs]) for o, i in enumerate(high)]
    if found is not None:
        lower = [min(a, b) for a, b in zip(zip(found.lower, found.lower_at, strict=True), lower, strict=True)]
        upper = [max(a, b) for a, b in zip(zip(found.upper, found.upper_at, strict=True), upper, strict=True)]
    return _extremes(lower, upper)


def _extremes(lower: list[tuple[Fraction, Point]], upper: list[tuple[Fraction, Point]]) -> Extremes:
    return Extremes(
        tuple(v for v, _ in lower),
        tuple(v for v, _ in upper),
        tuple(p for _, p in lower),
        tuple(p for _, p in upper),
        0,
    )
