"""Volume sampling without the dice: conditional expectations.

With the channels B taken and s more to take, let M = G / G_BB = V diag(mu) V^T. Taking j next, volume
sampling of the rest would leave, on average, for any positive semi-definite weights H (p = s - 1)

    E[ tr(H (G / G_AA)) | B + j in A ]
        =   sum_{i != l} mu_i mu_l e_p(mu without i, l) ( V_ji^2 H'_ll - V_ji V_jl H'_il )
          / sum_i mu_i V_ji^2 e_p(mu without i)

with H' = V^T H V. Taking the smallest never raises the expectation, so the set itself meets what volume
sampling meets on average: H = I the spectral form of the volume bound, H = the consumers' weights the weighted one.

Reference: Deshpande & Rademacher, FOCS 2010 (conditional expectations, H = I); the formula that serves all
candidates of a step from one eigendecomposition is proved in theory_notes/volume_sampling.md. Cost O(c^3) per step.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from provable.sampling.design import Array, Evidence, Selection, checked_matrix
from provable.sampling.volume import shifted_spectrum
from verify.errors import DataError


@dataclass(frozen=True, eq=False)
class DerandomisedVolume:
    """The set that conditional expectations choose. Uses no randomness.

    Attributes:
        weights: ``(c, c)`` positive semi-definite H; None: the identity.
        ridge: as in `provable.sampling.volume.Volume`.
    """

    weights: Array | None = None
    ridge: float = 0.0
    evidence: ClassVar[Evidence] = "matrix"
    unbiased: ClassVar[bool] = False
    exact_size: ClassVar[bool] = True

    def draw(self, evidence: Array, count: int, generator: Generator) -> Selection:
        """`count` channels with tr(H (G / G_AA)) at most its mean under volume sampling."""
        matrix = checked_matrix(evidence, count)
        weights = np.eye(matrix.shape[0]) if self.weights is None else self.weights
        if weights.shape != matrix.shape:
            raise DataError(f"weights {weights.shape} and evidence {matrix.shape} speak of different channels")
        values, vectors = shifted_spectrum(matrix, self.ridge)
        schur = (vectors * values) @ vectors.T
        left = np.arange(matrix.shape[0])
        for remaining in range(count, 0, -1):
            j = int(np.argmin(conditional_residuals(schur, weights[np.ix_(left, left)], remaining)))
            schur, left = _without(schur, j), np.delete(left, j)
        kept = np.setdiff1d(np.arange(matrix.shape[0]), left)
        return Selection(matrix.shape[0], tuple(kept.tolist()))


def conditional_residuals(schur: Array, weights: Array, remaining: int) -> Array:
    """Expected tr(H residual) ``(n,)`` for each channel taken next, `remaining` >= 1 to take in all."""
    if remaining == schur.shape[0]:
        return np.zeros(schur.shape[0])
    values, vectors = shifted_spectrum(schur)
    single, pair = tilted_leave_out(values, remaining - 1)
    turned = vectors.T @ weights @ vectors
    squares = vectors**2
    numerator = squares @ (pair @ np.diag(turned)) - np.sum((vectors @ (pair * turned)) * vectors, axis=1)
    denominator = squares @ single
    found = np.full(values.size, np.inf)
    np.divide(np.maximum(numerator, 0.0), denominator, out=found, where=denominator > 0)
    return found


def tilted_leave_out(values: Array, order: int) -> tuple[Array, Array]:
    """mu_i e_p(mu without i) ``(n,)`` and mu_i mu_l e_p(mu without i, l) ``(n, n)``, i != l, up to one common factor.

    e_p(mu) z^p / prod(1 + z mu) is the probability that independent coins of success z mu / (1 + z mu) show p
    heads. With z such that p heads are expected nothing over- or underflows, and leaving two coins out of a
    characteristic function is two divisions.
    """
    z = _tilt(values, order)
    chance = z * values / (1.0 + z * values)
    size = values.size + 1 + values.size % 2  # odd, above the number of coins: no aliasing and no zero factor at -1
    turn = np.exp(2j * np.pi * np.arange(size // 2 + 1) / size)  # half the circle: the other half is the conjugate
    factors = 1.0 - chance[:, None] + chance[:, None] * turn  # (n, frequencies)
    fold = np.where(np.arange(turn.size) == 0, 1.0, 2.0) / size
    whole = np.exp(np.log(factors).sum(axis=0)) * turn ** (-order) * fold
    inverse = 1.0 / factors
    scaled = values / (1.0 + z * values)
    single = np.maximum((inverse @ whole).real, 0.0) * scaled
    pair = np.maximum(((inverse * whole) @ inverse.T).real, 0.0) * np.outer(scaled, scaled)
    np.fill_diagonal(pair, 0.0)
    return single, pair


def _tilt(values: Array, order: int) -> float:
    """z with sum z mu / (1 + z mu) = order, by bisection of its logarithm; 0 for order 0."""
    if order == 0:
        return 0.0
    low, high = -np.log(values.max()) - np.log(values.size) - 1.0, -np.log(values.min()) + np.log(values.size) + 1.0
    for _ in range(60):
        middle = (low + high) / 2
        below = np.sum(1.0 / (1.0 + np.exp(-middle) / values)) < order
        low, high = (middle, high) if below else (low, middle)
    return float(np.exp((low + high) / 2))


def _without(schur: Array, j: int) -> Array:
    """Schur complement by the j-th diagonal entry, that row and column removed."""
    column = schur[:, j] / np.sqrt(schur[j, j])
    rest = np.arange(schur.shape[0]) != j
    return np.asarray((schur - np.outer(column, column))[np.ix_(rest, rest)])
