"""From a layer's Gram matrix over (channel, position) coordinates to a matrix over channels.

    G_ij = d_i d_j sum_p C_(i,p),(j,p)          partial trace over the positions p that belong to a channel

Why this matrix: to predict a removed channel from the kept ones, G allows one number per pair of channels,
the same at every position, where least squares allows a positions x positions matrix. The smaller family
leaves the larger residual, so for every kept set A

    tr( D E_A D )  <=  tr( G / G_AA ),       E_A = C - C_:A C_AA^{-1} C_A:  (whole blocks),   D = diag(d)

and any bound on the channel-level residual is one for the block residual. For one position per channel the
two are equal. Channel matrices of several consumers may be added (the sum restricts the family once more).
Proof: theory_notes/volume_sampling.md.
"""

from collections.abc import Sequence

import numpy as np

from provable.sampling.design import Array
from verify.errors import DataError


def channel_matrix(gram: Array, positions: int = 1, scale: Array | None = None) -> Array:
    """Channel-level matrix G ``(c, c)``.

    Args:
        gram: ``(c * positions, c * positions)`` positive semi-definite; a channel's positions are consecutive.
        positions: kernel positions of a convolution, map size behind a flatten, 1 for a linear layer.
        scale: ``(c,)`` positive factors d_j, e.g. `column_norms`; None: all 1.
    """
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or positions < 1 or gram.shape[0] % positions:
        raise DataError(f"a Gram matrix of shape {gram.shape} does not consist of blocks of {positions} positions")
    c = gram.shape[0] // positions
    matrix = np.asarray(np.einsum("ipjp->ij", gram.reshape(c, positions, c, positions)), dtype=np.float64)
    if scale is None:
        return matrix
    if scale.shape != (c,) or not np.all(scale > 0) or not np.all(np.isfinite(scale)):
        raise DataError(f"scale must hold {c} positive numbers; got shape {scale.shape}")
    return matrix * scale[:, None] * scale


def column_norms(weight: Array) -> Array:
    """Spectral norm of each channel's slice of the consumer ``(f, c, k)``, floored so that none is zero: ``(c,)``."""
    norms = np.linalg.norm(weight.transpose(1, 0, 2), ord=2, axis=(1, 2))
    floor = float(norms.max()) * 1e-6
    return np.asarray(np.maximum(norms, floor if floor > 0 else 1.0))


def coordinates(kept: Sequence[int], positions: int) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
    """Indices of the kept channels' coordinates in the Gram matrix."""
    return (np.asarray(kept, dtype=np.intp)[:, None] * positions + np.arange(positions)).ravel()


def residual_covariance(gram: Array, kept: Sequence[int], positions: int = 1) -> Array:
    """E_A = C - C_:A C_AA^+ C_A:, what the kept channels cannot explain, by least squares over whole blocks.

    Directions of C_AA below 1e-12 of its largest eigenvalue count as zero. Then E_A is the residual covariance
    of a predictor that exists, so its trace is never below the optimum by more than rounding.
    """
    a = coordinates(kept, positions)
    values, vectors = np.linalg.eigh(gram[np.ix_(a, a)])
    good = values > 1e-12 * max(float(values[-1]), 0.0) if a.size else np.zeros(0, dtype=bool)
    half = (gram[:, a] @ vectors[:, good]) / np.sqrt(values[good])
    return np.asarray(gram - half @ half.T)
