"""What every sampling design takes and returns.

A design reads one kind of evidence about a layer's channels: importance `scores` (c,), or a channel-level
`matrix` (c, c) (see provable.sampling.channel_matrix). It returns which channels stay and, where the design
estimates the layer without bias, the factor by which each kept slice of the consumer is multiplied.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from verify.errors import DataError

Array = NDArray[np.float64]
Evidence = Literal["scores", "matrix"]


@dataclass(frozen=True)
class Selection:
    """Channels that stay.

    Attributes:
        channels: number of channels before, c.
        kept: their indices, ascending, without repetition.
        reweights: factor for the consumer's slice of each kept channel, in the order of `kept`; None: all 1.
        draws: draws with replacement behind the selection, where there were any.
    """

    channels: int
    kept: tuple[int, ...]
    reweights: tuple[float, ...] | None = None
    draws: int | None = None

    def factors(self) -> Array:
        """``(c,)``: 0 for a removed channel, its reweight for a kept one."""
        dense = np.zeros(self.channels)
        dense[list(self.kept)] = 1.0 if self.reweights is None else self.reweights
        return dense


class SamplingDesign(Protocol):
    """One way to choose channels.

    Attributes:
        evidence: what `draw` reads.
        unbiased: the reweighted layer equals the original in expectation over the draws (for inputs that
            excite no channel of score 0).
        exact_size: every draw keeps exactly `count` channels; otherwise `count` is the expected number.
    """

    evidence: ClassVar[Evidence]
    unbiased: ClassVar[bool]
    exact_size: ClassVar[bool]

    def draw(self, evidence: Array, count: int, generator: Generator) -> Selection:
        """Choose `count` of the channels (1 <= count <= c)."""
        ...


def checked_scores(scores: Any, count: int) -> Array:
    """Scores as float64 after checking them and `count`; raises DataError."""
    s = np.asarray(scores, dtype=np.float64)
    if s.ndim != 1 or s.size == 0 or not np.all(np.isfinite(s)) or np.any(s < 0):
        raise DataError(f"scores must be finite, non-negative, of shape (channels,); got shape {s.shape}")
    _check_count(count, s.size)
    return s


def checked_matrix(matrix: Any, count: int) -> Array:
    """Symmetric matrix as float64 after checking it and `count`; raises DataError."""
    m = np.asarray(matrix, dtype=np.float64)
    if m.ndim != 2 or m.shape[0] != m.shape[1] or m.size == 0 or not np.all(np.isfinite(m)):
        raise DataError(f"evidence must be a finite square matrix over the channels; got shape {m.shape}")
    if not np.allclose(m, m.T, rtol=1e-8, atol=1e-12 * float(np.abs(m).max())):
        raise DataError("evidence matrix is not symmetric: it must be a Gram or covariance matrix")
    _check_count(count, m.shape[0])
    return (m + m.T) / 2


def _check_count(count: int, channels: int) -> None:
    if not 1 <= count <= channels:
        raise DataError(f"cannot keep {count} of {channels} channels: ask for 1 to {channels}")


def first_of_support(scores: Array, count: int) -> NDArray[np.intp]:
    """Every channel with a positive score, then as many of the others, in order, as `count` leaves room for."""
    return np.sort(np.argsort(scores == 0, kind="stable")[:count])
