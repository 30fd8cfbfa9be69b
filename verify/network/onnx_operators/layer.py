"""Operators of ONNX that carry trained weights, and products of matrices."""

import math
from dataclasses import replace

import numpy as np

from verify.errors import ModelError
from verify.network.graph import Array
from verify.network.lowering import Constant, Value, normal_axis
from verify.network.onnx_operators.call import Call, Handler, Origin, Result, single


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
    stride, padding, dilation = call.window(value.shape[2:], kernel)
    roles = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    groups = int(call.attributes.get("group", 1))
    return call.lowering.emit(
        call.name, "conv", (value,), 0, roles, stride=stride, padding=padding, dilation=dilation, groups=groups
    )


def _batch_norm(call: Call) -> Result:
    if call.attributes.get("training_mode", 0) or len(call.outputs) > 1:
        raise call.refuse("training mode")
    if call.attributes.get("spatial", 1) != 1:
        raise call.refuse("spatial = 0")
    value = call.lowering.leading_batch(call.value(), call.name)
    names = ("weight", "bias", "mean", "variance")
    roles = {role: call.required(i, role) for i, role in enumerate(names, start=1)}
    epsilon = float(call.attributes.get("epsilon", single(1e-5)))
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
    epsilon = float(call.attributes.get("epsilon", single(1e-5)))
    return call.lowering.emit(call.name, "layer_norm", (value,), value.batch, roles, epsilon=epsilon)


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


LAYER: dict[str, Handler] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Attention": _attention,
}
