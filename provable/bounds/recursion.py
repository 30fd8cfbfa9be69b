"""Absolute layer recursion: from errors of the single layers to the error of the network, for one input x.

    e^0 = 0,      e^l = |W_hat^l| e^{l-1} + eps_l (z^{l,+} + z^{l,-}),      |g(x) - f(x)| <= e^L   element-wise

eps_l is what a layer bound promises (layer theorem, hybrid, without replacement, or the tail of the
deterministic bound), z^{l,+-} the ORIGINAL network's same-sign sums at its own activations for x; for one
position per channel their sum is |W^l| |a^{l-1}|, and |W^l| |a^{l-1}| is an upper bound otherwise. Activations
must be 1-Lipschitz and act element-wise (relu, hardtanh, leaky relu, sigmoid, tanh; not gelu, silu, hardswish).

One extra forward pass with |W_hat| checks it. Proof: theory_notes/layer_recursion.md.
Not claimed: an a-priori number (it is evaluated at x), nor tightness (products of |W_hat| grow with depth).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from provable.sampling.design import Array
from verify.errors import DataError


def through_affine(error: Array, magnitude: Callable[[Array], Array], relative: float, mass: Array) -> Array:
    """Error behind a pruned affine layer.

    Args:
        error: element-wise bound >= 0 on the difference of the two networks' inputs to the layer.
        magnitude: the pruned layer with |W_hat| in place of the weights and no bias.
        relative: eps of the layer.
        mass: z^+ + z^- of the original layer at the original input, >= 0, the shape of the output.
    """
    if not relative >= 0:
        raise DataError(f"a relative error must not be negative; got {relative}")
    return np.asarray(magnitude(error) + relative * mass)


def through_batch_norm(error: Array, gamma: Array, variance: Array, epsilon: float) -> Array:
    """Error behind a batch norm in evaluation mode: times |gamma| / sqrt(variance + epsilon), channels first."""
    factor = np.abs(gamma) / np.sqrt(variance + epsilon)
    return np.asarray(error * factor.reshape(-1, *([1] * (error.ndim - 1))))


def through_sum(*errors: Array) -> Array:
    """Error behind a residual addition."""
    return np.asarray(np.sum(errors, axis=0))


def through_lipschitz(error: Array) -> Array:
    """Error behind an element-wise 1-Lipschitz activation: unchanged. (Max pooling: the maximum over the window.)"""
    return error


@dataclass(frozen=True, eq=False)
class PrunedDense:
    """A dense layer before and after sampling.

    Attributes:
        weight: ``(out, in)`` original.
        factors: ``(in,)`` what each input channel's slice was multiplied by, 0 for removed (`Selection.factors`).
        bias: ``(out,)``.
        relative: eps of the layer; `measured_relative_error` gives the smallest valid one for a given x.
    """

    weight: Array
    factors: Array
    bias: Array
    relative: float


def dense_recursion(layers: Sequence[PrunedDense], x: Array) -> list[Array]:
    """Bounds e^1, ..., e^L on |z_hat^l - z^l| of a ReLU network for the input ``x (in,)`` (ReLU between layers)."""
    error, activation, bounds = np.zeros_like(x), x, []
    for layer in layers:
        sampled, mass = np.abs(layer.weight * layer.factors), np.abs(layer.weight) @ np.abs(activation)
        error = through_affine(error, sampled.__matmul__, layer.relative, mass)
        activation = np.maximum(layer.weight @ activation + layer.bias, 0.0)
        bounds.append(error)
    return bounds


def measured_relative_error(weight: Array, factors: Array, activation: Array) -> float:
    """Smallest e with |W_hat a - W a| <= e |W||a| element-wise; 0/0 := 0."""
    deviation = np.abs((weight * (factors - 1.0)) @ activation)
    mass = np.abs(weight) @ np.abs(activation)
    return float(np.max(np.divide(deviation, mass, out=np.zeros_like(mass), where=mass > 0), initial=0.0))
