"""Ai2: abstract interpretation with zonotopes (or boxes).

A layer's values are ``c + G xi``, xi in the unit cube. For every unit whose sign is open the abstract value is met with
``h >= 0`` and with ``h <= 0``, the second part is projected on 0, and the two are joined. Both parts keep the form of
every other unit, so the join over common symbols replaces only h: by ``s h + m ± m`` with the slope s = u/(u-l) and
m = -s l/2, the join of least area. The box domain forgets the symbols.
Reference: Gehr et al., "AI2: Safety and Robustness Certification of Neural Networks with Abstract Interpretation",
S&P 2018; join as in Singh et al., NeurIPS 2018. Theory: theory_notes/survey.md. A polytope of inputs is replaced by
the box around it.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from verify.errors import SpecificationError
from verify.survey.algorithm import Algorithm, Facts
from verify.survey.bounds import interval_bounds
from verify.survey.deadline import Deadline
from verify.survey.linear_program import Model
from verify.survey.max_sens import avoids
from verify.survey.network import Layer
from verify.survey.problem import Problem, Violation
from verify.survey.result import Result, Status
from verify.survey.sets import AffineImage, Hyperrectangle

DOMAINS = ("zonotope", "box")


@dataclass(frozen=True)
class Ai2(Algorithm):
    """One abstract value through the network; `domain`: "zonotope" or "box"."""

    domain: str = "zonotope"
    facts: ClassVar[Facts] = Facts(
        "Ai2", "reachability", ("hyperrectangle", "polytope"), ("hyperrectangle", "polytope", "half-space"),
        False, "Gehr et al., S&P 2018", "one pass with one symbol per input and per unstable unit",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.domain not in DOMAINS:
            raise SpecificationError(f"unknown abstract domain {self.domain!r}; known: {', '.join(DOMAINS)}")

    def run(self, problem: Problem, deadline: Deadline) -> Result:
        """See `Algorithm.run`."""
        pieces: tuple[AffineImage, ...] = ()
        if self.domain == "box":
            reach = interval_bounds(problem.network, problem.box).output
            held = avoids(problem, reach.lower, reach.upper)
        else:
            zonotope = propagate(problem, deadline)
            spread = np.abs(zonotope.weight).sum(axis=1)
            reach = Hyperrectangle(zonotope.bias - spread, zonotope.bias + spread)
            held = all(_least(zonotope, v, deadline) > v.margin() for v in problem.violations)
            pieces = (_image(zonotope),)
        if held:
            return Result(Status.HOLDS, reach=reach, pieces=pieces)
        unknown = Result(Status.UNKNOWN, "the abstraction is too coarse", reach=reach, pieces=pieces)
        return problem.replay(problem.middle, unknown) or unknown


def propagate(problem: Problem, deadline: Deadline) -> Layer:
    """The output as a zonotope: generators as `weight` ``(m, symbols)``, centre as `bias`."""
    box = problem.box
    form = Layer(np.diag(box.radius), box.center)
    for i, layer in enumerate(problem.network.layers):
        deadline.left()
        form = layer.after(form)
        if i < len(problem.network.hidden):
            form = join(form)
    return form


def join(form: Layer) -> Layer:
    """ReLU of a zonotope: meet with both half-spaces of every open unit, project, join."""
    spread = np.abs(form.weight).sum(axis=1)
    low, high = form.bias - spread, form.bias + spread
    opened = (low < 0) & (high > 0)
    slope = np.where(opened, high / np.where(opened, high - low, 1.0), (low >= 0).astype(np.float64))
    half = np.where(opened, -slope * low / 2, 0.0)
    fresh = np.diag(half)[:, opened]
    return Layer(np.hstack([slope[:, None] * form.weight, fresh]), slope * form.bias + half)


def _least(zonotope: Layer, violation: Violation, deadline: Deadline) -> float:
    """The least level over a zonotope."""
    rows = Layer(violation.normals, -violation.offsets).after(zonotope)
    if len(rows.bias) == 1:
        return float(rows.bias[0] - np.abs(rows.weight[0]).sum())
    model = Model()
    xi, t = model.variables(rows.weight.shape[1], -1.0, 1.0), model.variables(1)
    model.rows([(xi, rows.weight), (t, -np.ones((len(rows.bias), 1)))], upper=-rows.bias)
    return model.minimise(t, np.ones(1), deadline=deadline).lower


def _image(zonotope: Layer) -> AffineImage:
    symbols = zonotope.weight.shape[1]
    return AffineImage(Hyperrectangle(-np.ones(symbols), np.ones(symbols)), zonotope.weight, zonotope.bias)
