"""Rules of affine operations with parameters, and of sums.

Difference of two affine maps, with S the selection of kept inputs and V, c the compact parameters:

    D' = (W[kept] - V S) z + V D + (b[kept] - c)

Theory: theory_notes/lift.md, section 2.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from verify.formal.lift import Index
from verify.formal.maps import Convolution, Dense, Diagonal, Map, identity, negation
from verify.formal.rules.rule import Affine, AffineRule, Compiled, Floats, Rule, Side, Site, inverse, tensor
from verify.network.graph import Node, Shape


class LinearRule(AffineRule):
    """``y = W x + b`` over the last axis."""

    name = "linear"
    compare = True

    def affine(self, side: Side, node: Node) -> Affine:
        p = side.parameters(node)
        rows, columns = _feature_order(side, node.name), _feature_order(side, node.inputs[0])
        positions = side.size(node.name) // len(p["weight"])
        bias = np.tile(p["bias"][rows], positions) if "bias" in p else None
        weight = tensor(p["weight"][rows][:, columns])
        return Affine((Dense(weight, positions),), None if bias is None else tensor(bias))

    def change(self, site: Site) -> Affine | None:
        (original, first), (compact, second) = site.sides
        p, q = original.parameters(first), compact.parameters(second)
        rows, columns = site.kept_channels(first.name, -1), _feature_order(original, first.inputs[0])
        weight = p["weight"][rows][:, columns]
        weight[:, inverse(columns)[site.kept_channels(first.inputs[0], -1)]] -= q["weight"]
        bias = p.get("bias", np.zeros(len(p["weight"])))[rows] - q.get("bias", np.zeros(len(q["weight"])))
        if not weight.any() and not bias.any():
            return None
        positions = compact.size(second.name) // len(q["weight"])
        return Affine((Dense(tensor(weight), positions),), tensor(np.tile(bias, positions)))


def _feature_order(side: Side, name: str) -> Index:
    """Stored order along the last axis: only values of rank 1 are stored in another order along it."""
    shape = side.shape(name)
    return side.channels(name) if len(shape) == 1 else np.arange(shape[-1])


class ConvolutionRule(AffineRule):
    """Cross-correlation; grouped kernels are widened to dense ones unless the convolution is depthwise."""

    name = "conv"
    compare = True

    def affine(self, side: Side, node: Node) -> Affine:
        p = side.parameters(node)
        rows, columns = side.channels(node.name), side.channels(node.inputs[0])
        shape = side.shape(node.inputs[0])
        if _is_depthwise(side, node) and np.array_equal(rows, columns):
            kernel, groups = p["weight"][rows], len(rows)
        else:
            kernel, groups = _widened(p["weight"], cast(int, node.attributes["groups"]))[rows][:, columns], 1
        bias = None if "bias" not in p else tensor(_spread_out(p["bias"][rows], side.shape(node.name)))
        return Affine((_convolution(kernel, shape, node, groups),), bias)

    def change(self, site: Site) -> Affine | None:
        (original, first), (compact, second) = site.sides
        p, q = original.parameters(first), compact.parameters(second)
        source = first.inputs[0]
        rows, columns = site.kept_channels(first.name, 0), original.channels(source)
        bias = p.get("bias", np.zeros(len(p["weight"])))[rows] - q.get("bias", np.zeros(len(q["weight"])))
        kernel = _widened(p["weight"], cast(int, first.attributes["groups"]))[rows][:, columns]
        kept = inverse(columns)[site.kept_channels(source, 0)]
        kernel[:, kept] -= _widened(q["weight"], cast(int, second.attributes["groups"]))
        if not kernel.any() and not bias.any():
            return None
        linear = _convolution(kernel, original.shape(source), first, 1)
        return Affine((linear,), tensor(_spread_out(bias, compact.shape(second.name))))


def _is_depthwise(side: Side, node: Node) -> bool:
    channels = side.shape(node.inputs[0])[0]
    return node.attributes["groups"] == channels == side.shape(node.name)[0] > 1


def _widened(kernel: Floats, groups: int) -> Floats:
    """The dense kernel ``(out, in, *k)`` of a grouped one ``(out, in / groups, *k)``."""
    out, each = kernel.shape[:2]
    dense = np.zeros((out, each * groups, *kernel.shape[2:]))
    for g in range(groups):
        rows = slice(g * out // groups, (g + 1) * out // groups)
        dense[rows, g * each : (g + 1) * each] = kernel[rows]
    return dense


def _convolution(kernel: Floats, shape: Shape, node: Node, groups: int) -> Map:
    stride, padding, dilation = (cast(Shape, node.attributes[k]) for k in ("stride", "padding", "dilation"))
    return Convolution(tensor(kernel), shape, stride=stride, padding=padding, dilation=dilation, groups=groups)


def _spread_out(values: Floats, shape: Shape) -> Floats:
    """One value per channel, repeated over the positions of a value of `shape`, flattened."""
    return np.broadcast_to(values.reshape(-1, *[1] * (len(shape) - 1)), shape).ravel()


@dataclass(frozen=True)
class _Line:
    """``w x + b`` per element in the file's order, each up to an absolute error, and the exact numbers behind it."""

    weight: Floats
    weight_error: Floats
    offset: Floats
    offset_error: Floats
    origin: Floats  # (roles, n): equal columns mean exactly equal lines


