"""Certify: a semidefinite bound of the largest gradient of a network with one hidden layer.

For v = c W2, B = diag(v) W1 diag(r), x = x0 + diag(r) t with |t| <= 1 and slopes in [0, 1]:

    c.f(x) <= c.f(x0) + 1/4 max { tr(M P) : P PSD, diag P <= 1 },
    M = [[0, 0, 1^T B], [0, 0, B], [B^T 1, B^T, 0]],   1 over the hidden units.

The public code has B transposed, which is unsound (theory_notes/survey.md). The dual ``min sum(y) : diag(y) - M PSD,
y >= 0`` is solved by cvxpy; its y is lifted by the least eigenvalue of diag(y) - M, so that solver tolerances
cannot make the bound wrong beyond float64. Reference: Raghunathan, Steinhardt, Liang, "Certified Defenses against
Adversarial Examples", arXiv 1801.09344.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from verify.survey.algorithm import Algorithm, Facts
from verify.survey.conv_dual import corner
from verify.survey.deadline import Deadline
from verify.survey.problem import ARITHMETIC, Problem
from verify.survey.result import Result, Status
from verify.survey.sets import Floats


@dataclass(frozen=True)
class Certify(Algorithm):
    """One semidefinite program (SCS through cvxpy)."""

    facts: ClassVar[Facts] = Facts(
        "Certify", "dual optimisation", ("hyperrectangle",), ("half-space",), False,
        "Raghunathan et al. 2018, arXiv 1801.09344", "semidefinite program of size 1 + inputs + units",
        hidden_layers=1,
    )  # fmt: skip

    def run(self, problem: Problem, deadline: Deadline) -> Result:
        """See `Algorithm.run`."""
        violation, (first, second) = problem.violations[0], problem.network.layers
        costs = -violation.normals[0]
        blocks = block_matrix(costs @ second.weight, first.weight * problem.box.radius)
        rise = semidefinite_upper(blocks, deadline) / 4
        upper = float(costs @ problem.network.evaluate(problem.box.center)) + rise
        if upper + violation.offsets[0] < -violation.margin(ARITHMETIC):
            return Result(Status.HOLDS)
        unknown = Result(Status.UNKNOWN, "the semidefinite bound is not tight enough")
        return problem.replay(corner(problem), unknown) or unknown


def block_matrix(v: Floats, weight: Floats) -> Floats:
    """M for output weights v ``(hidden,)`` and input weights ``(hidden, inputs)``, scaled by the radii."""
    b = v[:, None] * weight
    hidden, inputs = b.shape
    m = np.zeros((1 + hidden + inputs, 1 + hidden + inputs))
    m[0, 1 + hidden :] = b.sum(axis=0)
    m[1 : 1 + hidden, 1 + hidden :] = b
    return np.asarray(m + m.T)


def semidefinite_upper(m: Floats, deadline: Deadline) -> float:
    """Upper bound of ``max tr(M P)`` over PSD P with diagonal at most 1; infinite if the solver gives nothing."""
    cvxpy: Any = import_module("cvxpy")  # slow to import, and only this algorithm needs it

    y = cvxpy.Variable(len(m), nonneg=True)
    program = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum(y)), [cvxpy.diag(y) - m >> 0])
    left = deadline.left()
    limit: dict[str, Any] = {"time_limit_secs": left} if np.isfinite(left) else {}
    try:
        program.solve(solver=cvxpy.SCS, eps_abs=1e-7, eps_rel=1e-7, **limit)
    except cvxpy.error.SolverError:
        return float("inf")
    if y.value is None or not np.isfinite(y.value).all():
        return float("inf")
    found = np.maximum(y.value, 0.0)
    lift = max(0.0, -float(np.linalg.eigvalsh(np.diag(found) - m)[0]))
    return float(found.sum() + len(m) * lift * (1 + 1e-9))
