"""What each ATen operator means: one short function per operator, joined by the table `OPERATORS`.

A function receives a `Call` (the operator's arguments by name, defaults filled in) and emits nodes of the
graph. An argument that the function did not look at must have its default value or be known to have no
influence on the result (`_HARMLESS`); otherwise the operator is refused.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from verify.errors import ModelError, UnsupportedOperation
from verify.network.graph import Shape
from verify.network.lowering import Constant, Lowering, Operand, Value, broadcast, normal_axis
from verify.network.onnx_operators import bounds, ceil_padding, negated, pick, resolved

_HARMLESS = {"cudnn_enable", "cudnn_enabled", "memory_format", "momentum", "pin_memory", "non_blocking", "copy"}


@dataclass
class Call:
    """One ATen call.

    Attributes:
        target: "aten.conv2d.default".
        name: of the node of the graph it becomes.
        arguments: by schema name; tensors are `Operand`.
        defaults: the schema's default values.
        dtype: of the network's input; Python numbers become constants of this type.
    """

    target: str
    name: str
    arguments: Mapping[str, Any]
    defaults: Mapping[str, Any]
    lowering: Lowering
    dtype: "np.dtype[Any]"
    _seen: set[str] = field(default_factory=set)

    def refuse(self, reason: str) -> UnsupportedOperation:
        """The error for a form of the operator that has no exact counterpart."""
        return UnsupportedOperation(self.target, self.name, supported(), reason)

    def get(self, name: str) -> Any:
        self._seen.add(name)
        return self.arguments.get(name, self.defaults.get(name))

    def value(self, name: str = "self") -> Value:
        """Argument that must depend on the input; a constant becomes a node of its own."""
        operand = self.get(name)
        if isinstance(operand, Constant):
            batch = 0 if operand.array.shape[:1] == (1,) and operand.array.ndim > 1 else None
            return self.lowering.constant(f"{operand.key}/value", operand, batch)
        if not isinstance(operand, Value):
            raise ModelError(f"node {self.name!r} ({self.target}): {name} is not a tensor")
        return operand

    def constant(self, name: str) -> Constant | None:
        """Argument that must not depend on the input, or None."""
        operand = self.get(name)
        if isinstance(operand, Value):
            raise self.refuse(f"its {name} depends on the network's input")
        return operand if isinstance(operand, Constant) else None

    def required(self, name: str) -> Constant:
        constant = self.constant(name)
        if constant is None:
            raise self.refuse(f"without {name}")
        return constant

    def number(self, name: str) -> float:
        """A scalar argument, in the precision in which a kernel of the network's type takes it."""
        value = float(self.get(name))
        return float(np.float32(value)) if self.dtype.itemsize <= 4 else value

    def operand(self, name: str) -> Operand:
        """A tensor, or a Python number as a constant of the network's type."""
        operand = self.get(name)
        if isinstance(operand, (Constant, Value)):
            return operand
        if isinstance(operand, (bool, int, float)):
            return Constant(np.array(operand, dtype=self.dtype), f"{self.name}/{name}")
        raise ModelError(f"node {self.name!r} ({self.target}): {name} is not a tensor or a number")

    def sizes(self, name: str, count: int, default: Sequence[int] = ()) -> Shape:
        """A list of integers, one for every axis (a single one counts for all)."""
        given = self.get(name)
        listed = [given] if isinstance(given, int) else list(given) or list(default)
        return tuple(listed * count if len(listed) == 1 else listed)

    def finish(self) -> None:
        """Refuse arguments that nobody looked at and that are not the default."""
        for name, value in self.arguments.items():
            if name not in self._seen | _HARMLESS and value != self.defaults.get(name, None):
                raise self.refuse(f"argument {name} = {value}")


Result = Operand | tuple[Operand, ...]
Handler = Callable[[Call], Result]


def _activation(op: str) -> Handler:
    return lambda call: call.lowering.elementwise(call.name, op, call.value())


