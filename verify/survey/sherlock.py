"""Sherlock: local ascent by linear programs, alternating with a global integer program.

From a point, the level is minimised over the closed linear region of the point, again from the minimiser, until it
stops falling at v. NSVerify's program is then asked for an input with a level of at most v - eps: a new start, or
proof that the least level is above v - eps. So the answer has a margin of eps.
Reference: Dutta et al., "Output Range Analysis for Deep Feedforward Neural Networks", arXiv 1709.09130. Theory:
theory_notes/survey.md.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from verify.errors import SpecificationError
from verify.survey.algorithm import Algorithm, Facts
from verify.survey.bounds import NodeBounds, linear_bounds
from verify.survey.deadline import Deadline
from verify.survey.encoding import Encoding, add_switches, encode
from verify.survey.linear_program import Outcome
from verify.survey.problem import SOLVER, Problem, Violation
from verify.survey.result import Result, Status
from verify.survey.sets import INPUT_KINDS, Floats, Hyperrectangle


@dataclass(frozen=True)
class Sherlock(Algorithm):
    """Both ends of the output's range to within `eps`; a question nearer than that is UNKNOWN."""

    eps: float = 0.1
    facts: ClassVar[Facts] = Facts(
        "Sherlock", "search + optimisation", INPUT_KINDS, ("hyperrectangle",), False,
        "Dutta et al. 2018, arXiv 1709.09130", "a few MILPs with one binary per unstable unit, linear programs between",
        one_output=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        if not (self.eps > 0 and math.isfinite(self.eps)):
            raise SpecificationError(f"eps must be a positive number, got {self.eps}")

    def run(self, problem: Problem, deadline: Deadline) -> Result:
        """See `Algorithm.run`."""
        bounds = linear_bounds(problem.network, problem.box)
        proved = []
        for violation in problem.violations:
            found = self._least(problem, violation, bounds, deadline)
            if isinstance(found, Result):
                return found
            proved.append(found)
        ends = [v.offsets[0] + low for v, low in zip(problem.violations, proved, strict=True)]
        reach = Hyperrectangle(np.array([ends[1]]), np.array([-ends[0]]))  # rows: -y <= -upper, y <= lower
        slack = SOLVER * bounds.largest()
        held = all(low > v.margin() + slack for v, low in zip(problem.violations, proved, strict=True))
        return Result(Status.HOLDS if held else Status.UNKNOWN, "" if held else "closer than eps", reach=reach)

    def _least(self, problem: Problem, violation: Violation, bounds: NodeBounds, deadline: Deadline) -> Result | float:
        """A counter-example, or a level that no input is below."""
        x = problem.middle
        encoding = encode(problem, violation, bounds)
        add_switches(encoding, bounds)
        while True:
            x = descend(problem, violation, x, deadline)
            refuted = problem.replay(x)
            if refuted is not None:
                return refuted
            goal = float(violation.level(problem.network.evaluate(x))) - self.eps
            point, excluded = _below(encoding, goal, deadline)
            if point is None:
                return goal if excluded else -math.inf
            refuted = problem.replay(point)
            if refuted is not None:
                return refuted
            if float(violation.level(problem.network.evaluate(point))) > goal + self.eps / 2:
                return -math.inf  # the program's point is no point of the network: solver tolerances
            x = point


def _below(encoding: Encoding, goal: float, deadline: Deadline) -> tuple[Floats | None, bool]:
    """An input that the program believes to have a level of at most `goal`, and whether there is none."""
    upper = np.array(encoding.model.upper)
    upper[encoding.t] = goal
    found = encoding.model.minimise(encoding.t, np.zeros(1), upper=upper, deadline=deadline)
    return encoding.input_of(found), found.outcome is Outcome.INFEASIBLE


def descend(problem: Problem, violation: Violation, x: Floats, deadline: Deadline) -> Floats:
    """Minimise the level over the linear region of x, then of the minimiser, as long as that helps."""
    best = float(violation.level(problem.network.evaluate(x)))
    while True:
        network = problem.network
        phases = network.phases(x)
        wide = tuple(np.full(len(layer.bias), np.inf) for layer in network.layers)
        encoding = encode(problem, violation, NodeBounds(tuple(-w for w in wide), wide))
        upper = np.array(encoding.model.upper)
        for i, phase in enumerate(phases):
            upper[encoding.s[i][phase > 0]] = 0.0
            upper[encoding.z[i][phase == 0]] = 0.0
        point = encoding.input_of(encoding.minimise(deadline, upper=upper))
        if point is None:
            return x
        point = np.clip(point, problem.box.lower, problem.box.upper)
        level = float(violation.level(network.evaluate(point)))
        if level >= best - 1e-9 * max(1.0, abs(best)):
            return x
        x, best = point, level
