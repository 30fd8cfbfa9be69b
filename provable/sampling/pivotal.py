"""Pivotal sampling (dependent rounding): exactly `count` channels, each with probability pi_j = min(1, t s_j).

Two undecided channels with probabilities a and b meet: if a + b < 1, one of them is dropped and the other
carries a + b; otherwise one of them is kept and the other carries a + b - 1; the loser is drawn so that both
expectations stay what they were. Repeated until all are decided.

    W_hat[:, j] = 1/pi_j W[:, j] for a kept channel

Reference: Deville & Tille, Biometrika 1998; Srinivasan, FOCS 2001. Products of inclusion indicators, and of
their complements, have expectations at most the product of the single ones; so the bound for independent
inclusion holds with the size fixed. Bound: provable.bounds.without_replacement_bound. Proofs:
theory_notes/without_replacement.md.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from provable.sampling.design import Array, Evidence, Selection
from provable.sampling.inclusion import inclusion_probabilities
from provable.sampling.poisson import horvitz_thompson


@dataclass(frozen=True)
class Pivotal:
    """Fixed-size sampling without replacement with prescribed inclusion probabilities."""

    evidence: ClassVar[Evidence] = "scores"
    unbiased: ClassVar[bool] = True
    exact_size: ClassVar[bool] = True

    def draw(self, evidence: Array, count: int, generator: Generator) -> Selection:
        """Exactly `count` channels."""
        pi = inclusion_probabilities(evidence, count)
        return horvitz_thompson(pi, dependent_rounding(pi, generator))


def dependent_rounding(pi: Array, generator: Generator) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Round probabilities with an integer sum to 0 or 1, keeping each expectation and the sum."""
    included = pi >= 1.0
    open_channels = np.flatnonzero((pi > 0.0) & (pi < 1.0))
    if open_channels.size == 0:
        return included
    coins = generator.random(open_channels.size)
    holder, carried = int(open_channels[0]), float(pi[open_channels[0]])
    for challenger, coin in zip(open_channels[1:].tolist(), coins[1:].tolist(), strict=True):
        holder, carried = _meet(included, (holder, carried), (challenger, float(pi[challenger])), coin)
    included[holder] = carried > 0.5  # the sum is an integer: what is left is 0 or 1 up to rounding
    return included


def _meet(
    included: "np.ndarray[tuple[int], np.dtype[np.bool_]]", one: tuple[int, float], two: tuple[int, float], coin: float
) -> tuple[int, float]:
    """Decide one of two undecided channels; return the other with the probability it now carries."""
    (i, a), (k, b) = one, two
    if a + b < 1.0:
        return (i, a + b) if coin * (a + b) < a else (k, a + b)
    i_is_kept = coin * (2.0 - a - b) < 1.0 - b
    included[i if i_is_kept else k] = True
    return (k if i_is_kept else i), a + b - 1.0
