"""What each ONNX operator means: one short function per operator, joined by the table `OPERATORS`.

A function receives a `Call` (the ONNX node with its operands resolved) and emits nodes of the graph, or
returns a `Constant`. Operators whose operands are all constant are folded by `onnx_folding` instead.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from verify.errors import ModelError, UnsupportedOperation
from verify.network.graph import Array, Shape
from verify.network.lowering import Constant, Lowering, Operand, Value, broadcast, normal_axis


@dataclass(frozen=True)
class Origin:
    """The ONNX operator a value came from, and the value it was applied to."""

    op: str
    value: Value


@dataclass(frozen=True)
class Call:
    """One ONNX node.

    Attributes:
        name: of its first output, and of the node of the graph it becomes.
        operands: None where an optional input is left out; `inputs` are the names of the tensors.
        uses: how often each tensor is read.
        sources: values that came out of a MatMul or Sigmoid -> what went into it, for fusion.
    """

    op: str
    name: str
    operands: tuple[Operand | None, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int
    lowering: Lowering
    uses: Mapping[str, int]
    sources: dict[str, "Origin"]

    def refuse(self, reason: str) -> UnsupportedOperation:
        """The error for a form of the operator that has no exact counterpart."""
        return UnsupportedOperation(self.op, self.name, OPERATORS, reason)

    def operand(self, index: int) -> Operand | None:
        return self.operands[index] if index < len(self.operands) else None

    def value(self, index: int = 0) -> Value:
        """Operand that must depend on the input; a constant becomes a node of its own."""
        operand = self.operand(index)
        if operand is None:
            raise ModelError(f"node {self.name!r} ({self.op}): input {index} is missing")
        if isinstance(operand, Constant):
            return self.lowering.constant(f"{operand.tensor or operand.key}/value", operand, None)
        return operand

    def constant(self, index: int, what: str) -> Constant | None:
        """Operand that must not depend on the input, or None if it is left out."""
        operand = self.operand(index)
        if isinstance(operand, Value):
            raise self.refuse(f"its {what} depends on the network's input")
        return operand

    def required(self, index: int, what: str) -> Constant:
        constant = self.constant(index, what)
        if constant is None:
            raise ModelError(f"node {self.name!r} ({self.op}): its {what} is missing")
        return constant

    def integers(self, index: int, attribute: str, what: str = "") -> tuple[int, ...] | None:
        """A list of integers given as an attribute (older opsets) or as a constant input."""
        if attribute in self.attributes:
            value = self.attributes[attribute]
            return tuple(value) if isinstance(value, (list, tuple)) else (int(value),)
        constant = self.constant(index, what or attribute)
        if constant is None:
            return None
        if constant.array.dtype.kind != "i":
            raise ModelError(f"node {self.name!r} ({self.op}): its {what or attribute} are not integers")
        return tuple(int(i) for i in constant.array.reshape(-1))

    def origin(self, index: int, op: str) -> Origin | None:
        """Where operand `index` came from, if directly from `op` and nothing else reads it."""
        tensor = self.inputs[index]
        origin = self.sources.get(tensor)
        return origin if origin is not None and origin.op == op and self.uses[tensor] == 1 else None

    def number(self, index: int, attribute: str, default: float) -> float:
        """A scalar given as an attribute or as a constant input."""
        if attribute in self.attributes:
            return float(self.attributes[attribute])
        constant = self.constant(index, attribute)
        if constant is None:
            return default
        if constant.array.size != 1:
            raise self.refuse(f"its {attribute} is not a scalar")
        return float(constant.array.reshape(()))


Result = Operand | tuple[Operand, ...]
Handler = Callable[[Call], Result]


def _activation(op: str) -> Handler:
    return lambda call: call.lowering.elementwise(call.name, op, call.value())


def _with_default(value: float) -> float:
    return float(np.float32(value))


def _leaky_relu(call: Call) -> Result:
    slope = float(call.attributes.get("alpha", _with_default(0.01)))
    return call.lowering.elementwise(call.name, "leaky_relu", call.value(), slope=slope)


def _hard_sigmoid(call: Call) -> Result:
    alpha = float(call.attributes.get("alpha", _with_default(0.2)))
    beta = float(call.attributes.get("beta", 0.5))
    return call.lowering.elementwise(call.name, "hardsigmoid", call.value(), alpha=alpha, beta=beta)


def _prelu(call: Call) -> Result:
    slope = call.required(1, "slope").array
    if slope.size == 0 or (slope != slope.reshape(-1)[0]).any():
        raise call.refuse("its slopes differ between channels")
    return call.lowering.elementwise(call.name, "leaky_relu", call.value(), slope=float(slope.reshape(-1)[0]))


def _gelu(call: Call) -> Result:
    approximate = call.attributes.get("approximate", "none")
    return call.lowering.elementwise(call.name, "gelu", call.value(), approximate=approximate)


def _clip(call: Call) -> Result:
    lower, upper = call.number(1, "min", -math.inf), call.number(2, "max", math.inf)
    return call.lowering.elementwise(call.name, "clip", call.value(), lower=lower, upper=upper)


def _extremum(call: Call) -> Result:
    """Max or Min of a value and scalar constants."""
    values = [o for o in call.operands if isinstance(o, Value)]
    scalars = [float(o.array.reshape(())) for o in call.operands if isinstance(o, Constant) and o.array.size == 1]
    if len(values) != 1 or len(scalars) + 1 != len(call.operands) or not scalars:
        raise call.refuse("only one value against scalar constants")
    lower, upper = (max(scalars), math.inf) if call.op == "Max" else (-math.inf, min(scalars))
    return call.lowering.elementwise(call.name, "clip", values[0], lower=lower, upper=upper)


def _softmax(call: Call) -> Result:
    value = call.value()
    axis = normal_axis(call.attributes.get("axis", 1 if call.opset < 13 else -1), len(value.shape), call.name)
    if call.opset < 13 and math.prod(value.shape[axis + 1 :]) != 1:
        raise call.refuse("before opset 13 it flattens; only the last axis is supported")
    return call.lowering.emit(call.name, "softmax", (value,), value.batch, axis=value.axis(axis, call.name))


def _add(call: Call) -> Result:
    for i, constant in enumerate(call.operands):
        value = call.operands[1 - i]
        if isinstance(constant, Constant) and isinstance(value, Value):
            bias = _as_bias(call, 1 - i, value, constant)
            if bias is not None:
                return call.lowering.add_bias(value, call.name, bias)
            return call.lowering.with_constant(call.name, "shift", value, constant)
    return call.lowering.of_two(call.name, "add", call.value(0), call.value(1))


def _as_bias(call: Call, index: int, value: Value, constant: Constant) -> Constant | None:
    """The constant as the bias of the matrix product that operand `index` is, if nothing else reads it."""
    if call.origin(index, "MatMul") is None:
        return None
    node, shape = call.lowering.nodes[value.name], constant.array.shape
    size = node.shape[-1]
    if constant.array.size != size or (size > 1 and shape[-1:] != (size,)) or len(shape) > len(value.shape):
        return None
    return replace(constant, array=constant.array.reshape(size))


def _sub(call: Call) -> Result:
    a, b = call.operands
    if isinstance(a, Value) and isinstance(b, Constant):
        return call.lowering.with_constant(call.name, "shift", a, replace(b, array=-b.array))
    if isinstance(a, Constant) and isinstance(b, Value):
        return call.lowering.with_constant(call.name, "shift", negated(call.lowering, call.name, b, a), a)
    return call.lowering.of_two(call.name, "subtract", call.value(0), call.value(1))


def negated(lowering: Lowering, name: str, value: Value, like: Constant) -> Value:
    """``-value``, as an auxiliary node of `name`."""
    minus = Constant(np.array(-1, dtype=like.array.dtype), f"{name}/minus")
    return lowering.with_constant(lowering.free_name(f"{name}/negated"), "scale", value, minus)


def _neg(call: Call) -> Result:
    minus = Constant(np.array(-1, dtype=np.float32), f"{call.name}/minus")
    return call.lowering.with_constant(call.name, "scale", call.value(), minus)


def _mul(call: Call) -> Result:
    a, b = call.operands
    if isinstance(a, Constant):
        a, b = b, a
    if isinstance(a, Value) and isinstance(b, Constant):
        return call.lowering.with_constant(call.name, "scale", a, b)
    x, y = call.value(0), call.value(1)
    for i, other in ((0, y), (1, x)):
        gate = call.origin(i, "Sigmoid")
        if gate is not None and gate.value == other:
            call.lowering.remove(call.inputs[i])
            return call.lowering.elementwise(call.name, "silu", other)
    return call.lowering.of_two(call.name, "multiply", x, y)


def _sigmoid(call: Call) -> Result:
    call.sources[call.name] = Origin("Sigmoid", call.value())
    return call.lowering.elementwise(call.name, "sigmoid", call.value())


def _div(call: Call) -> Result:
    a, b = call.operands
    if not isinstance(a, Value) or not isinstance(b, Constant):
        raise call.refuse("the divisor depends on the network's input")
    if (b.array == 0).any():
        raise ModelError(f"node {call.name!r} (Div): its divisor {b.key!r} holds zero")
    return call.lowering.with_constant(call.name, "divide", a, b)


def _pow(call: Call) -> Result:
    if call.required(1, "exponent").array.reshape(-1).tolist() != [2]:
        raise call.refuse("only the square is supported")
    return call.lowering.of_two(call.name, "multiply", call.value(), call.value())


def _sum(call: Call) -> Result:
    """Sum of several tensors, from the left."""
    if len(call.operands) == 1:
        return call.value()
    total = call.operands[0]
    for i, operand in enumerate(call.operands[1:], start=2):
        name = call.name if i == len(call.operands) else call.lowering.free_name(f"{call.name}/{i}")
        total = cast(Operand, _add(replace(call, name=name, operands=(total, operand), inputs=("", ""), sources={})))
    assert total is not None
    return total


def _matmul(call: Call) -> Result:
    a, b = call.operands[0], call.operands[1]
    if isinstance(a, Value) and isinstance(b, Constant) and b.array.ndim == 2:
        call.sources[call.name] = Origin("MatMul", a)
        return call.lowering.linear(call.name, a, replace(b, array=b.array.T))
    if isinstance(a, Constant) and isinstance(b, Value) and a.array.ndim == 2:
        return _constant_times_value(call, a, b)
    if isinstance(a, Value) and isinstance(b, Value):
        return call.lowering.matmul(call.name, a, b)
    raise call.refuse("its constant operand is not a matrix")


def _constant_times_value(call: Call, weight: Constant, value: Value) -> Result:
    """``W x``: a linear map of the last axis but one (the only one of a vector)."""
    rank = len(value.shape)
    if rank == 1:
        call.sources[call.name] = Origin("MatMul", value)
        return call.lowering.linear(call.name, value, weight)
    if value.batch == rank - 1:  # a column: removing the batch axis leaves the vector
        return call.lowering.emit(call.name, "linear", (value,), rank - 1, {"weight": weight})
    swap = (*range(rank - 2), rank - 1, rank - 2)
    turned = call.lowering.transpose(call.lowering.free_name(f"{call.name}/turned"), value, swap)
    product = call.lowering.linear(call.lowering.free_name(f"{call.name}/product"), turned, weight)
    return call.lowering.transpose(call.name, product, swap)


def _gemm(call: Call) -> Result:
    value, weight, bias = call.value(0), call.required(1, "second factor"), call.constant(2, "summand")
    if call.attributes.get("transA", 0) or call.attributes.get("alpha", 1.0) != 1.0 or len(value.shape) != 2:
        raise call.refuse("only x W + b with alpha = 1 and transA = 0")
    if bias is not None and call.attributes.get("beta", 1.0) != 1.0:
        raise call.refuse("only beta = 1")
    if weight.array.ndim != 2:
        raise ModelError(f"node {call.name!r} (Gemm): weight of rank {weight.array.ndim}, expected 2")
    if not call.attributes.get("transB", 0):
        weight = replace(weight, array=weight.array.T)
    if bias is not None:
        bias = replace(bias, array=_row(call, bias.array, weight.array.shape[0]))
    return call.lowering.linear(call.name, value, weight, bias)


def _row(call: Call, array: Array, size: int) -> Array:
    """A Gemm summand as a vector of `size` elements."""
    if array.ndim > 1 and array.shape[0] != 1:
        raise call.refuse("its summand differs between rows")
    vector = array.reshape(-1)
    if vector.size not in (1, size):
        raise ModelError(f"node {call.name!r} (Gemm): summand {array.shape} does not fit {size} outputs")
    return vector if vector.size == size else np.full(size, vector[0])


def _conv(call: Call) -> Result:
    value = call.lowering.leading_batch(call.value(), call.name)
    weight, bias = call.required(1, "weight"), call.constant(2, "bias")
    kernel = weight.array.shape[2:]
    if tuple(call.attributes.get("kernel_shape", kernel)) != kernel:
        raise ModelError(f"node {call.name!r} (Conv): kernel_shape does not fit weight {weight.array.shape}")
    stride, padding, dilation = window(call, value.shape[2:], kernel)
    roles = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    groups = int(call.attributes.get("group", 1))
    return call.lowering.emit(
        call.name, "conv", (value,), 0, roles, stride=stride, padding=padding, dilation=dilation, groups=groups
    )


def window(call: Call, spatial: Shape, kernel: Shape) -> tuple[Shape, Shape, Shape]:
    """Stride, padding and dilation of a convolution or pooling, automatic padding worked out."""
    rank = len(kernel)
    if rank != len(spatial) or rank == 0:
        raise ModelError(f"node {call.name!r} ({call.op}): kernel {kernel} does not fit input {spatial}")
    stride = tuple(call.attributes.get("strides", (1,) * rank))
    dilation = tuple(call.attributes.get("dilations", (1,) * rank))
    padding = tuple(call.attributes.get("pads", (0,) * 2 * rank))
    mode = call.attributes.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        padding = _same_padding(spatial, kernel, stride, dilation, upper=mode == "SAME_UPPER")
    elif mode == "VALID":
        padding = (0,) * 2 * rank
    elif mode != "NOTSET":
        raise call.refuse(f"auto_pad {mode!r}")
    return stride, padding, dilation


def _same_padding(spatial: Shape, kernel: Shape, stride: Shape, dilation: Shape, upper: bool) -> Shape:
    """Padding that makes the result ceil(size / stride) long, the odd one at the end (upper) or begin."""
    begins, ends = [], []
    for n, k, s, d in zip(spatial, kernel, stride, dilation, strict=True):
        total = max((math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if upper else large)
        ends.append(large if upper else small)
    return (*begins, *ends)


def _batch_norm(call: Call) -> Result:
    if call.attributes.get("training_mode", 0) or len(call.outputs) > 1:
        raise call.refuse("training mode")
    if call.attributes.get("spatial", 1) != 1:
        raise call.refuse("spatial = 0")
    value = call.lowering.leading_batch(call.value(), call.name)
    names = ("weight", "bias", "mean", "variance")
    roles = {role: call.required(i, role) for i, role in enumerate(names, start=1)}
    epsilon = float(call.attributes.get("epsilon", _with_default(1e-5)))
    return call.lowering.emit(call.name, "batch_norm", (value,), 0, roles, epsilon=epsilon)


def _layer_norm(call: Call) -> Result:
    if len(call.outputs) > 1:
        raise call.refuse("its statistics are outputs")
    value, weight, bias = call.value(), call.required(1, "scale"), call.constant(2, "bias")
    axis = normal_axis(call.attributes.get("axis", -1), len(value.shape), call.name)
    for a in range(axis, len(value.shape)):
        value.axis(a, call.name)
    shape = value.shape[axis:]
    roles = {"weight": replace(weight, array=np.broadcast_to(weight.array, shape))}
    if bias is not None:
        roles["bias"] = replace(bias, array=np.broadcast_to(bias.array, shape))
    epsilon = float(call.attributes.get("epsilon", _with_default(1e-5)))
    return call.lowering.emit(call.name, "layer_norm", (value,), value.batch, roles, epsilon=epsilon)


def _pool_window(call: Call, value: Value) -> tuple[Shape, Shape, Shape, Shape, bool]:
    """Kernel, stride, padding, dilation, and whether rounding up adds a last window beyond the padding."""
    kernel = tuple(call.attributes.get("kernel_shape", ()))
    stride, padding, dilation = window(call, value.shape[2:], kernel)
    longer = False
    if call.attributes.get("ceil_mode", 0):
        extended = ceil_padding(value.shape[2:], kernel, stride, padding, dilation)
        longer, padding = extended != padding, extended
    return kernel, stride, padding, dilation, longer


def ceil_padding(spatial: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Shape:
    """End padding under which rounding down gives as many windows as rounding up.

    A last window that would start beyond the input and its begin padding does not count.
    """
    rank, ends = len(spatial), []
    for i, (n, k, s, d) in enumerate(zip(spatial, kernel, stride, dilation, strict=True)):
        begin, end, reach = padding[i], padding[i + rank], d * (k - 1) + 1
        count = -(-(n + begin + end - reach) // s) + 1
        if (count - 1) * s >= n + begin:
            count -= 1
        ends.append(max(end, (count - 1) * s + reach - n - begin))
    return (*padding[:rank], *ends)


def _max_pool(call: Call) -> Result:
    if len(call.outputs) > 1 or call.attributes.get("storage_order", 0):
        raise call.refuse("its indices are an output")
    value = call.lowering.leading_batch(call.value(), call.name)
    kernel, stride, padding, dilation, _ = _pool_window(call, value)
    return call.lowering.emit(
        call.name, "max_pool", (value,), 0, kernel=kernel, stride=stride, padding=padding, dilation=dilation
    )


def _average_pool(call: Call) -> Result:
    value = call.lowering.leading_batch(call.value(), call.name)
    kernel, stride, padding, dilation, longer = _pool_window(call, value)
    counted = bool(call.attributes.get("count_include_pad", 0))
    if longer and counted:
        raise call.refuse("ceil_mode with count_include_pad")
    return call.lowering.emit(
        call.name, "average_pool", (value,), 0,
        kernel=kernel, stride=stride, padding=padding, dilation=dilation, count_padding=counted,
    )  # fmt: skip


def _global_average_pool(call: Call) -> Result:
    value = call.lowering.leading_batch(call.value(), call.name)
    return call.lowering.mean(call.name, value, range(2, len(value.shape)), keepdims=True)


def _global_max_pool(call: Call) -> Result:
    value = call.lowering.leading_batch(call.value(), call.name)
    kernel = value.shape[2:]
    ones, none = (1,) * len(kernel), (0,) * 2 * len(kernel)
    return call.lowering.emit(
        call.name, "max_pool", (value,), 0, kernel=kernel, stride=ones, padding=none, dilation=ones
    )


def _reduce_mean(call: Call) -> Result:
    value = call.value()
    axes = call.integers(1, "axes")
    if not axes:
        if call.attributes.get("noop_with_empty_axes", 0):
            return value
        axes = tuple(range(len(value.shape)))
    return call.lowering.mean(call.name, value, axes, bool(call.attributes.get("keepdims", 1)))


def _reduce_sum(call: Call) -> Result:
    """Sum = mean times the number of elements."""
    value, axes = call.value(), call.integers(1, "axes")
    if not axes:
        raise call.refuse("a sum over all axes")
    count = math.prod(value.shape[normal_axis(a, len(value.shape), call.name)] for a in axes)
    name = call.lowering.free_name(f"{call.name}/mean")
    mean = call.lowering.mean(name, value, axes, bool(call.attributes.get("keepdims", 1)))
    factor = Constant(np.array(count, dtype=np.float32), f"{call.name}/count")
    return call.lowering.with_constant(call.name, "scale", mean, factor)


def _flatten(call: Call) -> Result:
    value = call.value()
    axis = call.attributes.get("axis", 1)
    axis = axis + len(value.shape) if axis < 0 else axis
    return call.lowering.view(call.name, value, (math.prod(value.shape[:axis]), math.prod(value.shape[axis:])))


def _reshape(call: Call) -> Result:
    value, target = call.value(), call.integers(1, "shape")
    if target is None:
        raise ModelError(f"node {call.name!r} (Reshape): its shape is missing")
    copies = not call.attributes.get("allowzero", 0)
    return call.lowering.view(call.name, value, resolved(call.name, value.shape, target, copies))


def resolved(name: str, source: Shape, target: Sequence[int], copies_zero: bool = False) -> Shape:
    """A reshape target with its -1 (and, for ONNX, its 0) worked out."""
    sizes = [source[i] if n == 0 and copies_zero and i < len(source) else n for i, n in enumerate(target)]
    known = math.prod(n for n in sizes if n != -1)
    if sizes.count(-1) > 1 or any(n < -1 for n in sizes) or (-1 in sizes and known == 0):
        raise ModelError(f"node {name!r}: {tuple(target)} is no shape for {source}")
    return tuple(math.prod(source) // known if n == -1 else n for n in sizes)


def _squeeze(call: Call) -> Result:
    value = call.value()
    axes = call.integers(1, "axes") or tuple(
        i for i, n in enumerate(value.shape) if n == 1 and (i != value.batch or len(value.shape) == 1)
    )
    gone = {normal_axis(a, len(value.shape), call.name) for a in axes}
    if any(value.shape[a] != 1 for a in gone):
        raise ModelError(f"node {call.name!r} (Squeeze): axes {axes} of {value.shape} are not all of length 1")
    batch = value.batch
    if batch is not None:
        batch = None if batch in gone else batch - sum(a < batch for a in gone)
    shape = tuple(n for i, n in enumerate(value.shape) if i not in gone)
    return call.lowering.reshape(call.name, value, shape, batch)


def _unsqueeze(call: Call) -> Result:
    value, axes = call.value(), call.integers(1, "axes") or ()
    rank = len(value.shape) + len(axes)
    new = {normal_axis(a, rank, call.name) for a in axes}
    old = [i for i in range(rank) if i not in new]
    if len(new) != len(axes):
        raise ModelError(f"node {call.name!r} (Unsqueeze): axes {axes} repeat")
    shape = [1] * rank
    for place, size in zip(old, value.shape, strict=True):
        shape[place] = size
    batch = None if value.batch is None else old[value.batch]
    return call.lowering.reshape(call.name, value, tuple(shape), batch)


def _transpose(call: Call) -> Result:
    value = call.value()
    permutation = tuple(call.attributes.get("perm", reversed(range(len(value.shape)))))
    return call.lowering.transpose(call.name, value, permutation)


def _slice(call: Call) -> Result:
    value = call.value()
    starts, stops = call.integers(1, "starts"), call.integers(2, "ends")
    if starts is None or stops is None:
        raise ModelError(f"node {call.name!r} (Slice): its starts or ends are missing")
    axes = call.integers(3, "axes") or tuple(range(len(starts)))
    steps = call.integers(4, "steps") or (1,) * len(starts)
    if not len(starts) == len(stops) == len(axes) == len(steps):
        raise ModelError(f"node {call.name!r} (Slice): starts, ends, axes and steps differ in number")
    ranges = {}
    for start, stop, axis, step in zip(starts, stops, axes, steps, strict=True):
        if step < 1:
            raise call.refuse(f"step {step}")
        axis = normal_axis(axis, len(value.shape), call.name)
        ranges[axis] = bounds(call.name, value.shape[axis], start, stop, step)
    return call.lowering.slice(call.name, value, ranges)


def bounds(name: str, size: int, start: int, stop: int, step: int) -> tuple[int, int, int]:
    """A Python-style slice cut to 0 <= start < stop <= size."""
    first, last, _ = slice(start, stop, step).indices(size)
    if first >= last:
        raise ModelError(f"node {name!r}: slice {start}:{stop} of an axis of {size} is empty")
    return first, last, step


def _split(call: Call) -> Result:
    value, count = call.value(), len(call.outputs)
    axis = normal_axis(call.attributes.get("axis", 0), len(value.shape), call.name)
    size = value.shape[axis]
    if call.attributes.get("num_outputs", count) != count:
        raise ModelError(f"node {call.name!r} (Split): num_outputs differs from its {count} outputs")
    sizes = call.integers(1, "split") or _even(size, count)
    if sum(sizes) != size or len(sizes) != count or min(sizes) < 1:
        raise ModelError(f"node {call.name!r} (Split): parts {sizes} of an axis of {size}")
    ends = np.cumsum(sizes).tolist()
    pieces = zip(call.outputs, sizes, ends, strict=True)
    return tuple(call.lowering.slice(name, value, {axis: (end - n, end, 1)}) for name, n, end in pieces)


def _even(size: int, count: int) -> tuple[int, ...]:
    each = -(-size // count)
    return (*[each] * (count - 1), size - each * (count - 1))


def _concat(call: Call) -> Result:
    values = [o for o in call.operands if isinstance(o, Value)]
    first, rank = values[0], len(values[0].shape)
    axis = normal_axis(call.attributes.get("axis", 1), rank, call.name)
    parts = []
    for operand in call.operands:
        if isinstance(operand, Constant):
            if operand.array.ndim != rank or (first.batch is not None and operand.array.shape[first.batch] != 1):
                raise ModelError(f"node {call.name!r} (Concat): {operand.key!r} has shape {operand.array.shape}")
            parts.append(call.lowering.constant(f"{operand.tensor or operand.key}/value", operand, first.batch))
        elif operand is not None:
            parts.append(call.lowering.fit(call.name, operand, operand.shape, first.batch))
    return call.lowering.concat(call.name, parts, axis)


def _gather(call: Call) -> Result:
    value, indices = call.value(), call.required(1, "indices").array
    axis = normal_axis(call.attributes.get("axis", 0), len(value.shape), call.name)
    size = value.shape[axis]
    if indices.dtype.kind != "i" or ((indices < -size) | (indices >= size)).any() or indices.size == 0:
        raise ModelError(f"node {call.name!r} (Gather): indices outside an axis of {size}")
    if indices.ndim == 0:
        return call.lowering.select(call.name, value, axis, int(indices))
    if indices.ndim > 1:
        raise call.refuse("indices of rank above 1")
    return pick(call.lowering, call.name, value, axis, [int(i) % size for i in indices])


def pick(lowering: Lowering, name: str, value: Value, axis: int, indices: Sequence[int]) -> Value:
    """Entries `indices` of one axis: a slice if they are evenly spaced and rising, else single ones joined."""
    steps = {b - a for a, b in itertools.pairwise(indices)} or {1}
    if len(steps) == 1 and min(steps) >= 1:
        return lowering.slice(name, value, {axis: (indices[0], indices[-1] + 1, min(steps))})
    parts = [lowering.slice(lowering.free_name(f"{name}/{i}"), value, {axis: (i, i + 1, 1)}) for i in indices]
    return lowering.concat(name, parts, axis)


def _pad(call: Call) -> Result:
    value = call.value()
    if call.attributes.get("mode", "constant") != "constant":
        raise call.refuse(f"mode {call.attributes['mode']!r}")
    pads = call.integers(1, "pads")
    rank = len(value.shape)
    axes = [normal_axis(a, rank, call.name) for a in call.integers(3, "axes") or range(rank)]
    if pads is None or len(pads) != 2 * len(axes) or min(pads, default=0) < 0:
        raise call.refuse(f"pads {pads}")
    begins, ends = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        begins[axis], ends[axis] = pads[i], pads[i + len(axes)]
    return call.lowering.pad(call.name, value, tuple(begins), tuple(ends), call.number(2, "value", 0.0))


def _expand(call: Call) -> Result:
    operand, shape = call.operand(0), call.required(1, "shape")
    target = tuple(int(i) for i in shape.array.reshape(-1))
    if isinstance(operand, Constant):
        full = broadcast((operand.array.shape, target), call.name)
        expanded = replace(operand, array=np.broadcast_to(operand.array, full), tensor=call.name)
        if shape.sized and full[:1] == (1,):
            return call.lowering.constant(call.name, expanded, 0)
        return expanded
    value = call.value()
    full = broadcast((value.shape, target), call.name)
    batch = None if value.batch is None else value.batch + len(full) - len(value.shape)
    return call.lowering.expand(call.name, value, full, batch)


def _attention(call: Call) -> Result:
    """Opset-23 Attention without mask, cache or soft cap; 4-d inputs, or 3-d ones with one head."""
    allowed = {
        "scale",
        "q_num_heads",
        "kv_num_heads",
        "is_causal",
        "softcap",
        "softmax_precision",
        "qk_matmul_output_mode",
    }
    if any(o is not None for o in call.operands[3:]) or len(call.outputs) > 1 or set(call.attributes) - allowed:
        raise call.refuse("a mask, a cache or further outputs")
    if call.attributes.get("is_causal", 0) or call.attributes.get("softcap", 0.0):
        raise call.refuse("causal mask or soft cap")
    q, k, v = (call.lowering.leading_batch(call.value(i), call.name) for i in range(3))
    rank = len(q.shape)
    heads = {call.attributes.get("q_num_heads", 1), call.attributes.get("kv_num_heads", 1)}
    if rank not in (3, 4) or (rank == 3 and heads != {1}):
        raise call.refuse("3-d inputs with several heads")
    scale = float(call.attributes.get("scale", 1.0 / math.sqrt(q.shape[-1])))
    return call.lowering.emit(call.name, "attention", (q, k, v), 0, scale=scale)


def _identity(call: Call) -> Result:
    return call.value()


def _dropout(call: Call) -> Result:
    training = call.constant(2, "training mode")
    if training is not None and bool(training.array):
        raise call.refuse("training mode")
    return call.value()


def _cast(call: Call) -> Result:
    if call.op == "Cast" and call.attributes.get("to") not in (1, 11):
        raise call.refuse("a cast of a value to anything but float32 or float64")
    return call.value()


OPERATORS: dict[str, Handler] = {
    "Relu": _activation("relu"), "Sigmoid": _sigmoid, "Tanh": _activation("tanh"),
    "Erf": _activation("erf"), "HardSwish": _activation("hardswish"), "Swish": _activation("silu"),
    "LeakyRelu": _leaky_relu, "PRelu": _prelu, "HardSigmoid": _hard_sigmoid, "Gelu": _gelu, "Clip": _clip,
    "Max": _extremum, "Min": _extremum, "Softmax": _softmax,
    "Add": _add, "Sub": _sub, "Neg": _neg, "Mul": _mul, "Div": _div, "Pow": _pow, "Sum": _sum,
    "MatMul": _matmul, "Gemm": _gemm, "Conv": _conv, "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm, "Attention": _attention,
    "MaxPool": _max_pool, "AveragePool": _average_pool, "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool, "ReduceMean": _reduce_mean, "ReduceSum": _reduce_sum,
    "Flatten": _flatten, "Reshape": _reshape, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze,
    "Transpose": _transpose, "Slice": _slice, "Split": _split, "Concat": _concat, "Gather": _gather, "Pad": _pad,
    "Expand": _expand, "Identity": _identity, "Dropout": _dropout, "Cast": _cast, "CastLike": _cast,
}  # fmt: skip
