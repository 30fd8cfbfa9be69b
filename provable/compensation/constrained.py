"""Least squares under constraints on the weights, as a convex program.

    minimise    tr(W C W^T) - 2 tr(W B)           the squared error on the calibration data, from moments
    subject to  ||w - p|| <= change ||p||         every row w stays near its row p before the fit
                sign(w) = sign(p) or w = 0
                ||w|| <= norm ||p||               rows do not grow

With C = L L^T the objective is || L^T W^T - L^{-1} B ||^2 up to a constant. The solver's answer is projected onto the
constraints, so they hold exactly (up to one rounding), and the reported loss is that of the weights returned.

Theory: theory_notes/compensation.md. Not claimed: optimality beyond the solver's tolerance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from provable.compensation.least_squares import SMALLEST_RIDGE, Fit, loss, of_weight
from provable.compensation.moments import Matrix, Moments, Regression, total
from provable.compensation.ridge import Chosen
from provable.errors import InputError


@dataclass(frozen=True)
class Constrained:
    """A solver (see `sequential.Solver`).

    Attributes:
        change: largest change of a row relative to its norm before; None: any.
        signs: whether weights keep their signs.
        norm: largest norm of a row relative to its norm before; None: any.
    """

    change: float | None = None
    signs: bool = False
    norm: float | None = None

    def __post_init__(self) -> None:
        if self.change is not None and self.norm is not None:
            raise InputError("constrain the change of a row or its norm, not both: weights may not meet both at once")

    def __call__(self, folds: Sequence[Moments], kept: NDArray[np.intp], *, prior: Matrix) -> Chosen:
        """The constrained fit on all folds, and the mean loss of fits to one fold on the other."""
        found = self.fit(total(folds).centred(), kept, prior)
        if len(folds) < 2 or any(fold.count == 0 for fold in folds):
            return Chosen(found, None)
        problems = [fold.centred() for fold in folds]
        alone = [self.fit(problem, kept, prior) for problem in problems]
        others = [*problems[1:], problems[0]]
        judged = [loss(o, kept, f.weight, f.intercept) for f, o in zip(alone, others, strict=True)]
        return Chosen(found, float(np.mean(judged)))

    def fit(self, regression: Regression, kept: NDArray[np.intp], prior: Matrix) -> Fit:
        """Best weights (n, |A|) within the constraints; the weights before where the solver finds nothing better."""
        before = of_weight(regression, kept, self.projected(prior, prior), 0.0)
        weight = self._solved(regression, kept, prior) if prior.size else None
        if weight is None:
            return before
        found = of_weight(regression, kept, self.projected(weight, prior), 0.0)
        return found if found.loss <= before.loss else before

    def projected(self, weight: Matrix, prior: Matrix) -> Matrix:
        """Weights that meet the constraints; weights that do stay as they are."""
        size = np.linalg.norm(prior, axis=1, keepdims=True)
        if self.change is not None:
            step = weight - prior
            weight = prior + step * _at_most(np.linalg.norm(step, axis=1, keepdims=True), self.change * size)
        if self.signs:  # moves towards prior, so the change stays bounded
            weight = np.where(weight * np.sign(prior) < 0.0, 0.0, weight)
        if self.norm is not None:  # moves towards zero: signs stay
            weight = weight * _at_most(np.linalg.norm(weight, axis=1, keepdims=True), self.norm * size)
        return weight

    def _solved(self, regression: Regression, kept: NDArray[np.intp], prior: Matrix) -> Matrix | None:
        cvxpy: Any = import_module("cvxpy")  # its stubs lack the atoms
        covariance = regression.covariance[np.ix_(kept, kept)]
        mean = float(np.trace(covariance)) / len(kept)
        if mean <= 0.0:
            return None
        root = np.linalg.cholesky(covariance + max(SMALLEST_RIDGE, 1e-8) * mean * np.eye(len(kept)))
        aim = solve_triangular(root, regression.cross[kept], lower=True)  # (|A|, n)
        weight = cvxpy.Variable(prior.shape)
        size = np.linalg.norm(prior, axis=1)
        limits = []
        if self.change is not None:
            limits.append(cvxpy.norm(weight - prior, axis=1) <= self.change * size)
        if self.signs:
            limits.append(cvxpy.multiply(np.sign(prior), weight) >= 0)
        if self.norm is not None:
            limits.append(cvxpy.norm(weight, axis=1) <= self.norm * size)
        problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(root.T @ weight.T - aim)), limits)
        try:
            problem.solve(solver=cvxpy.CLARABEL)
        except cvxpy.error.SolverError:
            return None
        found: Matrix | None = weight.value
        return found if found is not None and np.isfinite(found).all() else None


def _at_most(size: Matrix, limit: Matrix) -> Matrix:
    """Factors that bring sizes down to their limits."""
    return np.where(size > limit, limit / np.where(size > 0.0, size, 1.0), 1.0)
