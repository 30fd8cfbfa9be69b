"""FastLip: a local Lipschitz constant from bounds of the gradient over the input box.

With slopes of the hidden units in [0, 1] (0 or 1 where their sign is fixed), interval arithmetic through the layers
gives gradients in [LG, UG] for all x of the box; v_i = max(|LG_i|, |UG_i|). For the level g of the half-space,
``g(x) >= g(x0) - v.|x - x0|``, so within the box no violation is nearer than g(x0) / sum(v). That radius is valid
only inside the box, so it is cut at the box's least radius; FastLin's radius is certified on its own, and the larger
one is reported (the published method takes the smaller).
Reference: Weng et al., arXiv 1804.09699. Theory: theory_notes/survey.md.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from verify.survey.algorithm import Algorithm, Facts
from verify.survey.bounds import NodeBounds, linear_bounds
from verify.survey.conv_dual import corner
from verify.survey.deadline import Deadline
from verify.survey.fast_lin import FastLin
from verify.survey.network import ReluNetwork
from verify.survey.problem import ARITHMETIC, Problem
from verify.survey.result import Result, Status
from verify.survey.sets import Floats


@dataclass(frozen=True)
class FastLip(Algorithm):
    """Gradient bounds over the box, and FastLin's bisection."""

    facts: ClassVar[Facts] = Facts(
        "FastLip", "search + reachability", ("hyperrectangle",), ("half-space",), False,
        "Weng et al. 2018, arXiv 1804.09699", "FastLin, and one backward pass for the gradient's interval",
    )  # fmt: skip

    def run(self, problem: Problem, deadline: Deadline) -> Result:
        """See `Algorithm.run`."""
        violation, box = problem.violations[0], problem.box
        bounds = linear_bounds(problem.network, box)
        low, high = gradient_interval(problem.network, bounds, violation.normals)
        steepest = np.maximum(np.abs(low[0]), np.abs(high[0]))
        room = float(violation.level(problem.network.evaluate(box.center))) - violation.margin(ARITHMETIC)
        lipschitz = 0.0
        if room > 0:
            slope, inside = float(steepest.sum()), float(box.radius.min())
            lipschitz = inside if slope * inside <= room else room / slope
        radius = max(lipschitz, FastLin().certified_radius(problem, deadline))
        found = Result(Status.UNKNOWN, radius=radius, radius_kind="certified")
        if room > float(steepest @ box.radius) or radius >= float(box.radius.max()):
            return replace(found, status=Status.HOLDS)
        return problem.replay(corner(problem), found) or replace(
            found, words="the gradient's bounds are not tight enough"
        )


def gradient_interval(network: ReluNetwork, bounds: NodeBounds, rows: Floats) -> tuple[Floats, Floats]:
    """Bounds of the gradient ``(k, inputs)`` of ``rows . f`` for all inputs for which the node bounds are valid."""
    low = high = rows
    for i in reversed(range(len(network.layers))):
        if i < len(network.hidden):
            off, on = bounds.lower[i] < 0, bounds.upper[i] > 0
            low = np.where(off, np.minimum(low, 0.0), low) * on
            high = np.where(off, np.maximum(high, 0.0), high) * on
        positive, negative = np.maximum(network.layers[i].weight, 0.0), np.minimum(network.layers[i].weight, 0.0)
        low, high = low @ positive + high @ negative, high @ positive + low @ negative
    return low, high
