"""Folding of the parts of an ONNX file that do not depend on the network's input.

These are shape computations of exporters and small arithmetic on weights. Integer arithmetic is exact;
float arithmetic is done in the type of the operands, as a runtime would. Sizes that come from the batch
are those at batch size one and are marked `sized`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from verify.errors import ModelError
from verify.network.graph import Array
from verify.network.lowering import broadcast, check_size

Attributes = Mapping[str, Any]
Fold = Callable[[list[Array], Attributes, str], Array]
_TYPES = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16, 11: np.float64}


def _binary(function: Callable[..., Array]) -> Fold:
    def fold(x: list[Array], attributes: Attributes, node: str) -> Array:
        broadcast([a.shape for a in x], node)
        return function(*x)

    return fold


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return a / b
    quotient = np.abs(a) // np.abs(b)  # ONNX integers divide toward zero
    return (quotient * np.sign(a) * np.sign(b)).astype(a.dtype)


def _cast(x: list[Array], attributes: Attributes, node: str) -> Array:
    to = _TYPES.get(attributes.get("to", 0))
    if to is None:
        raise ModelError(f"node {node!r} (Cast) converts to ONNX type {attributes.get('to')}, which is not supported")
    if x[0].dtype.kind == "f" and np.can_cast(x[0].dtype, to, "safe"):
        return x[0]  # widening changes no value: keep the bits of the file
    return x[0].astype(to)


def _cast_like(x: list[Array], attributes: Attributes, node: str) -> Array:
    if x[0].dtype.kind == "f" and np.can_cast(x[0].dtype, x[1].dtype, "safe"):
        return x[0]
    return x[0].astype(x[1].dtype)


def _constant_of_shape(x: list[Array], attributes: Attributes, node: str) -> Array:
    shape = tuple(int(i) for i in x[0])
    check_size(shape, node)
    value = np.asarray(attributes.get("value", np.zeros(1, dtype=np.float32))).reshape(())
    return np.full(shape, value, dtype=value.dtype)


def _expand(x: list[Array], attributes: Attributes, node: str) -> Array:
    return np.broadcast_to(x[0], broadcast((x[0].shape, tuple(int(i) for i in x[1])), node))


def _tile(x: list[Array], attributes: Attributes, node: str) -> Array:
    check_size(tuple(int(n * r) for n, r in zip(x[0].shape, x[1], strict=True)), node)
    return np.tile(x[0], x[1])


def _reshape(x: list[Array], attributes: Attributes, node: str) -> Array:
    copies = not attributes.get("allowzero", 0)
    shape = [x[0].shape[i] if n == 0 and copies and i < x[0].ndim else int(n) for i, n in enumerate(x[1])]
    return x[0].reshape(shape)


def _axes(x: list[Array], attributes: Attributes) -> tuple[int, ...]:
    given = attributes.get("axes")
    return tuple(given) if given is not None else tuple(int(a) for a in x[1]) if len(x) > 1 else ()


def _squeeze(x: list[Array], attributes: Attributes, node: str) -> Array:
    return np.squeeze(x[0], axis=_axes(x, attributes) or None)


def _unsqueeze(x: list[Array], attributes: Attributes, node: str) -> Array:
    return np.expand_dims(x[0], _axes(x, attributes))


def _slice(x: list[Array], attributes: Attributes, node: str) -> Array:
    rows = [list(map(int, a)) for a in x[1:]]
    if "starts" in attributes:
        rows = [list(attributes["starts"]), list(attributes["ends"])]
        rows += [list(attributes["axes"])] if "axes" in attributes else []
    starts, stops = rows[0], rows[1]
    axes = rows[2] if len(rows) > 2 else list(range(len(starts)))
    steps = rows[3] if len(rows) > 3 else [1] * len(starts)
    index = [slice(None)] * x[0].ndim
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        index[axis] = slice(start, stop if not (step < 0 and stop < -(2**31)) else None, step)
    return x[0][tuple(index)]


def _range(x: list[Array], attributes: Attributes, node: str) -> Array:
    start, stop, step = (a.reshape(()) for a in x)
    check_size((max(0, math.ceil((float(stop) - float(start)) / float(step))),), node)
    return np.asarray(np.arange(start.item(), stop.item(), step.item(), dtype=x[0].dtype))


def _reduce(function: Callable[..., Any]) -> Fold:
    def fold(x: list[Array], attributes: Attributes, node: str) -> Array:
        axes = _axes(x, attributes) or None
        return np.asarray(function(x[0], axis=axes, keepdims=bool(attributes.get("keepdims", 1))), dtype=x[0].dtype)

    return fold


def _unary(function: Callable[[Array], Array]) -> Fold:
    return lambda x, attributes, node: np.asarray(function(x[0]))


FOLDS: dict[str, Fold] = {
    "Add": _binary(np.add), "Sub": _binary(np.subtract), "Mul": _binary(np.multiply), "Div": _binary(_divide),
    "Pow": _binary(lambda a, b: np.power(a, b).astype(a.dtype)), "Max": _binary(np.maximum), "Min": _binary(np.minimum),
    "Equal": _binary(np.equal), "Greater": _binary(np.greater), "Less": _binary(np.less),
    "And": _binary(np.logical_and), "Or": _binary(np.logical_or), "Where": _binary(np.where), "Mod": _binary(np.mod),
    "Neg": _unary(np.negative), "Sqrt": _unary(np.sqrt), "Not": _unary(np.logical_not), "Identity": _unary(np.asarray),
    "Reciprocal": _unary(np.reciprocal), "Floor": _unary(np.floor), "Ceil": _unary(np.ceil), "Abs": _unary(np.abs),
    "Cast": _cast, "CastLike": _cast_like, "ConstantOfShape": _constant_of_shape, "Expand": _expand, "Tile": _tile,
    "Reshape": _reshape, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Slice": _slice, "Range": _range,
    "Transpose": lambda x, a, node: np.transpose(x[0], a.get("perm")),
    "Concat": lambda x, a, node: np.concatenate(x, axis=a["axis"]),
    "Gather": lambda x, a, node: np.take(x[0], x[1], axis=a.get("axis", 0)),
    "Flatten": lambda x, a, node: x[0].reshape(math.prod(x[0].shape[: a.get("axis", 1)]), -1),
    "ReduceProd": _reduce(np.prod), "ReduceSum": _reduce(np.sum), "ReduceMean": _reduce(np.mean),
    "Shape": lambda x, a, node: np.array(x[0].shape[a.get("start", 0) : a.get("end")], dtype=np.int64),
    "Size": lambda x, a, node: np.array(x[0].size, dtype=np.int64),
}  # fmt: skip
