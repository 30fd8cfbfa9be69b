"""From whole tensors to single samples: what both readers have in common.

File formats describe a run on whole tensors, batch axis included. A reader follows that run at batch size
one, where the batch axis is some axis of length 1, and this file keeps track of which one it is. Every
operation is then written down for one sample, with that axis removed. Because the tensor with and
without an axis of length 1 holds the same elements in the same order, the result is exact.

Operands that do not depend on the input are `Constant` and are folded by the reader; the others are `Value`.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from verify.errors import ModelError
from verify.network.graph import Array, Attribute, Network, Node, Shape
from verify.network.operations import infer_shape

MAX_ELEMENTS = 1 << 27  # of one tensor that is computed while reading
MAX_COPIES = 1 << 14  # along one axis of a value that is repeated


@dataclass(frozen=True)
class Constant:
    """A tensor that does not depend on the input.

    Attributes:
        array: its elements, bits as in the file.
        key: name of the parameter it becomes: the initialiser it came from.
        tensor: name of the tensor it is in the file.
        sized: it was computed from the size of the batch.
    """

    array: Array
    key: str
    tensor: str = ""
    sized: bool = False


@dataclass(frozen=True)
class Value:
    """A tensor that depends on the input: `shape` at batch size 1, `batch` = its batch axis if it has one."""

    name: str
    shape: Shape
    batch: int | None

    @property
    def sample(self) -> Shape:
        """Shape of one sample."""
        return without(self.shape, self.batch)

    def axis(self, axis: int, node: str) -> int:
        """Axis of one sample for an axis of the whole tensor (negative ones count from the end)."""
        full = normal_axis(axis, len(self.shape), node)
        if full == self.batch:
            raise ModelError(f"node {node!r} works along the batch axis: samples must not influence each other")
        return full - 1 if self.batch is not None and full > self.batch else full


Operand = Constant | Value


def without(shape: Shape, axis: int | None) -> Shape:
    """`shape` with one axis left out."""
    return shape if axis is None else (*shape[:axis], *shape[axis + 1 :])


def normal_axis(axis: int, rank: int, node: str) -> int:
    """Non-negative form of an axis, or ModelError."""
    if not -rank <= axis < rank:
        raise ModelError(f"node {node!r}: axis {axis} of a tensor of rank {rank}")
    return axis % rank


def broadcast(shapes: Sequence[Shape], node: str) -> Shape:
    """Common shape of operands, or ModelError."""
    try:
        result = np.broadcast_shapes(*shapes)
    except ValueError:
        raise ModelError(f"node {node!r}: shapes {list(shapes)} do not broadcast") from None
    check_size(result, node)
    return tuple(result)


def check_size(shape: Shape, node: str) -> None:
    """Refuse a tensor that would exhaust the memory."""
    if math.prod(shape) > MAX_ELEMENTS:
        raise ModelError(f"node {node!r} makes a tensor of shape {shape}, above the limit of {MAX_ELEMENTS} elements")


class Lowering:
    """Collects nodes for one sample while a reader walks through the run of a file.

    Args:
        name: of the input; `shape`: of its whole tensor at batch size 1; `batch`: its batch axis.
        symbolic: the file leaves the batch size open, so what depends on its being 1 must be refused.
    """

    def __init__(self, name: str, shape: Shape, batch: int | None, symbolic: bool = False) -> None:
        self.input = Value(name, shape, batch)
        self.symbolic = symbolic
        self.nodes: dict[str, Node] = {}
        self.parameters: dict[str, Array] = {}
        self._shapes: dict[str, Shape] = {name: self.input.sample}

    def network(self, output: Value) -> Network:
        """The finished network."""
        used = {key for node in self.nodes.values() for key in node.parameters.values()}
        parameters = {key: array for key, array in self.parameters.items() if key in used}
        return Network(self.input.name, self.input.sample, tuple(self.nodes.values()), output.name, parameters)

    def parameter(self, key: str, array: Array) -> str:
        """Key under which `array` is stored: `key` itself unless that already holds something else."""
        candidate, count = key, 0
        while candidate in self.parameters and not _same(self.parameters[candidate], array):
            count += 1
            candidate = f"{key}/{count}"
        self.parameters.setdefault(candidate, array)
        return candidate

    def emit(
        self,
        name: str,
        op: str,
        inputs: Sequence[Value],
        batch: int | None,
        roles: Mapping[str, Constant] = MappingProxyType({}),
        /,
        **attributes: Attribute,
    ) -> Value:
        """Add a node; `batch` is the batch axis of its whole tensor."""
        keys = {role: self.parameter(c.key, _floating(c, name)) for role, c in roles.items()}
        node = Node(name, op, tuple(v.name for v in inputs), (), keys, attributes)
        if name in self._shapes:
            raise ModelError(f"value {name!r} is defined twice")
        shape = infer_shape(node, [v.sample for v in inputs], {r: self.parameters[k].shape for r, k in keys.items()})
        check_size(shape, name)
        self.nodes[name] = replace(node, shape=shape)
        self._shapes[name] = shape
        full = shape if batch is None else (*shape[:batch], 1, *shape[batch:])
        return Value(name, full, batch)

    def add_bias(self, linear: Value, name: str, bias: Constant) -> Value:
        """Turn the bias-free `linear` node into node `name` with a bias, at the same place."""
        node = self.nodes[linear.name]
        key = self.parameter(bias.key, _floating(bias, name))
        self.nodes[linear.name] = replace(node, parameters={**node.parameters, "bias": key})
        return self.rename(linear, name)

    def rename(self, value: Value, name: str) -> Value:
        """Give a value that no node reads another name; its node stays at the same place."""
        if name in self._shapes:
            raise ModelError(f"value {name!r} is defined twice")
        nodes = (replace(n, name=name) if n.name == value.name else n for n in self.nodes.values())
        self.nodes = {node.name: node for node in nodes}
        self._shapes[name] = self._shapes.pop(value.name)
        return replace(value, name=name)

    def remove(self, name: str) -> None:
        """Take back a node that nothing reads."""
        del self.nodes[name], self._shapes[name]

    def free_name(self, name: str) -> str:
        """`name`, or the first numbered form of it that no value has."""
        candidate, count = name, 0
        while candidate in self._shapes:
            count += 1
            candidate = f"{name}/{count}"
        return candidate

    def constant(self, name: str, constant: Constant, batch: int | None) -> Value:
        """A constant as a value of its own."""
        array = constant.array
        if batch is not None:
            array = np.squeeze(array, axis=batch)
        return self.emit(self.free_name(name), "constant", (), batch, {"value": replace(constant, array=array)})

    def negated(self, name: str, value: Value, like: Constant) -> Value:
        """``-value``, as an auxiliary node of `name`; the factor has the type of `like`."""
        minus = Constant(np.array(-1, dtype=like.array.dtype), f"{name}/minus")
        return self.with_constant(self.free_name(f"{name}/negated"), "scale", value, minus)

    def pick(self, name: str, value: Value, axis: int, indices: Sequence[int]) -> Value:
        """Entries `indices` of one axis: a slice if they are evenly spaced and rising, else single ones joined."""
        steps = {b - a for a, b in itertools.pairwise(indices)} or {1}
        if len(steps) == 1 and min(steps) >= 1:
            return self.slice(name, value, {axis: (indices[0], indices[-1] + 1, min(steps))})
        parts = [self.slice(self.free_name(f"{name}/{i}"), value, {axis: (i, i + 1, 1)}) for i in indices]
        return self.concat(name, parts, axis)

    def reshape(self, name: str, value: Value, shape: Shape, batch: int | None) -> Value:
        """Reshape to a whole-tensor shape whose batch axis is known."""
        return self.emit(name, "reshape", (value,), batch, shape=without(shape, batch))

    def view(self, name: str, value: Value, shape: Shape) -> Value:
        """Reshape to a whole-tensor shape; the batch axis is looked for."""
        if math.prod(shape) != math.prod(value.shape):
            raise ModelError(f"node {name!r}: {value.shape} does not reshape to {shape}")
        return self.reshape(name, value, shape, self.find_batch(value, shape))

    def find_batch(self, value: Value, shape: Shape) -> int | None:
        """The axis of length 1 at which the batch axis of `value` stands after a reshape to `shape`."""
        if value.batch is None:
            return 0 if self.input.batch is not None and shape[:1] == (1,) else None
        before = math.prod(value.shape[: value.batch])
        places = [i for i, n in enumerate(shape) if n == 1 and math.prod(shape[:i]) == before]
        if value.batch in places:
            return value.batch
        return places[0] if places else None

    def fit(self, name: str, value: Value, shape: Shape, batch: int | None) -> Value:
        """`value` broadcast to `shape` with batch axis `batch`; new nodes are named after `name`."""
        if value.shape == shape and value.batch == batch:
            return value
        padded = (1,) * (len(shape) - len(value.shape)) + value.shape
        if without(padded, batch) != value.sample:
            value = self.reshape(self.free_name(f"{name}/reshaped"), value, padded, batch)
        value = Value(value.name, padded, batch)
        for axis, (have, want) in enumerate(zip(padded, shape, strict=True)):
            if have != want:
                if want > MAX_COPIES:
                    raise ModelError(f"node {name!r} repeats a value {want} times, above the limit of {MAX_COPIES}")
                copies = [value] * want
                value = self.concat(self.free_name(f"{name}/expanded"), copies, axis)
        return value

    def expand(self, name: str, value: Value, shape: Shape, batch: int | None) -> Value:
        """`value` broadcast to `shape`, as the value called `name` (or `value` itself if nothing changes)."""
        fitted = self.fit(name, value, shape, batch)
        return fitted if fitted.name == value.name else self.rename(fitted, name)

    def concat(self, name: str, parts: Sequence[Value], axis: int) -> Value:
        """Values joined along an axis of the whole tensor; all have the same batch axis."""
        return self.emit(name, "concat", parts, parts[0].batch, axis=parts[0].axis(axis, name))

    def of_two(self, name: str, op: str, a: Value, b: Value) -> Value:
        """An element-wise op of two values, broadcast against each other."""
        shape = broadcast((a.shape, b.shape), name)
        batch = self._common_batch((a, b), shape, name)
        fitted = [self.fit(name, v, shape, batch) for v in (a, b)]
        return self.emit(name, op, fitted, batch)

    def with_constant(self, name: str, op: str, value: Value, constant: Constant) -> Value:
        """`shift`, `scale` or `divide` of a value."""
        shape = broadcast((value.shape, constant.array.shape), name)
        batch = self._common_batch((value,), shape, name)
        fitted = self.fit(name, value, shape, batch)
        array = for_one_sample(constant.array, len(shape), batch)
        return self.emit(name, op, (fitted,), batch, {"value": replace(constant, array=array)})

    def elementwise(self, name: str, op: str, value: Value, **attributes: Attribute) -> Value:
        """An op that keeps the shape."""
        return self.emit(name, op, (value,), value.batch, {}, **attributes)

    def leading_batch(self, value: Value, name: str) -> Value:
        """`value` with its first axis as the batch axis, for ops that fix the layout (batch, channels, ...)."""
        if value.batch == 0:
            return value
        if not value.shape or value.shape[0] != 1:
            raise ModelError(f"node {name!r}: first axis of its input {value.shape} is not the batch axis")
        fitted = self.reshape(self.free_name(f"{name}/sample"), value, value.shape, 0)
        return Value(fitted.name, value.shape, 0)

    def transpose(self, name: str, value: Value, permutation: Shape) -> Value:
        """Permute the axes of the whole tensor."""
        if sorted(permutation) != list(range(len(value.shape))):
            raise ModelError(f"node {name!r}: {permutation} is no permutation of the axes of {value.shape}")
        axes = tuple(value.axis(p, name) for p in permutation if p != value.batch)
        batch = None if value.batch is None else permutation.index(value.batch)
        return self.emit(name, "transpose", (value,), batch, permutation=axes)

    def slice(self, name: str, value: Value, ranges: Mapping[int, tuple[int, int, int]]) -> Value:
        """``x[start:stop:step]`` for the axes of the whole tensor in `ranges` (already within bounds)."""
        full = [ranges.get(axis, (0, size, 1)) for axis, size in enumerate(value.shape)]
        if value.batch is not None and full.pop(value.batch)[:2] != (0, 1):
            raise ModelError(f"node {name!r} drops the batch axis of its input")
        starts, stops, steps = (tuple(r[i] for r in full) for i in range(3))
        return self.emit(name, "slice", (value,), value.batch, starts=starts, stops=stops, steps=steps)

    def select(self, name: str, value: Value, axis: int, index: int) -> Value:
        """``x[..., index, ...]`` along one axis, which disappears."""
        axis = normal_axis(axis, len(value.shape), name)
        if not -value.shape[axis] <= index < value.shape[axis]:
            raise ModelError(f"node {name!r}: index {index} along axis {axis} of {value.shape}")
        if axis == value.batch:
            return self.reshape(name, value, without(value.shape, axis), None)
        start = index % value.shape[axis]
        part = self.slice(self.free_name(f"{name}/slice"), value, {axis: (start, start + 1, 1)})
        batch = None if part.batch is None else part.batch - (axis < part.batch)
        return self.reshape(name, part, without(part.shape, axis), batch)

    def pad(self, name: str, value: Value, begins: Shape, ends: Shape, fill: float) -> Value:
        """Constant padding, one entry per axis of the whole tensor."""
        if value.batch is not None and (begins[value.batch], ends[value.batch]) != (0, 0):
            raise ModelError(f"node {name!r} pads the batch axis")
        if not math.isfinite(fill):
            raise ModelError(f"node {name!r} pads with {fill}, expected a finite value")
        padding = without(begins, value.batch) + without(ends, value.batch)
        return self.emit(name, "pad", (value,), value.batch, padding=padding, value=fill)

    def mean(self, name: str, value: Value, axes: Sequence[int], keepdims: bool) -> Value:
        """Mean over axes of the whole tensor."""
        sample = tuple(value.axis(a, name) for a in axes)
        batch = value.batch
        if batch is not None and not keepdims:
            batch -= sum(normal_axis(a, len(value.shape), name) < batch for a in axes)
        return self.emit(name, "mean", (value,), batch, axes=sample, keepdims=keepdims)

    def linear(self, name: str, value: Value, weight: Constant, bias: Constant | None = None) -> Value:
        """Last axis of the whole tensor times ``weight.T`` (out, in)."""
        value.axis(-1, name)
        roles = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
        return self.emit(name, "linear", (value,), value.batch, roles)

    def matmul(self, name: str, a: Value, b: Value) -> Value:
        """Product of two values of rank >= 2, leading axes broadcast."""
        if min(len(a.shape), len(b.shape)) < 2:
            raise ModelError(f"node {name!r}: product of {a.shape} and {b.shape}, expected matrices")
        lead = broadcast((a.shape[:-2], b.shape[:-2]), name)
        shapes = [(*lead, *v.shape[-2:]) for v in (a, b)]
        batch = self._common_batch((a, b), lead, name, trailing=2)
        fitted = [self.fit(name, v, s, batch) for v, s in zip((a, b), shapes, strict=True)]
        return self.emit(name, "matmul", fitted, batch)

    def _common_batch(self, values: Sequence[Value], shape: Shape, node: str, trailing: int = 0) -> int | None:
        """Batch axis of a broadcast result: that of an operand, if the axis still has length 1."""
        rank = len(shape) + trailing
        for value in values:
            if value.batch is not None:
                place = value.batch + rank - len(value.shape)
                if place < len(shape) and shape[place] == 1:
                    return place
                if self.symbolic:
                    raise ModelError(f"node {node!r} combines the batch axis with an axis of a fixed length")
        return None


def for_one_sample(array: Array, rank: int, batch: int | None) -> Array:
    """A constant that broadcasts to a tensor of `rank` axes, without the batch axis if it reaches that far."""
    if batch is None or array.ndim < rank - batch:
        return array
    return np.squeeze(array, axis=batch - (rank - array.ndim))


def _same(a: Array, b: Array) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and (a is b or a.tobytes() == b.tobytes())


def _floating(constant: Constant, node: str) -> Array:
    if constant.array.dtype.kind != "f":
        raise ModelError(
            f"node {node!r}: constant {constant.key!r} has dtype {constant.array.dtype}, expected floating point"
        )
    return constant.array
