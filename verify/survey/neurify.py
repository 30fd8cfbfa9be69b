"""Neurify: symbolic linear relaxation, and splits on the phase of units.

ReLU of [Low, Up] where the sign is open: Up *= u/(u - l) of Up's own range, plus -l u/(u - l); Low *= u/(u - l) of
Low's own range. Linear programs over the input set and the half-spaces of the fixed units bound the levels. The open
unit with the largest |gradient| times range is fixed active (where its Up >= 0) and inactive (where its Low <= 0): two
closed parts that cover everything, for the published three. A fixed unit is never split again, so the search ends.
Reference: Wang et al., "Efficient Formal Safety Analysis of Neural Networks", arXiv 1809.08098. Theory:
theory_notes/survey.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from verify.survey.algorithm import Algorithm, Facts
from verify.survey.bounds import NodeBounds
from verify.survey.deadline import Deadline
from verify.survey.fast_lip import gradient_interval
from verify.survey.linear_program import Model, Solution
from verify.survey.network import Layer
from verify.survey.problem import Problem, Violation
from verify.survey.result import Result, Status
from verify.survey.sets import INPUT_KINDS, Floats, Hyperrectangle
from verify.survey.symbolic import Symbolic, least, most

Phases = Mapping[tuple[int, int], bool]


@dataclass(frozen=True, eq=False)
class _Pass:
    """Node bounds, half-spaces ``A x <= b`` of the fixed units, and the last hidden layer's symbolic outputs."""

    bounds: NodeBounds
    normals: Floats
    offsets: Floats
    value: Symbolic


@dataclass(frozen=True)
class Neurify(Algorithm):
    """Depth-first splits of units; one linear program per node and violation."""

    facts: ClassVar[Facts] = Facts(
        "Neurify", "search + reachability", INPUT_KINDS, ("hyperrectangle", "polytope", "half-space"),
        False, "Wang et al. 2018, arXiv 1809.08098", "linear program per node; nodes exponential in open units",
    )  # fmt: skip

    def run(self, problem: Problem, deadline: Deadline) -> Result:
        """See `Algorithm.run`."""
        for violation in problem.violations:
            pending: list[Phases] = [{}]
            doubt = False
            while pending:
                deadline.left()
                phases = pending.pop()
                state = relaxed_pass(problem, phases)
                found = _least_level(problem, violation, state, deadline)
                if found.lower > violation.margin():
                    continue
                refuted = problem.replay(None if found.point is None else found.point[: problem.network.inputs])
                if refuted is not None:
                    return refuted
                unit = _heaviest(problem, violation, state.bounds, phases)
                if unit is None:
                    doubt = True
                else:
                    pending += [{**phases, unit: False}, {**phases, unit: True}]
            if doubt:
                return Result(Status.UNKNOWN, "within the margin")
        return Result(Status.HOLDS)


def relaxed_pass(problem: Problem, phases: Phases) -> _Pass:
    """Symbolic relaxation with some units' phases fixed; the bounds are over the box, valid where the phases are."""
    network, box = problem.network, problem.box
    value, lows, highs = Symbolic.of_input(network.inputs), [], []
    normals, offsets = [np.zeros((0, network.inputs))], [np.zeros(0)]
    for i, layer in enumerate(network.layers):
        before = value.through(layer)
        low, high = least(before.low, box), most(before.up, box)
        for (at, j), active in phases.items():
            if at == i:
                form = before.up if active else before.low
                sign = -1.0 if active else 1.0
                normals.append(sign * form.weight[j : j + 1])
                offsets.append(-sign * form.bias[j : j + 1])
                clip = max if active else min
                low[j], high[j] = clip(low[j], 0.0), clip(high[j], 0.0)
        lows.append(low)
        highs.append(high)
        if i < len(network.hidden):
            fixed = {j: active for (at, j), active in phases.items() if at == i}
            value = relax(before, box, low, high, fixed)
    return _Pass(NodeBounds(tuple(lows), tuple(highs)), np.vstack(normals), np.concatenate(offsets), value)


def relax(before: Symbolic, box: Hyperrectangle, low: Floats, high: Floats, fixed: Mapping[int, bool]) -> Symbolic:
    """Neurify's ReLU; fixed units are kept or become zero."""
    slope_low, _ = _line(least(before.low, box), most(before.low, box))
    slope_up, shift = _line(least(before.up, box), most(before.up, box))
    for j, active in fixed.items():
        slope_low[j] = slope_up[j] = float(active)
        shift[j] = 0.0
    dead = (high <= 0) & ~np.isin(np.arange(len(high)), list(fixed))
    slope_up[dead], shift[dead], slope_low[dead] = 0.0, 0.0, 0.0
    lower = Layer(slope_low[:, None] * before.low.weight, slope_low * before.low.bias)
    return Symbolic(lower, Layer(slope_up[:, None] * before.up.weight, slope_up * before.up.bias + shift))


def _line(low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Slope and shift of the chord of relu over [low, high]: 1 and 0 where active, 0 and 0 where inactive."""
    opened = (low < 0) & (high > 0)
    slope = np.where(opened, high / np.where(opened, high - low, 1.0), (low >= 0).astype(np.float64))
    return slope, np.where(opened, -low * slope, 0.0)


def _least_level(problem: Problem, violation: Violation, state: _Pass, deadline: Deadline) -> Solution:
    """Minimum over the domain of the lower bounds of the violation's rows."""
    last = problem.network.layers[-1]
    rows = state.value.through(Layer(violation.normals, -violation.offsets).after(last)).low
    model, (normals, offsets) = Model(), problem.input_rows
    if len(offsets):
        x = model.variables(problem.network.inputs)
        model.rows([(x, normals)], upper=offsets)
    else:
        x = model.variables(problem.network.inputs, problem.box.lower, problem.box.upper)
    t = model.variables(1)
    if len(state.offsets):
        model.rows([(x, state.normals)], upper=state.offsets)
    model.rows([(x, rows.weight), (t, -np.ones((len(rows.bias), 1)))], upper=-rows.bias)
    return model.minimise(t, np.ones(1), deadline=deadline)


def _heaviest(problem: Problem, violation: Violation, bounds: NodeBounds, phases: Phases) -> tuple[int, int] | None:
    """The open unit with the largest |gradient of the rows| times its range."""
    weights: dict[tuple[int, int], float] = {}
    network = problem.network
    opened = [unit for unit in bounds.unstable() if unit not in phases]
    for i in {layer for layer, _ in opened}:
        rest = type(network)(network.layers[i + 1 :])
        after = NodeBounds(bounds.lower[i + 1 :], bounds.upper[i + 1 :])
        low, high = gradient_interval(rest, after, violation.normals)
        steep = np.maximum(np.abs(low), np.abs(high)).sum(axis=0) * (bounds.upper[i] - bounds.lower[i])
        weights |= {(i, j): float(steep[j]) for layer, j in opened if layer == i}
    return max(weights, key=lambda unit: weights[unit], default=None)
