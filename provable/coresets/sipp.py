"""SiPP: how many draws every class of weights gets, so that the mean error over filters is smallest for the budget.

    alpha = 2 C log( 8 (positions + 1) k / delta ) T                             one per filter and sign; k: filter size
    e(x) = ( u + sqrt(u^2 + 6u) ) / 2,   u = alpha / (3 x)        <=>        x(e) = alpha (3 + 2e) / (6 e^2)
    minimise  sum_classes l e(x),  l = 1 / filters of the layer,     0 <= x <= size of the class,     sum x <= budget

The objective is convex and separable; its solution is -l e'(x) = lambda for one lambda, found by bisection. C = 3 and
delta = 1e-16 as in the published code: e is an allocation knob, not the error that is promised (see draw.py).

Reference: Baykal, Liebenwein, Gilitschenski, Feldman, Rus, "SiPPing Neural Networks", 2022, arXiv 1910.05422. Theory
note: weight_coresets.md.
"""

import math

import numpy as np

from provable.compensation.moments import Matrix

CONSTANT, FAILURE = 3.0, 1e-16


def strengths(totals: Matrix, positions: int, size: int) -> Matrix:
    """alpha of every class, from its total sensitivity."""
    return np.asarray(2.0 * CONSTANT * math.log(8.0 * (positions + 1) * size / FAILURE) * totals)


def error_of(alpha: Matrix, draws: Matrix) -> Matrix:
    """e(x), falling in x; 0 for alpha = 0."""
    u = np.divide(alpha, 3.0 * draws)
    return np.asarray((u + np.sqrt(u * u + 6.0 * u)) / 2.0)


def draws_of(alpha: Matrix, error: Matrix) -> Matrix:
    """x(e), the inverse of `error_of` for e > 0."""
    return np.asarray(alpha * (3.0 + 2.0 * error) / (6.0 * error * error))


def slope_of(alpha: Matrix, draws: Matrix) -> Matrix:
    """-de/dx, positive and falling in x for alpha > 0."""
    u = np.divide(alpha, 3.0 * draws)
    return np.asarray(0.5 * (1.0 + (u + 3.0) / np.sqrt(u * u + 6.0 * u)) * alpha / (3.0 * draws * draws))


def best_draws(alpha: Matrix, weights: Matrix, sizes: Matrix, price: float) -> Matrix:
    """x with -l e'(x) = price, at most the class's size; 0 where alpha is 0. Real numbers, to 1e-12 relative.

    Args:
        alpha, weights, sizes: of the classes, one array each; weights are l.
        price: lambda > 0: what one draw costs.
    """
    live = (alpha > 0.0) & (sizes > 0.0)
    a, w, top = alpha[live], weights[live], np.log(sizes[live])
    low = np.full(a.shape, -60.0)
    high = top.copy()
    for _ in range(60):
        middle = (low + high) / 2.0
        wanted = w * slope_of(a, np.exp(middle)) > price  # one more draw is worth its price
        low, high = np.where(wanted, middle, low), np.where(wanted, high, middle)
    found = np.zeros(alpha.shape)
    found[live] = np.where(w * slope_of(a, np.exp(top)) >= price, sizes[live], np.exp(low))
    return found
