"""Polytopes by their vertices, in exact arithmetic: the double description of one half-space at a time.

A vertex carries the set of constraints that are tight there. Two vertices are adjacent exactly when no third vertex
is tight wherever both are; a half-space cuts the polytope in the vertices on its side and one new vertex on every
edge that it crosses.

Reference: Motzkin, Raiffa, Thompson, Thrall (1953); Fukuda, Prodon (1996). Theory: theory_notes/milp.md, section 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

from verify.spec.box import Box

Point = tuple[Fraction, ...]


@dataclass(frozen=True)
class Vertex:
    """A vertex: coordinates, and a bit for every constraint that is tight there.

    Coordinates beyond the polytope's own are affine functions on it, carried along edges.
    """

    point: Point
    tight: int


Polytope = tuple[Vertex, ...]


def box_polytope(box: Box) -> tuple[Polytope, int]:
    """The box as a polytope, its points preceded by the coordinate 1, and the number of constraints it uses."""
    sides = [
        [(low, 1 << 2 * i), (high, 2 << 2 * i)] if low < high else [(low, 3 << 2 * i)]
        for i, (low, high) in enumerate(zip(box.lower, box.upper, strict=True))
    ]
    corners = (
        Vertex((Fraction(1), *(value for value, _ in corner)), sum(bit for _, bit in corner))
        for corner in product(*sides)
    )
    return tuple(corners), 2 * box.dimension


def cut(polytope: Polytope, heights: Sequence[Fraction], constraint: int) -> tuple[Polytope, Polytope]:
    """The parts where an affine function is non-negative and non-positive.

    Args:
        heights: value of the function at every vertex, of both signs.
        constraint: number of a bit not used before; the same in both parts, which do not meet again.
    """
    bit = 1 << constraint
    above = [(v, h) for v, h in zip(polytope, heights, strict=True) if h > 0]
    below = [(v, h) for v, h in zip(polytope, heights, strict=True) if h < 0]
    level = [Vertex(v.point, v.tight | bit) for v, h in zip(polytope, heights, strict=True) if h == 0]
    for upper, height in above:
        for lower, depth in below:
            common = upper.tight & lower.tight
            if _adjacent(polytope, upper, lower, common):
                level.append(Vertex(_between(upper.point, lower.point, height / (height - depth)), common | bit))
    return (*(v for v, _ in above), *level), (*(v for v, _ in below), *level)


def _adjacent(polytope: Polytope, first: Vertex, second: Vertex, common: int) -> bool:
    return not any(v.tight & common == common for v in polytope if v is not first and v is not second)


def _between(start: Point, end: Point, share: Fraction) -> Point:
    return tuple(a + share * (b - a) if a != b else a for a, b in zip(start, end, strict=True))
