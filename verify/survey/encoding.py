"""A network and a violation as rows of a linear program.

Every hidden unit with pre-activation h has two variables z, s >= 0 with ``h = z - s``: z is its output when one of
them is zero. So one set of rows serves every encoding of the survey (l <= h <= u, l < 0 < u):

    relaxed     z <= max(u, 0),  s <= max(-l, 0)          (Reluplex: z >= h, z >= 0)
    triangle    z / u + s / (-l) <= 1                      (Planet, BaB: z <= u (h - l)/(u - l))
    switched    z <= Z (1 - d),  s <= S d,  d in {0, 1}    (NSVerify: Z = S = M; MIPVerify: Z = u, S = -l)
    phase       active: s = 0;  inactive: z = 0            (bounds of variables only)

A violation adds a variable t >= level(y), to be minimised. Theory: theory_notes/survey.md.
"""

from dataclasses import dataclass

import numpy as np

from verify.survey.bounds import NodeBounds
from verify.survey.deadline import Deadline
from verify.survey.linear_program import Indices, Model, Solution
from verify.survey.network import ReluNetwork
from verify.survey.problem import Problem, Violation
from verify.survey.sets import Floats


@dataclass(frozen=True, eq=False)
class Encoding:
    """Indices of the variables of a model: input x, per hidden layer z and s, level t (none without a violation)."""

    model: Model
    x: Indices
    z: tuple[Indices, ...]
    s: tuple[Indices, ...]
    t: Indices

    def minimise(
        self, deadline: Deadline | None = None, *, lower: Floats | None = None, upper: Floats | None = None
    ) -> Solution:
        """The least level of the violation."""
        return self.model.minimise(self.t, np.ones(1), lower=lower, upper=upper, deadline=deadline)

    def input_of(self, solution: Solution) -> Floats | None:
        """The input part of a solution."""
        return None if solution.point is None else solution.point[self.x]

    def fix(self, upper: Floats, layer: int, unit: int, active: bool) -> None:
        """Fix a unit's phase in an array of variables' upper bounds, in place."""
        upper[self.s[layer][unit] if active else self.z[layer][unit]] = 0.0


def encode(problem: Problem, violation: Violation | None, bounds: NodeBounds, layers: int | None = None) -> Encoding:
    """The relaxed encoding of the hidden layers (of the first `layers` ones), and of a violation of the output."""
    network, model = problem.network, Model()
    normals, offsets = problem.input_rows
    if len(offsets):  # the rows suffice; the box's bounds, nearly parallel to them, make the solver fail
        x = model.variables(network.inputs)
        model.rows([(x, normals)], upper=offsets)
    else:
        x = model.variables(network.inputs, problem.box.lower, problem.box.upper)
    value, zs, ss = x, [], []
    for i in range(len(network.hidden) if layers is None else layers):
        layer, width = network.layers[i], network.hidden[i]
        z = model.variables(width, 0.0, np.maximum(bounds.upper[i], 0.0))
        s = model.variables(width, 0.0, np.maximum(-bounds.lower[i], 0.0))
        identity = np.eye(width)
        model.rows([(z, identity), (s, -identity), (value, -layer.weight)], layer.bias, layer.bias)
        value = z
        zs.append(z)
        ss.append(s)
    t = model.variables(0)
    if violation is not None:
        t = _level(model, network, violation, value)
    return Encoding(model, x, tuple(zs), tuple(ss), t)


def _level(model: Model, network: ReluNetwork, violation: Violation, value: Indices) -> Indices:
    t = model.variables(1)
    last = network.layers[-1]
    rows = violation.normals @ last.weight
    offsets = violation.offsets - violation.normals @ last.bias
    model.rows([(value, rows), (t, -np.ones((len(rows), 1)))], upper=offsets)
    return t


def add_triangles(encoding: Encoding, bounds: NodeBounds) -> None:
    """The upper side of the triangle for every unstable unit."""
    for i, j in bounds.unstable():
        if i < len(encoding.z):
            row = np.array([[1.0 / bounds.upper[i][j], -1.0 / bounds.lower[i][j]]])
            encoding.model.rows([(np.array([encoding.z[i][j], encoding.s[i][j]]), row)], upper=1.0)


def add_switches(encoding: Encoding, bounds: NodeBounds, big_m: float | None = None) -> None:
    """One binary per unstable unit, 1 where it is inactive; z and s are limited by big_m, or by the unit's bounds.

    With big_m, also the stable units get a binary, as in NSVerify.
    """
    for i in range(len(encoding.z)):
        low, high = bounds.lower[i], bounds.upper[i]
        units = np.arange(len(low)) if big_m is not None else np.flatnonzero((low < 0) & (high > 0))
        if not len(units):
            continue
        d, identity = encoding.model.variables(len(units), 0.0, 1.0, integer=True), np.eye(len(units))
        z_limit = np.full(len(units), big_m) if big_m is not None else high[units]
        s_limit = np.full(len(units), big_m) if big_m is not None else -low[units]
        encoding.model.rows([(encoding.z[i][units], identity), (d, np.diag(z_limit))], upper=z_limit)
        encoding.model.rows([(encoding.s[i][units], identity), (d, -np.diag(s_limit))], upper=0.0)
