"""Pooling and reductions of ATen."""

import math

import numpy as np

from verify.network.aten_operators.call import Call, Handler, Result
from verify.network.extents import ceil_padding
from verify.network.graph import Shape
from verify.network.lowering import Constant, Value, normal_axis


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


POOLING: dict[str, Handler] = {
    "max_pool1d": _max_pool,
    "max_pool2d": _max_pool,
    "max_pool3d": _max_pool,
    "max_pool2d_with_indices": _max_pool,
    "max_pool3d_with_indices": _max_pool,
    "avg_pool1d": _average_pool,
    "avg_pool2d": _average_pool,
    "avg_pool3d": _average_pool,
    "adaptive_avg_pool1d": _adaptive_average_pool,
    "adaptive_avg_pool2d": _adaptive_average_pool,
    "adaptive_avg_pool3d": _adaptive_average_pool,
    "_adaptive_avg_pool2d": _adaptive_average_pool,
    "adaptive_max_pool1d": _adaptive_max_pool,
    "adaptive_max_pool2d": _adaptive_max_pool,
    "adaptive_max_pool3d": _adaptive_max_pool,
    "mean.dim": _mean,
    "sum.dim_IntList": _sum,
}
