"""ReluVal: symbolic intervals and bisection of the input that the output depends on most.

ReLU of [Low, Up] (affine functions of the input): 0 if Up <= 0 everywhere, kept if Low >= 0 everywhere; else Low
becomes 0, and Up its largest value, unless Up >= 0 everywhere. A box that is not decided is halved in the coordinate
with the largest smear ``sum over outputs of max(|UG|, |LG|) r``; its midpoint is evaluated first, and only that can
give a violation. Reference: Wang et al., "Formal Security Analysis of Neural Networks using Symbolic Intervals",
arXiv 1804.10829. Theory: theory_notes/survey.md. Polytopes are taken row by row, beyond the published boxes.
"""

from collections import deque
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from verify.errors import SpecificationError
from verify.survey.algorithm import Algorithm, Facts
from verify.survey.bounds import NodeBounds
from verify.survey.deadline import Deadline
from verify.survey.fast_lip import gradient_interval
from verify.survey.network import Layer
from verify.survey.problem import ARITHMETIC, Problem
from verify.survey.result import Result, Status
from verify.survey.sets import Floats, Hyperrectangle
from verify.survey.symbolic import Symbolic, least, most


@dataclass(frozen=True)
class ReluVal(Algorithm):
    """Bisection of at most `boxes` boxes (the published limit is 10), breadth first: depth first, as published, can
    follow the border of the violations down to single floats."""

    boxes: int = 100_000
    facts: ClassVar[Facts] = Facts(
        "ReluVal", "search + reachability", ("hyperrectangle",), ("hyperrectangle", "polytope", "half-space"),
        False, "Wang et al. 2018, arXiv 1804.10829", "one symbolic pass per box; boxes exponential in the inputs",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.boxes < 1:
            raise SpecificationError(f"boxes must be at least 1, got {self.boxes}")

    def run(self, problem: Problem, deadline: Deadline) -> Result:
        """See `Algorithm.run`."""
        pending, doubt = deque([problem.box]), False
        lowest = np.full(problem.network.outputs, np.inf)
        highest = -lowest
        for _ in range(self.boxes):
            if not pending:
                break
            deadline.left()
            box = pending.popleft()
            bounds, value = symbolic_pass(problem, box)
            if clear(problem, value, box):
                lowest = np.minimum(lowest, bounds.lower[-1])
                highest = np.maximum(highest, bounds.upper[-1])
                continue
            refuted = problem.replay(box.center)
            if refuted is not None:
                return refuted
            halves = bisect(box, smear(problem, bounds, box))
            doubt = doubt or halves is None
            pending += halves or []
        if pending or doubt:
            return Result(Status.UNKNOWN, "boxes are left" if pending else "a smallest box is within the margin")
        return Result(Status.HOLDS, reach=Hyperrectangle(lowest, highest))


def rectify(value: Symbolic, box: Hyperrectangle) -> Symbolic:
    """ReluVal's ReLU."""
    low, high = least(value.low, box), most(value.up, box)
    active, dead = low >= 0, high <= 0
    constant = ~active & ~dead & (least(value.up, box) < 0)
    keep_up = (active | (~dead & ~constant)).astype(np.float64)
    up_bias = np.where(constant, high, value.up.bias * keep_up)
    lower = Layer(active[:, None] * value.low.weight, active * value.low.bias)
    return Symbolic(lower, Layer(keep_up[:, None] * value.up.weight, up_bias))


def symbolic_pass(problem: Problem, box: Hyperrectangle) -> tuple[NodeBounds, Symbolic]:
    """Bounds of every unit, and the last hidden layer's symbolic outputs (the input's without a hidden layer)."""
    value, lows, highs = Symbolic.of_input(problem.network.inputs), [], []
    for i, layer in enumerate(problem.network.layers):
        before = value.through(layer)
        lows.append(least(before.low, box))
        highs.append(most(before.up, box))
        if i < len(problem.network.hidden):
            value = rectify(before, box)
    return NodeBounds(tuple(lows), tuple(highs)), value


def clear(problem: Problem, value: Symbolic, box: Hyperrectangle) -> bool:
    """Whether one row of every violation is positive on the whole box."""
    last = problem.network.layers[-1]
    return all(
        least(value.through(Layer(v.normals, -v.offsets).after(last)).low, box).max() > v.margin(ARITHMETIC)
        for v in problem.violations
    )


def smear(problem: Problem, bounds: NodeBounds, box: Hyperrectangle) -> Floats:
    """How much every input moves the violations' rows over the box ``(inputs,)``."""
    rows = np.vstack([v.normals for v in problem.violations])
    low, high = gradient_interval(problem.network, bounds, rows)
    return np.asarray(np.maximum(np.abs(low), np.abs(high)).sum(axis=0) * box.radius)


def bisect(box: Hyperrectangle, weights: Floats) -> list[Hyperrectangle] | None:
    """The closed halves along the heaviest coordinate (the widest, if all weigh nothing); None: no float between."""
    i = int(np.argmax(weights if weights.max() > 0 else box.radius))
    middle = box.center[i]
    if not box.lower[i] < middle < box.upper[i]:
        return None
    upper, lower = box.upper.copy(), box.lower.copy()
    upper[i] = lower[i] = middle
    return [Hyperrectangle(box.lower, upper), Hyperrectangle(lower, box.upper)]
