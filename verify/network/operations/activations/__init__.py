"""The table of activations: one file each, with its value and with all that its bounds need.

Adding one is a file and a line here: interpreter, intervals, affine forms, backward planes and the rules of a pair's
difference then know it, and the laws of the table test it.
"""

from verify.network.operations.activations.activation import Activation
from verify.network.operations.activations.clip import Clip
from verify.network.operations.activations.erf import Erf
from verify.network.operations.activations.gelu import Gelu
from verify.network.operations.activations.hardsigmoid import HardSigmoid
from verify.network.operations.activations.hardswish import HardSwish
from verify.network.operations.activations.leaky_relu import LeakyRelu
from verify.network.operations.activations.relu import Relu
from verify.network.operations.activations.sigmoid import Sigmoid
from verify.network.operations.activations.silu import Silu
from verify.network.operations.activations.tanh import Tanh

ACTIVATIONS: tuple[Activation, ...] = (
    Relu(), LeakyRelu(), Clip(), Sigmoid(), Tanh(), Erf(), Gelu(), Silu(), HardSigmoid(), HardSwish(),
)  # fmt: skip

__all__ = [
    "ACTIVATIONS", "Activation", "Clip", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Sigmoid",
    "Silu", "Tanh",
]  # fmt: skip
