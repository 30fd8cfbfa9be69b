"""Prunability: how few of its weights a network needs, a measure that predicts how well it generalises.

measure    the smallest share of weights that can be kept at a given rise of the training loss
rank       Kendall's rank correlation with a confidence interval, to compare measures over families of networks
"""

from provable.prunability.measure import Curve, Prunability, bisected, loss_curve, prunability, pruned
from provable.prunability.rank import RankCorrelation, rank_correlation

__all__ = [
    "Curve",
    "Prunability",
    "RankCorrelation",
    "bisected",
    "loss_curve",
    "prunability",
    "pruned",
    "rank_correlation",
]
