"""Activation functions of ATen."""

import math

import numpy as np

from verify.network.aten_operators.call import Call, Handler, Result


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


ACTIVATION: dict[str, Handler] = {
    "relu": _activation("relu"),
    "sigmoid": _activation("sigmoid"),
    "tanh": _activation("tanh"),
    "erf": _activation("erf"),
    "silu": _activation("silu"),
    "hardswish": _activation("hardswish"),
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "_prelu_kernel": _prelu,
    "hardsigmoid": _hardsigmoid,
    "hardtanh": _hardtanh,
    "relu6": _relu6,
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": _clamp,
    "clamp_max": _clamp,
    "gelu": _gelu,
    "softmax.int": _softmax,
    "_softmax": _softmax,
}
