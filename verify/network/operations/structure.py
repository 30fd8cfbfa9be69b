"""Operations that only move, repeat or drop elements (and pad with a constant)."""

import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from verify.network.graph import Array, Node, Shape
from verify.network.operations.operation import Operation, require


class Reshape(Operation):
    """The same elements in row-major order under another shape."""

    name = "reshape"
    attribute_names = ("shape",)
    linear = True

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        target = cast(Shape, node.attributes["shape"])
        require(math.prod(target) == math.prod(inputs[0]), node, f"{inputs[0]} does not reshape to {target}")
        return target

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return inputs[0].reshape(inputs[0].shape[0], *cast(Shape, node.attributes["shape"]))


class Transpose(Operation):
    """Axes permuted: axis i of the result is axis ``permutation[i]`` of the input."""

    name = "transpose"
    attribute_names = ("permutation",)
    linear = True

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        permutation = cast(Shape, node.attributes["permutation"])
        require(sorted(permutation) == list(range(len(inputs[0]))), node, f"{permutation} is no permutation")
        return tuple(inputs[0][i] for i in permutation)

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return np.transpose(inputs[0], (0, *(i + 1 for i in cast(Shape, node.attributes["permutation"]))))


class Slice(Operation):
    """``x[start:stop:step]`` on every axis: one entry per axis, 0 <= start < stop <= size, step >= 1."""

    name = "slice"
    attribute_names = ("starts", "stops", "steps")
    linear = True

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        starts, stops, steps = (cast(Shape, node.attributes[k]) for k in self.attribute_names)
        (x,) = inputs
        require(len(starts) == len(stops) == len(steps) == len(x), node, "one start, stop and step per axis")
        ranges = zip(starts, stops, steps, x, strict=True)
        require(all(0 <= a < b <= n and s >= 1 for a, b, s, n in ranges), node, f"slice outside {x}")
        return tuple(len(range(a, b, s)) for a, b, s in zip(starts, stops, steps, strict=True))

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        starts, stops, steps = (cast(Shape, node.attributes[k]) for k in self.attribute_names)
        index = (slice(None), *(slice(a, b, s) for a, b, s in zip(starts, stops, steps, strict=True)))
        return inputs[0][index]


class Pad(Operation):
    """Constant `value` around the input: `padding` = (begins..., ends...) per axis."""

    name = "pad"
    attribute_names = ("padding", "value")
    linear = True

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        (x,), padding = inputs, cast(Shape, node.attributes["padding"])
        require(len(padding) == 2 * len(x) and min(padding, default=0) >= 0, node, f"padding {padding} of {x}")
        return tuple(n + padding[i] + padding[i + len(x)] for i, n in enumerate(x))

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        padding = cast(Shape, node.attributes["padding"])
        rank = inputs[0].ndim - 1
        borders = [(0, 0), *((padding[i], padding[i + rank]) for i in range(rank))]
        return np.pad(inputs[0], borders, constant_values=cast(float, node.attributes["value"]))


class Concat(Operation):
    """Inputs joined along `axis` (of one sample, non-negative)."""

    name = "concat"
    arity = None
    attribute_names = ("axis",)
    linear = True

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        axis = cast(int, node.attributes["axis"])
        first = inputs[0]
        require(0 <= axis < len(first), node, f"axis {axis} of {first}")
        others = [(*s[:axis], *s[axis + 1 :]) for s in inputs]
        require(all(len(s) == len(first) for s in inputs) and len(set(others)) == 1, node, f"shapes {list(inputs)}")
        return (*first[:axis], sum(s[axis] for s in inputs), *first[axis + 1 :])

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        batch = max(x.shape[0] for x in inputs)
        same = [np.broadcast_to(x, (batch, *x.shape[1:])) for x in inputs]  # a `constant` has batch 1
        return np.concatenate(same, axis=cast(int, node.attributes["axis"]) + 1)


STRUCTURE: tuple[Operation, ...] = (Reshape(), Transpose(), Slice(), Pad(), Concat())
