"""Volume sampling: a fixed-size determinantal point process over channels.

    P(A) = det(G_AA) / e_r(lambda),     |A| = r,     lambda = eigenvalues of G

Sampled exactly in two steps: r of the eigenvectors, a set J with probability prod_{i in J} lambda_i / e_r,
then r channels from the projection onto them. A set of channels is likely when they are large and far from
linear dependence, which is what least squares on them needs:

    E tr(G / G_AA) = (r + 1) e_{r+1}(lambda) / e_r(lambda)

Reference: Deshpande, Rademacher, Vempala, Wang, Theory of Computing 2006; Kulesza & Taskar, FnT ML 2012
(algorithm 8). Numerical: the matrix is G + (ridge + roundoff floor) I, so that every size has positive
volume and the bounds, computed with the same shift, cover the eigenvalues' rounding errors.
Bound: provable.bounds.volume_bound. Proofs: theory_notes/volume_sampling.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from provable.sampling.design import Array, Evidence, Selection, checked_matrix
from provable.sampling.elementary_symmetric import log_elementary, log_elementary_table
from verify.errors import DataError


@dataclass(frozen=True)
class Volume:
    """Exact fixed-size determinantal sampling from a channel-level matrix.

    Attributes:
        ridge: added to the diagonal, in the matrix's units: 0 is volume sampling proper, a large one
            approaches uniform sampling.
    """

    ridge: float = 0.0
    evidence: ClassVar[Evidence] = "matrix"
    unbiased: ClassVar[bool] = False
    exact_size: ClassVar[bool] = True

    def draw(self, evidence: Array, count: int, generator: Generator) -> Selection:
        """`count` channels with probability proportional to their volume."""
        matrix = checked_matrix(evidence, count)
        values, vectors = shifted_spectrum(matrix, self.ridge)
        chosen = _eigenvectors(values, count, generator)
        kept = _projection_sample(vectors[:, chosen], generator)
        return Selection(matrix.shape[0], tuple(sorted(kept)))

    def log_probability(self, evidence: Array, kept: Sequence[int]) -> float:
        """Logarithm of the probability that `draw` returns exactly `kept`."""
        matrix = checked_matrix(evidence, len(kept))
        values, vectors = shifted_spectrum(matrix, self.ridge)
        rows = vectors[list(kept)]
        _, logarithm = np.linalg.slogdet((rows * values) @ rows.T)
        return float(logarithm - log_elementary(values, len(kept))[-1])


def shifted_spectrum(matrix: Array, ridge: float = 0.0) -> tuple[Array, Array]:
    """Eigenvalues, ascending, shifted up by `ridge` and by c machine epsilons of the largest, and eigenvectors.

    All shifted eigenvalues are positive, and the shift covers the eigensolver's usual error. A zero matrix counts
    as the identity.
    """
    if ridge < 0:
        raise DataError(f"ridge must not be negative; got {ridge}")
    values, vectors = np.linalg.eigh(matrix)
    largest = float(values[-1])
    floor = largest * values.size * np.finfo(np.float64).eps if largest > 0 else 1.0
    return np.maximum(values, 0.0) + (ridge + floor), vectors


def _eigenvectors(values: Array, count: int, generator: Generator) -> list[int]:
    """A `count`-element subset J with probability prod lambda_i / e_count, by the recursion of e_r backwards."""
    table = log_elementary_table(values, count)
    coins = generator.random(values.size)
    chosen: list[int] = []
    for i in range(values.size - 1, -1, -1):
        left = count - len(chosen)
        if left == 0:
            break
        log_take = np.log(values[i]) + table[i, left - 1] - table[i + 1, left]
        if i < left or coins[i] < np.exp(log_take):
            chosen.append(i)
    return chosen


def _projection_sample(vectors: Array, generator: Generator) -> list[int]:
    """Sample of the projection process onto orthonormal columns ``(c, r)``: r distinct rows."""
    c, r = vectors.shape
    weight = np.einsum("ij,ij->i", vectors, vectors)  # squared distance of each row from the span of those taken
    basis = np.zeros((c, r))
    taken: list[int] = []
    for step in range(r):
        i = _pick(weight, generator)
        column = (vectors @ vectors[i] - basis[:, :step] @ basis[i, :step]) / np.sqrt(weight[i])
        basis[:, step] = column
        weight = np.maximum(weight - column**2, 0.0)
        taken.append(i)
        weight[taken] = 0.0
    return taken


def _pick(weight: Array, generator: Generator) -> int:
    heights = np.cumsum(weight)
    index = int(np.searchsorted(heights, generator.random() * heights[-1], side="right"))
    return min(index, int(np.flatnonzero(weight)[-1]))
