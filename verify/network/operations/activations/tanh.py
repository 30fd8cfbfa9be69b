"""The hyperbolic tangent."""

from collections.abc import Mapping, Sequence

import numpy as np

from verify.network.graph import Array, Node
from verify.network.operations.activations.activation import Smooth
from verify.network.operations.activations.enclosure import increasing, turning


class Tanh(Smooth):
    """Increasing; the derivative peaks at 0 with 1."""

    name = "tanh"

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return np.tanh(inputs[0])

    def values(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        return increasing(np.tanh, lower, upper)

    def derivatives(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        return turning(lambda x: 1.0 - np.tanh(x) ** 2, lower, upper, ((0.0, 1.0),))
