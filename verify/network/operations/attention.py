"""Operations of transformers, and products of two values."""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from scipy.special import softmax

from verify.network.graph import Array, Node, Shape
from verify.network.operations.operation import Operation, require


class Multiply(Operation):
    """``a * b`` at every position, equal shapes."""

    name = "multiply"
    arity = 2
    elementwise = True

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        require(inputs[0] == inputs[1], node, f"shapes {inputs[0]} and {inputs[1]} differ")
        return inputs[0]

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return inputs[0] * inputs[1]


class Matmul(Operation):
    """Matrix product of two values over their last two axes, equal leading axes."""

    name = "matmul"
    arity = 2

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        a, b = inputs
        fits = len(a) == len(b) >= 2 and a[:-2] == b[:-2] and a[-1] == b[-2]
        require(fits, node, f"shapes {a} and {b} do not multiply")
        return (*a[:-1], b[-1])

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return cast(Array, np.matmul(inputs[0], inputs[1]))


class Softmax(Operation):
    """``exp(x) / sum exp(x)`` along `axis` (of one sample, non-negative)."""

    name = "softmax"
    attribute_names = ("axis",)

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        require(0 <= cast(int, node.attributes["axis"]) < len(inputs[0]), node, f"axis of {inputs[0]}")
        return inputs[0]

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return cast(Array, softmax(inputs[0], axis=cast(int, node.attributes["axis"]) + 1))


class LayerNorm(Operation):
    """Normalisation over the trailing axes that `weight` spans."""

    name = "layer_norm"
    roles = ("weight",)
    optional_roles = ("bias",)
    attribute_names = ("epsilon",)

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        (x,), weight = inputs, parameters["weight"]
        require(0 < len(weight) <= len(x) and x[-len(weight) :] == weight, node, f"weight {weight} of input {x}")
        require(parameters.get("bias", weight) == weight, node, f"bias does not fit weight {weight}")
        return x

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        x, weight = inputs[0], parameters["weight"]
        axes = tuple(range(x.ndim - weight.ndim, x.ndim))
        centred = x - x.mean(axis=axes, keepdims=True)
        variance = (centred**2).mean(axis=axes, keepdims=True)
        y = centred / np.sqrt(variance + cast(float, node.attributes["epsilon"])) * weight
        return cast(Array, y + parameters["bias"]) if "bias" in parameters else cast(Array, y)


class Attention(Operation):
    """Scaled dot-product attention ``softmax(scale q k^T) v`` over the last two axes, without mask."""

    name = "attention"
    arity = 3
    attribute_names = ("scale",)

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        q, k, v = inputs
        fits = len(q) == len(k) == len(v) >= 2 and q[:-2] == k[:-2] == v[:-2] and q[-1] == k[-1] and k[-2] == v[-2]
        require(fits, node, f"query {q}, key {k} and value {v} do not fit")
        return (*q[:-1], v[-1])

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        q, k, v = inputs
        scores = np.matmul(q, np.swapaxes(k, -1, -2)) * cast(float, node.attributes["scale"])
        return cast(Array, np.matmul(softmax(scores, axis=-1), v))


ATTENTION: tuple[Operation, ...] = (Multiply(), Matmul(), Softmax(), LayerNorm(), Attention())
