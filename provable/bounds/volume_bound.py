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
above factor times the expectation is drawn again (provable.sampling.acceptance); the derandomised set
meets tr(G / G_AA) <= E tr(G / G_AA), hence the spectral form, with certainty.

Proofs: theory_notes/volume_sampling.md. Not claimed: anything about fresh inputs: the loss is that on the
calibration statistics. With a ridge that pulls the fit towards the ORIGINAL weights the bounds hold with the
same ridge added to G; with one that pulls towards zero they do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from provable.bounds.a_priori import APrioriBound
from provable.sampling.channel_matrix import channel_matrix
from provable.sampling.design import Array
from provable.sampling.elementary_symmetric import log_elementary, log_leave_one_out
from provable.sampling.volume import shifted_spectrum
from verify.errors import DataError


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
    """Evidence to sample from, and what sampling `count` channels from it promises.

    Attributes:
        matrix: ``(c, c)`` channel-level G, the evidence for `Volume` and `DerandomisedVolume`.
        count: channels to keep.
        spectral: upper bound on E loss(A), spectral form; also met by the derandomised set.
        weighted: upper bound on E loss(A), weighted form; infinite where it was not computed.
        trivial: loss when every channel is removed.
    """

    matrix: Array
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
            "squared error of the consumers' outputs after compensation, mean over calibration patches",
        )

    def derandomised(self) -> APrioriBound:
        """Promise for the set of `DerandomisedVolume`."""
        return APrioriBound(
            "volume bound, derandomised",
            self.spectral,
            self.trivial,
            1.0,
            "none on the data; exact least squares on the calibration statistics",
            "squared error of the consumers' outputs after compensation, mean over calibration patches",
        )


def promise_volume(
    consumers: Sequence[Consumer], count: int, scale: Array | None = None, weighted_up_to: int = 1024
) -> VolumePromise:
    """Sampling matrix and promise for the consumers of one group of c channels.

    Args:
        consumers: layers that read the channels; their losses are added.
        count: channels to keep, 1 <= count <= c.
        scale: ``(c,)`` positive d; None: all 1. `provable.sampling.column_norms` makes sampling see the
            weights. Any scale fixed before drawing is valid, so the smaller of two promises may be chosen.
        weighted_up_to: largest c x k for which the weighted form is computed for k > 1 (one more
            eigendecomposition of that size; for k = 1 it costs nothing).
    """
    channels = {consumer.weight.shape[1] for consumer in consumers}
    if len(channels) != 1:
        raise DataError(f"consumers of one group must read the same channels; they read {sorted(channels)}")
    (c,) = channels
    d = np.ones(c) if scale is None else scale
    matrix = np.zeros((c, c))
    for consumer in consumers:
        flat = (consumer.weight / d[:, None]).reshape(consumer.weight.shape[0], -1)
        matrix += np.linalg.norm(flat, 2) ** 2 * channel_matrix(consumer.gram, consumer.weight.shape[2], d)
    values, vectors = shifted_spectrum(matrix)
    spectral = expected_residual(values, count)
    weighted = np.inf
    if all(g.weight.shape[2] == 1 or g.gram.shape[0] <= weighted_up_to for g in consumers):
        weighted = _weighted_form(consumers, count, d, (values, vectors))
    return VolumePromise(matrix, count, spectral, weighted, sum(g.energy() for g in consumers))


def _weighted_form(consumers: Sequence[Consumer], count: int, d: Array, spectrum: tuple[Array, Array]) -> float:
    values, vectors = spectrum
    importance = np.zeros(values.size)
    for g in consumers:
        turned = np.einsum("fck,c,ci->fik", g.weight, 1.0 / d, vectors, optimize=True)
        importance += _dominance(g, d, spectrum) * np.einsum("fik,fik->i", turned, turned)
    logs = np.log(values) + log_leave_one_out(values, count) - log_elementary(values, count)[-1]
    return float(importance @ np.exp(logs))


def _dominance(consumer: Consumer, d: Array, spectrum: tuple[Array, Array]) -> float:
    """beta: the smallest number with D C D <= beta (G x I), rounded up a little; never above k for G = tr_k(D C D)."""
    values, vectors = spectrum
    c, k = consumer.weight.shape[1:]
    whitening = (vectors / np.sqrt(values)).T * d  # (c, c)
    half = np.einsum("ic,cpm->ipm", whitening, consumer.gram.reshape(c, k, c * k)).reshape(c * k, c, k)
    whitened = np.einsum("mcp,ic->mip", half, whitening).reshape(c * k, c * k)
    return float(np.linalg.eigvalsh((whitened + whitened.T) / 2)[-1]) * (1 + 1e-9)


def _checked(eigenvalues: Array, count: int) -> Array:
    if eigenvalues.ndim != 1 or not np.all(np.isfinite(eigenvalues)):
        raise DataError(f"eigenvalues must be finite numbers, shape (c,); got shape {eigenvalues.shape}")
    if not 1 <= count <= eigenvalues.size:
        raise DataError(f"cannot keep {count} of {eigenvalues.size} channels: ask for 1 to {eigenvalues.size}")
    return np.maximum(eigenvalues, 0.0)
