"""The smallest largest deviation on calibration samples, as a linear program per output row.

    minimise  max over samples i of | t_i - w x_i - b |

after least squares, on the same regressors and targets (sequential.py). At most `SAMPLES` of them are used, spread
evenly; the answer replaces a row only if its largest deviation over ALL samples is smaller than that of the least
squares row. Mean errors grow in exchange.

Reference: Chebyshev approximation, e.g. Boyd & Vandenberghe, section 6.1. Theory: theory_notes/compensation.md.
Not claimed: a bound on inputs outside the calibration data.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from provable.compensation.collect import Aim, aim_of, images_at_a_time
from provable.compensation.consumers import kept_coordinates
from provable.compensation.least_squares import Fit
from provable.compensation.moments import Matrix
from provable.compensation.patches import Part, outputs, parts, unfold
from provable.compensation.refit import PartFit, refitted
from provable.compensation.ridge import Chosen
from provable.compensation.sequential import Site
from provable.compensation.target import affine_map
from provable.execution import Run
from verify.network.graph import Array, Network, Node

SAMPLES = 600


@dataclass
class Minimax:
    """What follows each site's least squares (`sequential.Polish`).

    Attributes:
        network: the original.
        outcomes: consumer -> largest deviation on the calibration samples before and after.
    """

    network: Network
    outcomes: dict[str, tuple[float, float]] = field(default_factory=dict)

    def original_demands(self, site: Site) -> tuple[str, ...]:
        """The target's value."""
        return (site.target.value,)

    def compact_demands(self, site: Site) -> tuple[str, ...]:
        """The regressors, and the other operand of a sum."""
        other = (site.target.sum.other,) if site.target.sum else ()
        return (self.network.node(site.target.consumer).inputs[0], *other)

    def refined(
        self, current: Network, site: Site, kept: Mapping[str, tuple[int, ...]], original: Run, compact: Run
    ) -> Network:
        """The network with the consumer's rows at their smallest largest deviation."""
        node = current.node(site.target.consumer)
        x = compact.take(node.inputs[0]).numpy()
        aim = aim_of(site.target, original, compact)
        weight, bias = affine_map(current, site.target)
        fits, before, after = list[PartFit](), 0.0, 0.0
        for part in parts(current, node):
            data = _Samples(current, node, part, kept_coordinates(part, site.read, kept), x, aim)
            old = weight[part.rows][:, data.index], bias[part.rows]
            new = data.chebyshev()
            largest, now = data.largest(*old), data.largest(*new)
            better = now < largest
            rows = np.where(better[:, None], new[0], old[0])
            fits.append(PartFit(part, data.index, Chosen(Fit(rows, np.where(better, new[1], old[1]), 0.0, 0.0), None)))
            before, after = max(before, largest.max()), max(after, np.minimum(now, largest).max())
        self.outcomes[node.name] = (before, after)
        return refitted(current, site.target, fits)


@dataclass(frozen=True)
class _Samples:
    """Regressors and targets of one part, a few images at a time.

    Attributes:
        network, node, part: whose.
        index: kept coordinates of a patch.
        x, aim: the node's inputs, and what it should give.
    """

    network: Network
    node: Node
    part: Part
    index: NDArray[np.intp]
    x: Array
    aim: Aim

    def chunks(self) -> Iterator[tuple[Matrix, Matrix]]:
        """(kept coordinates, samples) and (rows, samples)."""
        kernel = self.network.parameters[self.node.parameters["weight"]].shape[2:]
        step = images_at_a_time(self.network, self.node, self.part)
        for start in range(0, len(self.x), step):
            images = slice(start, start + step)
            patches = unfold(self.node, self.part, kernel, self.x[images])[self.index]
            yield patches, outputs(self.node, self.part, self.aim[images])

    def chebyshev(self) -> tuple[Matrix, Matrix]:
        """Weights (rows, kept) and intercepts (rows,) with the smallest largest deviation on some of the samples."""
        seen, some = 0, list[tuple[Matrix, Matrix]]()
        positions = math.prod(self.node.shape[1:] if self.node.op == "conv" else self.node.shape[:-1])
        chosen = np.unique(np.linspace(0, len(self.x) * positions - 1, SAMPLES).astype(np.intp))
        for patches, values in self.chunks():
            here = chosen[(chosen >= seen) & (chosen < seen + patches.shape[1])] - seen
            some.append((patches[:, here], values[:, here]))
            seen += patches.shape[1]
        patches, values = (np.concatenate(arrays, axis=1) for arrays in zip(*some, strict=True))
        found = [chebyshev(patches, row) for row in values]
        return np.array([weight for weight, _ in found]), np.array([offset for _, offset in found])

    def largest(self, weight: Matrix, offset: Matrix) -> Matrix:
        """Largest deviation of every row over all samples; infinite for no answer."""
        largest = np.zeros(len(weight))
        for patches, values in self.chunks():
            deviation = np.abs(values - weight @ patches - offset[:, None]).max(axis=1, initial=0.0)
            largest = np.maximum(largest, np.where(np.isfinite(deviation), deviation, np.inf))
        return largest


def chebyshev(patches: Matrix, values: Matrix) -> tuple[Matrix, float]:
    """Weights and intercept with the smallest largest deviation on at most `SAMPLES` samples.

    Args:
        patches: (d, samples).
        values: (samples,).
    """
    cvxpy: Any = import_module("cvxpy")  # its stubs lack the atoms
    chosen = np.unique(np.linspace(0, patches.shape[1] - 1, SAMPLES).astype(np.intp))
    weight, offset = cvxpy.Variable(len(patches)), cvxpy.Variable()
    error = values[chosen] - patches[:, chosen].T @ weight - offset
    try:
        cvxpy.Problem(cvxpy.Minimize(cvxpy.norm_inf(error))).solve(solver=cvxpy.CLARABEL)
    except cvxpy.error.SolverError:
        return np.full(len(patches), np.nan), np.nan
    if weight.value is None:
        return np.full(len(patches), np.nan), np.nan
    return np.asarray(weight.value), float(offset.value)
