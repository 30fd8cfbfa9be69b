"""Poisson sampling: every channel is kept or not by a coin of its own, with probability pi_j = min(1, t s_j).

    W_hat[:, j] = 1/pi_j W[:, j] for a kept channel

Unbiased; the number of kept channels varies with variance sum_j pi_j (1 - pi_j), and a draw may be empty when
no pi_j is 1. Bound: provable.bounds.without_replacement_bound. Theory note: theory_notes/without_replacement.md.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from provable.sampling.design import Array, Evidence, Selection
from provable.sampling.inclusion import inclusion_probabilities


@dataclass(frozen=True)
class Poisson:
    """Independent inclusion."""

    evidence: ClassVar[Evidence] = "scores"
    unbiased: ClassVar[bool] = True
    exact_size: ClassVar[bool] = False

    def draw(self, evidence: Array, count: int, generator: Generator) -> Selection:
        """`count` channels in expectation."""
        pi = inclusion_probabilities(evidence, count)
        return horvitz_thompson(pi, generator.random(pi.size) < pi)


def horvitz_thompson(pi: Array, included: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> Selection:
    """The included channels with weights 1/pi."""
    kept = np.flatnonzero(included)
    return Selection(pi.size, tuple(kept.tolist()), tuple((1.0 / pi[kept]).tolist()))
