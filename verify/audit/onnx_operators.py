"""The ONNX operators that the auditor knows: each turns a call on known shapes into a step, a value or a constant.

An attribute or operand that no operator asks for, and every form outside the lists here, is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from math import prod
from typing import Any

import numpy as np

from verify.audit import program as p
from verify.audit.exact import Index, Real
from verify.audit.onnx_tensor import Constant, read_tensor
from verify.audit.program import Shape, Step, require, supported
from verify.audit.protobuf import Message


@dataclass(frozen=True)
class Value:
    """A tensor that depends on the input: the name of its value, and its shape at batch size one."""

    name: str
    shape: Shape


@dataclass(frozen=True)
class Call:
    """One operator: its operands (None where left out), its attributes, the name of its result."""

    op: str
    name: str
    operands: tuple[Constant | Value | None, ...]
    attributes: dict[str, Any]
    opset: int
    asked: set[int] = field(default_factory=set)

    def operand(self, i: int) -> Constant | Value | None:
        self.asked.add(i)
        return self.operands[i] if i < len(self.operands) else None

    @property
    def unread(self) -> list[str]:
        """What is given and no one asked for."""
        operands = (f"operand {i}" for i, o in enumerate(self.operands) if o is not None and i not in self.asked)
        return [*sorted(self.attributes), *operands]

    def value(self, i: int = 0) -> Value:
        operand = self.operand(i)
        supported(isinstance(operand, Value), f"{self}: operand {i} does not depend on the input")
        return operand  # type: ignore[return-value]

    def numbers(self, i: int) -> Real:
        found = self.maybe_numbers(i)
        require(found is not None, f"{self}: operand {i} is missing")
        return found  # type: ignore[return-value]

    def maybe_numbers(self, i: int) -> Real | None:
        operand = self.operand(i)
        if operand is None:
            return None
        supported(isinstance(operand, Constant) and operand.numbers is not None, f"{self}: operand {i} is not constant")
        return operand.numbers  # type: ignore[union-attr]

    def integers(self, i: int, attribute: str, since: int) -> tuple[int, ...] | None:
        """Integers given as an attribute before opset `since` and as operand `i` from then on."""
        if self.opset < since:
            found = self.attributes.pop(attribute, None)
            require(found is None or isinstance(found, tuple), f"{self}: attribute {attribute}")
            return found  # type: ignore[no-any-return]
        operand = self.operand(i)
        if operand is None:
            return None
        supported(
            isinstance(operand, Constant) and operand.integers is not None, f"{self}: operand {i} is not constant"
        )
        return operand.integers  # type: ignore[union-attr]

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute of the type of `default`; what no one asks for is refused at the end."""
        found = self.attributes.pop(name, default)
        require(default is None or isinstance(found, type(default)), f"{self}: attribute {name} has a wrong type")
        return found

    def axis(self, axis: int, rank: int) -> int:
        require(-rank <= axis < rank, f"{self}: axis {axis} of a tensor of rank {rank}")
        return axis % rank

    def __str__(self) -> str:
        return f"{self.op} {self.name!r}"


Result = Step | Value | Constant


def _matmul(call: Call) -> Result:
    if isinstance(call.operand(0), Constant) and len(call.value(1).shape) == 1:  # W x
        return p.linear(call.name, call.value(1).name, call.value(1).shape, call.numbers(0), None)
    weight = call.numbers(1)
    supported(weight.mantissa.ndim == 2, f"{call}: only products of a value with a constant matrix")
    return p.linear(call.name, call.value().name, call.value().shape, weight.transpose(1, 0), None)


def _gemm(call: Call) -> Result:
    plain = call.attribute("alpha", 1.0) == 1.0 and call.attribute("beta", 1.0) == 1.0
    supported(plain and call.attribute("transA", 0) == 0, f"{call}: only x W + b")
    weight, bias, x = call.numbers(1), call.maybe_numbers(2), call.value()
    require(weight.mantissa.ndim == 2 and len(x.shape) == 2, f"{call}: operands must be matrices")
    weight = weight if call.attribute("transB", 0) else weight.transpose(1, 0)
    rows = weight.mantissa.shape[0]
    if bias is not None:
        supported(bias.mantissa.shape in ((), (1,), (rows,), (1, rows), (1, 1)), f"{call}: bias {bias.mantissa.shape}")
        bias = bias.expand((1, rows)).reshape(rows)
    return p.linear(call.name, x.name, x.shape, weight, bias)


