"""Bounds of every unit's pre-activation over a box: interval arithmetic, and the Wong-Kolter / Fast-Lin pass.

Backward pass for a lower bound of ``C z_k + d`` (z_k the pre-activations of layer k; l, u bounds of the layers
below): start with v = C, o = d; at every layer ``o += v b``, ``v := v W``, and below a ReLU

    stable: v_j := v_j or 0;    unstable, slope s = u/(u-l):  v_j := s v_j,  and only where v_j < 0:  o += -l s v_j

The last line is the sign-aware form; adding the offset for both signs is unsound (theory_notes/survey.md).
Float64, not outward-rounded. References: Wong & Kolter, arXiv 1711.00851; Weng et al., arXiv 1804.09699.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verify.survey.network import Layer, ReluNetwork
from verify.survey.sets import Floats, Hyperrectangle


@dataclass(frozen=True, eq=False)
class NodeBounds:
    """Lower and upper bounds of the pre-activations of every layer, the output last."""

    lower: tuple[Floats, ...]
    upper: tuple[Floats, ...]

    @property
    def output(self) -> Hyperrectangle:
        """Box around the outputs."""
        return Hyperrectangle(np.minimum(self.lower[-1], self.upper[-1]), self.upper[-1])

    def largest(self) -> float:
        """The largest absolute value of any bound."""
        return float(max(np.abs(np.concatenate(self.lower)).max(), np.abs(np.concatenate(self.upper)).max()))

    def unstable(self) -> list[tuple[int, int]]:
        """(layer, unit) of the hidden units whose sign is open."""
        hidden = zip(self.lower[:-1], self.upper[:-1], strict=True)
        return [(i, int(j)) for i, (low, high) in enumerate(hidden) for j in np.flatnonzero((low < 0) & (high > 0))]

    def meet(self, other: "NodeBounds") -> "NodeBounds":
        """The tighter of the two, per unit."""
        lower = tuple(np.maximum(a, b) for a, b in zip(self.lower, other.lower, strict=True))
        upper = tuple(np.minimum(a, b) for a, b in zip(self.upper, other.upper, strict=True))
        return NodeBounds(tuple(np.minimum(a, b) for a, b in zip(lower, upper, strict=True)), upper)


def interval_step(layer: Layer, lower: Floats, upper: Floats) -> tuple[Floats, Floats]:
    """Interval image of an affine layer; bounds ``(n,)``."""
    center, radius = layer.weight @ ((lower + upper) / 2) + layer.bias, np.abs(layer.weight) @ ((upper - lower) / 2)
    return center - radius, center + radius


def interval_bounds(network: ReluNetwork, box: Hyperrectangle) -> NodeBounds:
    """Interval arithmetic, layer by layer."""
    lower, upper = box.lower, box.upper
    lows, highs = [], []
    for layer in network.layers:
        lower, upper = interval_step(layer, lower, upper)
        lows.append(lower)
        highs.append(upper)
        lower, upper = np.maximum(lower, 0.0), np.maximum(upper, 0.0)
    return NodeBounds(tuple(lows), tuple(highs))


def slopes(lower: Floats, upper: Floats) -> Floats:
    """1 for active units, 0 for inactive ones, u/(u-l) between."""
    unstable = (lower < 0) & (upper > 0)
    width = np.where(unstable, upper - lower, 1.0)
    return np.where(unstable, upper / width, (lower >= 0).astype(np.float64))


def backward_lower(
    layers: Sequence[Layer], lower: Sequence[Floats], upper: Sequence[Floats], rows: Layer, box: Hyperrectangle
) -> Floats:
    """Lower bounds ``(k,)`` of ``rows(pre-activations of the last of these layers)`` over a box.

    Args:
        layers: the first layers of a network.
        lower, upper: bounds of the pre-activations of all of them but the last (more are ignored).
        rows: the affine functions to bound; weight ``(k, m)``.
    """
    v, o = rows.weight, rows.bias
    for i in reversed(range(len(layers))):
        o = o + v @ layers[i].bias
        v = v @ layers[i].weight
        if i:
            low, high = lower[i - 1], upper[i - 1]
            s = slopes(low, high)
            offset = np.where((low < 0) & (high > 0), -low * s, 0.0)
            o = o + np.minimum(v, 0.0) @ offset
            v = v * s
    return np.asarray(o + v @ box.center - np.abs(v) @ box.radius)


def linear_bounds(network: ReluNetwork, box: Hyperrectangle) -> NodeBounds:
    """The backward pass for every unit, one layer after the other, met with interval arithmetic."""
    plain = interval_bounds(network, box)
    lows, highs = [plain.lower[0]], [plain.upper[0]]
    for k in range(1, len(network.layers)):
        width = len(network.layers[k].bias)
        both = Layer(np.vstack([np.eye(width), -np.eye(width)]), np.zeros(2 * width))
        found = backward_lower(network.layers[: k + 1], lows, highs, both, box)
        high = np.minimum(plain.upper[k], -found[width:])
        lows.append(np.minimum(np.maximum(plain.lower[k], found[:width]), high))
        highs.append(high)
    return NodeBounds(tuple(lows), tuple(highs))
