"""``1 / (1 + exp(-x))``."""

from collections.abc import Mapping, Sequence
from typing import cast

from scipy.special import expit

from verify.network.graph import Array, Node
from verify.network.operations.activations.activation import Smooth
from verify.network.operations.activations.enclosure import increasing, turning


class Sigmoid(Smooth):
    """Increasing; the derivative peaks at 0 with 1/4."""

    name = "sigmoid"

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return cast(Array, expit(inputs[0]))

    def values(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        return increasing(expit, lower, upper)

    def derivatives(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        return turning(lambda x: expit(x) * expit(-x), lower, upper, ((0.0, 0.25),))
