"""How much ridge: the amount with the smallest loss on images that the fit has not seen.

Calibration images are split in two folds by their index. For each candidate the fit to one fold is judged on the
other, exactly, from moments; the winner is used on both folds together. With plentiful data it is small; with fewer
samples than coordinates it is large, and the report says so.

Theory: theory_notes/compensation.md. Not claimed: an unbiased estimate; the winner's held-out loss is slightly
optimistic.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from provable.compensation.least_squares import SMALLEST_RIDGE, Fit, fit, loss
from provable.compensation.moments import Matrix, Moments, Regression, total

CANDIDATES = (SMALLEST_RIDGE, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 1e3)


UNJUDGED = 1e-2
"""Relative ridge when there is one image: nothing is held out that could judge it."""


@dataclass(frozen=True)
class Chosen:
    """A fit with the ridge that generalised best.

    Attributes:
        fit: on all samples.
        held_out: mean squared error on the fold that was not fitted, averaged over the folds; None with one fold.
    """

    fit: Fit
    held_out: float | None


class Solver(Protocol):
    """How a layer is fitted: `fit_held_out`, or a constrained program of the same form."""

    def __call__(self, folds: Sequence[Moments], kept: NDArray[np.intp], *, prior: Matrix) -> Chosen:
        """The fit on the kept coordinates; prior: (n, |A|) weights before."""


def fit_held_out(
    folds: Sequence[Moments],
    kept: NDArray[np.intp],
    *,
    prior: Matrix | None = None,
    candidates: Sequence[float] = CANDIDATES,
) -> Chosen:
    """Fit on all folds with the candidate ridge that has the smallest held-out loss.

    Args:
        folds: moments of disjoint sets of images; with a single one nothing can be judged, and `UNJUDGED` is used.
        kept: coordinates of x to keep.
        prior: (n, |A|) weights the ridge pulls towards.
        candidates: relative ridges, increasing. The search stops once the loss has risen twice in a row.
    """
    full = total(folds).centred()
    if len(folds) < 2 or any(fold.count == 0 for fold in folds):
        return Chosen(fit(full, kept, ridge=UNJUDGED, prior=prior), None)
    problems = [fold.centred() for fold in folds]
    losses: list[float] = []
    for ridge in candidates:
        losses.append(held_out_loss(problems, kept, ridge, prior))
        if len(losses) >= 3 and losses[-1] > losses[-2] > losses[-3]:
            break
    best = int(np.argmin(losses))
    return Chosen(fit(full, kept, ridge=candidates[best], prior=prior), losses[best])


def held_out_loss(problems: Sequence[Regression], kept: NDArray[np.intp], ridge: float, prior: Matrix | None) -> float:
    """Mean loss of the fits to one fold on the other, for one ridge."""
    found = [fit(problem, kept, ridge=ridge, prior=prior) for problem in problems]
    others = [*problems[1:], problems[0]]
    return float(np.mean([loss(o, kept, f.weight, f.intercept) for f, o in zip(found, others, strict=True)]))
