"""ExactReach: the reach set of a ReLU network as an exact union of polytopes.

Every polytope is cut by the sign of every unit; a piece is kept as ``{M x + v : x in a polytope of inputs}``, so that
no vertices and no elimination are needed. The worst case is one piece per activation pattern.
Reference: Xiang, Tran, Johnson, "Reachable Set Computation and Safety Verification for Neural Networks with ReLU
Activations", arXiv 1712.08163. Theory: theory_notes/survey.md. Not claimed: more than float64 and HiGHS allow.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from verify.survey.algorithm import Algorithm, Facts
from verify.survey.deadline import Deadline
from verify.survey.linear_program import Model, Outcome, Solution
from verify.survey.network import Layer
from verify.survey.problem import Problem
from verify.survey.result import Result, Status
from verify.survey.sets import AffineImage, Floats, Hyperrectangle, Polytope


@dataclass(frozen=True, eq=False)
class _Piece:
    """Rows of a polytope of inputs beyond the input set's, and a layer's value as an affine map on it."""

    normals: Floats
    offsets: Floats
    value: Layer

    def cut(self, sign: float, weight: Floats, bias: float, value: Layer) -> "_Piece":
        """The part where ``sign (weight x + bias) >= 0``."""
        return _Piece(np.vstack([self.normals, -sign * weight]), np.append(self.offsets, sign * bias), value)


@dataclass(frozen=True)
class ExactReach(Algorithm):
    """Union of polytopes; HOLDS if every piece keeps every level above the margin."""

    facts: ClassVar[Facts] = Facts(
        "ExactReach", "reachability", ("hyperrectangle", "polytope"), ("hyperrectangle", "polytope", "half-space"),
        True, "Xiang et al. 2017, arXiv 1712.08163", "one piece per activation pattern: exponential in the units",
    )  # fmt: skip

    def run(self, problem: Problem, deadline: Deadline) -> Result:
        """See `Algorithm.run`."""
        box, pieces = problem.box, []
        least = dict.fromkeys(range(len(problem.violations)), np.inf)
        for piece in _pieces(problem, deadline):
            pieces.append(piece)
            for i, violation in enumerate(problem.violations):
                rows = Layer(violation.normals, -violation.offsets).after(piece.value)
                found = _least(problem, piece, rows, deadline)
                refuted = problem.replay(None if found.point is None else found.point[: box.dimension])
                if refuted is not None:
                    return refuted
                least[i] = min(least[i], found.lower)
        images = tuple(_image(problem, piece) for piece in pieces)
        held = all(least[i] > v.margin() for i, v in enumerate(problem.violations))
        reach = _hull(problem, pieces, deadline)
        return Result(Status.HOLDS if held else Status.UNKNOWN, "" if held else "within the margin", reach=reach,
                      pieces=images)  # fmt: skip


def _pieces(problem: Problem, deadline: Deadline) -> Iterator[_Piece]:
    """All pieces with the output's affine map, depth first."""
    n = problem.network.inputs
    start = _Piece(np.zeros((0, n)), np.zeros(0), problem.network.layers[0])
    pending = [(0, 0, start)]
    while pending:
        deadline.left()
        i, j, piece = pending.pop()
        if i == len(problem.network.hidden):
            yield piece
        elif j == problem.network.hidden[i]:
            rectified = Layer(piece.value.weight, piece.value.bias)
            pending.append(
                (i + 1, 0, _Piece(piece.normals, piece.offsets, problem.network.layers[i + 1].after(rectified)))
            )
        else:
            pending += [(i, j + 1, part) for part in _split(problem, piece, j, deadline)]


def _split(problem: Problem, piece: _Piece, j: int, deadline: Deadline) -> list[_Piece]:
    """The parts where unit j is active (its row stays) and inactive (its row becomes zero)."""
    weight, bias = piece.value.weight[j].copy(), float(piece.value.bias[j])
    mask = np.ones(len(piece.value.bias))
    mask[j] = 0.0
    off = Layer(mask[:, None] * piece.value.weight, mask * piece.value.bias)
    middle, width = weight @ problem.box.center + bias, np.abs(weight) @ problem.box.radius
    if middle - width >= 0:
        return [piece]
    if middle + width <= 0:
        return [_Piece(piece.normals, piece.offsets, off)]
    parts = [piece.cut(1.0, weight, bias, piece.value), piece.cut(-1.0, weight, bias, off)]
    row = Layer(np.zeros((1, len(weight))), np.zeros(1))
    return [part for part in parts if _least(problem, part, row, deadline).outcome is not Outcome.INFEASIBLE]


def _least(problem: Problem, piece: _Piece, rows: Layer, deadline: Deadline) -> Solution:
    """Minimum of ``max_i rows_i(x)`` over a piece."""
    model = Model()
    x, t = model.variables(problem.network.inputs, problem.box.lower, problem.box.upper), model.variables(1)
    normals, offsets = problem.input_rows
    for a, b in ((normals, offsets), (piece.normals, piece.offsets)):
        if len(b):
            model.rows([(x, a)], upper=b)
    model.rows([(x, rows.weight), (t, -np.ones((len(rows.bias), 1)))], upper=-rows.bias)
    return model.minimise(t, np.ones(1), deadline=deadline)


def _image(problem: Problem, piece: _Piece) -> AffineImage:
    a, b = problem.input.rows()
    domain = Polytope(np.vstack([a, piece.normals]), np.concatenate([b, piece.offsets]))
    return AffineImage(domain, piece.value.weight, piece.value.bias)


def _hull(problem: Problem, pieces: list[_Piece], deadline: Deadline) -> Hyperrectangle:
    """The smallest box around all pieces, to solver tolerance."""
    ends = np.full((2, problem.network.outputs), np.inf)
    for piece in pieces:
        for k in range(problem.network.outputs):
            for side, sign in enumerate((1.0, -1.0)):
                row = Layer(sign * piece.value.weight[k : k + 1], sign * piece.value.bias[k : k + 1])
                ends[side, k] = min(ends[side, k], _least(problem, piece, row, deadline).lower)
    return Hyperrectangle(np.minimum(ends[0], -ends[1]), -ends[1])
