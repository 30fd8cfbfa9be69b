"""Duality: the Lagrangian dual of a network, minimised over its multipliers by a linear program.

For a bound of c.y, with boxes (c_i, r_i) of every layer's input, pre-activations h_i in [l_i, u_i], multipliers mu_i of
``h_i = W_i z_{i-1} + b_i`` and lambda_i of ``z_i = relu(h_i)``, lambda_0 = 0, lambda_L = -c:

    sum_i  lambda_{i-1}.c_i - mu_i.(W_i c_i + b_i) + |lambda_{i-1} - W_i^T mu_i|.r_i
           + sum_j max { mu_ij h - lambda_ij sigma(h) : h in {l, u, and 0 if l < 0 < u} }

is an upper bound for ANY multipliers (sigma: relu, and the identity for the last layer). The solver's multipliers are
put into the formula in float64, so that solver tolerances cannot make it wrong. Early public code decouples the two
terms of the maximum and drops a sign, which is unsound.
Reference: Dvijotham et al., "A Dual Approach to Scalable Verification of Deep Networks", arXiv 1803.06567. Theory:
theory_notes/survey.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from verify.survey.algorithm import Algorithm, Facts
from verify.survey.bounds import NodeBounds, linear_bounds
from verify.survey.conv_dual import corner
from verify.survey.deadline import Deadline
from verify.survey.linear_program import Indices, Model
from verify.survey.network import ReluNetwork
from verify.survey.problem import ARITHMETIC, Problem
from verify.survey.result import Result, Status
from verify.survey.sets import Floats, Hyperrectangle


@dataclass(frozen=True)
class Duality(Algorithm):
    """One linear program over all multipliers."""

    facts: ClassVar[Facts] = Facts(
        "Duality", "dual optimisation", ("hyperrectangle",), ("half-space",), False,
        "Dvijotham et al. 2018, arXiv 1803.06567", "one linear program with two multipliers per unit",
    )  # fmt: skip

    def run(self, problem: Problem, deadline: Deadline) -> Result:
        """See `Algorithm.run`."""
        violation = problem.violations[0]
        bounds = linear_bounds(problem.network, problem.box)
        costs = -violation.normals[0]
        found = multipliers(problem.network, problem.box, bounds, costs, deadline)
        if found is not None:
            upper = dual_upper(problem.network, problem.box, bounds, costs, *found)
            if upper + violation.offsets[0] < -violation.margin(ARITHMETIC):
                return Result(Status.HOLDS)
        unknown = Result(Status.UNKNOWN, "the dual bound is not tight enough")
        return problem.replay(corner(problem), unknown) or unknown


def _input_boxes(box: Hyperrectangle, bounds: NodeBounds) -> list[Hyperrectangle]:
    hidden = zip(bounds.lower[:-1], bounds.upper[:-1], strict=True)
    return [box, *(Hyperrectangle(np.maximum(low, 0.0), np.maximum(high, 0.0)) for low, high in hidden)]


def _kinks(low: Floats, high: Floats, last: bool) -> list[tuple[Floats, Floats]]:
    """(h, sigma(h)) at the points where the inner maximum can lie; 0 is repeated as an end where it is outside."""
    points = [low, high] if last else [low, high, np.clip(0.0, low, high)]
    return [(h, h if last else np.maximum(h, 0.0)) for h in points]


def dual_upper(
    network: ReluNetwork, box: Hyperrectangle, bounds: NodeBounds, costs: Floats,
    lambdas: Sequence[Floats], mus: Sequence[Floats],
) -> float:  # fmt: skip
    """Upper bound of ``costs . f(x)`` over a box, for any multipliers (lambdas: of the hidden layers)."""
    first, last = np.zeros(network.inputs), len(network.layers) - 1
    every = [first, *lambdas, -costs]
    total = 0.0
    for i, (layer, inside) in enumerate(zip(network.layers, _input_boxes(box, bounds), strict=True)):
        mu = mus[i]
        total += float(every[i] @ inside.center - mu @ (layer.weight @ inside.center + layer.bias))
        total += float(np.abs(every[i] - layer.weight.T @ mu) @ inside.radius)
        ends = [mu * h - every[i + 1] * y for h, y in _kinks(bounds.lower[i], bounds.upper[i], i == last)]
        total += float(np.max(ends, axis=0).sum())
    return total


def multipliers(
    network: ReluNetwork, box: Hyperrectangle, bounds: NodeBounds, costs: Floats, deadline: Deadline
) -> tuple[list[Floats], list[Floats]] | None:
    """Optimal multipliers (lambdas of the hidden layers, mus of all), None if the solver finds none in time."""
    model, last = Model(), len(network.layers) - 1
    lambdas = [model.variables(width) for width in network.hidden]
    mus = [model.variables(len(layer.bias)) for layer in network.layers]
    terms: list[tuple[Indices, Floats]] = []
    for i, (layer, inside) in enumerate(zip(network.layers, _input_boxes(box, bounds), strict=True)):
        magnitude, identity = model.variables(inside.dimension), -np.eye(inside.dimension)
        for sign in (1.0, -1.0):
            before = [(lambdas[i - 1], -sign * identity)] if i else []
            model.rows([*before, (mus[i], -sign * layer.weight.T), (magnitude, identity)], upper=0.0)
        terms += [(magnitude, inside.radius), (mus[i], -(layer.weight @ inside.center + layer.bias))]
        terms += [(lambdas[i - 1], inside.center)] if i else []
        top, ones = model.variables(len(layer.bias)), -np.eye(len(layer.bias))
        for h, y in _kinks(bounds.lower[i], bounds.upper[i], i == last):
            after = [] if i == last else [(lambdas[i], -np.diag(y))]
            model.rows([(mus[i], np.diag(h)), *after, (top, ones)], upper=-costs * y if i == last else 0.0)
        terms.append((top, np.ones(len(layer.bias))))
    objective = np.zeros(len(model.lower))
    for indices, weights in terms:
        objective[indices] += weights
    found = model.minimise(np.arange(len(objective)), objective, deadline=deadline)
    if found.point is None:
        return None
    return [found.point[v] for v in lambdas], [found.point[v] for v in mus]
