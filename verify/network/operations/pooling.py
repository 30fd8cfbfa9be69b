"""Pooling over windows and averages over axes."""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from verify.network.graph import Array, Node, Shape
from verify.network.operations.affine import window_shape, windows
from verify.network.operations.operation import Operation, require


class MaxPool(Operation):
    """Largest element of each window; padded positions never win."""

    name = "max_pool"
    attribute_names = ("kernel", "stride", "padding", "dilation")

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        (x,), kernel = inputs, cast(Shape, node.attributes["kernel"])
        require(len(x) == len(kernel) + 1, node, f"kernel {kernel} does not fit input {x}")
        padding = cast(Shape, node.attributes["padding"])
        require(all(p < k for p, k in zip(padding, kernel * 2, strict=True)), node, "padding must be below the kernel")
        return (x[0], *window_shape(node, x[1:], kernel))

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        kernel = cast(Shape, node.attributes["kernel"])
        view = windows(node, inputs[0], kernel, -np.inf)
        return cast(Array, view.max(axis=tuple(range(view.ndim - len(kernel), view.ndim))))


class AveragePool(Operation):
    """Mean of each window; `count_padding` says whether padded zeros count in the divisor."""

    name = "average_pool"
    attribute_names = ("kernel", "stride", "padding", "dilation", "count_padding")
    linear = True

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        (x,), kernel = inputs, cast(Shape, node.attributes["kernel"])
        require(len(x) == len(kernel) + 1, node, f"kernel {kernel} does not fit input {x}")
        padding = cast(Shape, node.attributes["padding"])
        require(all(p < k for p, k in zip(padding, kernel * 2, strict=True)), node, "padding must be below the kernel")
        return (x[0], *window_shape(node, x[1:], kernel))

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        kernel = cast(Shape, node.attributes["kernel"])
        axes = tuple(range(inputs[0].ndim, inputs[0].ndim + len(kernel)))
        total = windows(node, inputs[0], kernel, 0.0).sum(axis=axes)
        return cast(Array, total / self.counts(node, inputs[0].shape[2:]))

    @staticmethod
    def counts(node: Node, spatial: Shape) -> Array:
        """Divisor of every window position, ``(*positions,)``."""
        kernel = cast(Shape, node.attributes["kernel"])
        ones = np.ones((1, 1, *spatial))
        fill = 1.0 if node.attributes["count_padding"] else 0.0
        view = windows(node, ones, kernel, fill)
        return cast(Array, view.sum(axis=tuple(range(view.ndim - len(kernel), view.ndim)))[0, 0])


class Mean(Operation):
    """Mean over `axes` (of one sample, non-negative); `keepdims` keeps them with size 1."""

    name = "mean"
    attribute_names = ("axes", "keepdims")
    linear = True

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        (x,), axes = inputs, cast(Shape, node.attributes["axes"])
        require(all(0 <= a < len(x) for a in axes) and len(set(axes)) == len(axes) > 0, node, f"axes {axes} of {x}")
        keep = bool(node.attributes["keepdims"])
        return tuple(1 if a in axes else n for a, n in enumerate(x) if keep or a not in axes)

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        axes = tuple(a + 1 for a in cast(Shape, node.attributes["axes"]))
        return cast(Array, inputs[0].mean(axis=axes, keepdims=bool(node.attributes["keepdims"])))


POOLING: tuple[Operation, ...] = (MaxPool(), AveragePool(), Mean())
