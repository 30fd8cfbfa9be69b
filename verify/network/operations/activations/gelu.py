"""``x Phi(x)``, Phi the normal distribution function."""

import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from scipy.special import erf, erfc

from verify.errors import UnsupportedOperation
from verify.network.graph import Array, Node
from verify.network.operations.activations.activation import Activation, Bounds, Value
from verify.network.operations.activations.enclosure import turning

_LEAST = (-0.7517915246935645, -0.16997120747990369)
_ROOT = math.sqrt(2.0)


class Gelu(Activation):
    """Exact (attribute `approximate` "none"): least value at -0.7517916, derivative extreme at ∓sqrt(2); or "tanh"."""

    name = "gelu"
    attribute_names = ("approximate",)

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        (x,) = inputs
        if node.attributes["approximate"] == "tanh":
            return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
        return cast(Array, 0.5 * x * (1.0 + erf(x / _ROOT)))

    def bound(self, node: Node, bounds: Bounds[Value], x: Value) -> Value:
        if node.attributes["approximate"] != "none":
            raise UnsupportedOperation("gelu", node.name, ("gelu",), 'bounds exist for approximate="none" only')
        return bounds.curve(self, x)

    def values(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """As `Curve.values`."""
        return turning(_gelu, lower, upper, (_LEAST,))

    def derivatives(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """As `Curve.derivatives`."""
        least = float(_derivative(np.array([-_ROOT]))[0])
        return turning(_derivative, lower, upper, ((-_ROOT, least), (_ROOT, 1.0 - least)))


def _gelu(x: Array) -> Array:
    return cast(Array, 0.5 * x * erfc(-x / _ROOT))


def _derivative(x: Array) -> Array:
    return cast(Array, 0.5 * erfc(-x / _ROOT) + x * np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi))