class DiagonalRule(AffineRule):
    """Element-wise ``w x + b``: batch normalisation and arithmetic with constants."""

    compare = True

    def __init__(self, name: str) -> None:
        self.name = name

    def affine(self, side: Side, node: Node) -> Affine:
        line, order = _line(side, node), side.order(node.name)
        error = tensor(line.weight_error[order])
        linear = Diagonal(tensor(line.weight[order]), len(order), error=error if bool(error.any()) else None)
        return Affine((linear,), tensor(line.offset[order]), tensor(line.offset_error[order]))

    def change(self, site: Site) -> Affine | None:
        (original, first), (compact, second) = site.sides
        kept = site.kept(first.name)
        assert kept is not None
        p, q = _line(original, first), _line(compact, second)
        own = original.order(first.name)[kept.index.numpy()]
        same = (p.origin[:, own] == q.origin).all(0)
        if same.all():
            return None
        weight, weight_error = _difference(p.weight[own], p.weight_error[own], q.weight, q.weight_error, same)
        offset, offset_error = _difference(p.offset[own], p.offset_error[own], q.offset, q.offset_error, same)
        size = original.size(first.name)
        linear = Diagonal(tensor(weight), size, index=kept.index, error=tensor(weight_error))
        return Affine((linear,), tensor(offset), tensor(offset_error))


def _difference(a: Floats, a_error: Floats, b: Floats, b_error: Floats, same: Floats) -> tuple[Floats, Floats]:
    error = (a_error + b_error + 2.0**-52 * (np.abs(a) + np.abs(b))) * (1.0 + 2.0**-48)
    return np.where(same, 0.0, a - b), np.where(same, 0.0, error)


def _line(side: Side, node: Node) -> _Line:
    shape, parameters = side.shape(node.name), side.parameters(node)
    if node.op == "batch_norm":
        return _normalisation(parameters, cast(float, node.attributes["epsilon"]), shape)
    value = np.broadcast_to(parameters["value"], shape).ravel()
    zero, one = np.zeros_like(value), np.ones_like(value)
    origin = value[None]
    if node.op == "shift":
        return _Line(one, zero, value, zero, origin)
    if node.op == "scale":
        return _Line(value, zero, zero, zero, origin)
    with np.errstate(divide="ignore"):
        reciprocal = 1.0 / value
    return _Line(reciprocal, np.abs(reciprocal) * 2.0**-52, zero, zero, origin)


def _normalisation(p: dict[str, Floats], epsilon: float, shape: Shape) -> _Line:
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = p["weight"] / np.sqrt(p["variance"] + epsilon)
        offset = p["bias"] - p["mean"] * weight
    offset_error = 2.0**-48 * (np.abs(p["bias"]) + np.abs(p["mean"] * weight)) + 1e-280
    origin = np.stack([_spread_out(p[role], shape) for role in ("weight", "bias", "mean", "variance")])
    weight_error = np.abs(weight) * 2.0**-48 + 1e-280
    a, a_error, b, b_error = (_spread_out(v, shape) for v in (weight, weight_error, offset, offset_error))
    return _Line(a, a_error, b, b_error, origin)


class SumRule(AffineRule):
    """``a + b`` or ``a - b``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def affine(self, side: Side, node: Node) -> Affine:
        size = side.size(node.name)
        return Affine((identity(size), identity(size) if node.op == "add" else negation(size)))


class ConstantRule(Rule):
    """A value that does not depend on the input."""

    name = "constant"

    def compile(self, site: Site) -> Compiled:
        values = [
            torch.from_numpy(side.parameters(node)["value"].ravel()[side.order(node.name)]) for side, node in site.sides
        ]
        second, kept = (values[1] if len(values) == 2 else None), site.kept(site.first.name)
        return lambda arithmetic, _: arithmetic.constant(values[0], second, kept)


AFFINE_RULES: tuple[Rule, ...] = (
    LinearRule(), ConvolutionRule(), DiagonalRule("batch_norm"), DiagonalRule("scale"), DiagonalRule("divide"),
    DiagonalRule("shift"), SumRule("add"), SumRule("subtract"), ConstantRule(),
)  # fmt: skip
