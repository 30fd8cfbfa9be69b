"""Rules of operations that move elements, and of means.

Both networks move corresponding elements alike (checked by `align`), so the difference moves like the compact
network's value. Padded constants are equal in both and cancel.
"""

from typing import cast

import numpy as np
import torch

from verify.formal.lift import sources
from verify.formal.maps import AxisMean, Gather, Map, WindowMean
from verify.formal.rules.rule import Affine, AffineRule, Rule, Side, inverse, tensor
from verify.network.graph import Node, Shape
from verify.network.operations.pooling import AveragePool


class MoveRule(AffineRule):
    """reshape, transpose, slice, pad, concat."""

    def __init__(self, name: str) -> None:
        self.name = name

    def affine(self, side: Side, node: Node) -> Affine:
        index = sources(side.network, node)[side.order(node.name)]
        maps: list[Map] = []
        start = 0
        for name in node.inputs:
            size = side.size(name)
            stored = inverse(side.order(name))
            mine = (index >= start) & (index < start + size)
            own = np.where(mine, stored[np.where(mine, index - start, 0)], -1)
            maps.append(Gather(torch.from_numpy(own), size))
            start += size
        padded = index < 0
        offset = tensor(np.where(padded, cast(float, node.attributes["value"]), 0.0)) if padded.any() else None
        return Affine(tuple(maps), offset)


class AveragePoolRule(AffineRule):
    """Mean over windows of each channel."""

    name = "average_pool"
    compare = True

    def affine(self, side: Side, node: Node) -> Affine:
        shape = side.shape(node.inputs[0])
        kernel, stride, padding, dilation = (
            cast(Shape, node.attributes[k]) for k in ("kernel", "stride", "padding", "dilation")
        )
        counts = tensor(AveragePool.counts(node, shape[1:]))
        return Affine((WindowMean(shape, kernel, counts, stride=stride, padding=padding, dilation=dilation),))


class MeanRule(AffineRule):
    """Mean over axes."""

    name = "mean"
    compare = True

    def affine(self, side: Side, node: Node) -> Affine:
        return Affine((AxisMean(side.shape(node.inputs[0]), cast(Shape, node.attributes["axes"])),))


STRUCTURE_RULES: tuple[Rule, ...] = (
    *(MoveRule(name) for name in ("reshape", "transpose", "slice", "pad", "concat")), AveragePoolRule(), MeanRule(),
)  # fmt: skip
