"""ILP: the nearest violation within the linear region of the centre, by linear programs with lazy sign constraints.

Iterative: solve with the phases of the centre but without its sign constraints, add those that the solution breaks,
repeat. The answer says NOTHING about inputs in other linear regions: without a violation the status is UNKNOWN and the
radius is marked "region-local" (the published method calls that sound; a nearer violation may lie in the next region),
unless every unit is stable, so that there is no other region.
Reference: Bastani et al., "Measuring Neural Net Robustness with Constraints", arXiv 1605.07262. Theory:
theory_notes/survey.md.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from verify.survey.algorithm import Algorithm, Facts
from verify.survey.bounds import linear_bounds
from verify.survey.deadline import Deadline
from verify.survey.linear_program import Model, Outcome, Solution
from verify.survey.network import Layer
from verify.survey.problem import Problem, Violation
from verify.survey.result import Result, Status
from verify.survey.sets import OUTPUT_KINDS, Floats

BROKEN = 1e-7  # by how much a lazily added sign may be broken


@dataclass(frozen=True)
class ILP(Algorithm):
    """Lazy (iterative) or all sign constraints at once."""

    iterative: bool = True
    facts: ClassVar[Facts] = Facts(
        "ILP", "primal optimisation", ("hyperrectangle",), OUTPUT_KINDS, False,
        "Bastani et al. 2016, arXiv 1605.07262", "a few linear programs over the inputs; one linear region only",
    )  # fmt: skip

    def run(self, problem: Problem, deadline: Deadline) -> Result:
        """See `Algorithm.run`."""
        maps = problem.network.affine_map(problem.network.phases(problem.box.center))
        local, refuted = np.inf, None
        for violation in problem.violations:
            found = self._nearest(problem, maps, violation, deadline)
            if found.outcome is Outcome.OPTIMAL and found.point is not None:
                local = min(local, found.value)
                refuted = refuted or problem.replay(found.point[: problem.network.inputs])
        if refuted is not None:
            return replace(refuted, radius=local, radius_kind="region-local")
        if not linear_bounds(problem.network, problem.box).unstable():
            return _single_region(problem, maps[-1])
        radius = float(problem.box.radius.max()) if np.isinf(local) else local  # the region holds none in the set
        words = "no violation in the linear region of the centre; nothing is said about other regions"
        return Result(Status.UNKNOWN, words, radius=radius, radius_kind="region-local")

    def _nearest(self, problem: Problem, maps: list[Layer], violation: Violation, deadline: Deadline) -> Solution:
        """Nearest point of the centre's region (and the box) with a level of at most 0."""
        model, n, center = Model(), problem.network.inputs, problem.box.center
        x, r = model.variables(n, problem.box.lower, problem.box.upper), model.variables(1, 0.0)
        both = np.vstack([np.eye(n), -np.eye(n)])
        model.rows([(x, both), (r, -np.ones((2 * n, 1)))], upper=np.concatenate([center, -center]))
        out = Layer(violation.normals, -violation.offsets).after(maps[-1])
        model.rows([(x, out.weight)], upper=-out.bias)
        signs = _signs(maps, center)
        missing = np.ones(len(signs.bias), dtype=bool) if not self.iterative else np.zeros(len(signs.bias), dtype=bool)
        used = np.zeros(len(signs.bias), dtype=bool)
        while True:
            if missing.any():
                model.rows([(x, signs.weight[missing])], upper=-signs.bias[missing])
                used |= missing
            found = model.minimise(r, np.ones(1), deadline=deadline)
            if found.point is None:
                return found
            missing = (signs.weight @ found.point[x] + signs.bias > BROKEN) & ~used
            if not missing.any():
                return found


def _signs(maps: list[Layer], center: Floats) -> Layer:
    """Rows that are at most 0 on the linear region of the centre."""
    if len(maps) == 1:
        return Layer(np.zeros((1, len(center))), np.array([-1.0]))
    hidden = Layer(np.vstack([m.weight for m in maps[:-1]]), np.concatenate([m.bias for m in maps[:-1]]))
    sign = np.where(hidden.weight @ center + hidden.bias >= 0, -1.0, 1.0)
    return Layer(sign[:, None] * hidden.weight, sign * hidden.bias)


def _single_region(problem: Problem, out: Layer) -> Result:
    """Every unit is stable: the network is affine on the box, and its levels' minima are linear programs."""
    box = problem.box
    for violation in problem.violations:
        rows = Layer(violation.normals, -violation.offsets).after(out)
        model = Model()
        x, t = model.variables(problem.network.inputs, box.lower, box.upper), model.variables(1)
        model.rows([(x, rows.weight), (t, -np.ones((len(rows.bias), 1)))], upper=-rows.bias)
        if model.minimise(t, np.ones(1)).lower <= violation.margin():
            return Result(Status.UNKNOWN, "within the margin", radius_kind="region-local")
    return Result(Status.HOLDS, "the input set lies in one linear region")
