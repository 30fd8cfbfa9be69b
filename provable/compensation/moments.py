"""First and second moments of regressors and targets: all that least squares needs to know of the data.

For regressors x in R^d (a consumer's unfolded input) and targets t in R^n (the value the consumer should give)
one streaming pass adds up

    n,  sum x,  sum t,  sum x x^T,  sum x t^T,  sum t^2          (float64)

and centring gives the covariances C = E[x x^T] - mu mu^T, B = E[x t^T] - mu tau^T. Every least-squares fit on
every subset of the regressors, and its exact squared error on the data, follows from them.

Theory: theory_notes/compensation.md. Not claimed: anything about inputs that were not in the data.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verify.errors import DataError

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Uncentred sums over `count` samples; two of them add up to the moments of the union.

    Attributes:
        count: number of samples (patches count as samples).
        sum_x: (d,) sum of regressors.
        sum_t: (n,) sum of targets.
        gram: (d, d) sum of x x^T.
        cross: (d, n) sum of x t^T.
        energy: (n,) sum of t^2, per target.
    """

    count: int
    sum_x: Matrix
    sum_t: Matrix
    gram: Matrix
    cross: Matrix
    energy: Matrix

    @staticmethod
    def of(x: Matrix, t: Matrix) -> "Moments":
        """Moments of samples x (samples, d) and t (samples, n)."""
        return Moments(len(x), x.sum(0), t.sum(0), x.T @ x, x.T @ t, np.einsum("ij,ij->j", t, t))

    @staticmethod
    def linear(count: int, sum_x: Matrix, gram: Matrix, weight: Matrix, bias: Matrix) -> "Moments":
        """Moments of x and t = weight x + bias, without a pass over t.

        Args:
            count, sum_x (d,), gram (d, d): moments of x.
            weight: (n, d).
            bias: (n,).
        """
        cross = gram @ weight.T + np.outer(sum_x, bias)
        image = weight @ sum_x
        energy = np.einsum("nd,dn->n", weight, gram @ weight.T) + 2.0 * image * bias + count * bias**2
        return Moments(count, sum_x, image + count * bias, gram, cross, energy)

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.count + other.count,
            self.sum_x + other.sum_x,
            self.sum_t + other.sum_t,
            self.gram + other.gram,
            self.cross + other.cross,
            self.energy + other.energy,
        )

    def centred(self) -> "Regression":
        """Means and covariances.

        Raises:
            DataError: there are no samples, or a sum is not finite.
        """
        if self.count == 0:
            raise DataError("no samples: the calibration data gave no patch for a layer")
        if not all(np.isfinite(s).all() for s in (self.gram, self.cross, self.energy)):
            raise DataError("a layer's input or target is not finite on the calibration data: it overflows float32")
        mean_x, mean_t = self.sum_x / self.count, self.sum_t / self.count
        covariance = self.gram / self.count - np.outer(mean_x, mean_x)
        cross = self.cross / self.count - np.outer(mean_x, mean_t)
        energy = np.maximum(self.energy / self.count - mean_t**2, 0.0)
        return Regression(self.count, mean_x, mean_t, (covariance + covariance.T) / 2.0, cross, energy)


@dataclass(frozen=True)
class Regression:
    """A least-squares problem with intercept: covariances of regressors and targets.

    Attributes:
        count: number of samples behind it.
        mean_x: (d,).
        mean_t: (n,).
        covariance: (d, d) symmetric, C.
        cross: (d, n), B.
        energy: (n,) variance of each target.
    """

    count: int
    mean_x: Matrix
    mean_t: Matrix
    covariance: Matrix
    cross: Matrix
    energy: Matrix

    @property
    def dimension(self) -> int:
        return len(self.mean_x)

    @property
    def total(self) -> float:
        """Total variance of the targets: the loss of the best constant."""
        return float(self.energy.sum())

    def rows(self, chosen: Matrix | slice) -> "Regression":
        """The same problem for some of the targets."""
        return Regression(
            self.count,
            self.mean_x,
            self.mean_t[chosen],
            self.covariance,
            self.cross[:, chosen],
            self.energy[chosen],
        )


def total(parts: Iterable[Moments]) -> Moments:
    """Sum of one or more moments."""
    first, *rest = parts
    for part in rest:
        first = first + part
    return first
