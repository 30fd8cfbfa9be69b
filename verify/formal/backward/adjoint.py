"""Adjoints of the linear maps: coefficients of a map's output become coefficients of its input.

    sum_o c_o (M x)_o = sum_i (M^T c)_i x_i

`adjoint` is differentiable in the coefficients. `roundings` bounds the rounded operations behind one coefficient.
"""

import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as functional
from torch import Tensor

from verify.formal.maps import AxisMean, Convolution, Dense, Diagonal, Gather, Map, WindowMean


def adjoint(linear: Map, rows: Tensor) -> Tensor:
    """``M^T c`` for rows of coefficients ``(..., outputs)``: ``(..., inputs)``."""
    return _APPLY[type(linear)](linear, rows)


def roundings(linear: Map) -> int:
    """Rounded operations behind one coefficient that `adjoint` returns."""
    return _COUNT[type(linear)](linear)


def _dense(linear: Map, rows: Tensor) -> Tensor:
    assert isinstance(linear, Dense)
    weight = linear.transposed.T
    flat = rows.reshape(-1, weight.shape[0])
    return (flat @ weight).reshape(*rows.shape[:-1], linear.inputs)


def _convolution(linear: Map, rows: Tensor) -> Tensor:
    assert isinstance(linear, Convolution)
    channels, *spatial = linear.shape
    rank = len(spatial)
    stride, dilation = (cast(tuple[int, ...], linear.options[k]) for k in ("stride", "dilation"))
    borders = linear.borders or [0] * (2 * rank)
    pads = [(borders[2 * (rank - 1 - i)], borders[2 * (rank - 1 - i) + 1]) for i in range(rank)]
    padded = [s + sum(p) for s, p in zip(spatial, pads, strict=True)]
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, linear.kernel.shape[2:], strict=True)]
    out = [(n - r) // s + 1 for n, r, s in zip(padded, reach, stride, strict=True)]
    images = rows.reshape(-1, linear.kernel.shape[0], *out)
    transpose: Callable[..., Tensor] = getattr(functional, f"conv_transpose{rank}d")
    full = transpose(images, linear.kernel, stride=stride, dilation=dilation, groups=linear.options["groups"])
    missing = [n - m for n, m in zip(padded, full.shape[2:], strict=True)]  # positions no window ever reached
    crop = [b for i in reversed(range(rank)) for b in (-pads[i][0], missing[i] - pads[i][1])]
    return functional.pad(full, crop).reshape(*rows.shape[:-1], channels * math.prod(spatial))


def _diagonal(linear: Map, rows: Tensor) -> Tensor:
    assert isinstance(linear, Diagonal)
    return _scattered(rows * linear.coefficient, linear.index, linear.inputs)


def _gather(linear: Map, rows: Tensor) -> Tensor:
    assert isinstance(linear, Gather)
    if linear.identity:
        return rows
    return _scattered(rows if linear.inside is None else rows * linear.inside, linear.index, linear.inputs)


def _scattered(rows: Tensor, index: Tensor | None, size: int) -> Tensor:
    if index is None:
        return rows
    return rows.new_zeros(*rows.shape[:-1], size).index_add(-1, index, rows)


def _window_mean(linear: Map, rows: Tensor) -> Tensor:
    assert isinstance(linear, WindowMean)
    planes = rows.reshape(*rows.shape[:-1], linear.channels, -1) / linear.counts
    return _convolution(linear.sums, planes).reshape(*rows.shape[:-1], linear.inputs)


def _axis_mean(linear: Map, rows: Tensor) -> Tensor:
    assert isinstance(linear, AxisMean)
    axes = {a % len(linear.shape) for a in linear.axes}
    kept = [1 if i in axes else s for i, s in enumerate(linear.shape)]
    count = math.prod(linear.shape[a] for a in axes)
    spread = (rows / count).reshape(*rows.shape[:-1], *kept).expand(*rows.shape[:-1], *linear.shape)
    return spread.reshape(*rows.shape[:-1], linear.inputs)


def _repeats(index: Tensor | None) -> int:
    return 1 if index is None or not len(index) else int(torch.bincount(index).max())


def _kernel_terms(linear: Map) -> int:
    assert isinstance(linear, Convolution)
    groups = cast(int, linear.options["groups"])
    return linear.kernel.shape[0] // groups * math.prod(linear.kernel.shape[2:])


_APPLY: dict[type[Map], Callable[[Map, Tensor], Tensor]] = {
    Dense: _dense, Convolution: _convolution, Diagonal: _diagonal, Gather: _gather, WindowMean: _window_mean,
    AxisMean: _axis_mean,
}  # fmt: skip

_COUNT: dict[type[Map], Callable[[Map], int]] = {
    Dense: lambda m: cast(Dense, m).transposed.shape[1] + 2,
    Convolution: lambda m: _kernel_terms(m) + 2,
    Diagonal: lambda m: _repeats(cast(Diagonal, m).index) + m.roundings,
    Gather: lambda m: _repeats(cast(Gather, m).index),
    WindowMean: lambda m: _kernel_terms(cast(WindowMean, m).sums) + 4,
    AxisMean: lambda m: 4,
}
