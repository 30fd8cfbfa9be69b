"""FastLin: bisection of the radius for which linear bounds prove the property around the centre.

A radius r is certified if the backward linear pass keeps the level of the half-space above the margin on the max-norm
ball of radius r; the largest one found is reported, and the property holds if the input set's own box is certified.
Reference: Weng et al., "Towards Fast Computation of Certified Robustness for ReLU Networks", arXiv 1804.09699. Theory:
theory_notes/survey.md. The linear pass is sign-aware; the public code shares its defect with ConvDual's.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from verify.errors import SpecificationError
from verify.survey.algorithm import Algorithm, Facts
from verify.survey.conv_dual import corner, proves
from verify.survey.deadline import Deadline
from verify.survey.problem import Problem
from verify.survey.result import Result, Status
from verify.survey.sets import Hyperrectangle


@dataclass(frozen=True)
class FastLin(Algorithm):
    """Bisection between 0 and `largest`, at most `steps` times, to a width of `accuracy` of the certified radius."""

    steps: int = 30
    largest: float = 100.0
    accuracy: float = 1e-3
    facts: ClassVar[Facts] = Facts(
        "FastLin", "search + reachability", ("hyperrectangle",), ("half-space",), False,
        "Weng et al. 2018, arXiv 1804.09699", "one set of backward passes per step of the bisection",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.steps < 1 or not (self.largest > 0 and math.isfinite(self.largest)) or not self.accuracy > 0:
            raise SpecificationError(f"steps, largest and accuracy must be positive, got {self}")

    def run(self, problem: Problem, deadline: Deadline) -> Result:
        """See `Algorithm.run`."""
        held = proves(problem, problem.box)
        radius = self.certified_radius(problem, deadline)
        found = Result(Status.UNKNOWN, radius=radius, radius_kind="certified")
        if held or radius >= float(problem.box.radius.max()):
            return replace(found, status=Status.HOLDS)
        return problem.replay(corner(problem), found) or replace(found, words="the linear bounds are not tight enough")

    def certified_radius(self, problem: Problem, deadline: Deadline) -> float:
        """The largest radius around the centre that the bisection certifies; 0 if there is none."""
        low, high = 0.0, self.largest
        for _ in range(self.steps):
            deadline.left()
            middle = (low + high) / 2
            if proves(problem, Hyperrectangle.around(problem.box.center, middle)):
                low = middle
            else:
                high = middle
            if high - low <= self.accuracy * low:
                break
        return low
