"""Moments of convolution patches without unfolding rows: correlations at row offsets, exact at the borders.

Let z_q hold the patch coordinates of one kernel row at (padded) image row q: columns of the kernel x channels,
unfolded along the columns only. With h output rows and stride 1 along them, the block of the patch Gram matrix that
belongs to the kernel rows i and i + d is

    G(i, d)     = sum over output rows p of  z_{p+i} z_{p+i+d}^T
    G(i + 1, d) = G(i, d) - z_i z_{i+d}^T + z_{h+i} z_{h+i+d}^T

so one product over the image per offset d >= 0 does, and two products over single rows per further pair: k products
of size (c k)^2 instead of one of size (c k^2)^2 (half of it, by symmetry), and k instead of k^2 copies of the input.
Exact: the same sums in another order, float64. Positions come first and channels last, which makes every copy a copy of
whole runs and every product tall and thin; a few images at a time, so that what is multiplied stays in the cache.

Theory: theory_notes/row_offsets.md. Strided rows and linear layers are unfolded (patches.py).
"""

import math
from itertools import combinations_with_replacement
from typing import cast

import torch
from torch import Tensor

from provable.compensation.moments import Matrix, Moments
from provable.compensation.patches import Part
from verify.network.graph import Array, Node, Shape

CELLS, TALL = 1 << 18, 4
"""Numbers multiplied at a time, and at least that many positions per coordinate: otherwise adding up costs most."""


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
    inputs, targets = (
        torch.from_numpy(x)[:, part.channels],
        None if aim is None else torch.from_numpy(aim)[:, part.rows],
    )
    sums = _Sums(kernel, inputs.shape[1], 0 if targets is None else targets.shape[1])
    per_image = math.prod(inputs.shape[1:]) * math.prod(kernel[1:])
    step = max(1, max(CELLS, TALL * sums.width**2) // per_image)
    for start in range(0, len(inputs), step):
        chunk = slice(start, start + step)
        z = _rows(node, inputs[chunk], kernel)
        positions = (len(z) - kernel[0] + 1) * z.shape[1]
        sums.add(z, _zeros(positions, 0) if targets is None else _targets(targets[chunk]))
    return sums.moments()


class _Sums:
    """Running sums over images.

    Args:
        kernel: spatial shape of the kernel.
        channels: of the input.
        targets: how many.

    Attributes:
        width: m, coordinates of one kernel row.
    """

    def __init__(self, kernel: Shape, channels: int, targets: int) -> None:
        k, m = kernel[0], channels * math.prod(kernel[1:])
        pairs = combinations_with_replacement(range(k - 1), 2)
        self.width, self._channels, self._count = m, channels, 0
        self._products = [_zeros(m, m) for _ in range(k)]  # d: G(0, d)
        self._changes = {(i, j - i): _zeros(m, m) for i, j in pairs}  # (i, d): G(i + 1, d) - G(i, d)
        self._sum_x, self._cross = _zeros(k, m), _zeros(k, m, targets)
        self._sum_t, self._energy = _zeros(targets), _zeros(targets)

    def add(self, z: Tensor, targets: Tensor) -> None:
        """Rows (rows, columns, m) and targets (output rows x columns, n) of some images."""
        k, columns = len(self._products), z.shape[1]
        height, flat = len(z) - k + 1, z.reshape(-1, self.width)

        def rows(first: int, count: int) -> Tensor:
            return flat[first * columns : (first + count) * columns]

        for d, product in enumerate(self._products):
            product.addmm_(rows(0, height).T, rows(d, height))
        for (i, d), change in self._changes.items():
            change.addmm_(rows(height + i, 1).T, rows(height + i + d, 1))
            change.addmm_(rows(i, 1).T, rows(i + d, 1), alpha=-1.0)
        per_row = z.sum(1)
        for i in range(k):
            self._sum_x[i] += per_row[i : i + height].sum(0)
            self._cross[i].addmm_(rows(i, height).T, targets)
        self._count += len(targets)
        self._sum_t += targets.sum(0)
        self._energy += targets.square().sum(0)

    def moments(self) -> Moments:
        """What was added up, coordinates in the order of a weight's columns: channel, kernel row, columns."""
        k, m = len(self._products), self.width
        gram = torch.empty(k, k, m, m, dtype=torch.float64)
        for d, product in enumerate(self._products):
            gram[0, d] = product
            for i in range(k - d - 1):
                gram[i + 1, i + 1 + d] = gram[i, i + d] + self._changes[i, d]
            for i in range(k - d if d else 0):
                gram[i + d, i] = gram[i, i + d].T
        rest, c = m // self._channels, self._channels
        full = gram.reshape(k, k, rest, c, rest, c).permute(3, 0, 2, 5, 1, 4).reshape(k * m, k * m)
        return Moments(
            self._count,
            self._order(self._sum_x),
            self._sum_t.numpy(),
            full.numpy(),
            self._order(self._cross),
            self._energy.numpy(),
        )

    def _order(self, values: Tensor) -> Matrix:
        """(k, rest x c, ...) to (c x k x rest, ...)."""
        k, m, *more = values.shape
        split = values.reshape(k, m // self._channels, self._channels, *more)
        ordered: Matrix = split.movedim(2, 0).reshape(k * m, *more).numpy()
        return ordered


def _rows(node: Node, x: Tensor, kernel: Shape) -> Tensor:
    """Padded inputs unfolded along all other spatial axes: (rows, images x columns, kernel columns x channels)."""
    stride, padding, dilation = (cast(Shape, node.attributes[name]) for name in ("stride", "padding", "dilation"))
    rank = len(kernel)
    sizes = [size + padding[i] + padding[i + rank] for i, size in enumerate(x.shape[2:])]
    view = _zeros(sizes[0], len(x), *sizes[1:], x.shape[1])  # (rows, images, *columns, channels)
    inside = [slice(padding[i], padding[i] + size) for i, size in enumerate(x.shape[2:])]
    view[(inside[0], slice(None), *inside[1:])] = x.permute(2, 0, *range(3, 2 + rank), 1).double()
    for axis in range(1, rank):
        view = view.unfold(axis + 1, dilation[axis] * (kernel[axis] - 1) + 1, stride[axis])[..., :: dilation[axis]]
    columns, offsets = range(2, 1 + rank), range(2 + rank, view.dim())
    return view.permute(0, 1, *columns, *offsets, 1 + rank).reshape(sizes[0], -1, math.prod(kernel[1:]) * x.shape[1])


def _targets(aim: Tensor) -> Tensor:
    """(images, n, *positions) to (positions, n), rows of the image first."""
    return aim.permute(2, 0, *range(3, aim.dim()), 1).reshape(-1, aim.shape[1]).double()


def _zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)
