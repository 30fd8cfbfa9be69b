"""Joint pruning and quantisation: channels get noisy gates, tensors learnt quantisers, and one loss trades them.

    gate        h = z f,  z = mu + eps sigma in training, mu in evaluation;  closed when mu^2 / sigma^2 < threshold
    penalty     gamma sum log(1 + mu^2 / sigma^2) + beta log(sum_l BOP_l)
    BOP_l       (inputs kept) (outputs kept) (kernel size) (output positions) b_weight b_activation

    pruner = DJPQ(model, batch, gamma=1e-3, beta=0.5, generator=torch.Generator().manual_seed(0))
    ...(loss + pruner.penalty()).backward()...
    bops = pruner.bops(); model = pruner.finish()

Reference for the idea: Wang, Lu & Blankevoort, ECCV 2020; the formulas are this project's reading of it. Theory:
theory_notes/training.md. Checkpoint: gates and quantisers are in the model's state_dict. BOPs count every linear and
convolution layer, first and last included. What `finish` returns has the quantised weights and the gates inside them;
activation quantisers are left out, as `verify` has no rounding.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from provable.channels import ChannelGroup, channel_groups
from provable.cost import flops_by_node
from provable.errors import GroupingError, ScheduleError, TrainingError
from provable.training.masks import Layer, layers_of
from provable.training.quantiser import LearnedQuantiser
from provable.training.result import traced
from verify.network.graph import Network

THRESHOLD = 1e-3
HARDNESS = 1.0  # how sharply the soft share follows log alpha


class ChannelGate(nn.Module):
    """Multiplicative Gaussian noise per channel; channels that carry nothing but noise are closed."""

    def __init__(self, channels: int, threshold: float, generator: torch.Generator) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.ones(channels))
        self.log_deviation = nn.Parameter(torch.full((channels,), -2.0))
        self._threshold, self._generator = threshold, generator

    def log_ratio(self) -> Tensor:
        """log alpha = log(mu^2 / sigma^2)."""
        return torch.sub(torch.log(self.mean.square() + 1e-30), self.log_deviation, alpha=2)

    def opened(self) -> Tensor:
        """True per channel that stays; at least the one of largest ratio does."""
        ratio = self.log_ratio().detach()
        value: Tensor = (ratio >= np.log(self._threshold)) | (ratio == ratio.max())
        return value

    def soft_share(self) -> Tensor:
        """Share of open channels, differentiable."""
        return torch.sigmoid((self.log_ratio() - float(np.log(self._threshold))) / HARDNESS).mean()

    def factors(self) -> Tensor:
        """z: a fresh draw in training, the means of the open channels in evaluation."""
        if not self.training:
            return self.mean * self.opened()
        noise = torch.randn(self.mean.shape, generator=self._generator, device=self._generator.device)
        return self.mean + noise.to(self.mean) * self.log_deviation.exp()

    def information(self) -> Tensor:
        """sum log(1 + mu^2 / sigma^2)."""
        return torch.log1p(self.log_ratio().exp()).sum()


class JointLayer(nn.Module):
    """A layer that reads gated, quantised inputs with quantised weights."""

    columns: Tensor

    def __init__(self, layer: Layer, gate: ChannelGate | None, columns: Tensor, activation: LearnedQuantiser,
                 weight: LearnedQuantiser) -> None:  # fmt: skip
        super().__init__()
        self.layer, self.gate, self.activation, self.weight = layer, gate, activation, weight
        self.register_buffer("columns", columns)

    def forward(self, x: Tensor) -> Tensor:
        """As the layer's."""
        if self.gate is not None:
            x = x * self._across(self.gate.factors(), x.ndim if isinstance(self.layer, nn.Linear) else 2, x.ndim)
        y: Tensor = torch.func.functional_call(
            self.layer, {"weight": self.weight(self.layer.weight)}, (self.activation(x),)
        )
        return y

    def _across(self, factors: Tensor, axis: int, rank: int) -> Tensor:
        return factors[self.columns].view(*[-1 if i == axis - 1 else 1 for i in range(rank)])

    @torch.no_grad()
    def plain(self) -> Layer:
        """The layer with quantised weights and its gate inside them."""
        weight = self.weight(self.layer.weight)
        if self.gate is not None:
            factors = self.gate.mean * self.gate.opened()
            weight = weight * self._across(factors, 2, weight.ndim)
        self.layer.weight.copy_(weight)
        return self.layer


@dataclass(frozen=True)
class LayerBits:
    """What one layer costs: multiply-adds times bits of weights times bits of activations."""

    layer: str
    inputs: int
    outputs: int
    weight_bits: int
    activation_bits: int
    bops: int