def _leaky_relu(call: Call) -> Result:
    return call.lowering.elementwise(call.name, "leaky_relu", call.value(), slope=call.number("negative_slope"))


def _prelu(call: Call) -> Result:
    slope = call.required("weight").array
    if slope.size == 0 or (slope != slope.reshape(-1)[0]).any():
        raise call.refuse("its slopes differ between channels")
    return call.lowering.elementwise(call.name, "leaky_relu", call.value(), slope=float(slope.reshape(-1)[0]))


def _hardsigmoid(call: Call) -> Result:
    sixth = 1.0 / 6.0 if call.dtype.itemsize > 4 else float(np.float32(1.0 / 6.0))
    return call.lowering.elementwise(call.name, "hardsigmoid", call.value(), alpha=sixth, beta=0.5)


def _hardtanh(call: Call) -> Result:
    return _clip(call, "min_val", "max_val")


def _clamp(call: Call) -> Result:
    return _clip(call, "min", "max")


def _clip(call: Call, low: str, high: str) -> Result:
    lower = -math.inf if call.get(low) is None else call.number(low)
    upper = math.inf if call.get(high) is None else call.number(high)
    return call.lowering.elementwise(call.name, "clip", call.value(), lower=lower, upper=upper)


def _relu6(call: Call) -> Result:
    return call.lowering.elementwise(call.name, "clip", call.value(), lower=0.0, upper=6.0)


def _gelu(call: Call) -> Result:
    return call.lowering.elementwise(call.name, "gelu", call.value(), approximate=call.get("approximate"))


def _softmax(call: Call) -> Result:
    value = call.value()
    axis = value.axis(call.get("dim"), call.name)
    if call.target == "aten._softmax.default" and call.get("half_to_float"):
        raise call.refuse("half_to_float")
    return call.lowering.emit(call.name, "softmax", (value,), value.batch, {}, axis=axis)


def _linear(call: Call) -> Result:
    return call.lowering.linear(call.name, call.value("input"), call.required("weight"), call.constant("bias"))


def _conv(call: Call) -> Result:
    value, weight = call.lowering.leading_batch(call.value("input"), call.name), call.required("weight")
    rank = len(value.shape) - 2
    stride, dilation = call.sizes("stride", rank), call.sizes("dilation", rank)
    kernel = weight.array.shape[2:]
    padding = _conv_padding(call, kernel, stride, dilation)
    bias = call.constant("bias")
    roles = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    return call.lowering.emit(
        call.name, "conv", (value,), 0, roles,
        stride=stride, padding=padding, dilation=dilation, groups=int(call.get("groups")),
    )  # fmt: skip


