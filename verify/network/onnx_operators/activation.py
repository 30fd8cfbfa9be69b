"""Activation functions of ONNX."""

import math

from verify.network.lowering import Constant, Value, normal_axis
from verify.network.onnx_operators.call import Call, Handler, Origin, Result, single


def _activation(op: str) -> Handler:
    return lambda call: call.lowering.elementwise(call.name, op, call.value())


def _leaky_relu(call: Call) -> Result:
    slope = float(call.attributes.get("alpha", single(0.01)))
    return call.lowering.elementwise(call.name, "leaky_relu", call.value(), slope=slope)


def _hard_sigmoid(call: Call) -> Result:
    alpha = float(call.attributes.get("alpha", single(0.2)))
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


def _sigmoid(call: Call) -> Result:
    call.sources[call.name] = Origin("Sigmoid", call.value())
    return call.lowering.elementwise(call.name, "sigmoid", call.value())


ACTIVATION: dict[str, Handler] = {
    "Relu": _activation("relu"),
    "Sigmoid": _sigmoid,
    "Tanh": _activation("tanh"),
    "Erf": _activation("erf"),
    "HardSwish": _activation("hardswish"),
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "Clip": _clip,
    "Max": _extremum,
    "Min": _extremum,
    "Softmax": _softmax,
}
