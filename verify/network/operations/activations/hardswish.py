"""``x clip(x / 6 + 1/2, 0, 1)``."""

from collections.abc import Mapping, Sequence

import numpy as np

from verify.network.graph import Array, Node
from verify.network.operations.activations.activation import Smooth
from verify.network.operations.activations.enclosure import turning

_LEAST = (-1.5, -0.375)
_JUMPS = ((-3.0, -0.5), (-3.0, 0.0), (3.0, 1.5), (3.0, 1.0))


class HardSwish(Smooth):
    """Least value -3/8 at -3/2; the derivative jumps at ±3."""

    name = "hardswish"

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return _hardswish(inputs[0])

    def values(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        return turning(_hardswish, lower, upper, (_LEAST,))

    def derivatives(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        return turning(_derivative, lower, upper, _JUMPS)


def _hardswish(x: Array) -> Array:
    return x * np.clip(x + 3.0, 0.0, 6.0) / 6.0


def _derivative(x: Array) -> Array:
    return np.where(x < -3.0, 0.0, np.where(x > 3.0, 1.0, (2.0 * x + 3.0) / 6.0))
