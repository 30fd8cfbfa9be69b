"""``x sigmoid(x)``."""

from collections.abc import Mapping, Sequence
from typing import cast

from scipy.special import expit

from verify.network.graph import Array, Node
from verify.network.operations.activations.activation import Smooth
from verify.network.operations.activations.enclosure import turning

_LEAST = (-1.2784645427, -0.2784645428)
_STEEPEST = ((-2.3993572805, -0.0998393201), (2.3993572805, 1.0998393201))


class Silu(Smooth):
    """Least value -0.2784645 at -1.2784645; derivative in [-0.0998394, 1.0998394], extreme at ∓2.3993573."""

    name = "silu"

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return cast(Array, inputs[0] * expit(inputs[0]))

    def values(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        return turning(lambda x: x * expit(x), lower, upper, (_LEAST,))

    def derivatives(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        return turning(lambda x: expit(x) * (1.0 + x * expit(-x)), lower, upper, _STEEPEST)
