"""The largest ridge that costs little: weights stay close to what they were.

Proofs about the difference of two networks profit from close weights (theory_notes/differential_zonotope.md): W1 - W2
enters every bound. A ridge towards the weights before the fit buys closeness; among the candidates the largest one is
taken whose held-out loss is at most (1 + slack) times the smallest.

Not claimed: a smaller certified bound on every network.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from provable.compensation.least_squares import fit
from provable.compensation.moments import Matrix, Moments, total
from provable.compensation.ridge import CANDIDATES, Chosen, fit_held_out, held_out_loss


@dataclass(frozen=True)
class NearRidge:
    """A solver (see `sequential.Solver`).

    Attributes:
        slack: how much larger than the smallest held-out loss the loss may be, relative.
    """

    slack: float = 0.05

    def __call__(self, folds: Sequence[Moments], kept: NDArray[np.intp], *, prior: Matrix) -> Chosen:
        """The fit with the largest ridge within the slack; with one image nothing can be judged, as in `ridge`."""
        if len(folds) < 2 or any(fold.count == 0 for fold in folds):
            return fit_held_out(folds, kept, prior=prior)
        problems = [fold.centred() for fold in folds]
        losses = [held_out_loss(problems, kept, ridge, prior) for ridge in CANDIDATES]
        within = [i for i, loss in enumerate(losses) if loss <= (1.0 + self.slack) * min(losses)]
        return Chosen(fit(total(folds).centred(), kept, ridge=CANDIDATES[within[-1]], prior=prior), losses[within[-1]])
