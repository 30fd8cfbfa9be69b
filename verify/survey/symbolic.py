"""Symbolic intervals: a lower and an upper affine function of the input for every unit.

Affine layers act exactly: ``Up' = W+ Up + W- Low + b``, ``Low' = W+ Low + W- Up + b``. What a ReLU does is up to the
algorithm (ReluVal makes open units constant, Neurify relaxes them linearly). Float64, not outward-rounded.
"""

from dataclasses import dataclass

import numpy as np

from verify.survey.network import Layer
from verify.survey.sets import Floats, Hyperrectangle


@dataclass(frozen=True, eq=False)
class Symbolic:
    """``low(x) <= value <= up(x)`` for all x of the domain; both map ``(inputs,)`` to ``(units,)``."""

    low: Layer
    up: Layer

    @classmethod
    def of_input(cls, inputs: int) -> "Symbolic":
        """The input itself."""
        identity = Layer(np.eye(inputs), np.zeros(inputs))
        return cls(identity, identity)

    def through(self, layer: Layer) -> "Symbolic":
        """Behind an affine layer."""
        plus, minus = np.maximum(layer.weight, 0.0), np.minimum(layer.weight, 0.0)
        low = Layer(
            plus @ self.low.weight + minus @ self.up.weight, plus @ self.low.bias + minus @ self.up.bias + layer.bias
        )
        up = Layer(
            plus @ self.up.weight + minus @ self.low.weight, plus @ self.up.bias + minus @ self.low.bias + layer.bias
        )
        return Symbolic(low, up)


def least(form: Layer, box: Hyperrectangle) -> Floats:
    """Minimum of every affine function over a box."""
    return np.asarray(form.weight @ box.center + form.bias - np.abs(form.weight) @ box.radius)


def most(form: Layer, box: Hyperrectangle) -> Floats:
    """Maximum of every affine function over a box."""
    return np.asarray(form.weight @ box.center + form.bias + np.abs(form.weight) @ box.radius)
