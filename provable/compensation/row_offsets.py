"""Moments of convolution patches without unfolding rows: correlations at row offsets, exact at the borders.

Let z_q hold the patch coordinates of one kernel row at (padded) image row q: channels x columns of the kernel,
unfolded along the columns only. With h output rows and stride 1 along them, the block of the patch Gram matrix that
belongs to the kernel rows i and i + d is

    G(i, d)     = sum over output rows p of  z_{p+i} z_{p+i+d}^T
    G(i + 1, d) = G(i, d) - z_i z_{i+d}^T + z_{h+i} z_{h+i+d}^T

so one product over the image per offset d >= 0 does, and two products over single rows per further pair: k products
of size (c k)^2 instead of one of size (c k^2)^2 (half of it, by symmetry), and k instead of k^2 copies of the input.
Exact: the same sums in another order, float64.

Theory: theory_notes/row_offsets.md. Strided rows and linear layers are unfolded (patches.py).
"""

from typing import cast

import numpy as np

from provable.compensation.moments import Matrix, Moments
from provable.compensation.patches import Part
from verify.network.graph import Array, Node, Shape


def applies(node: Node, kernel: Shape) -> bool:
    """Whether the node's rows have stride and dilation 1, and the kernel more than one row."""
    if node.op != "conv" or kernel[0] < 2:
        return False
    return cast(Shape, node.attributes["stride"])[0] == cast(Shape, node.attributes["dilation"])[0] == 1


def row_moments(node: Node, part: Part, kernel: Shape, x: Array, aim: Array | None) -> Moments:
    """Moments of the patches of one part and, where there is an aim, of its targets.

    Args:
        node: a convolution to which this method applies.
        part: which rows and channels.
        kernel: spatial shape of the kernel.
        x: (images, channels, *spatial) inputs.
        aim: (images, rows, *positions) targets.
    """
    z = _rows(node, x[:, part.channels], kernel)  # (c, *other kernel axes, rows, columns of one row)
    c, k = z.shape[0], kernel[0]
    rows, width = z.shape[-2:]
    flat, height = z.reshape(-1, rows * width), rows - k + 1
    gram = _gram(flat, k, height, width)  # (k, k, m, m), m = c x other kernel positions
    per_row = z.reshape(-1, rows, width).sum(2)
    sum_x = np.stack([per_row[:, i : i + height].sum(1) for i in range(k)])  # (k, m)
    targets = _targets(part, aim, height * width)  # (n, height x width)
    cross = np.stack([flat[:, i * width : (i + height) * width] @ targets.T for i in range(k)])  # (k, m, n)
    return Moments(
        height * width,
        _order(sum_x, c),
        targets.sum(1),
        _order_both(gram, c),
        _order(cross, c),
        np.einsum("nj,nj->n", targets, targets),
    )


def _rows(node: Node, x: Array, kernel: Shape) -> Matrix:
    """Padded inputs unfolded along every spatial axis but the first, rows in front of images and positions."""
    stride, padding, dilation = (cast(Shape, node.attributes[name]) for name in ("stride", "padding", "dilation"))
    rank = len(kernel)
    borders = [(0, 0), (0, 0), *((padding[i], padding[i + rank]) for i in range(rank))]
    view = np.pad(x, borders) if any(padding) else x
    if rank > 1:
        reach = [d * (k - 1) + 1 for d, k in zip(dilation[1:], kernel[1:], strict=True)]
        view = np.lib.stride_tricks.sliding_window_view(view, reach, axis=tuple(range(3, 2 + rank)))
        steps = [slice(None, None, s) for s in stride[1:]] + [slice(None, None, d) for d in dilation[1:]]
        view = view[(slice(None),) * 3 + tuple(steps)]  # (b, c, rows, *positions, *kernel)
    positions, offsets = range(3, 2 + rank), range(2 + rank, view.ndim)
    ordered = view.transpose(1, *offsets, 2, 0, *positions).astype(np.float64, order="C")
    return ordered.reshape(*ordered.shape[:rank], ordered.shape[rank], -1)


def _gram(flat: Matrix, k: int, height: int, width: int) -> Matrix:
    """(k, k, m, m) sums over output rows of z_{p+i} z_{p+j}^T."""
    gram = np.empty((k, k, len(flat), len(flat)))

    def product(first: int, count: int, offset: int) -> Matrix:
        left = flat[:, first * width : (first + count) * width]
        right = flat[:, (first + offset) * width : (first + offset + count) * width]
        result: Matrix = left @ right.T
        return result

    for d in range(k):
        gram[0, d] = product(0, height, d)
        for i in range(k - d - 1):
            gram[i + 1, i + 1 + d] = gram[i, i + d] - product(i, 1, d) + product(height + i, 1, d)
        for i in range(k - d if d else 0):
            gram[i + d, i] = gram[i, i + d].T
    return gram


def _targets(part: Part, aim: Array | None, samples: int) -> Matrix:
    """(n, samples), rows of the image first."""
    if aim is None:
        return np.zeros((0, samples))
    chosen = aim[:, part.rows]  # (b, n, rows, *positions)
    order = (1, 2, 0, *range(3, chosen.ndim))
    return chosen.transpose(order).astype(np.float64, order="C").reshape(chosen.shape[1], -1)


def _order(values: Matrix, channels: int) -> Matrix:
    """(k, c x rest, ...) to (c x k x rest, ...): the order of a weight's columns."""
    k, m, *rest = values.shape
    split = values.reshape(k, channels, m // channels, *rest)
    return np.ascontiguousarray(np.moveaxis(split, 0, 1)).reshape(k * m, *rest)


def _order_both(gram: Matrix, channels: int) -> Matrix:
    """(k, k, m, m) to (c k rest, c k rest)."""
    k, m = gram.shape[0], gram.shape[2]
    split = gram.reshape(k, k, channels, m // channels, channels, m // channels)
    return np.ascontiguousarray(split.transpose(2, 0, 3, 4, 1, 5)).reshape(k * m, k * m)
