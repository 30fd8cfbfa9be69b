"""Linear maps between flattened values, applied to many rows at once.

Rows are ``(k, batch, n)``: k generators of `batch` sub-boxes. A map knows its image of rows, the image under
its absolute values, the image of single scaled unit vectors (new error symbols), and how many roundings one
output costs. Affine offsets are added by the caller.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor

Shape = tuple[int, ...]


class Map(ABC):
    """One linear map ``R^inputs -> R^outputs``.

    Attributes:
        inputs, outputs: flattened sizes.
        roundings: rounded operations behind one output; 0 means that rows are only moved.
        error: ``(outputs,)`` or None: how far the coefficients of a `Diagonal` may be from the true ones.
    """

    inputs: int
    outputs: int
    roundings: int
    error: Tensor | None = None

    @abstractmethod
    def __call__(self, rows: Tensor) -> Tensor:
        """Image of rows ``(..., inputs)``."""

    @abstractmethod
    def absolute(self, rows: Tensor) -> Tensor:
        """Image of non-negative rows ``(..., inputs)`` under the absolute values of the coefficients."""

    def into(self, rows: Tensor, out: Tensor, *, add: bool) -> None:
        """Write, or add, the image of ``(k, batch, inputs)`` to `out` ``(k, batch, outputs)``."""
        if add:
            out += self(rows)
        else:
            out.copy_(self(rows))

    def units(self, index: Tensor, size: Tensor) -> Tensor:
        """Image ``(p, batch, outputs)`` of the vectors ``size[j, b] * e_index[j, b]``, both ``(p, batch)``."""
        rows = torch.zeros(*index.shape, self.inputs, dtype=torch.float64)
        rows.scatter_(2, index[..., None], size[..., None])
        return self(rows)


class Dense(Map):
    """``y[..., o] = sum_i weight[o, i] x[..., i]`` over the last axis of a value with `positions` leading entries."""

    def __init__(self, weight: Tensor, positions: int = 1) -> None:
        self.transposed = weight.T.contiguous()
        self.magnitude = self.transposed.abs()
        self.positions = positions
        self.inputs, self.outputs = weight.shape[1] * positions, weight.shape[0] * positions
        self.roundings = weight.shape[1] + 2

    def __call__(self, rows: Tensor) -> Tensor:
        return self._product(rows, self.transposed)

    def absolute(self, rows: Tensor) -> Tensor:
        return self._product(rows, self.magnitude)

    def into(self, rows: Tensor, out: Tensor, *, add: bool) -> None:
        flat, target = rows.reshape(-1, self.transposed.shape[0]), out.view(-1, self.transposed.shape[1])
        if add:
            target.addmm_(flat, self.transposed)
        else:
            torch.mm(flat, self.transposed, out=target)

    def units(self, index: Tensor, size: Tensor) -> Tensor:
        if self.positions > 1:
            return super().units(index, size)
        rows = self.transposed.index_select(0, index.flatten()).view(*index.shape, self.outputs)
        return rows.mul_(size[..., None])

    def _product(self, rows: Tensor, matrix: Tensor) -> Tensor:
        return torch.mm(rows.reshape(-1, matrix.shape[0]), matrix).view(*rows.shape[:-1], self.outputs)


class Convolution(Map):
    """Cross-correlation of ``(channels, *spatial)`` with kernels ``(out, channels / groups, *k)``."""

    def __init__(
        self, kernel: Tensor, shape: Shape, *, stride: Shape, padding: Shape, dilation: Shape, groups: int
    ) -> None:
        rank = len(shape) - 1
        self.kernel, self.magnitude, self.shape = kernel, kernel.abs(), shape
        self.options = {"stride": stride, "dilation": dilation, "groups": groups}
        self.borders = [b for i in reversed(range(rank)) for b in (padding[i], padding[i + rank])]
        self.function: Callable[..., Tensor] = getattr(functional, f"conv{rank}d")
        self.inputs = math.prod(shape)
        self.outputs = self(torch.zeros(1, self.inputs, dtype=torch.float64)).shape[-1]
        self.roundings = math.prod(kernel.shape[1:]) + 2

    def __call__(self, rows: Tensor) -> Tensor:
        return self._convolved(rows, self.kernel)

    def absolute(self, rows: Tensor) -> Tensor:
        return self._convolved(rows, self.magnitude)

    def _convolved(self, rows: Tensor, kernel: Tensor) -> Tensor:
        images = rows.reshape(-1, *self.shape)
        if any(self.borders):
            images = functional.pad(images, self.borders)
        return self.function(images, kernel, **self.options).reshape(*rows.shape[:-1], -1)


class Diagonal(Map):
    """``y[j] = coefficient[j] x[index[j]]``; the true coefficients differ by at most `error`."""

    def __init__(
        self,
        coefficient: Tensor,
        inputs: int,
        *,
        index: Tensor | None = None,
        error: Tensor | None = None,
        roundings: int = 4,
    ) -> None:
        self.coefficient, self.magnitude = coefficient, coefficient.abs()
        self.index = None if index is None or is_identity(index, inputs) else index
        self.inputs, self.outputs, self.roundings = inputs, len(coefficient), roundings
        self.error = error

    def __call__(self, rows: Tensor) -> Tensor:
        return selected(rows, self.index) * self.coefficient

    def absolute(self, rows: Tensor) -> Tensor:
        return selected(rows, self.index) * self.magnitude


class Gather(Map):
    """``y[j] = x[index[j]]``, and 0 where the index is negative: elements moved, dropped, repeated, padded."""

    roundings = 0

    def __init__(self, index: Tensor, inputs: int) -> None:
        self.inputs, self.outputs = inputs, len(index)
        self.identity = is_identity(index, inputs)
        self.index = index.clamp(min=0)
        self.inside = None if bool((index >= 0).all()) else (index >= 0).to(torch.float64)

    def __call__(self, rows: Tensor) -> Tensor:
        if self.identity:
            return rows
        moved = rows.index_select(-1, self.index)
        return moved if self.inside is None else moved * self.inside

    def absolute(self, rows: Tensor) -> Tensor:
        return self(rows)


class WindowMean(Map):
    """Sum over windows of ``(channels, *spatial)`` divided by `counts`, the divisor of each position."""

    def __init__(self, shape: Shape, kernel: Shape, counts: Tensor, *, stride: Shape, padding: Shape, dilation: Shape):
        ones = torch.ones(1, 1, *kernel, dtype=torch.float64)
        self.sums = Convolution(ones, (1, *shape[1:]), stride=stride, padding=padding, dilation=dilation, groups=1)
        self.counts = counts.flatten()
        self.channels = shape[0]
        self.inputs, self.outputs = math.prod(shape), shape[0] * self.sums.outputs
        self.roundings = math.prod(kernel) + 4

    def __call__(self, rows: Tensor) -> Tensor:
        planes = rows.reshape(*rows.shape[:-1], self.channels, -1)
        return (self.sums(planes) / self.counts).reshape(*rows.shape[:-1], -1)

    def absolute(self, rows: Tensor) -> Tensor:
        return self(rows)


class AxisMean(Map):
    """Mean of a value of `shape` over `axes`."""

    def __init__(self, shape: Shape, axes: Sequence[int]) -> None:
        self.shape, self.axes = shape, [a - len(shape) for a in axes]
        count = math.prod(shape[a] for a in axes)
        self.inputs, self.outputs, self.roundings = math.prod(shape), math.prod(shape) // count, count + 4

    def __call__(self, rows: Tensor) -> Tensor:
        return rows.reshape(*rows.shape[:-1], *self.shape).mean(dim=self.axes).reshape(*rows.shape[:-1], -1)

    def absolute(self, rows: Tensor) -> Tensor:
        return self(rows)


def identity(size: int) -> Map:
    """The map that changes nothing."""
    return Gather(torch.arange(size), size)


def negation(size: int) -> Map:
    """``x -> -x``."""
    return Diagonal(-torch.ones(size, dtype=torch.float64), size, roundings=0)


def is_identity(index: Tensor, inputs: int) -> bool:
    """Whether gathering with `index` changes nothing."""
    return len(index) == inputs and bool((index == torch.arange(inputs)).all())


def selected(rows: Tensor, index: Tensor | None) -> Tensor:
    """``rows[..., index]``; None selects everything without a copy."""
    return rows if index is None else rows.index_select(-1, index)
