"""DLV: search for manipulations of a hidden layer's activations, layer by layer, and map them back to an input.

Layer i is explored around the activation of the centre, within d_1 = eps at the input and d_{i+1} = |W| d_i / 2 behind:
points on the axes, in steps, both directions (the public code never starts on the negative ones, and ends "violated"
regardless). Where the rest of the network violates, an integer program looks for an input with the nearest
activation, and only its evaluation gives a violation. Points prove nothing, so HOLDS comes only from bounds: those of
layer i, by the backward linear pass, propagated through the rest by intervals.
Reference: Huang et al., "Safety Verification of Deep Neural Networks", arXiv 1610.06940. Theory:
theory_notes/survey.md.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from verify.errors import SpecificationError
from verify.survey.algorithm import Algorithm, Facts
from verify.survey.bounds import NodeBounds, interval_bounds, linear_bounds
from verify.survey.deadline import Deadline
from verify.survey.encoding import add_switches, encode
from verify.survey.max_sens import avoids
from verify.survey.network import ReluNetwork
from verify.survey.problem import Problem
from verify.survey.result import Result, Status
from verify.survey.sets import Floats, Hyperrectangle


@dataclass(frozen=True)
class DLV(Algorithm):
    """`steps` points on every half-axis of every layer; at most `tries` of the violating ones are mapped back."""

    eps: float = 1.0
    steps: int = 4
    tries: int = 4
    facts: ClassVar[Facts] = Facts(
        "DLV", "search + reachability", ("hyperrectangle",), ("hyperrectangle",), False,
        "Huang et al. 2017, arXiv 1610.06940", "forward passes per axis point; a MILP per violating activation",
        one_output=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        if not (self.eps > 0 and math.isfinite(self.eps)) or self.steps < 1 or self.tries < 1:
            raise SpecificationError(f"eps, steps and tries must be positive, got {self}")

    def run(self, problem: Problem, deadline: Deadline) -> Result:
        """See `Algorithm.run`."""
        network, bounds = problem.network, linear_bounds(problem.network, problem.box)
        if avoids(problem, bounds.lower[-1], bounds.upper[-1]):
            return Result(Status.HOLDS, reach=bounds.output)
        values = [problem.box.center, *(np.maximum(h, 0.0) for h in network.pre_activations(problem.box.center)[:-1])]
        width = np.minimum(self.eps, problem.box.radius)
        for i, value in enumerate(values):
            rest = ReluNetwork(network.layers[i:])
            if proves_from(problem, rest, _box(problem, bounds, i)):
                return Result(Status.HOLDS)
            refuted = self._explore(problem, bounds, i, value, width, deadline)
            if refuted is not None:
                return refuted
            width = np.abs(network.layers[i].weight) @ width / 2
        return Result(Status.UNKNOWN, "no manipulation was found, and the bounds prove nothing")

    def _explore(
        self, problem: Problem, bounds: NodeBounds, i: int, value: Floats, width: Floats, deadline: Deadline
    ) -> Result | None:
        rest, tried = ReluNetwork(problem.network.layers[i:]), 0
        for point in axis_points(value, width, self.steps):
            deadline.left()
            level = min(float(v.level(rest.evaluate(point))) for v in problem.violations)
            if level < 0:
                refuted = problem.replay(point if i == 0 else preimage(problem, bounds, i, point, deadline))
                if refuted is not None:
                    return refuted
                tried += i > 0
            if tried == self.tries:
                break
        return None


def axis_points(center: Floats, width: Floats, steps: int) -> Iterator[Floats]:
    """The centre, and points on every axis in both directions, outermost first."""
    yield center
    for j in np.flatnonzero(width > 0):
        for k in range(steps, 0, -1):
            for sign in (1.0, -1.0):
                point = center.copy()
                point[j] += sign * width[j] * k / steps
                yield point


def _box(problem: Problem, bounds: NodeBounds, i: int) -> Hyperrectangle:
    """Box of the inputs of layer i."""
    if i == 0:
        return problem.box
    return Hyperrectangle(np.maximum(bounds.lower[i - 1], 0.0), np.maximum(bounds.upper[i - 1], 0.0))


def proves_from(problem: Problem, rest: ReluNetwork, box: Hyperrectangle) -> bool:
    """Whether intervals through the rest of the network avoid every violation."""
    out = interval_bounds(rest, box).output
    return avoids(problem, out.lower, out.upper)


def preimage(problem: Problem, bounds: NodeBounds, i: int, target: Floats, deadline: Deadline) -> Floats | None:
    """The input whose activations behind i layers are nearest to a target in the max norm."""
    encoding = encode(problem, None, bounds, layers=i)
    add_switches(encoding, bounds)
    model, identity = encoding.model, np.eye(len(target))
    r = model.variables(1, 0.0)
    both = np.vstack([identity, -identity])
    away = np.concatenate([target, -target])
    model.rows([(encoding.z[-1], both), (r, -np.ones((2 * len(target), 1)))], upper=away)
    return encoding.input_of(model.minimise(r, np.ones(1), deadline=deadline))
