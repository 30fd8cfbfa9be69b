"""Dictionaries: linear maps from a code to a signal, with their adjoints and a bound on their norm.

    synthesis   gamma -> D gamma            adjoint   x -> D^T x            || D ||_2 <= norm_upper

Batches first: codes (batch, *code_shape), signals (batch, *signal_shape). Theory note: sparse_coding.md.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from verify.errors import DataError


class Dictionary(Protocol):
    """What every algorithm needs of a layer's dictionary."""

    @property
    def code_shape(self) -> tuple[int, ...]:
        """Shape of one code."""

    def synthesis(self, code: Tensor) -> Tensor:
        """The signals D gamma of a batch of codes."""

    def adjoint(self, signal: Tensor) -> Tensor:
        """D^T x for a batch of signals."""

    @property
    def norm_upper(self) -> float:
        """An upper bound on the largest singular value, up to float rounding."""


@dataclass(frozen=True, eq=False)
class Dense:
    """A matrix (signal, code)."""

    matrix: Tensor

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or not bool(torch.isfinite(self.matrix).all()):
            raise DataError(f"a dictionary is a finite matrix (signal, code); got shape {tuple(self.matrix.shape)}")

    @property
    def code_shape(self) -> tuple[int, ...]:
        return (int(self.matrix.shape[1]),)

    def synthesis(self, code: Tensor) -> Tensor:
        return code @ self.matrix.T

    def adjoint(self, signal: Tensor) -> Tensor:
        return signal @ self.matrix

    @property
    def norm_upper(self) -> float:
        return float(torch.linalg.matrix_norm(self.matrix, 2))


@dataclass(frozen=True, eq=False)
class Convolution:
    """D^T is the convolution with `filters`; D its transpose.

    Attributes:
        filters: (code channels, signal channels, kh, kw).
        signal_shape: (channels, height, width) of a signal.
        stride: of the convolution, without padding.
    """

    filters: Tensor
    signal_shape: tuple[int, int, int]
    stride: int = 1

    def __post_init__(self) -> None:
        if self.filters.ndim != 4 or self.filters.shape[1] != self.signal_shape[0] or self.stride < 1:
            raise DataError(
                f"filters {tuple(self.filters.shape)} with stride {self.stride} do not read signals {self.signal_shape}"
            )

    @property
    def code_shape(self) -> tuple[int, ...]:
        sides = zip(self.signal_shape[1:], self.filters.shape[2:], strict=True)
        return (int(self.filters.shape[0]), *((n - k) // self.stride + 1 for n, k in sides))

    def synthesis(self, code: Tensor) -> Tensor:
        return transposed(code, self.filters, self.stride, self.signal_shape[1:])

    def adjoint(self, signal: Tensor) -> Tensor:
        return functional.conv2d(signal, self.filters, stride=self.stride)

    @property
    def norm_upper(self) -> float:
        """Square root of (maximal absolute row sum) x (maximal absolute column sum) of D."""
        size = self.filters.abs()
        ones = torch.ones(1, *self.signal_shape, dtype=size.dtype)
        code = functional.conv2d(ones, size, stride=self.stride)
        signal = transposed(torch.ones_like(code), size, self.stride, self.signal_shape[1:])
        return float((code.max() * signal.max()).sqrt())


def transposed(code: Tensor, filters: Tensor, stride: int, size: tuple[int, ...]) -> Tensor:
    """The adjoint of ``conv2d(., filters, stride)`` for signals of that height and width."""
    extra = [(n - k) % stride for n, k in zip(size, filters.shape[2:], strict=True)]
    return functional.conv_transpose2d(code, filters, stride=stride, output_padding=extra)
