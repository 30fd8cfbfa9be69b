"""``max(x, 0)``."""

from collections.abc import Mapping, Sequence

import numpy as np

from verify.network.graph import Array, Node
from verify.network.operations.activations.activation import Activation, Bounds, Value


class Relu(Activation):
    """``max(x, 0)``: what every other piecewise-linear activation is made of."""

    name = "relu"
    piecewise_linear = True

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return np.maximum(inputs[0], 0.0)

    def bound(self, node: Node, bounds: Bounds[Value], x: Value) -> Value:
        return bounds.relu(x)
