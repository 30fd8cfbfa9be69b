"""CoreNet: how many draws every class of weights gets by the constants of data-dependent coresets.

    eta = sum of layer sizes, eta_max = largest,   lam = log(eta eta_max) / 2,
    kappa = sqrt(2 lam) (1 + sqrt(2 lam) log(8 eta eta_max / delta))
    Delta_l = max over neurons of mean over inputs ( sum |w a| / |sum w a| ) + kappa,    Delta_{l..L} = their product
    eps_l = eps / ( 2 (L - 1) Delta_{l..L} ),       m = ceil( 8 T log(eta eta_max) log(8 eta / delta) / eps_l^2 )

For a budget, eps is bisected; it is then an allocation knob. The draws are far more than weights for any useful eps, as
the paper's own experiments avoid by tuning; a class whose m reaches its size is kept whole.

Reference: Baykal, Liebenwein, Gilitschenski, Feldman, Rus, "Data-Dependent Coresets for Compressing Neural Networks",
ICLR 2019, arXiv 1804.05345; constants as in a third-party implementation. Theory note: weight_coresets.md. Not claimed:
the paper's theorem for the whole network; the promise per layer is that of draw.py.
"""

import math
from collections.abc import Sequence

import numpy as np

from provable.compensation.moments import Matrix
from provable.coresets.sensitivity import Layer
from provable.errors import CalibrationError

FAILURE = 0.05


def growth(layers: Sequence[Layer], failure: float = FAILURE) -> list[float]:
    """Delta_{l..L} of every layer.

    Raises:
        CalibrationError: a neuron is dead on the inputs, or its sum cancels exactly: Delta is not defined.
    """
    for layer in layers:
        worst = np.flatnonzero(layer.dead | ~np.isfinite(layer.cancellation))
        if len(worst):
            what = "is 0 on all inputs" if layer.dead[worst[0]] else "cancels to exactly 0 on an input"
            raise CalibrationError(
                f"corenet: neuron {worst[0]} of layer {layer.node!r} {what}, so its relative error is not defined: "
                "give other inputs, remove dead neurons first (provable exact), or take sipp"
            )
    eta, largest = _sizes(layers)
    lam = math.log(eta * largest) / 2.0
    kappa = math.sqrt(2.0 * lam) * (1.0 + math.sqrt(2.0 * lam) * math.log(8.0 * eta * largest / failure))
    deltas = [float(layer.cancellation.max()) + kappa for layer in layers]
    return [float(np.prod(deltas[i:])) for i in range(len(deltas))]


def draws(layers: Sequence[Layer], error: float, failure: float = FAILURE) -> list[Matrix]:
    """m of every class, one array (2, f) per layer, for eps = `error` over the whole network."""
    eta, largest = _sizes(layers)
    constant = 8.0 * math.log(eta * largest) * math.log(8.0 * eta / failure)
    split = 2.0 * max(len(layers) - 1, 1)
    found = []
    for layer, delta in zip(layers, growth(layers, failure), strict=True):
        part = error / (split * delta)
        found.append(np.ceil(np.minimum(constant * layer.totals / (part * part), 1e15)))
    return found


def _sizes(layers: Sequence[Layer]) -> tuple[int, int]:
    sizes = [len(layer.weight) for layer in layers]
    return max(sum(sizes), 2), max(sizes)