def _conv_padding(call: Call, kernel: Shape, stride: Shape, dilation: Shape) -> Shape:
    """Begins and ends; "same" puts the odd one at the end."""
    given = call.get("padding")
    if given == "same":
        if set(stride) != {1}:
            raise call.refuse('padding "same" with a stride')
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return (*(t // 2 for t in total), *(t - t // 2 for t in total))
    each = (0,) * len(kernel) if given == "valid" else call.sizes("padding", len(kernel))
    return each * 2


def _batch_norm(call: Call) -> Result:
    name = "momentum"  # has no influence without training
    call.get(name)
    if call.get("training"):
        raise call.refuse("batch norm in training mode: call .eval() on the module")
    value = call.lowering.leading_batch(call.value("input"), call.name)
    if call.get("running_mean") is None or call.get("running_var") is None:
        raise call.refuse("batch norm without running statistics")
    mean, variance = call.required("running_mean"), call.required("running_var")
    stem = mean.key.removesuffix("running_mean")
    ones, zeros = np.ones_like(mean.array), np.zeros_like(mean.array)
    roles = {
        "weight": call.constant("weight") or Constant(ones, f"{stem}weight"),
        "bias": call.constant("bias") or Constant(zeros, f"{stem}bias"),
        "mean": mean,
        "variance": variance,
    }
    return call.lowering.emit(call.name, "batch_norm", (value,), 0, roles, epsilon=call.number("eps"))


def _layer_norm(call: Call) -> Result:
    value, shape = call.value("input"), tuple(call.get("normalized_shape"))
    for axis in range(-len(shape), 0):
        value.axis(axis, call.name)
    roles = {"weight": call.constant("weight") or Constant(np.ones(shape, dtype=call.dtype), f"{call.name}/weight")}
    bias = call.constant("bias")
    if bias is not None:
        roles["bias"] = bias
    return call.lowering.emit(call.name, "layer_norm", (value,), value.batch, roles, epsilon=call.number("eps"))


def _sdpa(call: Call) -> Result:
    q, k, v = (call.value(n) for n in ("query", "key", "value"))
    scale = 1.0 / math.sqrt(q.shape[-1])
    if call.get("scale") is not None:
        scale = float(call.get("scale"))
    if call.dtype.itemsize <= 4:
        scale = float(np.float32(scale))
    if len({(x.shape[:-2], x.batch) for x in (q, k, v)}) != 1 or q.batch in (len(q.shape) - 1, len(q.shape) - 2):
        raise call.refuse("query, key and value with different leading axes")
    return call.lowering.emit(call.name, "attention", (q, k, v), q.batch, {}, scale=scale)


def _sum_of(sign: int) -> Handler:
    """add (+1) and sub (-1) with their factor `alpha`."""

    def handle(call: Call) -> Result:
        if call.get("alpha") not in (None, 1):
            raise call.refuse(f"alpha = {call.get('alpha')}")
        return plus_minus(call, call.operand("self"), call.operand("other"), sign)

    return handle


def plus_minus(call: Call, a: Operand, b: Operand, sign: int) -> Result:
    """``a + sign b``."""
    if isinstance(a, Value) and isinstance(b, Value):
        return call.lowering.of_two(call.name, "add" if sign > 0 else "subtract", a, b)
    if isinstance(a, Value) and isinstance(b, Constant):
        shifted = b if sign > 0 else Constant(-b.array, b.key)
        return call.lowering.with_constant(call.name, "shift", a, shifted)
    if isinstance(a, Constant) and isinstance(b, Value):
        other = b if sign > 0 else negated(call.lowering, call.name, b, a)
        return call.lowering.with_constant(call.name, "shift", other, a)
    raise call.refuse("both operands are constant")


def _rsub(call: Call) -> Result:
    if call.get("alpha") not in (None, 1):
        raise call.refuse(f"alpha = {call.get('alpha')}")
    return plus_minus(call, call.operand("other"), call.operand("self"), -1)


def _mul(call: Call) -> Result:
    a, b = call.operand("self"), call.operand("other")
    if isinstance(a, Constant):
        a, b = b, a
    if isinstance(a, Value) and isinstance(b, Value):
        return call.lowering.of_two(call.name, "multiply", a, b)
    if isinstance(a, Value) and isinstance(b, Constant):
        return call.lowering.with_constant(call.name, "scale", a, b)
    raise call.refuse("both operands are constant")


def _div(call: Call) -> Result:
    a, b = call.operand("self"), call.operand("other")
    if not isinstance(b, Constant) or not isinstance(a, Value):
        raise call.refuse("the divisor depends on the network's input")
    if (b.array == 0).any():
        raise ModelError(f"node {call.name!r} ({call.target}): its divisor holds zero")
    return call.lowering.with_constant(call.name, "divide", a, b)


def _neg(call: Call) -> Result:
    minus = Constant(np.array(-1, dtype=call.dtype), f"{call.name}/minus")
    return call.lowering.with_constant(call.name, "scale", call.value(), minus)


def _pow(call: Call) -> Result:
    if call.get("exponent") != 2:
        raise call.refuse("only the square is supported")
    return call.lowering.of_two(call.name, "multiply", call.value(), call.value())


def _matmul(call: Call) -> Result:
    """matmul, mm and bmm; a constant matrix as second factor is a linear map."""
    second = "other" if call.target == "aten.matmul.default" else "mat2"
    a, b = call.get("self"), call.get(second)
    if isinstance(a, Value) and isinstance(b, Constant) and b.array.ndim == 2:
        return call.lowering.linear(call.name, a, Constant(b.array.T, b.key))
    return call.lowering.matmul(call.name, call.value(), call.value(second))


def _addmm(call: Call) -> Result:
    if call.get("alpha") not in (None, 1) or call.get("beta") not in (None, 1):
        raise call.refuse("alpha or beta")
    weight, bias = call.required("mat2"), call.required("self")
    if bias.array.shape != weight.array.shape[1:]:
        raise call.refuse(f"summand of shape {bias.array.shape}")
    return call.lowering.linear(call.name, call.value("mat1"), Constant(weight.array.T, weight.key), bias)


def _pool_window(call: Call) -> tuple[Value, Shape, Shape, Shape, Shape, bool]:
    """Input, kernel, stride, padding, dilation, and whether rounding up adds a window beyond the padding."""
    value = call.lowering.leading_batch(call.value(), call.name)
    rank = len(value.shape) - 2
    kernel = call.sizes("kernel_size", rank)
    stride, each = call.sizes("stride", rank, kernel), call.sizes("padding", rank)
    dilation = call.sizes("dilation", rank) if "dilation" in call.defaults else (1,) * rank
    padding, longer = each * 2, False
    if call.get("ceil_mode"):
        extended = ceil_padding(value.shape[2:], kernel, stride, padding, dilation)
        longer, padding = extended != padding, extended
    return value, kernel, stride, padding, dilation, longer


def _max_pool(call: Call) -> Result:
    value, kernel, stride, padding, dilation, _ = _pool_window(call)
    return call.lowering.emit(
        call.name, "max_pool", (value,), 0, {}, kernel=kernel, stride=stride, padding=padding, dilation=dilation
    )


def _average_pool(call: Call) -> Result:
    if call.get("divisor_override") is not None:
        raise call.refuse("divisor_override")
    value, kernel, stride, padding, dilation, longer = _pool_window(call)
    counted = bool(call.get("count_include_pad"))
    if longer and counted:
        if any(call.sizes("padding", len(kernel))):
            raise call.refuse("ceil_mode with padding that counts")
        counted = False  # there is no padding to count; the overhang never counts
    return average_pool(call, value, kernel, stride, padding, dilation, counted)


def average_pool(
    call: Call, value: Value, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape, counted: bool
) -> Value:
    """An average pooling node."""
    return call.lowering.emit(
        call.name, "average_pool", (value,), 0, {},
        kernel=kernel, stride=stride, padding=padding, dilation=dilation, count_padding=counted,
    )  # fmt: skip


def _adaptive_average_pool(call: Call) -> Result:
    value = call.lowering.leading_batch(call.value(), call.name)
    rank = len(value.shape) - 2
    target = call.sizes("output_size", rank)
    if set(target) == {1}:
        return call.lowering.mean(call.name, value, range(2, len(value.shape)), keepdims=True)
    kernel = _even_windows(call, value.shape[2:], target)
    return average_pool(call, value, kernel, kernel, (0,) * 2 * rank, (1,) * rank, False)


def _even_windows(call: Call, spatial: Shape, target: Shape) -> Shape:
    if any(n % t for n, t in zip(spatial, target, strict=True)):
        raise call.refuse(f"output size {target} does not divide {spatial}")
    return tuple(n // t for n, t in zip(spatial, target, strict=True))


def _adaptive_max_pool(call: Call) -> Result:
    value = call.lowering.leading_batch(call.value(), call.name)
    rank = len(value.shape) - 2
    kernel = _even_windows(call, value.shape[2:], call.sizes("output_size", rank))
    return call.lowering.emit(
        call.name, "max_pool", (value,), 0, {},
        kernel=kernel, stride=kernel, padding=(0,) * 2 * rank, dilation=(1,) * rank,
    )  # fmt: skip


def _mean(call: Call) -> Result:
    axes = call.get("dim")
    if not axes:
        raise call.refuse("a mean over all axes mixes samples")
    return call.lowering.mean(call.name, call.value(), axes, bool(call.get("keepdim")))


def _sum(call: Call) -> Result:
    """Sum = mean times the number of elements."""
    value, axes = call.value(), call.get("dim")
    if not axes:
        raise call.refuse("a sum over all axes mixes samples")
    count = math.prod(value.shape[normal_axis(a, len(value.shape), call.name)] for a in axes)
    mean = call.lowering.mean(call.lowering.free_name(f"{call.name}/mean"), value, axes, bool(call.get("keepdim")))
    factor = Constant(np.array(count, dtype=call.dtype), f"{call.name}/count")
    return call.lowering.with_constant(call.name, "scale", mean, factor)


def _view(call: Call) -> Result:
    value = call.value()
    target = call.get("shape" if "shape" in call.arguments else "size")
    return call.lowering.view(call.name, value, resolved(call.name, value.shape, target))


def _flatten(call: Call) -> Result:
    value = call.value()
    first, last = (normal_axis(call.get(n), len(value.shape), call.name) for n in ("start_dim", "end_dim"))
    middle = math.prod(value.shape[first : last + 1])
    return call.lowering.view(call.name, value, (*value.shape[:first], middle, *value.shape[last + 1 :]))


def _unflatten(call: Call) -> Result:
    value = call.value()
    axis = normal_axis(call.get("dim"), len(value.shape), call.name)
    parts = resolved(call.name, (value.shape[axis],), call.get("sizes"))
    return call.lowering.view(call.name, value, (*value.shape[:axis], *parts, *value.shape[axis + 1 :]))


def _squeeze(call: Call) -> Result:
    """Axes of length 1 disappear, others stay (torch ignores them)."""
    value = call.value()
    rank, given = len(value.shape), call.get("dim")
    if given is None:
        raise call.refuse("squeeze of all axes depends on the batch size")
    listed = [given] if isinstance(given, int) else list(given)
    gone = {a for a in (normal_axis(g, rank, call.name) for g in listed) if value.shape[a] == 1}
    batch = value.batch
    if batch is not None:
        batch = None if batch in gone else batch - sum(a < batch for a in gone)
    shape = tuple(n for i, n in enumerate(value.shape) if i not in gone)
    return call.lowering.reshape(call.name, value, shape, batch)


def _unsqueeze(call: Call) -> Result:
    value = call.value()
    axis = normal_axis(call.get("dim"), len(value.shape) + 1, call.name)
    batch = None if value.batch is None else value.batch + (axis <= value.batch)
    return call.lowering.reshape(call.name, value, (*value.shape[:axis], 1, *value.shape[axis:]), batch)


def _permute(call: Call) -> Result:
    value = call.value()
    axes = tuple(normal_axis(a, len(value.shape), call.name) for a in call.get("dims"))
    return call.lowering.transpose(call.name, value, axes)


def _transpose(call: Call) -> Result:
    value = call.value()
    order = list(range(len(value.shape)))
    i, j = (normal_axis(call.get(n), len(order), call.name) for n in ("dim0", "dim1"))
    order[i], order[j] = order[j], order[i]
    return call.lowering.transpose(call.name, value, tuple(order))


def _expand(call: Call) -> Result:
    value, sizes = call.value(), call.get("size")
    lead = len(sizes) - len(value.shape)
    target = tuple(value.shape[i - lead] if n == -1 else n for i, n in enumerate(sizes))
    full = broadcast((value.shape, target), call.name)
    batch = None if value.batch is None else value.batch + lead
    return call.lowering.expand(call.name, value, full, batch)


def _slice(call: Call) -> Result:
    value = call.value()
    axis = normal_axis(call.get("dim"), len(value.shape), call.name)
    start, stop = call.get("start"), call.get("end")
    size = value.shape[axis]
    limits = bounds(call.name, size, 0 if start is None else start, size if stop is None else stop, call.get("step"))
    return call.lowering.slice(call.name, value, {axis: limits})


def _narrow(call: Call) -> Result:
    value, start = call.value(), call.get("start")
    axis = normal_axis(call.get("dim"), len(value.shape), call.name)
    first = start + value.shape[axis] if start < 0 else start
    return call.lowering.slice(call.name, value, {axis: (first, first + call.get("length"), 1)})


def _select(call: Call) -> Result:
    return call.lowering.select(call.name, call.value(), call.get("dim"), call.get("index"))


def _index_select(call: Call) -> Result:
    value = call.value()
    axis = normal_axis(call.get("dim"), len(value.shape), call.name)
    return pick(call.lowering, call.name, value, axis, [int(i) for i in call.required("index").array.reshape(-1)])


def _unbind(call: Call) -> Result:
    value = call.value()
    axis = normal_axis(call.get("dim"), len(value.shape), call.name)
    names = [f"{call.name}/{i}" for i in range(value.shape[axis])]
    return tuple(call.lowering.select(name, value, axis, i) for i, name in enumerate(names))


def _split(call: Call) -> Result:
    """split.Tensor, split_with_sizes and chunk."""
    value = call.value()
    axis = normal_axis(call.get("dim"), len(value.shape), call.name)
    size = value.shape[axis]
    sizes = call.get("split_sizes" if "split_sizes" in call.arguments else "split_size")
    if call.target == "aten.chunk.default":
        sizes = -(-size // call.get("chunks"))
    if isinstance(sizes, int):
        sizes = [min(sizes, size - start) for start in range(0, size, sizes)]
    ends = np.cumsum(sizes).tolist()
    pieces = enumerate(zip(sizes, ends, strict=True))
    return tuple(call.lowering.slice(f"{call.name}/{i}", value, {axis: (e - n, e, 1)}) for i, (n, e) in pieces)


def _cat(call: Call) -> Result:
    operands: list[Operand] = call.get("tensors")
    first = next(o for o in operands if isinstance(o, Value))
    axis = normal_axis(call.get("dim"), len(first.shape), call.name)
    parts = []
    for operand in operands:
        if isinstance(operand, Constant):
            if operand.array.ndim != len(first.shape):
                raise call.refuse(f"joined with a constant of shape {operand.array.shape}")
            parts.append(call.lowering.constant(f"{operand.key}/value", operand, first.batch))
        else:
            parts.append(call.lowering.fit(call.name, operand, operand.shape, first.batch))
    return call.lowering.concat(call.name, parts, axis)


def _stack(call: Call) -> Result:
    operands: list[Operand] = call.get("tensors")
    if not all(isinstance(o, Value) for o in operands):
        raise call.refuse("stacked constants")
    values = [o for o in operands if isinstance(o, Value)]
    axis = normal_axis(call.get("dim"), len(values[0].shape) + 1, call.name)
    raised = []
    for value in values:
        batch = None if value.batch is None else value.batch + (axis <= value.batch)
        shape = (*value.shape[:axis], 1, *value.shape[axis:])
        raised.append(call.lowering.reshape(call.lowering.free_name(f"{call.name}/part"), value, shape, batch))
    return call.lowering.concat(call.name, raised, axis)


def _pad(call: Call) -> Result:
    value, pads = call.value(), list(call.get("pad"))
    if call.target == "aten.pad.default" and call.get("mode") != "constant":
        raise call.refuse(f"mode {call.get('mode')!r}")
    if min(pads, default=0) < 0:
        raise call.refuse(f"negative padding {pads}")
    rank, fill = len(value.shape), call.get("value")
    begins, ends = [0] * rank, [0] * rank
    for i in range(len(pads) // 2):  # the last axis comes first
        begins[rank - 1 - i], ends[rank - 1 - i] = pads[2 * i], pads[2 * i + 1]
    return call.lowering.pad(
        call.name, value, tuple(begins), tuple(ends), 0.0 if fill is None else call.number("value")
    )


def _same(call: Call) -> Result:
    return call.value("input") if "input" in call.arguments else call.value()


def _dropout(call: Call) -> Result:
    call.get("p")
    if call.get("train"):
        raise call.refuse("dropout in training mode: call .eval() on the module")
    return call.value("input")


def _to(call: Call) -> Result:
    """A conversion to the network's own type changes nothing."""
    kind = str(call.get("dtype")).removeprefix("torch.")
    if kind != call.dtype.name and call.get("dtype") is not None:
        raise call.refuse(f"conversion to {kind}")
    return call.value()


_BY_NAME: dict[str, Handler] = {
    "relu": _activation("relu"), "sigmoid": _activation("sigmoid"), "tanh": _activation("tanh"),
    "erf": _activation("erf"), "silu": _activation("silu"), "hardswish": _activation("hardswish"),
    "leaky_relu": _leaky_relu, "prelu": _prelu, "_prelu_kernel": _prelu, "hardsigmoid": _hardsigmoid,
    "hardtanh": _hardtanh, "relu6": _relu6, "clamp": _clamp, "gelu": _gelu, "softmax.int": _softmax,
    "_softmax": _softmax, "linear": _linear, "conv1d": _conv, "conv2d": _conv, "conv3d": _conv,
    "conv1d.padding": _conv, "conv2d.padding": _conv, "conv3d.padding": _conv, "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm, "layer_norm": _layer_norm,
    "scaled_dot_product_attention": _sdpa, "add.Tensor": _sum_of(1), "add.Scalar": _sum_of(1),
    "sub.Tensor": _sum_of(-1), "sub.Scalar": _sum_of(-1), "rsub.Scalar": _rsub, "rsub.Tensor": _rsub,
    "mul.Tensor": _mul, "mul.Scalar": _mul, "div.Tensor": _div, "div.Scalar": _div, "neg": _neg,
    "pow.Tensor_Scalar": _pow, "matmul": _matmul, "mm": _matmul, "bmm": _matmul, "addmm": _addmm,
    "max_pool1d": _max_pool, "max_pool2d": _max_pool, "max_pool3d": _max_pool,
    "max_pool2d_with_indices": _max_pool, "max_pool3d_with_indices": _max_pool,
    "avg_pool1d": _average_pool, "avg_pool2d": _average_pool, "avg_pool3d": _average_pool,
    "adaptive_avg_pool1d": _adaptive_average_pool, "adaptive_avg_pool2d": _adaptive_average_pool,
    "adaptive_avg_pool3d": _adaptive_average_pool, "_adaptive_avg_pool2d": _adaptive_average_pool,
    "adaptive_max_pool1d": _adaptive_max_pool, "adaptive_max_pool2d": _adaptive_max_pool,
    "adaptive_max_pool3d": _adaptive_max_pool, "mean.dim": _mean, "sum.dim_IntList": _sum,
    "view": _view, "reshape": _view, "_unsafe_view": _view, "flatten.using_ints": _flatten, "unflatten.int": _unflatten,
    "squeeze": _squeeze, "squeeze.dim": _squeeze, "squeeze.dims": _squeeze, "unsqueeze": _unsqueeze,
    "permute": _permute, "transpose.int": _transpose, "expand": _expand, "slice.Tensor": _slice, "narrow": _narrow,
    "select.int": _select, "index_select": _index_select, "unbind.int": _unbind, "split.Tensor": _split,
    "split_with_sizes": _split, "chunk": _split, "cat": _cat, "concat": _cat, "stack": _stack,
    "pad": _pad, "constant_pad_nd": _pad, "clone": _same, "contiguous": _same, "alias": _same, "detach": _same,
    "lift_fresh_copy": _same, "dropout": _dropout, "feature_dropout": _dropout, "_to_copy": _to, "to.dtype": _to,
}  # fmt: skip
OPERATORS: dict[str, Handler] = {
    f"aten.{name}" if "." in name else f"aten.{name}.default": handler for name, handler in _BY_NAME.items()
}


def supported() -> list[str]:
    """Names of the operators, for messages."""
    return list(OPERATORS)
