"""``min(max(x, lower), upper)``."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import cast

import numpy as np

from verify.network.graph import Array, Node, Shape
from verify.network.operations.activations.activation import Activation, Bounds, Value
from verify.network.operations.operation import require

_ONE = Fraction(1)


class Clip(Activation):
    """``lower + relu(x - lower) - relu(x - upper)``; infinite limits do nothing."""

    name = "clip"
    piecewise_linear = True
    attribute_names = ("lower", "upper")

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: object) -> Shape:
        lower, upper = _limits(node)
        require(lower <= upper, node, f"lower {lower} exceeds upper {upper}")
        return inputs[0]

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return np.clip(inputs[0], *_limits(node))

    def bound(self, node: Node, bounds: Bounds[Value], x: Value) -> Value:
        return clipped(bounds, x, *_limits(node))


def clipped(bounds: Bounds[Value], x: Value, lower: float, upper: float) -> Value:
    """Bounds of ``min(max(x, lower), upper)``."""
    kept = x
    if math.isfinite(lower):
        risen = bounds.relu(bounds.weighted_sum([_ONE], [x], -Fraction(lower)))
        kept = bounds.weighted_sum([_ONE], [risen], Fraction(lower))
    if math.isfinite(upper):
        excess = bounds.relu(bounds.weighted_sum([_ONE], [x], -Fraction(upper)))
        kept = bounds.weighted_sum([_ONE, -_ONE], [kept, excess], Fraction(0))
    return kept


def _limits(node: Node) -> tuple[float, float]:
    return cast(float, node.attributes["lower"]), cast(float, node.attributes["upper"])
