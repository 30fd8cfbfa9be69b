"""Least squares with intercept on a subset of the regressors, in closed form from moments.

For kept coordinates A, covariance C, cross-covariance B (columns are targets):

    W^T = (C_AA + lambda I)^{-1} (B_A + lambda P_A^T),      b = tau - W mu_A,
    loss(W) = sum_n Var(t_n) - 2 tr(W B_A) + tr(W C_AA W^T)              (exact mean squared error on the data)

lambda is `ridge` times the mean diagonal of C_AA; P is an optional prior that the ridge pulls towards (the
weights before the fit) instead of zero. The target may be any value: regressing the original network's value on the
already compressed network's input repairs errors made upstream.

Reference: Xie et al. 2021, Pruning with Compensation (closed form); sequential targets: He et al. 2017, Channel
Pruning. Theory: theory_notes/compensation.md. Not claimed: a bound on the loss on other inputs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from provable.compensation.moments import Matrix, Regression

SMALLEST_RIDGE = 1e-9
"""Relative ridge below which float64 normal equations of dependent channels lose all digits."""


@dataclass(frozen=True)
class Fit:
    """A fitted affine map t ~ weight x_A + intercept.

    Attributes:
        weight: (n, |A|).
        intercept: (n,).
        loss: exact mean squared error on the moments' data, summed over targets.
        ridge: relative ridge that was used (it grows where the factorisation needs it); None: weights were given.
    """

    weight: Matrix
    intercept: Matrix
    loss: float
    ridge: float | None


def fit(
    regression: Regression,
    kept: NDArray[np.intp],
    *,
    ridge: float = SMALLEST_RIDGE,
    prior: Matrix | None = None,
) -> Fit:
    """Best affine map from the kept coordinates to the targets.

    Args:
        regression: the problem.
        kept: coordinates of x to keep.
        ridge: relative to the mean diagonal of the kept covariance, >= 0.
        prior: (n, |A|) weights the ridge pulls towards; default zero.

    Returns:
        The fit; its loss is exact for the returned weights, whatever the ridge.
    """
    covariance = regression.covariance[np.ix_(kept, kept)]
    start = np.zeros((len(regression.mean_t), len(kept))) if prior is None else prior
    gradient = regression.cross[kept] - covariance @ start.T  # (|A|, n)
    step, used = solve_ridge(covariance, gradient, ridge)
    return of_weight(regression, kept, start + step.T, used)


def of_weight(regression: Regression, kept: NDArray[np.intp], weight: Matrix, ridge: float | None = None) -> Fit:
    """Given weights (n, |A|) with their best intercept and exact loss."""
    intercept = regression.mean_t - weight @ regression.mean_x[kept]
    return Fit(weight, intercept, loss(regression, kept, weight, intercept), ridge)


def loss(regression: Regression, kept: NDArray[np.intp], weight: Matrix, intercept: Matrix) -> float:
    """Exact mean of ||t - weight x_A - intercept||^2 over the data behind `regression`."""
    covariance = regression.covariance[np.ix_(kept, kept)]
    explained = 2.0 * np.einsum("na,an->", weight, regression.cross[kept])
    spread = np.einsum("na,an->", weight, covariance @ weight.T)
    offset = regression.mean_t - weight @ regression.mean_x[kept] - intercept
    return float(max(regression.total - explained + spread, 0.0) + offset @ offset)


def solve_ridge(covariance: Matrix, right: Matrix, ridge: float) -> tuple[Matrix, float]:
    """(C + lambda I)^{-1} right with lambda = ridge x mean diagonal; more ridge where Cholesky needs it."""
    if not len(covariance):
        return np.zeros_like(right), ridge
    mean = float(np.trace(covariance)) / len(covariance)
    while mean > 0.0:
        try:
            factor = cho_factor(covariance + ridge * mean * np.eye(len(covariance)), lower=True)
            return cho_solve(factor, right), ridge
        except LinAlgError:
            ridge = max(10.0 * ridge, SMALLEST_RIDGE)
    return np.zeros_like(right), ridge  # constant regressors explain nothing
