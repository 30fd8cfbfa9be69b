"""The survey's picture of a network: ``x -> W_L relu(... relu(W_1 x + b_1) ...) + b_L``.

Every layer but the last is followed by a ReLU. A network that ends in a ReLU gets an identity layer behind it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from verify.errors import MismatchError, ModelError, UnsupportedOperation
from verify.network.graph import Network, Node, build
from verify.survey.sets import Floats, read_only

SUPPORTED = ("divide", "linear", "relu", "reshape", "scale", "shift")


@dataclass(frozen=True, eq=False)
class Layer:
    """An affine map ``v -> weight v + bias``; weight ``(m, n)``, bias ``(m,)``, float64."""

    weight: Floats
    bias: Floats

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", read_only(self.weight, 2, "a layer's weight"))
        object.__setattr__(self, "bias", read_only(self.bias, 1, "a layer's bias"))
        if len(self.weight) != len(self.bias):
            raise ModelError(f"a layer has {len(self.weight)} rows of weights, but {len(self.bias)} biases")

    def after(self, first: "Layer") -> "Layer":
        """This map behind another one, as one layer."""
        return Layer(self.weight @ first.weight, self.weight @ first.bias + self.bias)


@dataclass(frozen=True, eq=False)
class ReluNetwork:
    """Layers with a ReLU between each two.

    Raises:
        ModelError: no layer, or layers whose widths do not fit.
    """

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        if not self.layers:
            raise ModelError("a network needs at least one layer")
        for i, (a, b) in enumerate(zip(self.layers, self.layers[1:], strict=False)):
            if b.weight.shape[1] != a.weight.shape[0]:
                raise ModelError(f"layer {i + 1} reads {b.weight.shape[1]} values, layer {i} gives {len(a.weight)}")

    @classmethod
    def of(cls, layers: Sequence[tuple[ArrayLike, ArrayLike]], last_relu: bool = False) -> "ReluNetwork":
        """A network from ``(W, b)`` pairs; with `last_relu` an identity layer is added behind the last ReLU."""
        found = [Layer(np.asarray(w, dtype=np.float64), np.asarray(b, dtype=np.float64)) for w, b in layers]
        if last_relu and found:
            found.append(_identity(len(found[-1].bias)))
        return cls(tuple(found))

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return int(self.layers[0].weight.shape[1])

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return len(self.layers[-1].bias)

    @property
    def hidden(self) -> tuple[int, ...]:
        """Number of ReLUs of every hidden layer."""
        return tuple(len(layer.bias) for layer in self.layers[:-1])

    def pre_activations(self, x: Floats) -> list[Floats]:
        """Values of every layer before its ReLU, the output last; x ``(n,)`` or ``(batch, n)``."""
        values: list[Floats] = []
        for layer in self.layers:
            z = np.maximum(values[-1], 0.0) if values else x
            values.append(z @ layer.weight.T + layer.bias)
        return values

    def evaluate(self, x: Floats) -> Floats:
        """Output in float64; x ``(n,)`` or ``(batch, n)``."""
        return self.pre_activations(x)[-1]

    def phases(self, x: Floats) -> list[Floats]:
        """1.0 where a hidden unit is active at x (its pre-activation is >= 0), else 0.0."""
        return [(h >= 0).astype(np.float64) for h in self.pre_activations(x)[:-1]]

    def affine_map(self, phases: Sequence[Floats]) -> list[Layer]:
        """The pre-activations of every layer as affine maps of the input, for fixed phases of the hidden units."""
        maps = [self.layers[0]]
        for layer, phase in zip(self.layers[1:], phases, strict=True):
            before = maps[-1]
            maps.append(layer.after(Layer(phase[:, None] * before.weight, phase * before.bias)))
        return maps

    def as_graph(self) -> Network:
        """The same network in the form that the rest of `verify` reads."""
        steps: list[Any] = []
        parameters: dict[str, Floats] = {}
        value = "x"
        for i, layer in enumerate(self.layers):
            parameters |= {f"w{i}": layer.weight, f"b{i}": layer.bias}
            steps.append((f"h{i}", "linear", (value,), {"weight": f"w{i}", "bias": f"b{i}"}, {}))
            value = f"h{i}"
            if i + 1 < len(self.layers):
                steps.append((f"z{i}", "relu", (value,), {}, {}))
                value = f"z{i}"
        return build("x", (self.inputs,), steps, value, parameters)


def _identity(width: int) -> Layer:
    return Layer(np.eye(width), np.zeros(width))


def from_graph(network: Network) -> ReluNetwork:
    """The layers of a chain of affine maps and ReLUs; affine maps that follow each other become one (in float64).

    Raises:
        UnsupportedOperation: another op, or a graph that is no chain.
    """
    value, layers = network.input, [_identity(int(np.prod(network.input_shape)))]
    for node in network:
        if node.inputs != (value,) or node.op not in SUPPORTED:
            reason = "the survey's algorithms read a chain of affine maps and ReLUs"
            raise UnsupportedOperation(node.op, node.name, SUPPORTED, reason)
        value = node.name
        if node.op == "relu":
            layers.append(_identity(int(np.prod(node.shape))))
        elif node.op != "reshape":
            layers[-1] = _affine(network, node).after(layers[-1])
    if value != network.output:
        raise ModelError(f"the output {network.output!r} is not the end of the chain, which is {value!r}")
    return ReluNetwork(tuple(layers))


def _affine(network: Network, node: Node) -> Layer:
    roles = {role: np.asarray(array, dtype=np.float64) for role, array in network.parameters_of(node).items()}
    width = int(np.prod(node.shape))
    if node.op == "linear":
        if len(network.shape_of(node.inputs[0])) != 1:
            raise UnsupportedOperation(node.op, node.name, SUPPORTED, "a linear map of a matrix; flatten it first")
        return Layer(roles["weight"], roles.get("bias", np.zeros(width)))
    constant = np.broadcast_to(next(iter(roles.values())), node.shape).ravel()
    if node.op == "shift":
        return Layer(np.eye(width), constant)
    return Layer(np.diag(constant if node.op == "scale" else 1.0 / constant), np.zeros(width))


def difference(first: ReluNetwork, second: ReluNetwork) -> ReluNetwork:
    """``x -> first(x) - second(x)`` as one network: stacked, block-diagonal, then ``[W, -W']``.

    Raises:
        MismatchError: other inputs, outputs or depth.
    """
    sizes = [(n.inputs, n.outputs, len(n.layers)) for n in (first, second)]
    if sizes[0] != sizes[1]:
        raise MismatchError(f"(inputs, outputs, layers) differ: {sizes[0]} and {sizes[1]}")
    if len(first.layers) == 1:
        a, b = first.layers[0], second.layers[0]
        return ReluNetwork((Layer(a.weight - b.weight, a.bias - b.bias),))
    pairs = list(zip(first.layers, second.layers, strict=True))
    layers = [Layer(np.vstack([pairs[0][0].weight, pairs[0][1].weight]), _stacked(*pairs[0]))]
    for a, b in pairs[1:-1]:
        left = np.pad(a.weight, ((0, 0), (0, b.weight.shape[1])))
        right = np.pad(b.weight, ((0, 0), (a.weight.shape[1], 0)))
        layers.append(Layer(np.vstack([left, right]), _stacked(a, b)))
    a, b = pairs[-1]
    return ReluNetwork((*layers, Layer(np.hstack([a.weight, -b.weight]), a.bias - b.bias)))


def _stacked(a: Layer, b: Layer) -> Floats:
    return np.concatenate([a.bias, b.bias])
