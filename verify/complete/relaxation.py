"""The linear relaxation of a chain of ReLU units on a box; its optimum is bounded exactly, whatever the solver does.

    maximise c v   over  v = (x, h),  L <= v <= U,  G v <= g
    every lambda >= 0 proves   c v <= lambda g + sum_j max{ (c - lambda G)_j v_j : L_j <= v_j <= U_j }

The right-hand side is evaluated in rational arithmetic at the solver's multipliers, so a bound is a proof even if the
solver was wrong. Units: active ``h = a``, inactive ``h = 0``, else ``h >= 0, h >= a, h <= u (a - l)/(u - l)``.

Reference: Ehlers, ATVA 2017 (triangle); Neumaier, Shcherbina, Math. Prog. 2004 (safe bounds). Theory:
theory_notes/milp.md, section 3. Not claimed: that the bound is close to the deviation; one polytope cannot say that.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verify.complete.system import Exact, ReluSystem
from verify.errors import MismatchError
from verify.spec.box import Box

Range = tuple[Fraction, Fraction]
Floats = NDArray[np.float64]
_ZERO = Fraction(0)


@dataclass(frozen=True)
class Ranges:
    """Proved ranges, all of them floats held as fractions.

    Attributes:
        columns: of the inputs, then of the values ``h`` of the units.
        units: of the arguments ``a`` of the units.
        outputs: of the outputs.
    """

    columns: tuple[Range, ...]
    units: tuple[Range, ...]
    outputs: tuple[Range, ...]

    def undecided(self) -> tuple[int, ...]:
        """Units whose phase the ranges leave open."""
        return tuple(i for i, (low, high) in enumerate(self.units) if low < 0 < high)


def proved_ranges(system: ReluSystem, box: Box, *, tighten: bool = True, deadline: float = math.inf) -> Ranges:
    """Ranges of all units and outputs on a box, by intervals; with `tighten` each by two linear programs as well.

    Args:
        deadline: time (of `time.monotonic`) after which intervals have to do.

    Raises:
        MismatchError: the box has another dimension.
    """
    if box.dimension != system.inputs:
        raise MismatchError(f"the box has {box.dimension} coordinates, the networks take {system.inputs}")
    columns = [rounded_out(pair) for pair in zip(box.lower, box.upper, strict=True)]
    units: list[Range] = []
    for row in system.units:
        units.append(_range_of(system, row, columns, units, tighten and time.monotonic() < deadline))
        low, high = units[-1]
        columns.append((max(low, _ZERO), max(high, _ZERO)))
    outputs = [
        _range_of(system, row, columns, units, tighten and time.monotonic() < deadline) for row in system.outputs
    ]
    return Ranges(tuple(columns), tuple(units), tuple(outputs))


def interval(row: Exact, columns: Sequence[Range]) -> Range:
    """Range of an affine row over independent columns, exactly."""
    low = high = row[0] + _ZERO
    for weight, (least, most) in zip(row[1:], columns, strict=True):
        if weight:
            low += weight * (least if weight > 0 else most)
            high += weight * (most if weight > 0 else least)
    return low, high


def _range_of(system: ReluSystem, row: Exact, columns: Sequence[Range], units: Sequence[Range], tighten: bool) -> Range:
    low, high = interval(row, columns)
    if tighten and units and low < 0 < high:
        program = LinearProgram.of(system, columns, units)
        high = min(high, program.upper(row))
        low = max(low, -program.upper(-row))
    return rounded_out((low, max(low, high)))


def rounded_out(pair: Range) -> Range:
    """The range widened to floats: they keep later fractions short."""
    (low,), (high,) = Box((pair[0],), (pair[1],)).outward()
    return Fraction(float(low)), Fraction(float(high))


@dataclass(frozen=True)
class LinearProgram:
    """The relaxation over inputs and the units so far.

    Attributes:
        columns: range of every column.
        matrix, limit: ``matrix v <= limit``, exact.
    """

    columns: tuple[Range, ...]
    matrix: Exact
    limit: Exact

    @classmethod
    def of(cls, system: ReluSystem, columns: Sequence[Range], units: Sequence[Range]) -> "LinearProgram":
        """The relaxation given proved ranges of columns and unit arguments."""
        rows: list[Exact] = []
        for i, (low, high) in enumerate(units):
            rows += triangle(system.units[i], system.inputs + i, len(columns), low, high)
        table = np.array(rows, dtype=object).reshape(len(rows), 1 + len(columns))
        return cls(tuple(columns), table[:, 1:], -table[:, 0])

    def upper(self, row: Exact) -> Fraction:
        """A proved upper bound of an affine row ``(1 + columns,)``; never above the interval bound."""
        simple = interval(row, self.columns)[1]
        weights = self._multipliers(row)
        if weights is None:
            return simple
        rest = row[1:].copy()
        total = row[0] + _ZERO
        for weight, line, limit in zip(weights, self.matrix, self.limit, strict=True):
            if weight:
                rest = rest - line * weight
                total += weight * limit
        return min(simple, interval(np.concatenate([[total], rest]), self.columns)[1])

    def _multipliers(self, row: Exact) -> list[Fraction] | None:
        """What the solver proposes for lambda; None where it has nothing to say."""
        from scipy.optimize import linprog

        if not len(self.matrix):
            return None
        a, b, c = (part.astype(np.float64) for part in (self.matrix, self.limit, -row[1:]))
        bounds = [(float(low), float(high)) for low, high in self.columns]
        solved = linprog(c, A_ub=a, b_ub=b, bounds=bounds, method="highs")
        if solved.status != 0 or not np.isfinite(solved.ineqlin.marginals).all():
            return None
        return [Fraction(max(0.0, float(-m))) for m in solved.ineqlin.marginals]


def triangle(row: Exact, column: int, width: int, low: Fraction, high: Fraction) -> list[Exact]:
    """Rows over ``(1, v)``, each at most 0, true for ``v[column] = max(a, 0)``, ``a = row (1, v)`` in [low, high]."""
    argument: Any = np.concatenate([row, np.array([_ZERO] * (1 + width - len(row)), dtype=object)])
    value = np.array([_ZERO] * (1 + width), dtype=object)
    value[1 + column] = Fraction(1)
    if high <= 0:
        return []  # the column's own range is [0, 0]
    if low >= 0:
        return [argument - value, value - argument]
    chord = argument * (high / (high - low))
    chord[0] -= low * high / (high - low)
    return [argument - value, value - chord]


def relaxed_upper(
    system: ReluSystem, box: Box, *, tighten: bool = True, deadline: float = math.inf
) -> tuple[Fraction, ...]:
    """Proved upper bound of the absolute value of every output on a box; arguments as `proved_ranges`."""
    ranges = proved_ranges(system, box, tighten=tighten, deadline=deadline)
    program = LinearProgram.of(system, ranges.columns, ranges.units)
    return tuple(max(program.upper(row), program.upper(-row), _ZERO) for row in system.outputs)
