"""BaB: branch and bound on the input of a network with one output.

Boxes are kept by their bound from the triangle relaxation; the one with the lowest bound is taken out (the early public
code leaves it in, and cannot progress) and halved along its longest side. The level at centre and corners gives the
other side. It stops as soon as the question is decided, or the gap is below eps.
Reference: Bunel et al., "A Unified View of Piecewise Linear Neural Network Verification", arXiv 1711.00455. Theory:
theory_notes/survey.md.
"""

import heapq
import itertools
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from verify.errors import SpecificationError
from verify.survey.algorithm import Algorithm, Facts
from verify.survey.bounds import linear_bounds
from verify.survey.deadline import Deadline
from verify.survey.encoding import add_triangles, encode
from verify.survey.linear_program import Solution
from verify.survey.problem import Problem, Violation
from verify.survey.relu_val import bisect
from verify.survey.result import Result, Status
from verify.survey.sets import Hyperrectangle


@dataclass(frozen=True)
class BaB(Algorithm):
    """Best-first branch and bound per side of the output's interval.

    Attributes:
        eps: gap between the bounds at which an undecided side is given up (published: 0.1, which decides less).
    """

    eps: float = 1e-5
    facts: ClassVar[Facts] = Facts(
        "BaB", "search + optimisation", ("hyperrectangle",), ("hyperrectangle",), True,
        "Bunel et al. 2018, arXiv 1711.00455", "one linear program per box; boxes exponential in the inputs",
        one_output=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        if not (self.eps > 0 and math.isfinite(self.eps)):
            raise SpecificationError(f"eps must be a positive number, got {self.eps}")

    def run(self, problem: Problem, deadline: Deadline) -> Result:
        """See `Algorithm.run`."""
        proved = []
        for violation in problem.violations:
            found = self._side(problem, violation, deadline)
            if isinstance(found, Result):
                return found
            proved.append(found)
        ends = [v.offsets[0] + low for v, low in zip(problem.violations, proved, strict=True)]
        reach = Hyperrectangle(np.array([ends[1]]), np.array([-ends[0]]))  # rows: -y <= -upper, y <= lower
        held = all(low > v.margin() for v, low in zip(problem.violations, proved, strict=True))
        return Result(Status.HOLDS if held else Status.UNKNOWN, "" if held else "the gap is below eps", reach=reach)

    def _side(self, problem: Problem, violation: Violation, deadline: Deadline) -> Result | float:
        """A counter-example, or a lower bound of the level."""
        order = itertools.count()
        first = _bound(problem, violation, problem.box, deadline)
        heap = [(first.lower, next(order), problem.box, first)]
        best = math.inf
        while True:
            deadline.left()
            lower, _, box, found = heapq.heappop(heap)
            points = [box.center, box.lower, box.upper]
            points += [] if found.point is None else [found.point[: problem.network.inputs]]
            for x in points:
                refuted = problem.replay(x)
                if refuted is not None:
                    return refuted
                best = min(best, float(violation.level(problem.network.evaluate(x))))
            halves = bisect(box, box.radius)
            if lower > violation.margin() or best - lower <= self.eps or halves is None:
                return lower
            for half in halves:
                bound = _bound(problem, violation, half, deadline)
                heapq.heappush(heap, (max(bound.lower, lower), next(order), half, bound))


def _bound(problem: Problem, violation: Violation, box: Hyperrectangle, deadline: Deadline) -> Solution:
    """The triangle relaxation's least level on a box."""
    part = replace(problem, input=box)
    bounds = linear_bounds(problem.network, box)
    encoding = encode(part, violation, bounds)
    add_triangles(encoding, bounds)
    return encoding.minimise(deadline)