def _window(call: Call, kernel: Shape) -> p.Window:
    rank = len(kernel)
    mode = call.attribute("auto_pad", "NOTSET")
    supported(mode in ("NOTSET", "VALID"), f"{call}: auto_pad {mode}")
    stride = call.attribute("strides", (1,) * rank)
    padding = call.attribute("pads", (0,) * 2 * rank)
    padding = padding if mode == "NOTSET" else (0,) * 2 * rank
    window = p.Window(kernel, stride, padding, call.attribute("dilations", (1,) * rank))
    supported(not call.attribute("ceil_mode", 0), f"{call}: ceil_mode")
    return window


def _images(call: Call) -> tuple[str, Shape]:
    """Name and shape (channels, *spatial) of an operand with a batch axis of 1 in front."""
    x = call.value()
    require(len(x.shape) >= 3 and x.shape[0] == 1, f"{call}: input of shape {x.shape}")
    return x.name, x.shape[1:]


def _framed(step: Step) -> Step:
    """The step with the batch axis of 1 back in front of its shape."""
    return replace(step, shape=(1, *step.shape))


def _conv(call: Call) -> Result:
    (source, shape), weight, bias = _images(call), call.numbers(1), call.maybe_numbers(2)
    kernel = weight.mantissa.shape[2:]
    require(call.attribute("kernel_shape", kernel) == kernel, f"{call}: kernel_shape does not fit its weights")
    require(bias is None or bias.mantissa.shape == weight.mantissa.shape[:1], f"{call}: bias does not fit its weights")
    window = _window(call, kernel)
    return _framed(p.convolution(call.name, source, shape, weight, bias, window, call.attribute("group", 1)))


def _batch_norm(call: Call) -> Result:
    supported(not call.attribute("training_mode", 0) and call.attribute("spatial", 1) == 1, f"{call}: training mode")
    call.attribute("momentum", 0.0)
    x, roles = call.value(), [call.numbers(i) for i in (1, 2, 3, 4)]
    require(len(x.shape) >= 2 and x.shape[0] == 1, f"{call}: input of shape {x.shape}")
    epsilon = Fraction(call.attribute("epsilon", float(np.float32(1e-5))))
    return _framed(p.batch_norm(call.name, x.name, x.shape[1:], roles, epsilon))


def _max_pool(call: Call) -> Result:
    supported(not call.attribute("storage_order", 0), f"{call}: storage_order")
    source, shape = _images(call)
    return _framed(p.max_pool(call.name, source, shape, _window(call, call.attribute("kernel_shape", ()))))


def _average_pool(call: Call) -> Result:
    source, shape = _images(call)
    window, counted = _window(call, call.attribute("kernel_shape", ())), call.attribute("count_include_pad", 0)
    return _framed(p.average_pool(call.name, source, shape, window, bool(counted)))


def _global_average_pool(call: Call) -> Result:
    source, shape = _images(call)
    return _framed(p.mean(call.name, source, shape, range(1, len(shape)), True))


def _reduce_mean(call: Call) -> Result:
    x, axes = call.value(), call.integers(1, "axes", 18)
    empty = call.attribute("noop_with_empty_axes", 0)
    supported(bool(axes) or not empty, f"{call}: no axes")
    chosen = sorted({call.axis(a, len(x.shape)) for a in axes or range(len(x.shape))})
    return p.mean(call.name, x.name, x.shape, chosen, bool(call.attribute("keepdims", 1)))


def _relu(call: Call) -> Result:
    return Step(call.name, "relu", (call.value().name,), call.value().shape)


def _of_two(call: Call, sign: int) -> Result:
    """Add (sign 1) and Sub (sign -1), of two values or of a value and a constant."""
    a, b = call.operand(0), call.operand(1)
    if isinstance(a, Value) and isinstance(b, Value):
        supported(a.shape == b.shape, f"{call}: shapes {a.shape} and {b.shape}")
        return Step(call.name, "sum", (a.name, b.name), a.shape, signs=(1, sign))
    at = 0 if isinstance(a, Value) else 1
    x, shift = call.value(at), _broadcast(call, call.value(at).shape, call.numbers(1 - at))
    factor = p.integers([sign if at == 1 else 1], ())
    return p.scaled(call.name, x.name, x.shape, factor, shift.negated() if sign < 0 and at == 0 else shift)


