"""Volume bound: what least squares on a volume-sampled set of channels leaves, before anything is drawn.

Channel-level matrix G (provable.sampling.channel_matrix) with eigenvalues lambda and eigenvectors v, r channels kept:

    E tr(G / G_AA)  = (r + 1) e_{r+1}(lambda) / e_r(lambda)                            exact (Deshpande et al. 2006)
                   <= min_{k < r} (r + 1)/(r - k + 1) sum_{i > k} lambda_i             (Guruswami & Sinop 2012)
    E [ G / G_AA ]  = sum_i lambda_i e_r(lambda without i) / e_r(lambda) v_i v_i^T     exact

and for the loss after compensation, loss(A) = sum over consumers of tr(W E_A W^T), with D = diag(d) any positive scale:

    spectral:  G = sum_g ||W_g D^-1||_2^2  D tr_k(C_g) D,      loss(A) <= tr(G / G_AA)
    weighted:  H = sum_g beta_g D^-1 <W_g, W_g> D^-1,  D C_g D <= beta_g (G x I_k),    loss(A) <= tr(H (G / G_AA))

Both hold for convolutions, where a channel is a block of coordinates and least squares uses whole blocks.
The expectation is over the draw only: no assumption on the data, no logarithm. A draw whose exact loss is
above factor times the expectation is drawn again (provable.sampling.acceptance); the derandomised set meets
the expectation itself, with certainty.

Proofs: theory_notes/volume_sampling.md. Not claimed: anything about fresh inputs, the loss is that on the
calibration statistics. A fit with a ridge that pulls towards the ORIGINAL weights is covered with gram + ridge I
in place of gram; one that pulls towards zero is not covered.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse.linalg import eigsh

from provable.bounds.a_priori import APrioriBound
from provable.sampling.channel_matrix import channel_matrix
from provable.sampling.derandomised_volume import DerandomisedVolume
from provable.sampling.design import Array
from provable.sampling.elementary_symmetric import log_elementary, log_leave_one_out, residual_shares
from provable.sampling.volume import shifted_spectrum
from verify.errors import DataError

LOSS = "squared error of the consumers' outputs after compensation, summed over outputs, mean over calibration patches"


def expected_residual(eigenvalues: Array, count: int) -> float:
    """E tr(G / G_AA) over volume sampling of `count` channels; exact for the eigenvalues given, growing in each."""
    values = _checked(eigenvalues, count)
    if count == values.size:
        return 0.0
    logs = log_elementary(values, count + 1)
    return float((count + 1) * np.exp(logs[-1] - logs[-2])) if np.isfinite(logs[-2]) else 0.0


def tail_bound(eigenvalues: Array, count: int) -> float:
    """min over k < count of (count + 1)/(count - k + 1) times the sum of all but the k largest eigenvalues."""
    falling = np.sort(_checked(eigenvalues, count))[::-1]
    tails = np.cumsum(falling[::-1])[::-1]  # tails[k] = sum of all but the k largest
    k = np.arange(count)
    return float(np.min((count + 1) / (count - k + 1) * tails[:count]))


@dataclass(frozen=True, eq=False)
class Consumer:
    """One layer that reads the channels.

    Attributes:
        weight: ``(f, c, k)``.
        gram: ``(c k, c k)`` covariance (with intercept) or second moment of its unfolded input, channel-major.
    """

    weight: Array
    gram: Array

    def __post_init__(self) -> None:
        size = self.weight.shape[1] * self.weight.shape[2] if self.weight.ndim == 3 else -1
        if self.gram.shape != (size, size):
            raise DataError(f"weight {self.weight.shape} (f, c, k) does not read a Gram matrix {self.gram.shape}")

    def energy(self) -> float:
        """tr(W C W^T): the loss when every channel is removed."""
        flat = self.weight.reshape(self.weight.shape[0], -1)
        return float(np.sum((flat @ self.gram) * flat))


@dataclass(frozen=True, eq=False)
class VolumePromise:
    """What volume sampling of `count` channels promises, and what to sample from.

    Attributes:
        matrix: ``(c, c)`` channel-level G, the evidence for `Volume` and `derandomised_design`.
        weights: ``(c, c)`` H of the weighted form.
        count: channels to keep.
        spectral: upper bound on E loss(A), spectral form.
        weighted: upper bound on E loss(A), weighted form.
        trivial: loss when every channel is removed.
    """

    matrix: Array
    weights: Array
    count: int
    spectral: float
    weighted: float
    trivial: float

    @property
    def expected_upper(self) -> float:
        """Upper bound on the expected loss after compensation, over volume sampling."""
        return min(self.spectral, self.weighted)

    def sampled(self, factor: float = 2.0, attempts: int = 20) -> APrioriBound:
        """Promise: one of `attempts` draws has a loss of at most `value` = factor x expectation; factor > 1."""
        if not factor > 1 or attempts < 1:
            raise DataError(f"need a factor above 1 and at least one attempt; got {factor}, {attempts}")
        return APrioriBound(
            "volume bound",
            factor * self.expected_upper,
            self.trivial,
            1.0 - factor**-attempts,
            f"none on the data; up to {attempts} draws, exact least squares on the calibration statistics",
            LOSS,
        )

    def derandomised_design(self) -> DerandomisedVolume:
        """The design without randomness that meets `expected_upper`, given `matrix` as evidence."""
        return DerandomisedVolume(self.weights if self.weighted <= self.spectral else None)

    def derandomised(self) -> APrioriBound:
        """Promise for the set of `derandomised_design`."""
        return APrioriBound(
            "volume bound, derandomised",
            self.expected_upper,
            self.trivial,
            1.0,
            "none on the data; exact least squares on the calibration statistics",
            LOSS,
        )


@dataclass(frozen=True, eq=False)
class VolumeEvidence:
    """What volume sampling of one group reads, for every number of channels to keep.

    Attributes:
        matrix: ``(c, c)`` G.
        weights: ``(c, c)`` H.
        values: ``(c,)`` eigenvalues of G, shifted as the sampler shifts them.
        vectors: ``(c, c)`` its eigenvectors.
        trivial: loss when every channel is removed.
    """

    matrix: Array
    weights: Array
    values: Array
    vectors: Array
    trivial: float

    def promise(self, count: int) -> VolumePromise:
        """What keeping `count` channels promises, 1 <= count <= c."""
        spectral = expected_residual(self.values, count)
        shares = np.log(self.values) + log_leave_one_out(self.values, count)
        shares -= log_elementary(self.values, count)[-1]
        weighted = float(self._turned() @ np.exp(shares))
        return VolumePromise(self.matrix, self.weights, count, spectral, weighted, self.trivial)

    def curve(self) -> Array:
        """``(c + 1,)``: `promise(count).expected_upper` for every count from 0 (the trivial loss) to c, in O(c^2)."""
        shares = residual_shares(self.values)
        expected = np.minimum(shares.sum(axis=1), shares @ self._turned())
        return np.concatenate([[self.trivial], expected])

    def _turned(self) -> Array:
        """v_i^T H v_i."""
        return np.asarray(np.sum((self.weights @ self.vectors) * self.vectors, axis=0))


def volume_evidence(
    consumers: Sequence[Consumer], scale: Array | None = None, whitened_up_to: int = 2400
) -> VolumeEvidence:
    """Sampling matrix and weights for the consumers of one group of c channels.

    Args:
        consumers: layers that read the channels; their losses are added.
        scale: ``(c,)`` positive d; None: all 1. `provable.sampling.column_norms` makes sampling see the
            weights. Any scale fixed before drawing is valid, so the smaller of two promises may be chosen.
        whitened_up_to: largest c x k for which beta is computed (one Cholesky factorisation of that size and some
            products); above, the universal value k is used, which is valid but several times larger.
    """
    channels = {consumer.weight.shape[1] for consumer in consumers}
    if len(channels) != 1:
        raise DataError(f"consumers of one group must read the same channels; they read {sorted(channels)}")
    (c,) = channels
    d = np.ones(c) if scale is None else scale
    sizes = [np.linalg.norm((g.weight / d[:, None]).reshape(g.weight.shape[0], -1), 2) ** 2 for g in consumers]
    matrix, weights = np.zeros((c, c)), np.zeros((c, c))
    for g, size in zip(consumers, sizes, strict=True):
        matrix += size * channel_matrix(g.gram, g.weight.shape[2], d)
    spectrum = shifted_spectrum(matrix)
    for g, size in zip(consumers, sizes, strict=True):
        beta = 0.0 if size == 0 else _dominance(g, d, spectrum, float(size), whitened_up_to)
        weights += beta * np.einsum("fik,fjk->ij", g.weight, g.weight, optimize=True) / np.outer(d, d)
    return VolumeEvidence(matrix, weights, *spectrum, sum(g.energy() for g in consumers))


def _dominance(g: Consumer, d: Array, spectrum: tuple[Array, Array], size: float, whitened_up_to: int) -> float:
    """beta with D C D <= beta (G x I): the smallest one, rounded up a little, or k / ||W D^-1||^2, always valid."""
    values, vectors = spectrum
    c, k = g.weight.shape[1:]
    if k == 1 or c * k > whitened_up_to:
        return float(k / size)
    whitening = (vectors / np.sqrt(values)).T * d  # (c, c)
    half = np.einsum("ic,cpm->ipm", whitening, g.gram.reshape(c, k, c * k), optimize=True).reshape(c * k, c, k)
    whitened = np.einsum("mcp,ic->mip", half, whitening, optimize=True).reshape(c * k, c * k)
    return min(float(k / size), largest_eigenvalue_upper((whitened + whitened.T) / 2))


def largest_eigenvalue_upper(matrix: Array) -> float:
    """Upper bound, at most about 2 % too large, on the largest eigenvalue of a positive semi-definite matrix.

    Lanczos guesses from below; a Cholesky factorisation of beta I - matrix proves the guess, a little raised, or
    rejects it. Several times faster than all eigenvalues.
    """
    n = matrix.shape[0]
    if n < 32:
        return float(np.linalg.eigvalsh(matrix)[-1]) * (1 + 1e-9)
    guess = float(eigsh(matrix, k=1, v0=np.ones(n), tol=1e-2, return_eigenvectors=False)[0])
    for rise in (1.01, 1.02, 1.1, 2.0):
        try:
            np.linalg.cholesky(guess * rise * np.eye(n) - matrix)
        except np.linalg.LinAlgError:
            continue
        return guess * rise
    return float(np.linalg.eigvalsh(matrix)[-1]) * (1 + 1e-9)


def _checked(eigenvalues: Array, count: int) -> Array:
    if eigenvalues.ndim != 1 or not np.all(np.isfinite(eigenvalues)):
        raise DataError(f"eigenvalues must be finite numbers, shape (c,); got shape {eigenvalues.shape}")
    if not 1 <= count <= eigenvalues.size:
        raise DataError(f"cannot keep {count} of {eigenvalues.size} channels: ask for 1 to {eigenvalues.size}")
    return np.maximum(eigenvalues, 0.0)
