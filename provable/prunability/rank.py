"""Kendall's tau between a measure and the generalisation gap, with its p-value and a bootstrap interval.

    tau-b = (concordant - discordant) / sqrt( (pairs - ties in x) (pairs - ties in y) )

The interval is the percentile bootstrap over networks. Theory note: prunability.md. Not claimed: an exact coverage of
the interval; networks of a family share their data and are not independent draws of anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy.stats import kendalltau

from provable.errors import InputError


@dataclass(frozen=True)
class RankCorrelation:
    """Kendall's tau-b of two rankings.

    Attributes:
        tau: in [-1, 1]; 0 where one side is constant.
        p_value: of the hypothesis that the two are independent, two-sided; 1 where one side is constant.
        low, high: percentile bootstrap interval.
        confidence: of the interval, nominal.
        networks: how many there were.
    """

    tau: float
    p_value: float
    low: float
    high: float
    confidence: float
    networks: int


def rank_correlation(
    first: Sequence[float],
    second: Sequence[float],
    generator: Generator,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
) -> RankCorrelation:
    """Kendall's tau of two measures of the same networks.

    Raises:
        InputError: unequal lengths, fewer than three networks, or a value that is not finite.
    """
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 3 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError(f"two finite measures of at least three networks are needed; got {x.shape} and {y.shape}")
    found = kendalltau(x, y)
    taus = []
    for _ in range(resamples):
        rows = generator.integers(0, len(x), len(x))
        taus.append(_finite(float(kendalltau(x[rows], y[rows]).statistic)))
    low, high = np.quantile(taus, [(1 - confidence) / 2, (1 + confidence) / 2])
    p_value = float(found.pvalue)
    return RankCorrelation(
        _finite(float(found.statistic)), p_value if np.isfinite(p_value) else 1.0, float(low), float(high),
        confidence, len(x),
    )  # fmt: skip


def _finite(tau: float) -> float:
    return tau if np.isfinite(tau) else 0.0