class DJPQ:
    """Gates and quantisers on a model.

    Args:
        model: changed in place: linear and convolution layers are wrapped.
        batch: inputs, to trace the model and to find the range of each layer's activations.
        gamma, beta: weights of the two penalties.
        bits: of all quantisers at the start.
        restricted: bits are powers of two.
        generator: for the gates' noise.

    Raises:
        TrainingError: no such layers, or weights out of range.
        GroupingError: the network has no channels that may leave.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Tensor,
        *,
        gamma: float,
        beta: float,
        generator: torch.Generator,
        bits: int = 8,
        threshold: float = THRESHOLD,
        restricted: bool = False,
    ) -> None:
        if not (gamma >= 0 and beta >= 0 and threshold > 0):
            raise TrainingError(f"need gamma, beta >= 0 and threshold > 0; got {gamma!r}, {beta!r}, {threshold!r}")
        self._model, self._gamma, self._beta, self._finished = model, gamma, beta, False
        batch = batch.to(next(model.parameters(), batch).device)
        network, layers = traced(model, batch[:1]), layers_of(model)
        ranges = _ranges(model, layers, batch)
        self._sizes, self.gates = _sizes(network), {}
        readers = {}
        for group in channel_groups(network):
            if group.removable and group.inner:
                self.gates[group.name] = ChannelGate(len(group.slots), threshold, generator).to(batch.device)
                readers.update(_readers(network, group))
        if not self.gates:
            raise GroupingError(
                "no group of channels lives inside one branch of the network, so there is nothing to put a gate on; "
                "take LearnedQuantiser for bits alone"
            )
        self._writes = {
            _module(network, g.producers[0]): g.name for g in channel_groups(network) if g.name in self.gates
        }
        self._reads = {name: group for name, (group, _) in readers.items()}
        self.layers: dict[str, JointLayer] = {}
        for name, layer in layers.items():
            read, columns = readers.get(name, ("", []))
            largest = float(layer.weight.detach().abs().max())
            self.layers[name] = JointLayer(
                layer, self.gates.get(read), torch.tensor(columns, dtype=torch.long),
                LearnedQuantiser(ranges[name], bits, restricted=restricted),
                LearnedQuantiser(largest, bits, restricted=restricted),
            ).to(batch.device)  # fmt: skip
            _replace(model, name, self.layers[name])

    def penalty(self) -> Tensor:
        """What to add to the loss."""
        information = torch.stack([g.information() for g in self.gates.values()]).sum()
        return self._gamma * information + self._beta * torch.log(self.soft_bops())

    def soft_bops(self) -> Tensor:
        """Bit operations with soft shares and bits: differentiable, equal to `bops` once gates and bits are whole."""
        return torch.stack([self._soft(name) for name in self.layers]).sum()

    def _soft(self, name: str) -> Tensor:
        layer = self.layers[name]
        macs: Tensor = self._sizes[name] * layer.weight.soft_bits() * layer.activation.soft_bits()
        for group in (self._reads.get(name), self._writes.get(name)):
            if group in self.gates:
                macs = macs * self.gates[group].soft_share()
        return macs

    def report(self) -> tuple[LayerBits, ...]:
        """Kept inputs and outputs, bits and bit operations of every layer, first and last included."""
        return tuple(self._report())

    def _report(self) -> Iterator[LayerBits]:
        for name, joint in self.layers.items():
            weight = joint.layer.weight
            inputs = int(joint.gate.opened()[joint.columns].sum()) if joint.gate is not None else weight.shape[1]
            group = self._writes.get(name)
            outputs = int(self.gates[group].opened().sum()) if group in self.gates else weight.shape[0]
            positions = self._sizes[name] // (weight.shape[0] * weight.shape[1])  # kernel size times output positions
            bits = joint.weight.bits(), joint.activation.bits()
            yield LayerBits(name, inputs, outputs, *bits, inputs * outputs * positions * bits[0] * bits[1])

    def bops(self) -> int:
        """Bit operations for one input, all layers counted."""
        return sum(row.bops for row in self._report())

    def float_bops(self) -> int:
        """The same for the whole network at 32 bits."""
        return sum(self._sizes.values()) * 32 * 32

    def finish(self) -> nn.Module:
        """The model with plain layers: quantised weights with the gates inside, activations not quantised.

        Raises:
            ScheduleError: it is finished already.
        """
        if self._finished:
            raise ScheduleError("this model is finished already")
        for name, joint in self.layers.items():
            _replace(self._model, name, joint.plain())
        self._finished = True
        return self._model


def _ranges(model: nn.Module, layers: dict[str, Layer], batch: Tensor) -> dict[str, float]:
    """Largest magnitude that each layer reads on the batch."""
    found: dict[str, float] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, x, name=name: found.__setitem__(name, float(x[0].abs().max())))
        for name, layer in layers.items()
    ]
    training = model.training
    with torch.no_grad():
        model.eval()(batch)
    model.train(training)
    for hook in hooks:
        hook.remove()
    return {name: max(found.get(name, 1.0), 1e-6) for name in layers}


def _module(network: Network, node: str) -> str:
    return network.node(node).parameters["weight"].removesuffix(".weight")


def _sizes(network: Network) -> dict[str, int]:
    """Layer name -> multiply-adds."""
    return {_module(network, name): count for name, count in flops_by_node(network).items()}


def _readers(network: Network, group: ChannelGroup) -> dict[str, tuple[str, list[int]]]:
    """Layer name -> the group it reads, and the slot of each input column; only layers that read nothing else."""
    found = {}
    for consumer in group.consumers:
        columns = network.parameters_of(network.node(consumer.node))["weight"].shape[1]
        slots = {p: slot for slot, positions in enumerate(consumer.positions) for p in positions}
        if set(slots) == set(range(columns)):
            found[_module(network, consumer.node)] = (group.name, [slots[p] for p in range(columns)])
    return found


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
