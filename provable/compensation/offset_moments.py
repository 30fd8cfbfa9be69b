"""Moments of 3 x 3 patches from channel correlations at relative offsets: single precision products, float64 sums.

For a convolution with stride 1 and padding 1, patch coordinates (a, i) and (b, j), i, j in {0, 1, 2}^2:

    Gram[(a, i), (b, j)] = sum over q of x_a(q) x_b(q + j - i)        over the image
                           - the same over the row and the column that the window of i does not reach

so 25 correlations c x c (the weight gradient of a convolution of the image with itself, a library's fastest kernel)
replace one product of 9c x 9c. Only i = j along an axis meets the border: its last line for i = 0, its first for i = 2.

Theory: theory_notes/row_offsets.md. Rounding: products and sums within one chunk of images, or one image, are float32
(relative error about 1e-7 of the diagonal); sums of chunks and border terms are float64. Not claimed: float64 accuracy;
row_offsets.py has it.
"""

from itertools import product
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.grad import conv2d_weight

from provable.compensation.moments import Matrix, Moments
from provable.compensation.patches import Part
from verify.network.graph import Array, Node, Shape

K = 3


def is_same_3x3(node: Node, kernel: Shape) -> bool:
    """Whether the node is a 3 x 3 convolution with stride, dilation and padding 1."""
    if node.op != "conv" or kernel != (K, K):
        return False
    ones = (*cast(Shape, node.attributes["stride"]), *cast(Shape, node.attributes["dilation"]))
    return set(ones) == {1} and cast(Shape, node.attributes["padding"]) == (1, 1, 1, 1)


def offset_moments(part: Part, x: Array, aim: Array | None) -> Moments:
    """Moments of one part's patches and, where there is an aim, of its targets.

    Args:
        part: which rows and channels.
        x: (images, channels, height, width) float32.
        aim: (images, rows, height, width).
    """
    images = torch.from_numpy(np.ascontiguousarray(x[:, part.channels], dtype=np.float32))
    targets = images[:, :0] if aim is None else torch.from_numpy(np.ascontiguousarray(aim[:, part.rows], np.float32))
    cross = np.zeros((images.shape[1] * K * K, 0))
    if aim is not None:
        shape = (targets.shape[1], images.shape[1], K, K)
        cross = _correlated(images, shape, targets).reshape(shape[0], -1).T
    return Moments(
        len(images) * images[0, 0].numel(),
        _window_sums(images),
        _summed(targets.sum((2, 3))),
        _gram(images),
        np.ascontiguousarray(cross),
        _summed(targets.square().sum((2, 3))),
    )


def _correlated(x: Tensor, shape: tuple[int, int, int, int], y: Tensor) -> Matrix:
    """(rows of y, channels of x, offsets, offsets): sums of y_n(q) x_c(q + d), d centred."""
    found: Tensor = conv2d_weight(x, shape, y, padding=shape[-1] // 2)  # type: ignore[no-untyped-call]
    values: Matrix = found.double().numpy()
    return values


def _window_sums(images: Tensor) -> Matrix:
    """(c * 9,) sums over the windows of the offsets: all of the image but the lines that they do not reach."""
    lines = {0: -1, 2: 0}  # offset -> row or column that its window leaves out
    sums = np.repeat(_summed(images.sum((2, 3)))[:, None, None], K, axis=1).repeat(K, axis=2)
    for i, line in lines.items():
        sums[:, i, :] -= _summed(images[:, :, line].sum(2))[:, None]
        sums[:, :, i] -= _summed(images[..., line].sum(2))[:, None]
    for (i, row), (j, column) in product(lines.items(), lines.items()):
        sums[:, i, j] += _summed(images[:, :, row, column])
    return sums.reshape(-1)


def _summed(per_image: Tensor) -> Matrix:
    """Sums over images in double precision."""
    values: Matrix = per_image.double().sum(0).numpy()
    return values


def _gram(images: Tensor) -> Matrix:
    c = images.shape[1]
    reach = 2 * K - 1
    correlation = _correlated(images, (c, c, reach, reach), images)
    columns = {0: _column(images[..., -1]), 2: _column(images[..., 0])}
    rows = {0: _row(images[:, :, -1]), 2: _row(images[:, :, 0])}
    gram = np.empty((c, K, K, c, K, K))
    for i, j in np.ndindex(K, K):  # kernel rows
        for u, v in np.ndindex(K, K):  # kernel columns
            block = correlation[:, :, j - i + K - 1, v - u + K - 1]
            if u == v and u in columns:
                block = block - columns[u][:, :, j - i + K - 1]
            gram[:, i, u, :, j, v] = block
        if i == j and i in rows:
            gram[:, i, :, :, j, :] -= rows[i]
    flat = gram.reshape(c * K * K, c * K * K)
    return (flat + flat.T) / 2.0


def _column(line: Tensor) -> Matrix:
    """(c, c, 5) correlations of one column (images, c, height) with itself at row offsets -2 ... 2."""
    images, c, height = line.shape
    y = line.double().permute(1, 2, 0).reshape(c, height * images).numpy()
    found = []
    for d in range(1 - K, K):
        length = max(0, height - abs(d)) * images
        left, right = max(0, -d) * images, max(0, d) * images
        found.append(y[:, left : left + length] @ y[:, right : right + length].T)
    return np.stack(found, axis=2)


def _row(line: Tensor) -> Matrix:
    """(c, 3, c, 3) patch Gram matrix of one row (images, c, width)."""
    y = np.pad(line.double().permute(1, 0, 2).numpy(), ((0, 0), (0, 0), (1, 1)))  # (c, images, width + 2)
    width = line.shape[-1]
    patches = np.stack([y[:, :, i : i + width] for i in range(K)], axis=1).reshape(len(y) * K, -1)
    gram: Matrix = (patches @ patches.T).reshape(len(y), K, len(y), K)
    return gram
