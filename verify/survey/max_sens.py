"""MaxSens: grid the input set and propagate a box from every cell, by the maximum sensitivity of each unit.

A unit with pre-activation in [o - d, o + d] gets (not tight) centre relu(o) and radius max(|relu(o+d) - relu(o)|,
|relu(o-d) - relu(o)|), or (tight) the interval [relu(o-d), relu(o+d)], which is interval arithmetic.
Reference: Xiang, Tran, Johnson, "Output Reachable Set Estimation and Verification for Multi-Layer Neural Networks",
arXiv 1708.03322. Theory: theory_notes/survey.md. A polytope of inputs is replaced by the box around it.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from verify.errors import SpecificationError
from verify.survey.algorithm import Algorithm, Facts
from verify.survey.bounds import interval_step
from verify.survey.deadline import Deadline
from verify.survey.problem import ARITHMETIC, Problem
from verify.survey.result import Result, Status
from verify.survey.sets import Floats, Hyperrectangle


@dataclass(frozen=True)
class MaxSens(Algorithm):
    """Cells of width at most `resolution` in every dimension, at most `most_cells` of them.

    Attributes:
        resolution: largest width of a cell.
        tight: interval arithmetic instead of the published, wider step.
    """

    resolution: float = 1.0
    tight: bool = False
    facts: ClassVar[Facts] = Facts(
        "MaxSens", "reachability", ("hyperrectangle", "polytope"), ("hyperrectangle", "polytope", "half-space"),
        False, "Xiang et al. 2018, arXiv 1708.03322", "one forward pass per cell; cells exponential in the inputs",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if not (self.resolution > 0 and math.isfinite(self.resolution)):
            raise SpecificationError(f"resolution must be a positive number, got {self.resolution}")

    def run(self, problem: Problem, deadline: Deadline) -> Result:
        """See `Algorithm.run`."""
        lowest = np.full(problem.network.outputs, np.inf)
        highest, held = -lowest, True
        for cell in cells(problem.box, self.resolution):
            deadline.left()
            lower, upper = self.reach(problem, cell)
            lowest, highest = np.minimum(lowest, lower), np.maximum(highest, upper)
            if held and not avoids(problem, lower, upper):
                held = False
                refuted = problem.replay(cell.center)
                if refuted is not None:
                    return refuted
        reach = Hyperrectangle(lowest, highest)
        return Result(Status.HOLDS if held else Status.UNKNOWN, "" if held else "a cell is too wide", reach=reach)

    def reach(self, problem: Problem, cell: Hyperrectangle) -> tuple[Floats, Floats]:
        """Bounds of the output over one cell."""
        lower, upper = cell.lower, cell.upper
        for i, layer in enumerate(problem.network.layers):
            low, high = interval_step(layer, lower, upper)
            if i == len(problem.network.hidden):
                return low, high
            lower, upper = np.maximum(low, 0.0), np.maximum(high, 0.0)
            if not self.tight:
                center = np.maximum((low + high) / 2, 0.0)
                radius = np.maximum(np.abs(upper - center), np.abs(lower - center))
                lower, upper = center - radius, center + radius
        raise SpecificationError("a network needs at least one layer")


def cells(box: Hyperrectangle, resolution: float) -> Iterator[Hyperrectangle]:
    """Equal closed cells, ``max(1, ceil(width / resolution))`` per dimension, that cover a box."""
    counts = np.maximum(1, np.ceil((box.upper - box.lower) / resolution)).astype(int)
    edges = [np.linspace(a, b, n + 1) for a, b, n in zip(box.lower, box.upper, counts, strict=True)]
    for index in itertools.product(*(range(n) for n in counts)):
        low = np.array([e[i] for e, i in zip(edges, index, strict=True)])
        high = np.array([e[i + 1] for e, i in zip(edges, index, strict=True)])
        yield Hyperrectangle(low, high)


def avoids(problem: Problem, lower: Floats, upper: Floats) -> bool:
    """Whether a box of outputs is clear of every violation: one row of each is positive on all of it."""
    center, radius = (lower + upper) / 2, (upper - lower) / 2
    for v in problem.violations:
        rows = v.normals @ center - v.offsets - np.abs(v.normals) @ radius
        if rows.max() <= v.margin(ARITHMETIC):
            return False
    return True
