"""Operators of ATen that carry trained weights, and products of matrices."""

import math

import numpy as np

from verify.network.aten_operators.call import Call, Handler, Result
from verify.network.graph import Shape
from verify.network.lowering import Constant, Value


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


LAYER: dict[str, Handler] = {
    "linear": _linear,
    "conv1d": _conv,
    "conv2d": _conv,
    "conv3d": _conv,
    "conv1d.padding": _conv,
    "conv2d.padding": _conv,
    "conv3d.padding": _conv,
    "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "layer_norm": _layer_norm,
    "scaled_dot_product_attention": _sdpa,
    "matmul": _matmul,
    "mm": _matmul,
    "bmm": _matmul,
    "addmm": _addmm,
}
