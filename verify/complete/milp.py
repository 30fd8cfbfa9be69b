"""The largest deviation of two ReLU networks as a mixed-integer linear program, solved by HiGHS.

    per undecided unit, with proved l <= a <= u and a binary z:
        h >= a,   h >= 0,   h <= a - l (1 - z),   h <= u z

The optimum is the deviation itself. What is attained is replayed in exact arithmetic; what the solver claims as an
upper bound holds up to its tolerances (1e-6 feasibility and integrality) and is never a proof.

Reference: Tjeng, Xiao, Tedrake, ICLR 2019. Theory: theory_notes/milp.md, section 4. Not claimed: a sound upper bound;
use `relaxation.relaxed_upper` or the branch and bound for that.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from verify.complete.relaxation import LinearProgram, Ranges, proved_ranges
from verify.complete.system import Exact, ReluSystem
from verify.errors import SpecificationError
from verify.spec.box import Box

_GAP = 1e-9


@dataclass(frozen=True)
class MilpDeviation:
    """What the programs found.

    Attributes:
        attained: exact deviation of every output at `witness`; a proved lower bound.
        claimed: the solver's upper bound of every output, true up to its tolerances; infinite where it has none.
        proved: upper bound of every output from the linear relaxation and the intervals, exact.
        witness: per output a point of the box.
        solved: whether every program ended at its optimum.
    """

    attained: tuple[Fraction, ...]
    claimed: tuple[float, ...]
    proved: tuple[Fraction, ...]
    witness: tuple[tuple[Fraction, ...], ...]
    solved: bool

    def deviation(self) -> Fraction:
        """The largest attained deviation."""
        return max(self.attained)


def milp_deviation(system: ReluSystem, box: Box, *, seconds: float = 60.0) -> MilpDeviation:
    """Largest absolute value of every output of a system on a box.

    Args:
        seconds: for all programs together; when they are over, the rest is left to the relaxation.

    Raises:
        SpecificationError: `seconds` is not positive.
        MismatchError: the box has another dimension.
    """
    if not seconds > 0:
        raise SpecificationError(f"need a positive number of seconds, got {seconds}")
    deadline = time.monotonic() + seconds
    ranges = proved_ranges(system, box, deadline=deadline)
    program = LinearProgram.of(system, ranges.columns, ranges.units)
    results = [_one_output(system, box, ranges, program, o, deadline) for o in range(len(system.outputs))]
    attained, claimed, proved, witness, solved = zip(*results, strict=True)
    return MilpDeviation(tuple(attained), tuple(claimed), tuple(proved), tuple(witness), all(solved))


def _one_output(
    system: ReluSystem, box: Box, ranges: Ranges, program: LinearProgram, output: int, deadline: float
) -> tuple[Fraction, float, Fraction, tuple[Fraction, ...], bool]:
    row, best = system.outputs[output], Fraction(-1)
    claimed, solved, proved, witness = 0.0, True, Fraction(0), box.nearest([0.0] * box.dimension)
    for signed in (row, -row):
        proved = max(proved, program.upper(signed))
        x, bound = _solve(system, ranges, program, signed, deadline)
        claimed, solved = max(claimed, bound), solved and x is not None and bound < math.inf
        point = witness if x is None else box.nearest(x)
        value = abs(system.values(point)[output])
        if value > best:
            best, witness = value, point
    return best, claimed, proved, witness, solved


def _solve(
    system: ReluSystem, ranges: Ranges, program: LinearProgram, row: Exact, deadline: float
) -> tuple[list[float] | None, float]:
    """A maximiser of a row and the solver's bound of it; None and infinity where it found nothing."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    left = deadline - time.monotonic()
    if left <= 0:
        return None, math.inf
    columns, switches = len(ranges.columns), ranges.undecided()
    matrix, limit = _constraints(system, ranges, program, switches)
    low = [float(a) for a, _ in ranges.columns] + [0.0] * len(switches)
    high = [float(b) for _, b in ranges.columns] + [1.0] * len(switches)
    objective = np.concatenate([-row[1:].astype(np.float64), np.zeros(len(switches))])
    solved = milp(
        objective, integrality=[0] * columns + [1] * len(switches), bounds=Bounds(low, high),
        constraints=[LinearConstraint(matrix, -np.inf, limit)] if len(matrix) else [],
        options={"time_limit": left, "mip_rel_gap": _GAP},
    )  # fmt: skip
    x = None if solved.x is None else [float(v) for v in solved.x[: system.inputs]]
    return x, float(row[0]) - _dual_bound(solved)


def _dual_bound(solved: Any) -> float:
    """The solver's lower bound of its minimum; without binaries the optimum itself, without a result none."""
    if solved.status not in (0, 1):  # neither optimal nor stopped by a limit
        return -math.inf
    bound = solved.fun if solved.status == 0 else solved.mip_dual_bound
    return -math.inf if bound is None or not math.isfinite(bound) else float(bound)


def _constraints(
    system: ReluSystem, ranges: Ranges, program: LinearProgram, switches: Sequence[int]
) -> tuple[Any, Any]:
    """``matrix (v, z) <= limit``: the relaxation, and two rows with a binary for every undecided unit."""
    columns = len(ranges.columns)
    relaxed = np.hstack([program.matrix.astype(np.float64), np.zeros((len(program.matrix), len(switches)))])
    rows, limits = [relaxed], [program.limit.astype(np.float64)]
    for position, unit in enumerate(switches):
        low, high = (float(v) for v in ranges.units[unit])
        argument = system.units[unit].astype(np.float64)
        pair = np.zeros((2, columns + len(switches)))
        pair[:, system.inputs + unit] = 1.0
        pair[0, : len(argument) - 1] -= argument[1:]
        pair[0, columns + position], pair[1, columns + position] = -low, -high
        rows.append(pair)
        limits.append(np.array([argument[0] - low, 0.0]))
    return np.vstack(rows), np.concatenate(limits)
