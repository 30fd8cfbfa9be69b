"""NSVerify: the network as a mixed-integer linear program with big-M switches, no presolved phases.

Every unit gets a binary (1: inactive) with ``z <= M (1 - d)``, ``h >= z - M d``. M must exceed every |h|: by default it
is the largest bound of interval arithmetic, and a smaller one is refused (the published default of 1000 is wrong for
networks with larger values). Reference: Lomuscio, Maganti, "An Approach to Reachability Analysis for Feed-Forward ReLU
Neural Networks", arXiv 1706.07351. Theory: theory_notes/survey.md.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from verify.errors import SpecificationError
from verify.survey.algorithm import Algorithm, Facts
from verify.survey.bounds import interval_bounds
from verify.survey.deadline import Deadline
from verify.survey.encoding import add_switches, encode
from verify.survey.linear_program import doubt
from verify.survey.problem import SOLVER, Problem
from verify.survey.result import Result, Status
from verify.survey.sets import INPUT_KINDS, OUTPUT_KINDS


@dataclass(frozen=True)
class NSVerify(Algorithm):
    """One MILP per violation.

    Attributes:
        big_m: M; None for the smallest that interval arithmetic justifies.
    """

    big_m: float | None = None
    facts: ClassVar[Facts] = Facts(
        "NSVerify", "primal optimisation", INPUT_KINDS, OUTPUT_KINDS, True,
        "Lomuscio & Maganti 2017, arXiv 1706.07351", "MILP with one binary per unit",
    )  # fmt: skip

    def run(self, problem: Problem, deadline: Deadline) -> Result:
        """See `Algorithm.run`.

        Raises:
            SpecificationError: `big_m` is smaller than some unit's value may be.
        """
        bounds = interval_bounds(problem.network, problem.box)
        hidden = [np.abs(b).max() for b in (*bounds.lower[:-1], *bounds.upper[:-1])]
        needed = float(max(hidden, default=0.0))
        big_m = needed if self.big_m is None else self.big_m
        if big_m < needed:
            raise SpecificationError(f"big_m = {big_m:g} may cut off values: interval arithmetic needs {needed:g}")
        for violation in problem.violations:
            encoding = encode(problem, violation, bounds)
            add_switches(encoding, bounds, big_m)
            found = encoding.minimise(deadline)
            refuted = problem.replay(encoding.input_of(found))
            if refuted is not None:
                return refuted
            if found.lower <= violation.margin() + SOLVER * big_m:
                return Result(Status.UNKNOWN, doubt(found))
        return Result(Status.HOLDS)