def _broadcast(call: Call, shape: Shape, numbers: Real) -> Real:
    """Constant numbers, checked to broadcast to `shape` without enlarging it; a single one stays single."""
    have = numbers.mantissa.shape
    fits = len(have) <= len(shape) and all(c in (1, n) for c, n in zip(have[::-1], shape[::-1], strict=False))
    supported(fits, f"{call}: constant {have} does not broadcast to {shape}")
    return numbers.reshape() if numbers.mantissa.size == 1 else numbers.expand(shape)


def _mul(call: Call) -> Result:
    at = 0 if isinstance(call.operand(0), Value) else 1
    x = call.value(at)
    return p.scaled(call.name, x.name, x.shape, _broadcast(call, x.shape, call.numbers(1 - at)), None)


def _div(call: Call) -> Result:
    x = call.value(0)
    return p.divided(call.name, x.name, x.shape, _broadcast(call, x.shape, call.numbers(1)))


def _moved(call: Call, shape: Shape, taps: Index, fill: Real | None = None) -> Step:
    return p.gather(call.name, (call.value().name,), shape, taps, fill)


def _flatten(call: Call) -> Result:
    x, axis = call.value(), call.attribute("axis", 1)
    axis = axis if axis == len(x.shape) else call.axis(axis, len(x.shape))
    return _moved(call, (prod(x.shape[:axis]), prod(x.shape[axis:])), p.grid(x.shape))


