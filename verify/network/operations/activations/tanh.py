"""The hyperbolic tangent."""

from collections.abc import Mapping, Sequence

import numpy as np

from verify.network.graph import Array, Node
from verify.network.operations.activations.activation import Activation, Bounds, Value
from verify.network.operations.activations.enclosure import increasing, turning


class Tanh(Activation):
    """Increasing; the derivative peaks at 0 with 1."""

    name = "tanh"

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return np.tanh(inputs[0])

    def bound(self, node: Node, bounds: Bounds[Value], x: Value) -> Value:
        return bounds.curve(self, x)

    def values(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """As `Curve.values`."""
        return increasing(np.tanh, lower, upper)

    def derivatives(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """As `Curve.derivatives`."""
        return turning(lambda x: 1.0 - np.tanh(x) ** 2, lower, upper, ((0.0, 1.0),))
