"""``clip(alpha x + beta, 0, 1)``."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import cast

import numpy as np

from verify.network.graph import Array, Node
from verify.network.operations.activations.activation import Activation, Bounds, Value
from verify.network.operations.activations.clip import clipped


class HardSigmoid(Activation):
    """A line between 0 and 1."""

    name = "hardsigmoid"
    piecewise_linear = True
    attribute_names = ("alpha", "beta")

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        alpha, beta = _line(node)
        return np.clip(alpha * inputs[0] + beta, 0.0, 1.0)

    def bound(self, node: Node, bounds: Bounds[Value], x: Value) -> Value:
        alpha, beta = _line(node)
        return clipped(bounds, bounds.weighted_sum([Fraction(alpha)], [x], Fraction(beta)), 0.0, 1.0)


def _line(node: Node) -> tuple[float, float]:
    return cast(float, node.attributes["alpha"]), cast(float, node.attributes["beta"])
