"""Deterministic choice: the `count` channels of the largest scores, the earlier one of two equals; no reweighting.

The published "PFP" rows use this design. Bound: provable.bounds.deterministic_bound.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from provable.sampling.design import Array, Evidence, Selection, checked_scores


@dataclass(frozen=True)
class TopK:
    """Keep the largest scores. Uses no randomness."""

    evidence: ClassVar[Evidence] = "scores"
    unbiased: ClassVar[bool] = False
    exact_size: ClassVar[bool] = True

    def draw(self, evidence: Array, count: int, generator: Generator) -> Selection:
        """The `count` largest scores."""
        scores = checked_scores(evidence, count)
        return Selection(scores.size, tuple(sorted(largest(scores, count).tolist())))


def largest(scores: Array, count: int) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
    """Indices of the `count` largest scores, largest first, ties by index."""
    return np.argsort(-scores, kind="stable")[:count]
