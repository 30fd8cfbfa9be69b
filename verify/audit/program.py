"""What a network computes, as a list of steps over flat vectors of real numbers.

Five kinds of step suffice for piecewise-linear networks; n values of a tensor are numbered in row-major order:

    affine   y[g, o, p] = sum_k weight[g, o, k] x[taps[g, p, k]] + bias,   flattened (g, o, p), then permuted by `place`
    relu     y[i] = max(x[i], 0)
    max      y[i] = max over k of x[taps[i, k]],  -1 = no such element
    gather   y[i] = x[taps[i]] of all inputs joined,  -1 = the constant fill[i]
    sum      y[i] = sum of signs times inputs

The functions below translate the operators of network files into steps. Weights are exact: the raw bits of the
file as dyadic numbers, and for quotients and roots (means, division, batch norm) an exact enclosure.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import isqrt, prod

import numpy as np
from numpy.typing import NDArray

from verify.audit.exact import Array, Index, Real

Shape = tuple[int, ...]


class Malformed(Exception):
    """A file breaks the rules of its format."""


class Unsupported(Exception):
    """A file is well-formed, but uses something this auditor does not know."""


@dataclass(frozen=True)
class Step:
    """One operation; see the head of this file. `shape` is that of the whole tensor, `name` that of its value."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    shape: Shape
    taps: Index = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    weight: Real | None = None
    bias: Real | None = None
    place: Index | None = None
    signs: tuple[int, ...] = ()
    normalizes: bool = False  # a batch norm: executed in several roundings


@dataclass(frozen=True)
class Program:
    """A network: one input, steps in order, one output. `batch` says whether shapes start with a batch axis of 1.

    `float32`: its input and all its constants are float32, so that it can be executed in float32 as it stands.
    """

    input: str
    input_shape: Shape
    batch: bool
    steps: tuple[Step, ...]
    output: str
    digest: str
    float32: bool = False

    def shape_of(self, name: str) -> Shape:
        return self.input_shape if name == self.input else next(s.shape for s in self.steps if s.name == name)

    def sample_shape(self, name: str) -> Shape:
        """Shape of a value without the batch axis, which is how a lift counts axes."""
        shape = self.shape_of(name)
        return shape[1:] if self.batch and shape[:1] == (1,) else shape

    def size_of(self, name: str) -> int:
        return prod(self.shape_of(name))


def require(condition: bool, message: str) -> None:
    """Raise Malformed unless `condition` holds."""
    if not condition:
        raise Malformed(message)


def supported(condition: bool, message: str) -> None:
    """Raise Unsupported unless `condition` holds."""
    if not condition:
        raise Unsupported(message)


# numbers


def from_bits(raw: bytes, kind: str) -> Real:
    """The exact numbers in little-endian raw bits of kind "float16", "bfloat16", "float32" or "float64"."""
    size, digits = {"float16": (2, 10), "bfloat16": (2, 7), "float32": (4, 23), "float64": (8, 52)}[kind]
    require(len(raw) % size == 0, "raw data is cut short")
    word = np.frombuffer(raw, dtype=f"<u{size}").astype(np.uint64)
    width = 8 * size - 1 - digits
    biased = (word >> np.uint64(digits)) & np.uint64(2**width - 1)
    require(not (biased == 2**width - 1).any(), "a parameter is NaN or infinite")
    fraction = word & np.uint64(2**digits - 1)
    whole = np.where(biased > 0, fraction + np.uint64(2**digits), fraction).astype(np.float64)
    exponent = np.maximum(biased, 1).astype(np.int64) - (2 ** (width - 1) - 1 + digits)
    return normal(np.where(word >> np.uint64(8 * size - 1) == 1, -whole, whole), exponent)


def normal(mantissa: Array, exponent: Index) -> Real:
    """Exact numbers with 53-bit mantissas, so that equal numbers look alike."""
    part, more = np.frexp(mantissa)
    shifted = np.where(mantissa == 0, 0, exponent + more - 53).astype(np.int64)
    return Real(np.ldexp(part, 53), shifted, np.zeros_like(mantissa))


