"""Reluplex, as the survey implements it: linear programs with ReLUs that are fixed lazily, depth first.

Rows ``z >= h, z >= 0`` for every unit; where the solution breaks a ReLU (z > 0 and z > h, beyond a tolerance), the
first broken one is fixed active and inactive. A solution that breaks none is evaluated. Early public code compares
floats for equality and can branch on the same unit again; here a unit is fixed at most once.
Reference: Katz et al., "Reluplex: An Efficient SMT Solver for Verifying Deep Neural Networks", arXiv 1702.01135.
Theory: theory_notes/survey.md.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from verify.survey.algorithm import Algorithm, Facts
from verify.survey.bounds import interval_bounds
from verify.survey.deadline import Deadline
from verify.survey.encoding import Encoding, encode
from verify.survey.linear_program import Indices
from verify.survey.problem import Problem, Violation
from verify.survey.result import Result, Status
from verify.survey.sets import INPUT_KINDS, OUTPUT_KINDS, Floats

BROKEN = 1e-7


@dataclass(frozen=True)
class Reluplex(Algorithm):
    """One search tree per violation."""

    facts: ClassVar[Facts] = Facts(
        "Reluplex", "search + optimisation", INPUT_KINDS, OUTPUT_KINDS, True,
        "Katz et al. 2017, arXiv 1702.01135", "one linear program per node; nodes exponential in the units",
    )  # fmt: skip

    def run(self, problem: Problem, deadline: Deadline) -> Result:
        """See `Algorithm.run`."""
        bounds = interval_bounds(problem.network, problem.box)
        for violation in problem.violations:
            encoding = encode(problem, violation, bounds)
            found = _search(problem, violation, encoding, deadline)
            if found is not None:
                return found
        return Result(Status.HOLDS)


def _search(problem: Problem, violation: Violation, encoding: Encoding, deadline: Deadline) -> Result | None:
    """None if no input reaches the violation."""
    z, s = (
        np.concatenate([*parts, np.zeros(0, dtype=np.int64)]).astype(np.int64) for parts in (encoding.z, encoding.s)
    )
    pending, doubt = [np.array(encoding.model.upper)], False
    while pending:
        upper = pending.pop()
        found = encoding.minimise(deadline, upper=upper)
        if found.lower > violation.margin():
            continue
        refuted = problem.replay(encoding.input_of(found))
        if refuted is not None:
            return refuted
        unit = None if found.point is None else _broken(found.point, z, s, upper)
        if unit is None:
            doubt = True
            continue
        for fixed in (z[unit], s[unit]):
            branch = upper.copy()
            branch[fixed] = 0.0
            pending.append(branch)
    return Result(Status.UNKNOWN, "within the margin") if doubt else None


def _broken(point: Floats, z: Indices, s: Indices, upper: Floats) -> int | None:
    """The first broken unit; where none is broken, the most broken of the open ones (the level is in doubt)."""
    both = np.minimum(point[z], point[s])
    both[(upper[z] <= 0) | (upper[s] <= 0)] = -1.0
    if not len(both) or both.max() < 0:
        return None
    return int(np.argmax(both > BROKEN)) if both.max() > BROKEN else int(np.argmax(both))
