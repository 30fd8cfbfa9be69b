"""Sums, products and quotients of ONNX, element by element."""

from dataclasses import replace
from typing import cast

import numpy as np

from verify.errors import ModelError
from verify.network.lowering import Constant, Operand, Value
from verify.network.onnx_operators.call import Call, Handler, Result


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
        return call.lowering.with_constant(call.name, "shift", call.lowering.negated(call.name, b, a), a)
    return call.lowering.of_two(call.name, "subtract", call.value(0), call.value(1))


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


ARITHMETIC: dict[str, Handler] = {
    "Add": _add,
    "Sub": _sub,
    "Neg": _neg,
    "Mul": _mul,
    "Div": _div,
    "Pow": _pow,
    "Sum": _sum,
}
