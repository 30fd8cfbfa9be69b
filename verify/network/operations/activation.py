"""Element-wise non-linear functions of one value."""

import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from scipy.special import erf, expit

from verify.network.graph import Array, Node, Shape
from verify.network.operations.operation import Operation, require


class Activation(Operation):
    """``y = phi(x)`` at every position."""

    elementwise = True

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        return inputs[0]


class Relu(Activation):
    """``max(x, 0)``."""

    name = "relu"

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return np.maximum(inputs[0], 0.0)


class LeakyRelu(Activation):
    """``x`` if positive, else ``slope x``."""

    name = "leaky_relu"
    attribute_names = ("slope",)

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return np.where(inputs[0] > 0, inputs[0], inputs[0] * cast(float, node.attributes["slope"]))


class Clip(Activation):
    """``min(max(x, lower), upper)``."""

    name = "clip"
    attribute_names = ("lower", "upper")

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        lower, upper = cast(float, node.attributes["lower"]), cast(float, node.attributes["upper"])
        require(lower <= upper, node, f"lower {lower} exceeds upper {upper}")
        return inputs[0]

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return np.clip(inputs[0], cast(float, node.attributes["lower"]), cast(float, node.attributes["upper"]))


class Sigmoid(Activation):
    """``1 / (1 + exp(-x))``."""

    name = "sigmoid"

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return cast(Array, expit(inputs[0]))


class Tanh(Activation):
    """Hyperbolic tangent."""

    name = "tanh"

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return np.tanh(inputs[0])


class Erf(Activation):
    """The error function (exporters write GELU with it)."""

    name = "erf"

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return cast(Array, erf(inputs[0]))


class Gelu(Activation):
    """``x Phi(x)``; attribute `approximate` is "none" (exact) or "tanh"."""

    name = "gelu"
    attribute_names = ("approximate",)

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        (x,) = inputs
        if node.attributes["approximate"] == "tanh":
            return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
        return cast(Array, 0.5 * x * (1.0 + erf(x / math.sqrt(2.0))))


class Silu(Activation):
    """``x sigmoid(x)``."""

    name = "silu"

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return cast(Array, inputs[0] * expit(inputs[0]))


class HardSigmoid(Activation):
    """``clip(alpha x + beta, 0, 1)``."""

    name = "hardsigmoid"
    attribute_names = ("alpha", "beta")

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        line = cast(float, node.attributes["alpha"]) * inputs[0] + cast(float, node.attributes["beta"])
        return np.clip(line, 0.0, 1.0)


class HardSwish(Activation):
    """``x clip(x / 6 + 1/2, 0, 1)``."""

    name = "hardswish"

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return inputs[0] * np.clip(inputs[0] + 3.0, 0.0, 6.0) / 6.0


ACTIVATIONS: tuple[Operation, ...] = (
    Relu(), LeakyRelu(), Clip(), Sigmoid(), Tanh(), Erf(), Gelu(), Silu(), HardSigmoid(), HardSwish(),
)  # fmt: skip
