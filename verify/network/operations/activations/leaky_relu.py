"""``x`` where positive, else ``slope x``."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import cast

import numpy as np

from verify.network.graph import Array, Node
from verify.network.operations.activations.activation import Activation, Bounds, Value


class LeakyRelu(Activation):
    """``slope x + (1 - slope) relu(x)``."""

    name = "leaky_relu"
    piecewise_linear = True
    attribute_names = ("slope",)

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return np.where(inputs[0] > 0, inputs[0], inputs[0] * cast(float, node.attributes["slope"]))

    def bound(self, node: Node, bounds: Bounds[Value], x: Value) -> Value:
        slope = Fraction(cast(float, node.attributes["slope"]))
        return bounds.weighted_sum([slope, 1 - slope], [x, bounds.relu(x)], Fraction(0))
