"""Pooling and reductions of ONNX."""

import math

import numpy as np

from verify.network.extents import ceil_padding
from verify.network.graph import Shape
from verify.network.lowering import Constant, Value, normal_axis
from verify.network.onnx_operators.call import Call, Handler, Result


def _pool_window(call: Call, value: Value) -> tuple[Shape, Shape, Shape, Shape, bool]:
    """Kernel, stride, padding, dilation, and whether rounding up adds a last window beyond the padding."""
    kernel = tuple(call.attributes.get("kernel_shape", ()))
    stride, padding, dilation = call.window(value.shape[2:], kernel)
    longer = False
    if call.attributes.get("ceil_mode", 0):
        extended = ceil_padding(value.shape[2:], kernel, stride, padding, dilation)
        longer, padding = extended != padding, extended
    return kernel, stride, padding, dilation, longer


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


POOLING: dict[str, Handler] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "ReduceMean": _reduce_mean,
    "ReduceSum": _reduce_sum,
}
