"""Recurrent convolutional networks: a few iterations of multi-layer pursuit with learned dictionaries and thresholds.

    start            gamma_i = relu( c_i conv_W(gamma_{i-1}) + b_i )                                 the plain CNN
    ml-ista          gamma_i = relu( z_i - c_i conv_W( convT_W(z_i) - gamma_{i-1} ) + b_i )          z_i = D_(i+1,L) z_L
    ml-fista         the same from z_L = gamma_L + m_k (gamma_L - previous gamma_L), m_k Nesterov's
    ml-lista         gamma_i = relu( z_i - conv_W( convT_W(z_i) ) + conv_B(gamma_{i-1}) + b_i )      start with B
    layered          each layer iterated alone: z_i = its own last code

conv_W = D^T, convT_W = D, gamma_0 = the input. b_i plays the threshold (negative), c_i the step. Unfolding adds no
parameters: "ml-ista", "ml-fista", "layered" have those of the plain CNN (0 unfoldings); "ml-lista" has a second set of
filters. Reference: Sulam, Aberdam, Beck, Elad 2018, arXiv 1806.00701 (formulas; architecture as in its public code).
Theory note: sparse_coding.md. Not claimed: that training finds thresholds of any particular objective.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from provable.errors import InputError
from provable.method import Method
from provable.sparse_coding.dictionary import transposed

KINDS = ("ml-ista", "ml-fista", "ml-lista", "layered")
POWER_STEPS = 50


@dataclass(frozen=True)
class Layer:
    """One convolution: output channels, kernel side, stride."""

    channels: int
    kernel: int
    stride: int


MNIST_LAYERS = (Layer(16, 6, 2), Layer(32, 6, 2), Layer(64, 4, 1))
"""Kernels and strides of the paper's public code for 28 x 28 images, with fewer channels."""


