"""The error function; exporters write GELU with it."""

import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from scipy.special import erf

from verify.network.graph import Array, Node
from verify.network.operations.activations.activation import Activation, Bounds, Value
from verify.network.operations.activations.enclosure import increasing, turning

_PEAK = 2.0 / math.sqrt(math.pi)


class Erf(Activation):
    """Increasing; the derivative peaks at 0 with 2/sqrt(pi)."""

    name = "erf"

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return cast(Array, erf(inputs[0]))

    def bound(self, node: Node, bounds: Bounds[Value], x: Value) -> Value:
        return bounds.curve(self, x)

    def values(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """As `Curve.values`."""
        return increasing(erf, lower, upper)

    def derivatives(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """As `Curve.derivatives`."""
        return turning(lambda x: _PEAK * np.exp(-x * x), lower, upper, ((0.0, _PEAK),))
