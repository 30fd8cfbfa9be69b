"""The smallest largest deviation on calibration samples, as a linear program per output row.

    minimise  max over samples i of | t_i - w x_i - b |

after least squares, on the same regressors and targets (sequential.py). At most `SAMPLES` of them are used, spread
evenly; the answer replaces a row only if its largest deviation over ALL samples is smaller than that of the least
squares row. Mean errors grow in exchange.

Reference: Chebyshev approximation, e.g. Boyd & Vandenberghe, section 6.1. Theory: theory_notes/compensation.md.
Not claimed: a bound on inputs outside the calibration data.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

from provable.compensation.collect import aim_of
from provable.compensation.consumers import kept_coordinates
from provable.compensation.least_squares import Fit
from provable.compensation.moments import Matrix
from provable.compensation.patches import outputs, parts, unfold
from provable.compensation.refit import PartFit, refitted
from provable.compensation.ridge import Chosen
from provable.compensation.sequential import Site
from provable.compensation.target import affine_map
from provable.execution import Run
from verify.network.graph import Network

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
        aim, _ = aim_of(site.target, original, compact)
        weight, bias = affine_map(current, site.target)
        kernel = current.parameters[node.parameters["weight"]].shape[2:]
        fits, before, after = list[PartFit](), 0.0, 0.0
        for part in parts(current, node):
            index = kept_coordinates(part, site.read, kept)
            patches, values = unfold(node, part, kernel, x)[index], outputs(node, part, aim)
            rows, offsets = weight[part.rows][:, index].copy(), bias[part.rows].copy()
            for row, value in enumerate(values):
                old = _largest(patches, value, rows[row], offsets[row])
                new_weight, new_offset = chebyshev(patches, value)
                now = _largest(patches, value, new_weight, new_offset)
                if now < old:
                    rows[row], offsets[row] = new_weight, new_offset
                before, after = max(before, old), max(after, min(now, old))
            fits.append(PartFit(part, index, Chosen(Fit(rows, offsets, 0.0, 0.0), None)))
        self.outcomes[node.name] = (before, after)
        return refitted(current, site.target, fits)


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


def _largest(patches: Matrix, values: Matrix, weight: Matrix, offset: float) -> float:
    """Largest deviation over all samples; infinite for no answer."""
    deviation = np.abs(values - weight @ patches - offset).max(initial=0.0)
    return float(deviation) if np.isfinite(deviation) else np.inf