def _reshape(call: Call) -> Result:
    x, target = call.value(), call.integers(1, "shape", 5)
    require(target is not None, f"{call}: no shape")
    sizes = list(target or ())
    if not call.attribute("allowzero", 0):
        require(all(n != 0 or i < len(x.shape) for i, n in enumerate(sizes)), f"{call}: shape {sizes}")
        sizes = [x.shape[i] if n == 0 else n for i, n in enumerate(sizes)]
    known = prod(n for n in sizes if n != -1)
    require(sizes.count(-1) <= 1 and min(sizes, default=1) >= -1 and known > 0, f"{call}: shape {sizes}")
    sizes = [prod(x.shape) // known if n == -1 else n for n in sizes]
    require(prod(sizes) == prod(x.shape), f"{call}: {x.shape} does not reshape to {sizes}")
    return _moved(call, tuple(sizes), p.grid(x.shape))


def _squeeze(call: Call) -> Result:
    x, axes = call.value(), call.integers(1, "axes", 13)
    chosen = (
        [i for i, n in enumerate(x.shape) if n == 1] if axes is None else [call.axis(a, len(x.shape)) for a in axes]
    )
    require(all(x.shape[a] == 1 for a in chosen), f"{call}: axes {axes} of {x.shape}")
    return _moved(call, tuple(n for i, n in enumerate(x.shape) if i not in chosen), p.grid(x.shape))


def _unsqueeze(call: Call) -> Result:
    x, axes = call.value(), call.integers(1, "axes", 13) or ()
    rank = len(x.shape) + len(axes)
    places = {call.axis(a, rank) for a in axes}
    require(len(places) == len(axes) > 0, f"{call}: axes {axes}")
    sizes = iter(x.shape)
    return _moved(call, tuple(1 if i in places else next(sizes) for i in range(rank)), p.grid(x.shape))


def _transpose(call: Call) -> Result:
    operand = call.operand(0)
    if isinstance(operand, Constant):
        numbers = call.numbers(0)
        order = call.attribute("perm", tuple(range(numbers.mantissa.ndim))[::-1])
        require(sorted(order) == list(range(numbers.mantissa.ndim)), f"{call}: perm {order}")
        turned = numbers.transpose(*order)
        return Constant(turned.mantissa.shape, numbers=turned, kind=operand.kind)
    x = call.value()
    order = call.attribute("perm", tuple(range(len(x.shape)))[::-1])
    require(sorted(order) == list(range(len(x.shape))), f"{call}: perm {order}")
    return _moved(call, tuple(x.shape[i] for i in order), p.grid(x.shape).transpose(order))


def _pad(call: Call) -> Result:
    x, pads = call.value(), call.integers(1, "pads", 11)
    require(call.attribute("mode", "constant") == "constant", f"{call}: mode")
    axes = call.integers(3, "axes", 18) if call.opset >= 18 else None
    chosen = [call.axis(a, len(x.shape)) for a in axes] if axes is not None else list(range(len(x.shape)))
    require(pads is not None and len(pads) == 2 * len(chosen) == 2 * len(set(chosen)), f"{call}: pads {pads}")
    supported(min(pads or (0,)) >= 0, f"{call}: negative pads")
    border = [(0, 0)] * len(x.shape)
    for i, axis in enumerate(chosen):
        border[axis] = (pads[i], pads[i + len(chosen)])  # type: ignore[index]
    p.bounded(prod(n + a + b for n, (a, b) in zip(x.shape, border, strict=True)))
    taps = np.pad(p.grid(x.shape), border, constant_values=-1)
    fill = call.maybe_numbers(2) if call.opset >= 11 else _float(call.attribute("value", 0.0))
    require(fill is None or fill.mantissa.size == 1, f"{call}: pad value")
    return _moved(call, taps.shape, taps, None if fill is None else fill.reshape())


def _float(value: float) -> Real:
    """A float attribute (exactly the float32 number of the file)."""
    return p.from_bits(np.array(value, dtype="<f8").tobytes(), "float64").reshape()


def _slice(call: Call) -> Result:
    x = call.value()
    starts, ends = call.integers(1, "starts", 10), call.integers(2, "ends", 10)
    axes, steps = call.integers(3, "axes", 10), call.integers(4, "steps", 10) if call.opset >= 10 else None
    require(starts is not None and ends is not None and len(starts) == len(ends), f"{call}: starts and ends")
    count = len(starts or ())
    axes, steps = axes if axes is not None else tuple(range(count)), steps if steps is not None else (1,) * count
    require(
        len(axes) == len(steps) == count and len({call.axis(a, len(x.shape)) for a in axes}) == count, f"{call}: axes"
    )
    supported(all(s >= 1 for s in steps), f"{call}: steps {steps}")
    index = [slice(None)] * len(x.shape)
    for axis, start, end, step in zip(axes, starts or (), ends or (), steps, strict=True):
        index[axis] = slice(start, end, step)
    taps = p.grid(x.shape)[tuple(index)]
    require(taps.size > 0, f"{call}: nothing is left")
    return _moved(call, taps.shape, taps)


def _concat(call: Call) -> Result:
    values = [call.value(i) for i in range(max(1, len(call.operands)))]
    axis = call.axis(call.attribute("axis", 2**31), len(values[0].shape))
    rest = {(*v.shape[:axis], *v.shape[axis + 1 :]) for v in values}
    require(len(rest) == 1 and len({len(v.shape) for v in values}) == 1, f"{call}: shapes {[v.shape for v in values]}")
    offsets = np.cumsum([0, *(prod(v.shape) for v in values)]).tolist()
    parts = [p.grid(v.shape) + offset for v, offset in zip(values, offsets, strict=False)]
    taps = np.concatenate(parts, axis=axis)
    return p.gather(call.name, [v.name for v in values], taps.shape, taps)


def _identity(call: Call) -> Result:
    operand = call.operand(0)
    require(operand is not None, f"{call}: no operand")
    return operand  # type: ignore[return-value]


def _dropout(call: Call) -> Result:
    call.attribute("ratio", 0.0)
    call.attribute("seed", 0)
    call.operand(1)  # the ratio; no one asks for operand 2, which says that the network is being trained
    return call.value()


def _cast(call: Call) -> Result:
    """A constant in a wider floating-point type: the same numbers."""
    to, operand = call.attribute("to", 0), call.operand(0)
    supported(
        isinstance(operand, Constant) and operand.numbers is not None and to == 11, f"{call}: only constants to double"
    )
    return replace(operand, kind="float64")  # type: ignore[type-var,return-value]


def _constant(call: Call) -> Result:
    tensor = call.attribute("value", None)
    supported(isinstance(tensor, Message), f"{call}: only tensors")
    return read_tensor(tensor)


OPERATORS: dict[str, Callable[[Call], Result]] = {
    "MatMul": _matmul, "Gemm": _gemm, "Conv": _conv, "BatchNormalization": _batch_norm, "Relu": _relu,
    "MaxPool": _max_pool, "AveragePool": _average_pool, "GlobalAveragePool": _global_average_pool,
    "ReduceMean": _reduce_mean, "Add": partial(_of_two, sign=1), "Sub": partial(_of_two, sign=-1), "Mul": _mul,
    "Div": _div, "Flatten": _flatten, "Reshape": _reshape, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze,
    "Transpose": _transpose, "Pad": _pad, "Slice": _slice, "Concat": _concat, "Identity": _identity,
    "Dropout": _dropout, "Cast": _cast, "Constant": _constant,
}  # fmt: skip
