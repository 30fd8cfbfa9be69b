"""MIPVerify: a mixed-integer linear program with a bound for every unit; the nearest violation in the max norm.

Stable units need no binary; an open one has ``z <= u d``, ``z <= h - l (1 - d)`` (d = 1: active). Bounds: the backward
linear pass. After a violation is found, ``min r  s.t.  |x - x0| <= r`` over the violations in the input set gives the
adversarial radius. Reference: Tjeng, Xiao, Tedrake, "Evaluating Robustness of Neural Networks with Mixed Integer
Programming", arXiv 1711.07356. Theory: theory_notes/survey.md.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from verify.survey.algorithm import Algorithm, Facts
from verify.survey.bounds import NodeBounds, linear_bounds
from verify.survey.deadline import Deadline, OutOfTime
from verify.survey.encoding import Encoding, add_switches, encode
from verify.survey.linear_program import Outcome, Solution, doubt
from verify.survey.problem import SOLVER, Problem, Violation
from verify.survey.result import Result, Status
from verify.survey.sets import OUTPUT_KINDS, Floats


@dataclass(frozen=True)
class MIPVerify(Algorithm):
    """One MILP per violation to decide, one more for its distance."""

    facts: ClassVar[Facts] = Facts(
        "MIPVerify", "primal optimisation", ("hyperrectangle",), OUTPUT_KINDS, True,
        "Tjeng et al. 2019, arXiv 1711.07356", "MILP with one binary per unstable unit",
    )  # fmt: skip

    def run(self, problem: Problem, deadline: Deadline) -> Result:
        """See `Algorithm.run`."""
        bounds = linear_bounds(problem.network, problem.box)
        margin, undecided, refuted = SOLVER * bounds.largest(), "", None
        least = np.inf
        for violation in problem.violations:
            encoding = _encoded(problem, violation, bounds)
            found = encoding.minimise(deadline)
            hit = problem.replay(encoding.input_of(found))
            if hit is not None:
                refuted = refuted or hit
                distance = _distance(problem, encoding, deadline)
                undecided = undecided if np.isfinite(distance) else "a distance is not known"
                least = min(least, distance)
            elif found.lower <= violation.margin() + margin:
                undecided = doubt(found)
        if refuted is not None:
            known = np.isfinite(least) and not undecided
            return replace(refuted, radius=least, radius_kind="nearest") if known else refuted
        return Result(Status.UNKNOWN, undecided) if undecided else Result(Status.HOLDS)


def _encoded(problem: Problem, violation: Violation, bounds: NodeBounds) -> Encoding:
    encoding = encode(problem, violation, bounds)
    add_switches(encoding, bounds)
    return encoding


def nearest(encoding: Encoding, center: Floats, deadline: Deadline, upper: Floats) -> Solution:
    """Minimise ``|x - center|`` in the max norm over an encoding; adds a variable and rows to its model."""
    model, n = encoding.model, len(encoding.x)
    r = model.variables(1, 0.0)
    both = np.vstack([np.eye(n), -np.eye(n)])
    model.rows([(encoding.x, both), (r, -np.ones((2 * n, 1)))], upper=np.concatenate([center, -center]))
    return model.minimise(r, np.ones(1), upper=np.append(upper, np.inf), deadline=deadline)


def _distance(problem: Problem, encoding: Encoding, deadline: Deadline) -> float:
    """Distance from the centre to a violation, infinite if time runs out."""
    upper = np.array(encoding.model.upper)
    upper[encoding.t] = 0.0
    try:
        found = nearest(encoding, problem.box.center, deadline, upper)
    except OutOfTime:
        return np.inf
    return found.value if found.outcome is Outcome.OPTIMAL else np.inf
