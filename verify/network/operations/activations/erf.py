"""The error function; exporters write GELU with it."""

import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from scipy.special import erf

from verify.network.graph import Array, Node
from verify.network.operations.activations.activation import Smooth
from verify.network.operations.activations.enclosure import increasing, turning

_PEAK = 2.0 / math.sqrt(math.pi)


class Erf(Smooth):
    """Increasing; the derivative peaks at 0 with 2/sqrt(pi)."""

    name = "erf"

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return cast(Array, erf(inputs[0]))

    def values(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        return increasing(erf, lower, upper)

    def derivatives(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        return turning(lambda x: _PEAK * np.exp(-x * x), lower, upper, ((0.0, _PEAK),))
