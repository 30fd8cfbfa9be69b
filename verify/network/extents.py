"""Sizes that a file leaves to be worked out: reshape targets, slice bounds, automatic padding, equal parts."""

import math
from collections.abc import Sequence

from verify.errors import ModelError
from verify.network.graph import Shape


def resolved(name: str, source: Shape, target: Sequence[int], copies_zero: bool = False) -> Shape:
    """A reshape target with its -1 (and, for ONNX, its 0) worked out."""
    sizes = [source[i] if n == 0 and copies_zero and i < len(source) else n for i, n in enumerate(target)]
    known = math.prod(n for n in sizes if n != -1)
    if sizes.count(-1) > 1 or any(n < -1 for n in sizes) or (-1 in sizes and known == 0):
        raise ModelError(f"node {name!r}: {tuple(target)} is no shape for {source}")
    return tuple(math.prod(source) // known if n == -1 else n for n in sizes)


def bounds(name: str, size: int, start: int, stop: int, step: int) -> tuple[int, int, int]:
    """A Python-style slice cut to 0 <= start < stop <= size."""
    first, last, _ = slice(start, stop, step).indices(size)
    if first >= last:
        raise ModelError(f"node {name!r}: slice {start}:{stop} of an axis of {size} is empty")
    return first, last, step


def ceil_padding(spatial: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Shape:
    """End padding under which rounding down gives as many windows as rounding up.

    A last window that would start beyond the input and its begin padding does not count.
    """
    rank, ends = len(spatial), []
    for i, (n, k, s, d) in enumerate(zip(spatial, kernel, stride, dilation, strict=True)):
        begin, end, reach = padding[i], padding[i + rank], d * (k - 1) + 1
        count = -(-(n + begin + end - reach) // s) + 1
        if (count - 1) * s >= n + begin:
            count -= 1
        ends.append(max(end, (count - 1) * s + reach - n - begin))
    return (*padding[:rank], *ends)


def same_padding(spatial: Shape, kernel: Shape, stride: Shape, dilation: Shape, upper: bool) -> Shape:
    """Padding that makes the result ceil(size / stride) long, the odd one at the end (upper) or begin."""
    begins, ends = [], []
    for n, k, s, d in zip(spatial, kernel, stride, dilation, strict=True):
        total = max((math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if upper else large)
        ends.append(large if upper else small)
    return (*begins, *ends)


def even_parts(size: int, count: int) -> tuple[int, ...]:
    each = -(-size // count)
    return (*[each] * (count - 1), size - each * (count - 1))
