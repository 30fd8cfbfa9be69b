"""Sums, products and quotients of ATen, element by element."""

import numpy as np

from verify.errors import ModelError
from verify.network.aten_operators.call import Call, Handler, Result
from verify.network.lowering import Constant, Operand, Value


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
        other = b if sign > 0 else call.lowering.negated(call.name, b, a)
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
    if call.target != "aten.square.default" and call.get("exponent") != 2:
        raise call.refuse("only the square is supported")
    return call.lowering.of_two(call.name, "multiply", call.value(), call.value())


ARITHMETIC: dict[str, Handler] = {
    "add.Tensor": _sum_of(1),
    "add.Scalar": _sum_of(1),
    "sub.Tensor": _sum_of(-1),
    "sub.Scalar": _sum_of(-1),
    "rsub.Scalar": _rsub,
    "rsub.Tensor": _rsub,
    "mul.Tensor": _mul,
    "mul.Scalar": _mul,
    "div.Tensor": _div,
    "div.Scalar": _div,
    "neg": _neg,
    "pow.Tensor_Scalar": _pow,
    "square": _pow,
    "multiply.Tensor": _mul,
    "subtract.Tensor": _sum_of(-1),
    "divide.Tensor": _div,
    "true_divide.Tensor": _div,
    "negative": _neg,
}
