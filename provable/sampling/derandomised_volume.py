"""Volume sampling without the dice: conditional expectations.

Given the channels B already taken, s more to take, and M = G / G_BB, volume sampling would leave

    E[ tr(G / G_AA) | B + j in A ] = s' e_{s'}(M / M_jj) / e_{s'-1}(M / M_jj),      s' = s

so taking the j with the smallest conditional expectation never raises it, and after r steps the set itself
meets the expectation of volume sampling:  tr(G / G_AA) <= (r+1) e_{r+1}(lambda) / e_r(lambda).
All candidates of a step come from one eigendecomposition M = V diag(mu) V^T:

    e_p(M / M_jj) = (1 / M_jj) sum_i mu_i V_ji^2 e_p(mu without mu_i)

Reference: Deshpande & Rademacher, FOCS 2010 (conditional expectations); the one-decomposition formula is
proved in theory_notes/volume_sampling.md. Cost: r eigendecompositions of shrinking size.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from provable.sampling.design import Array, Evidence, Selection, checked_matrix
from provable.sampling.elementary_symmetric import log_leave_one_out_pair, log_sum
from provable.sampling.volume import shifted_spectrum


@dataclass(frozen=True)
class DerandomisedVolume:
    """The set that conditional expectations choose. Uses no randomness.

    Attributes:
        ridge: as in `provable.sampling.volume.Volume`.
    """

    ridge: float = 0.0
    evidence: ClassVar[Evidence] = "matrix"
    unbiased: ClassVar[bool] = False
    exact_size: ClassVar[bool] = True

    def draw(self, evidence: Array, count: int, generator: Generator) -> Selection:
        """`count` channels whose residual is at most the expectation of volume sampling."""
        matrix = checked_matrix(evidence, count)
        values, vectors = shifted_spectrum(matrix, self.ridge)
        schur = (vectors * values) @ vectors.T
        left = np.arange(matrix.shape[0])
        kept: list[int] = []
        for remaining in range(count, 0, -1):
            j = int(np.argmin(_conditional_residuals(schur, remaining)))
            kept.append(int(left[j]))
            schur = _without(schur, j)
            left = np.delete(left, j)
        return Selection(matrix.shape[0], tuple(sorted(kept)))


def _conditional_residuals(schur: Array, remaining: int) -> Array:
    """Log expected residual (up to a constant) for each channel taken next, `remaining` >= 1 to take in all."""
    values, vectors = shifted_spectrum(schur)
    top, below = log_leave_one_out_pair(values, remaining)
    with np.errstate(divide="ignore"):
        shares = np.log(values) + np.log(vectors**2)
    numerator, denominator = log_sum(shares + top), log_sum(shares + below)
    return np.where(np.isfinite(denominator), numerator - denominator, np.inf)


def _without(schur: Array, j: int) -> Array:
    """Schur complement by the j-th diagonal entry, that row and column removed."""
    column = schur[:, j] / np.sqrt(schur[j, j])
    rest = np.arange(schur.shape[0]) != j
    return np.asarray((schur - np.outer(column, column))[np.ix_(rest, rest)])
