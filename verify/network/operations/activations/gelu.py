"""``x Phi(x)``, Phi the normal distribution function; and the same with Phi approximated by a tanh."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy.special import erf, erfc

from verify.network.graph import Array, Node
from verify.network.operations.activations.activation import Activation, Bounds, Value
from verify.network.operations.activations.enclosure import turning

_ROOT = math.sqrt(2.0)
_SCALE, _CUBE = math.sqrt(2.0 / math.pi), 0.044715


class Gelu(Activation):
    """Attribute `approximate` is "none" (exact) or "tanh": both have one minimum and a derivative with two extremes."""

    name = "gelu"
    attribute_names = ("approximate",)

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        (x,) = inputs
        if node.attributes["approximate"] == "tanh":
            return _by_tanh(x)
        return cast(Array, 0.5 * x * (1.0 + erf(x / _ROOT)))

    def bound(self, node: Node, bounds: Bounds[Value], x: Value) -> Value:
        return bounds.curve(_CURVES[str(node.attributes["approximate"])], x)


@dataclass(frozen=True)
class _Dip:
    """A curve with its least value ``(at, value)`` and the extremes of its derivative."""

    function: Callable[[Array], Array]
    derivative: Callable[[Array], Array]
    least: tuple[float, float]
    steepest: tuple[tuple[float, float], tuple[float, float]]

    def values(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """As `Curve.values`."""
        return turning(self.function, lower, upper, (self.least,))

    def derivatives(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """As `Curve.derivatives`."""
        return turning(self.derivative, lower, upper, self.steepest)


def _exact(x: Array) -> Array:
    return cast(Array, 0.5 * x * erfc(-x / _ROOT))


def _slope_of_exact(x: Array) -> Array:
    return cast(Array, 0.5 * erfc(-x / _ROOT) + x * np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi))


def _by_tanh(x: Array) -> Array:
    return 0.5 * x * (1.0 + np.tanh(_SCALE * (x + _CUBE * x**3)))


def _slope_by_tanh(x: Array) -> Array:
    t = np.tanh(_SCALE * (x + _CUBE * x**3))
    return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * _SCALE * (1.0 + 3.0 * _CUBE * x * x)


_CURVES = {
    "none": _Dip(
        _exact, _slope_of_exact, (-0.7517915246935645, -0.16997120747990369),
        ((-_ROOT, -0.1289041451851547), (_ROOT, 1.1289041451851547)),
    ),
    "tanh": _Dip(
        _by_tanh, _slope_by_tanh, (-0.7524614220710163, -0.1700407505712541),
        ((-1.4185040087908284, -0.1289930686587718), (1.4185040087908284, 1.1289930686587718)),
    ),
}  # fmt: skip