def integers(values: Sequence[int], shape: Shape) -> Real:
    """Small integers as numbers."""
    array = np.array(values, dtype=np.float64).reshape(shape)
    return normal(array, np.zeros(shape, dtype=np.int64))


def enclosing(bounds: Sequence[tuple[Fraction, Fraction]]) -> Real:
    """Numbers known to lie between two fractions each."""
    mantissas, exponents, slacks = [], [], []
    for low, high in bounds:
        size = max(abs(low), abs(high))
        exponent = size.numerator.bit_length() - size.denominator.bit_length() - 51 if size else 0
        unit = Fraction(2) ** exponent
        mantissas.append(math.floor(low / unit))
        exponents.append(exponent)
        slacks.append(math.ceil(high / unit) - mantissas[-1])
    return Real(
        np.array(mantissas, dtype=np.float64), np.array(exponents, dtype=np.int64), np.array(slacks, dtype=float)
    )


def fractions(numbers: Real) -> list[Fraction]:
    """Exact numbers (no slack) as fractions, flattened."""
    pairs = zip(numbers.mantissa.ravel().tolist(), numbers.exponent.ravel().tolist(), strict=True)
    return [int(m) * Fraction(2) ** e for m, e in pairs]


def root_bounds(square: Fraction) -> tuple[Fraction, Fraction]:
    """Lower and upper bound of the square root of a positive fraction, 2^-52 apart relative to it or less."""
    shift = 54 - (square.numerator.bit_length() - square.denominator.bit_length()) // 2
    scaled = square * Fraction(4) ** shift
    root = isqrt(scaled.numerator // scaled.denominator)
    return root * Fraction(2) ** -shift, (root + 1) * Fraction(2) ** -shift


# steps


def linear(name: str, source: str, shape: Shape, weight: Real, bias: Real | None) -> Step:
    """``x W^T + b`` along the last axis; `weight` is (out, in)."""
    rows, length = weight.mantissa.shape
    require(bool(shape) and shape[-1] == length, f"{name}: {length} columns of weights do not fit input {shape}")
    lead = prod(shape[:-1])
    taps = np.arange(lead * length, dtype=np.int64).reshape(1, lead, length)
    place = np.arange(rows * lead, dtype=np.int64).reshape(rows, lead).T.ravel() if lead > 1 else None
    full = None if bias is None else bias.reshape(1, rows).expand((lead, rows)).reshape(lead * rows)
    return Step(name, "affine", (source,), (*shape[:-1], rows), taps, weight.reshape(1, rows, length), full, place)


@dataclass(frozen=True)
class Window:
    """Sliding windows per spatial axis; `padding` = (begins..., ends...)."""

    kernel: Shape
    stride: Shape
    padding: Shape
    dilation: Shape

    def taps(self, shape: Shape) -> tuple[Index, Shape]:
        """Elements of every window of ``(channels, *spatial)``, (channels, positions, window); the positions' shape."""
        rank = len(shape) - 1
        sizes = (self.kernel, self.stride, self.dilation)
        require(rank >= 1 and all(len(s) == rank for s in sizes), f"window {self.kernel} does not fit {shape}")
        require(len(self.padding) == 2 * rank and min(self.padding) >= 0, f"padding {self.padding}")
        require(all(min(s) >= 1 for s in sizes), "window sizes, strides and dilations must be positive")
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        padded = [n + self.padding[i] + self.padding[i + rank] for i, n in enumerate(shape[1:])]
        require(all(n >= r for n, r in zip(padded, reach, strict=True)), f"window {self.kernel} exceeds {shape}")
        bounded(shape[0] * prod(padded))
        border = [(0, 0), *((self.padding[i], self.padding[i + rank]) for i in range(rank))]
        grid = np.pad(np.arange(prod(shape), dtype=np.int64).reshape(shape), border, constant_values=-1)
        view = np.lib.stride_tricks.sliding_window_view(grid, reach, axis=tuple(range(1, rank + 1)))
        steps = [slice(None, None, s) for s in self.stride] + [slice(None, None, d) for d in self.dilation]
        view = view[(slice(None), *steps)]
        positions = view.shape[1 : 1 + rank]
        bounded(view.size)
        return view.reshape(shape[0], prod(positions), prod(self.kernel)), positions


LARGEST_TENSOR = 2**26


def bounded(count: int) -> int:
    """The number of elements, unless it exceeds the limit."""
    supported(count <= LARGEST_TENSOR, f"a tensor of {count} elements exceeds the limit of {LARGEST_TENSOR}")
    return count


def convolution(
    name: str, source: str, shape: Shape, weight: Real, bias: Real | None, window: Window, groups: int
) -> Step:
    """Cross-correlation of ``(channels, *spatial)`` with `weight` (out, channels / groups, *kernel)."""
    rows, depth = weight.mantissa.shape[:2]
    fits = groups >= 1 and rows % groups == 0 and depth * groups == shape[0]
    require(fits and weight.mantissa.shape[2:] == window.kernel, f"{name}: weights do not fit input {shape}")
    taps, positions = window.taps(shape)
    size, count = prod(window.kernel), prod(positions)
    taps = taps.reshape(groups, depth, count, size).transpose(0, 2, 1, 3).reshape(groups, count, depth * size)
    full = None if bias is None else bias.reshape(rows, 1).expand((rows, count)).reshape(rows * count)
    matrix = weight.reshape(groups, rows // groups, depth * size)
    return Step(name, "affine", (source,), (rows, *positions), np.ascontiguousarray(taps), matrix, full)


def max_pool(name: str, source: str, shape: Shape, window: Window) -> Step:
    """Largest element of each window; the elements that exist come first, in row-major order."""
    taps, positions = window.taps(shape)
    taps = taps.reshape(-1, taps.shape[2])
    require(bool((taps >= 0).any(axis=1).all()), f"{name}: a window lies in the padding")
    order = np.argsort(taps < 0, axis=1, kind="stable")
    return Step(name, "max", (source,), (shape[0], *positions), np.take_along_axis(taps, order, axis=1))


def average_pool(name: str, source: str, shape: Shape, window: Window, count_padding: bool) -> Step:
    """Mean of each window, the padding counted or not."""
    taps, positions = window.taps(shape)
    taps = taps.reshape(-1, taps.shape[2])
    counts = np.full(len(taps), taps.shape[1]) if count_padding else (taps >= 0).sum(axis=1)
    require(bool(counts.all()), f"{name}: a window lies in the padding")
    return _average(name, source, (shape[0], *positions), taps, counts)


def mean(name: str, source: str, shape: Shape, axes: Sequence[int], keepdims: bool) -> Step:
    """Mean over some axes."""
    kept = [a for a in range(len(shape)) if a not in axes]
    grid = np.arange(prod(shape), dtype=np.int64).reshape(shape).transpose(*kept, *axes)
    taps = grid.reshape(prod(shape[a] for a in kept), -1)
    out = tuple(1 if a in axes else n for a, n in enumerate(shape) if keepdims or a not in axes)
    return _average(name, source, out, taps, np.full(len(taps), taps.shape[1]))


def _average(name: str, source: str, shape: Shape, taps: Index, counts: NDArray[np.int64]) -> Step:
    alike = bool((counts == counts[0]).all())
    groups = 1 if alike else len(taps)
    inverse = enclosing([(Fraction(1, int(c)),) * 2 for c in counts[:groups]])
    weight = inverse.reshape(groups, 1, 1).expand((groups, 1, taps.shape[1]))
    return Step(name, "affine", (source,), shape, taps.reshape(groups, -1, taps.shape[1]), weight)


def scaled(name: str, source: str, shape: Shape, factor: Real, shift: Real | None) -> Step:
    """``factor x + shift``, each a scalar or of the shape of x."""
    count = prod(shape)
    groups = 1 if factor.mantissa.size == 1 else count
    taps = np.arange(count, dtype=np.int64).reshape(groups, -1, 1)
    bias = None if shift is None else shift.expand(shape).reshape(count)
    return Step(name, "affine", (source,), shape, taps, factor.reshape(groups, 1, 1), bias)


def divided(name: str, source: str, shape: Shape, divisor: Real) -> Step:
    """``x / divisor``."""
    values = fractions(divisor)
    require(all(values), f"{name}: division by zero")
    return scaled(name, source, shape, enclosing([(1 / v, 1 / v) for v in values]), None)


def batch_norm(name: str, source: str, shape: Shape, roles: Sequence[Real], epsilon: Fraction) -> Step:
    """``weight (x - mean) / sqrt(variance + epsilon) + bias`` per channel of ``(channels, ...)``."""
    require(all(r.mantissa.shape == shape[:1] for r in roles), f"{name}: parameters do not fit input {shape}")
    factors, shifts = [], []
    for weight, bias, centre, variance in zip(*map(fractions, roles), strict=True):
        require(variance + epsilon > 0, f"{name}: variance + epsilon is not positive")
        ends = [weight / root for root in root_bounds(variance + epsilon)]
        factors.append((min(ends), max(ends)))
        ends = [bias - end * centre for end in ends]
        shifts.append((min(ends), max(ends)))
    channels, count = shape[0], prod(shape[1:])
    taps = np.arange(channels * count, dtype=np.int64).reshape(channels, count, 1)
    bias_real = enclosing(shifts).reshape(channels, 1).expand((channels, count)).reshape(channels * count)
    weight = enclosing(factors).reshape(channels, 1, 1)
    return Step(name, "affine", (source,), shape, taps, weight, bias_real, normalizes=True)


def gather(name: str, sources: Sequence[str], shape: Shape, taps: Index, fill: Real | None = None) -> Step:
    """Elements of the joined inputs by index; -1 takes the number `fill`."""
    return Step(name, "gather", tuple(sources), shape, taps.reshape(-1), bias=fill)


def grid(shape: Shape) -> Index:
    """The element numbers of a tensor, in its shape."""
    return np.arange(bounded(prod(shape)), dtype=np.int64).reshape(shape)


def finish(source: str, shape: Shape, batch: bool, steps: tuple[Step, ...], output: str) -> Program:
    """The program of these steps, with its canonical digest."""
    known, digest = {source}, hashlib.sha256(b"provable-pruning program 0\n")
    _absorb(digest, json.dumps([source, list(shape), batch, output]).encode())
    for step in steps:
        require(step.name not in known and known.issuperset(step.inputs), f"value {step.name!r} or its inputs")
        known.add(step.name)
        head = [step.name, step.kind, list(step.inputs), list(step.shape), list(step.signs)]
        _absorb(digest, json.dumps(head).encode())
        for array in (step.taps, step.place):
            _absorb(digest, b"" if array is None else np.ascontiguousarray(array, dtype="<i8").tobytes())
        for numbers in (step.weight, step.bias):
            parts = (b"",) * 3 if numbers is None else _number_bytes(numbers)
            for part in parts:
                _absorb(digest, part)
    return Program(source, shape, batch, steps, output, digest.hexdigest())


def _number_bytes(numbers: Real) -> tuple[bytes, ...]:
    kinds = ((numbers.mantissa + 0.0, "<f8"), (numbers.exponent, "<i8"), (numbers.slack, "<f8"))
    return tuple(np.ascontiguousarray(a, dtype=kind).tobytes() for a, kind in kinds)


def _absorb(digest: "hashlib._Hash", record: bytes) -> None:
    digest.update(len(record).to_bytes(8, "little"))
    digest.update(record)
