"""Planet: a SAT solver proposes phases, linear programs refute them and explain why.

Bounds of every unit are first tightened by triangle relaxations, one minimum and one maximum each, with the violation
as a row: infeasible means that it cannot happen. (An early public version minimises the SUM of all units and reads the
values off, which bounds nothing.) Then: phases of the open units from the SAT solver; the sum of what they break is
minimised; broken units are made hard until the program is infeasible (elastic filtering); the negation of their
phases is a new clause. Unsatisfiable clauses: no violation.
Reference: Ehlers, "Formal Verification of Piece-Wise Linear Feed-Forward Neural Networks", arXiv 1705.01320. Theory:
theory_notes/survey.md.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from verify.survey.algorithm import Algorithm, Facts
from verify.survey.bounds import NodeBounds, linear_bounds
from verify.survey.deadline import Deadline
from verify.survey.encoding import Encoding, add_triangles, encode
from verify.survey.linear_program import Outcome, Solution
from verify.survey.problem import SOLVER, Problem, Violation
from verify.survey.result import Result, Status
from verify.survey.satisfiability import Clause, satisfying
from verify.survey.sets import INPUT_KINDS, OUTPUT_KINDS, Floats

BROKEN = 1e-7


@dataclass(frozen=True)
class Planet(Algorithm):
    """Tightening, then the loop of SAT solver and elastic programs, per violation."""

    facts: ClassVar[Facts] = Facts(
        "Planet", "search + optimisation", INPUT_KINDS, OUTPUT_KINDS, True,
        "Ehlers 2017, arXiv 1705.01320", "two linear programs per unit, some per conflict; exponential",
    )  # fmt: skip

    def run(self, problem: Problem, deadline: Deadline) -> Result:
        """See `Algorithm.run`."""
        for violation in problem.violations:
            bounds = tighten(problem, violation, deadline)
            found = None if bounds is None else _search(problem, violation, bounds, deadline)
            if found is not None:
                return found
        return Result(Status.HOLDS)


def _relaxed(problem: Problem, violation: Violation, bounds: NodeBounds) -> tuple[Encoding, Floats]:
    """The triangle relaxation, and its variables' upper bounds with the violation (and its margin) as a row."""
    encoding = encode(problem, violation, bounds)
    add_triangles(encoding, bounds)
    upper = np.array(encoding.model.upper)
    upper[encoding.t] = violation.margin()
    return encoding, upper


def tighten(problem: Problem, violation: Violation, deadline: Deadline) -> NodeBounds | None:
    """Bounds that hold for inputs that reach the violation; None if the relaxation shows that there are none."""
    bounds = linear_bounds(problem.network, problem.box)
    for i in range(len(problem.network.hidden)):
        encoding, upper = _relaxed(problem, violation, bounds)
        low, high = bounds.lower[i].copy(), bounds.upper[i].copy()
        for j in (unit for layer, unit in bounds.unstable() if layer == i):
            unit = np.array([encoding.z[i][j], encoding.s[i][j]])
            for sign in (1.0, -1.0):
                found = encoding.model.minimise(unit, sign * np.array([1.0, -1.0]), upper=upper, deadline=deadline)
                if found.outcome is Outcome.INFEASIBLE:
                    return None
                slack = SOLVER * max(1.0, abs(found.lower))
                if sign > 0:
                    low[j] = max(low[j], found.lower - slack)
                else:
                    high[j] = min(high[j], -found.lower + slack)
        lower = (*bounds.lower[:i], np.minimum(low, high), *bounds.lower[i + 1 :])
        bounds = NodeBounds(lower, (*bounds.upper[:i], high, *bounds.upper[i + 1 :]))
    return bounds


def _search(problem: Problem, violation: Violation, bounds: NodeBounds, deadline: Deadline) -> Result | None:
    """None if no input reaches the violation."""
    encoding, upper = _relaxed(problem, violation, bounds)
    units, doubt = bounds.unstable(), False
    clauses: list[Clause] = []
    while (literals := satisfying(clauses, len(units))) is not None:
        deadline.left()
        # what must be zero: s of an active unit, z of an inactive one
        zero = {v: encoding.s[i][j] if v in literals else encoding.z[i][j] for v, (i, j) in enumerate(units, start=1)}
        conflict, found = _conflict(encoding, upper, zero, deadline)
        refuted = problem.replay(encoding.input_of(found))
        if refuted is not None:
            return refuted
        doubt = doubt or conflict is None
        clauses.append(frozenset(-v if v in literals else v for v in (zero if conflict is None else conflict)))
    return Result(Status.UNKNOWN, "within the margin") if doubt else None


def _conflict(
    encoding: Encoding, upper: Floats, zero: dict[int, np.int64], deadline: Deadline
) -> tuple[set[int] | None, Solution]:
    """Variables whose phases contradict each other (None: all can be met), and the last solution."""
    hard: set[int] = set()
    limits = upper.copy()
    soft = np.array(list(zero.values()), dtype=np.int64)
    last = Solution(Outcome.INFEASIBLE, np.inf, np.inf, None)
    while True:
        found = encoding.model.minimise(soft, np.ones(len(soft)), upper=limits, deadline=deadline)
        if found.outcome is Outcome.INFEASIBLE:
            return hard, last
        last = found
        if found.point is None:
            return None, last
        broken = {v for v, index in zero.items() if v not in hard and found.point[index] > BROKEN}
        if not broken:  # the phases can be met: where is the level least?
            limits[list(zero.values())] = 0.0
            found = encoding.minimise(deadline, upper=limits)
            return (set(zero), last) if found.outcome is Outcome.INFEASIBLE else (None, found)
        hard |= broken
        limits[[zero[v] for v in broken]] = 0.0
