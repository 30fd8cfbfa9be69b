"""ConvDual: the dual network of Wong and Kolter, one backward pass per half-space.

Node bounds come from the same pass, layer after layer. The pass is sign-aware: an unstable unit's offset counts only
where the multiplier has the sign that uses the upper side of the triangle. The public code adds it for both signs,
which is unsound (theory_notes/survey.md). HOLDS if the bound proves it; a violation only if the corner of the box
that the bound points at violates when evaluated. Reference: Wong, Kolter, "Provable Defenses against Adversarial
Examples via the Convex Outer Adversarial Polytope", arXiv 1711.00851.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from verify.survey.algorithm import Algorithm, Facts
from verify.survey.bounds import backward_lower, linear_bounds
from verify.survey.deadline import Deadline
from verify.survey.network import Layer
from verify.survey.problem import ARITHMETIC, Problem
from verify.survey.result import Result, Status
from verify.survey.sets import Floats, Hyperrectangle


@dataclass(frozen=True)
class ConvDual(Algorithm):
    """One backward pass through the dual network."""

    facts: ClassVar[Facts] = Facts(
        "ConvDual", "dual optimisation", ("hyperrectangle",), ("half-space",), False,
        "Wong & Kolter 2018, arXiv 1711.00851", "one backward pass per layer for bounds, one for the property",
    )  # fmt: skip

    def run(self, problem: Problem, deadline: Deadline) -> Result:
        """See `Algorithm.run`."""
        if proves(problem, problem.box):
            return Result(Status.HOLDS)
        deadline.left()
        unknown = Result(Status.UNKNOWN, "the dual bound is not tight enough")
        return problem.replay(corner(problem), unknown) or unknown


def proves(problem: Problem, box: Hyperrectangle) -> bool:
    """Whether the dual bound keeps every level above the margin on a box of inputs."""
    bounds, layers = linear_bounds(problem.network, box), problem.network.layers
    return all(
        backward_lower(layers, bounds.lower, bounds.upper, Layer(v.normals, -v.offsets), box).max()
        > v.margin(ARITHMETIC)
        for v in problem.violations
    )


def corner(problem: Problem) -> Floats:
    """The corner of the box that the gradient at the centre points to, downhill for the first violation's level."""
    network, box = problem.network, problem.box
    gradient = problem.violations[0].normals[0] @ network.affine_map(network.phases(box.center))[-1].weight
    return np.asarray(box.center - np.sign(gradient) * box.radius)
