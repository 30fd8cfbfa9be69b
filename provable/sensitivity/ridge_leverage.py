"""Ridge leverage scores: how much of channel j the other channels cannot explain, at resolution lambda.

    l_j(lambda) = ( G (G + lambda I)^{-1} )_jj   in [0, 1),      sum_j l_j = effective dimension d_eff(lambda)

Reference: Alaoui & Mahoney, NeurIPS 2015; Cohen, Musco & Musco, SODA 2017.
Not claimed: an approximation bound. The published one needs about 9.4 log(8 d_eff/delta) times these
probabilities, which keeps every channel at the widths met here; use the scores as an importance distribution.
"""

import numpy as np
from numpy.typing import NDArray

from verify.errors import DataError

Array = NDArray[np.float64]


def ridge_leverage_scores(matrix: Array, ridge: float) -> Array:
    """Scores l_j ``(c,)`` in [0, 1] of a semi-definite matrix ``(c, c)``; `ridge` > 0 has the matrix's units."""
    values, vectors = _spectrum(matrix, ridge)
    return np.asarray(np.clip((vectors**2) @ (values / (values + ridge)), 0.0, 1.0))


def effective_dimension(matrix: Array, ridge: float) -> float:
    """Sum of the ridge leverage scores."""
    values, _ = _spectrum(matrix, ridge)
    return float(np.sum(values / (values + ridge)))


def ridge_for_dimension(matrix: Array, dimension: float) -> float:
    """The ridge at which the effective dimension is `dimension` (0 < dimension < rank), to relative 1e-12."""
    values = np.clip(np.linalg.eigvalsh(matrix), 0.0, None)
    if not 0 < dimension < np.count_nonzero(values > values.max() * values.size * np.finfo(float).eps):
        raise DataError(f"effective dimension {dimension} is not between 0 and the rank of the matrix")
    low, high = np.log(values.max()) - 80.0, np.log(values.sum() / dimension) + 1.0
    for _ in range(200):
        middle = (low + high) / 2
        too_large = np.sum(values / (values + np.exp(middle))) > dimension
        low, high = (middle, high) if too_large else (low, middle)
    return float(np.exp((low + high) / 2))


def _spectrum(matrix: Array, ridge: float) -> tuple[Array, Array]:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.all(np.isfinite(matrix)):
        raise DataError(f"ridge leverage needs a finite square matrix; got shape {matrix.shape}")
    if not ridge > 0:
        raise DataError(f"ridge must be positive; got {ridge}")
    values, vectors = np.linalg.eigh(matrix)
    return np.clip(values, 0.0, None), vectors
