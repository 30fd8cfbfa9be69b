"""Empirical sensitivity of a layer's input channels: the largest relative importance over the calibration images.

    s_j = max over the images x of g_j(x),      T = sum_j s_j,      q_j = s_j / T

A channel that several consumers read takes the maximum over them: then the event g_j(x) <= s_j holds for
each consumer whenever it holds for the maximum, and every bound built on it holds for each.

Reference: Liebenwein et al., ICLR 2020. Theory note: theory_notes/sensitivity_sampling.md.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verify.errors import DataError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Running maximum of the relative importance over the images seen so far.

    Attributes:
        scores: ``(c,)`` in [0, 1], s_j.
        images: number of images behind the maximum (not patches: images are what is exchangeable).
        holders: ``(c,)`` index of the first image that attains s_j; -1 where s_j = 0.
    """

    scores: Array
    images: int
    holders: NDArray[np.int64]

    @staticmethod
    def empty(channels: int) -> "Sensitivity":
        """No image seen yet: all scores 0."""
        return Sensitivity(np.zeros(channels), 0, np.full(channels, -1, dtype=np.int64))

    @staticmethod
    def of(importance: Any) -> "Sensitivity":
        """Sensitivity of one batch from its importances per image ``(b, c)`` (array or tensor)."""
        g = np.asarray(importance, dtype=np.float64)
        if g.ndim != 2 or g.shape[0] == 0:
            raise DataError(f"importances per image must be (images, channels) with at least one image; got {g.shape}")
        if not (np.all(g >= 0) and np.all(g <= 1)):
            raise DataError("a relative importance lies in [0, 1]; the array holds values outside (or NaN)")
        scores = g.max(axis=0)
        return Sensitivity(scores, g.shape[0], np.where(scores > 0, g.argmax(axis=0), -1))

    def then(self, later: "Sensitivity") -> "Sensitivity":
        """Sensitivity of both sets of images, `later` numbered behind this one."""
        if self.scores.shape != later.scores.shape:
            raise DataError(f"sensitivities of {self.scores.size} and {later.scores.size} channels cannot be merged")
        rises = later.scores > self.scores
        return Sensitivity(
            np.where(rises, later.scores, self.scores),
            self.images + later.images,
            np.where(rises, later.holders + self.images, self.holders),
        )

    @property
    def total(self) -> float:
        """Total sensitivity T; between 1 (one channel does everything) and c, unless the layer is dead (0)."""
        return float(self.scores.sum())

    @property
    def distribution(self) -> Array:
        """Importance distribution q, ``(c,)``; uniform when every score is 0."""
        total = self.total
        return self.scores / total if total > 0 else np.full(self.scores.shape, 1 / self.scores.size)

    @property
    def record_holders(self) -> int:
        """Number of distinct images that hold at least one of the maxima (see provable.bounds.event_bound)."""
        return int(np.unique(self.holders[self.holders >= 0]).size)


def over_consumers(*importances: Any) -> Array:
    """Element-wise maximum of the importances ``(b, c)`` or ``(c,)`` of one channel group in all its consumers."""
    if not importances:
        raise DataError("a channel group without a consumer has no relative importance")
    arrays = [np.asarray(g, dtype=np.float64) for g in importances]
    if len({a.shape for a in arrays}) != 1:
        raise DataError(
            f"consumers disagree on shape: {[a.shape for a in arrays]}; give each the same images and channels"
        )
    return np.asarray(np.maximum.reduce(arrays))