class UnfoldedNetwork(nn.Module):
    """The network, with a linear classifier on the deepest code.

    Args:
        shape: (channels, height, width) of an input.
        layers: the convolutions.
        classes: outputs of the classifier.
        unfoldings: iterations after the start; 0 is the plain CNN.
        kind: "ml-ista", "ml-fista", "ml-lista" or "layered".
        generator: for the initial weights.

    Raises:
        InputError: an unknown kind, a negative number of unfoldings, or kernels larger than what they read.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        layers: Sequence[Layer],
        classes: int,
        *,
        unfoldings: int,
        kind: str = "ml-ista",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if kind not in KINDS or unfoldings < 0:
            raise InputError(f"kind is one of {', '.join(KINDS)}, unfoldings >= 0; got {kind!r}, {unfoldings}")
        self.kind, self.unfoldings, self.layers = kind, unfoldings, tuple(layers)
        self.sizes, features = _sizes(shape, self.layers)
        fans = [shape[0], *(layer.channels for layer in self.layers)]
        shapes = [
            (layer.channels, fan, layer.kernel, layer.kernel) for layer, fan in zip(self.layers, fans, strict=False)
        ]
        self.filters = _filters(shapes, self._norms, generator)
        self.own_start = _filters(shapes, self._norms, generator) if kind == "ml-lista" else None
        self.biases = nn.ParameterList(torch.zeros(1, layer.channels, 1, 1) for layer in self.layers)
        self.steps = nn.ParameterList(torch.ones(()) for _ in self.layers)
        self.classifier = nn.Linear(features, classes)
        with torch.no_grad():
            drawn = torch.rand(self.classifier.weight.shape, generator=generator)
            self.classifier.weight.copy_((2.0 * drawn - 1.0) / features**0.5)
            self.classifier.bias.zero_()

    def _norms(self, i: int, filters: Tensor) -> float:
        """|| D_i ||_2 for those filters, by the power method."""
        with torch.no_grad():
            signal = torch.ones(1, filters.shape[1], *self.sizes[i])
            for _ in range(POWER_STEPS):
                signal = signal / signal.norm()
                code = functional.conv2d(signal, filters, stride=self.layers[i].stride)
                signal = transposed(code, filters, self.layers[i].stride, self.sizes[i])
            return float(signal.norm() ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes) for inputs (batch, *shape)."""
        logits: Tensor = self.classifier(self.codes(x)[-1].flatten(1))
        return logits

    def codes(self, x: Tensor) -> list[Tensor]:
        """gamma_1 ... gamma_L."""
        found = self._start(x)
        before, t = found[-1], 1.0
        for _ in range(self.unfoldings):
            deepest = found[-1]
            if self.kind == "ml-fista":
                following = (1.0 + (1.0 + 4.0 * t * t) ** 0.5) / 2.0
                deepest = deepest + (t - 1.0) / following * (deepest - before)
                before, t = found[-1], following
            found = self._pass(x, found if self.kind == "layered" else self._implied(deepest))
        return found

    def _start(self, x: Tensor) -> list[Tensor]:
        found = []
        for i in range(len(self.layers)):
            x = self._excited(i, x)
            x = functional.relu(x + self.biases[i])
            found.append(x)
        return found

    def _excited(self, i: int, below: Tensor) -> Tensor:
        """What the layer below says of layer i."""
        if self.own_start is not None:
            return functional.conv2d(below, self.own_start[i], stride=self.layers[i].stride)
        found: Tensor = self.steps[i] * functional.conv2d(below, self.filters[i], stride=self.layers[i].stride)
        return found

    def _implied(self, deepest: Tensor) -> list[Tensor]:
        """D_(i+1,L) applied to the deepest code."""
        found = [deepest]
        for i in range(len(self.layers) - 1, 0, -1):
            found.append(self._synthesis(i, found[-1]))
        return found[::-1]

    def _synthesis(self, i: int, code: Tensor) -> Tensor:
        return transposed(code, self.filters[i], self.layers[i].stride, self.sizes[i])

    def _pass(self, below: Tensor, implied: Sequence[Tensor]) -> list[Tensor]:
        found = []
        for i, z in enumerate(implied):
            stride = self.layers[i].stride
            if self.own_start is not None:
                inner = functional.conv2d(self._synthesis(i, z), self.filters[i], stride=stride)
                moved = z - inner + self._excited(i, below)
            else:
                residual = self._synthesis(i, z) - below
                moved = z - self.steps[i] * functional.conv2d(residual, self.filters[i], stride=stride)
            below = functional.relu(moved + self.biases[i])
            found.append(below)
        return found


def _sizes(shape: tuple[int, int, int], layers: Sequence[Layer]) -> tuple[list[tuple[int, int]], int]:
    """Height and width that each layer reads, and the number of elements of the deepest code."""
    height, width, channels = shape[1], shape[2], shape[0]
    sizes = []
    for layer in layers:
        sizes.append((height, width))
        if layer.kernel > min(height, width):
            raise InputError(f"a {layer.kernel} x {layer.kernel} kernel does not fit a {height} x {width} map")
        height, width = ((n - layer.kernel) // layer.stride + 1 for n in (height, width))
        channels = layer.channels
    return sizes, channels * height * width


def _filters(
    shapes: Sequence[tuple[int, int, int, int]],
    norm: Callable[[int, Tensor], float],
    generator: torch.Generator | None,
) -> nn.ParameterList:
    """Normal weights, scaled to || D_i ||_2 = 1: a step of 1 is then one that pursuit allows (theory note)."""
    drawn = [torch.randn(shape, generator=generator) for shape in shapes]
    return nn.ParameterList(filters / norm(i, filters) for i, filters in enumerate(drawn))


METHODS = (
    Method(
        name="unfolded-ml-ista", summary="recurrent CNN: unfolded ML-ISTA, ML-FISTA, ML-LISTA or layered pursuit",
        granularity="none", when="during training", criterion="sparse representation", data="labelled",
        recovery="joint training", guarantee="none", reference="Sulam, Aberdam, Beck, Elad 2018, arXiv 1806.00701",
        cost="1 + 3 x unfoldings forward passes of the plain CNN, its parameters",
        use="provable.sparse_coding.UnfoldedNetwork",
    ),
)  # fmt: skip
