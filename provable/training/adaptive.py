"""Adaptive channel and layer pruning: how much every layer keeps, and which residual blocks stay, is learnt.

    channels    layer l keeps its k_l = round(r_l n_l) largest |gamma|, r_l = sigmoid(rho_l) trained (straight-through)
    blocks      out = act(shortcut(x) + s branch(x)); |s| < tau closes the block, and the shortcut alone is left
    loss        task + lam (parameters / parameters at the start - target)^2 + blocks_l1 sum |s|

    model = Sequential(..., ResidualGate(branch, nn.Identity(), nn.ReLU()), ...)
    pruner = Adaptive(model, x, target=0.5, lam=10.0)
    ...(loss + pruner.penalty()).backward(); optimizer.step(); pruner.step()...
    model = pruner.finish()

The parameter count in the loss is, in the forward direction, that of the smaller network. Checkpoint: shares and
strengths are in the model's state_dict. The method is known from
an abstract only (no code, no formulas); everything here is this project's design. Theory: theory_notes/training.md.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from provable.channels import ChannelGroup, channel_groups
from provable.errors import ScheduleError, TargetError
from provable.parameter_axes import followed
from provable.training.result import traced
from verify.network.graph import Network

START = 2.0  # rho: r = 0.88
STATISTICS = ("mean", "variance")


class ResidualGate(nn.Module):
    """``activation(shortcut(x) + strength * branch(x))`` until it is closed; then the branch is gone."""

    def __init__(
        self, branch: nn.Module, shortcut: nn.Module, activation: nn.Module, *, threshold: float = 0.05
    ) -> None:
        super().__init__()
        self.branch: nn.Module | None = branch
        self.shortcut, self.activation, self.threshold, self.closed = shortcut, activation, threshold, False
        self.strength = nn.Parameter(torch.ones(()))
        self.register_load_state_dict_post_hook(_restored)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """As described; a closed gate lets gradients through to its strength in training, so that it can reopen."""
        if self.branch is None or (self.closed and not self.training):
            return self._activated(self.shortcut(x))
        strength = self.strength * self.open() if self.training else self.strength
        return self._activated(self.shortcut(x) + strength * self.branch(x))

    def _activated(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(x)
        return y

    def open(self) -> Tensor:
        """1 or 0, with the derivative of a sigmoid."""
        size = self.strength.abs()
        soft = torch.sigmoid((size - self.threshold) / self.threshold)
        return (size >= self.threshold).to(soft) - soft.detach() + soft

    def update(self) -> None:
        """Take note of the strength that training has reached."""
        self.closed = float(self.strength.detach().abs()) < self.threshold


def _restored(gate: nn.Module, _: object) -> None:
    """A checkpoint holds the strength; whether the block is closed follows from it."""
    if isinstance(gate, ResidualGate):
        gate.update()


class ChannelShare(nn.Module):
    """Parametrisation of a norm's scale and shift (or of a layer's rows and bias): the k best channels, k learnt."""

    def __init__(self, score: Tensor, temperature: float) -> None:
        super().__init__()
        self.rho = nn.Parameter(torch.full((), START, dtype=score.dtype, device=score.device))
        self._score, self._temperature, self._size = (score,), temperature, len(score)  # in a tuple: it is not ours

    def forward(self, tensor: Tensor) -> Tensor:
        """The tensor with the rows of the other channels 0."""
        return torch.mul(tensor, self.mask().view(-1, *[1] * (tensor.ndim - 1)))

    def mask(self) -> Tensor:
        """1 for the k channels of largest score, 0 for the others; its derivative reaches rho."""
        score = self._score[0].detach().reshape(self._size, -1).norm(dim=1)
        rank = score.argsort(descending=True, stable=True).argsort(stable=True)
        soft = torch.sigmoid((self.rho.sigmoid() * self._size - rank - 0.5) / self._temperature)
        value: Tensor = (rank < self.count()).to(soft) - soft.detach() + soft
        return value

    def count(self) -> int:
        """k."""
        return min(max(round(float(self.rho.detach().sigmoid()) * self._size), 1), self._size)

    def soft_count(self) -> Tensor:
        """k, with the derivative of r n."""
        share = self.rho.sigmoid() * self._size
        return share - share.detach() + self.count()


class Adaptive:
    """Learnt shares and gates on a model.

    Args:
        model: changed in place; residual blocks that may go are `ResidualGate`s.
        example: one input with a batch axis of 1.
        target: share of the parameters that should be left.
        lam, blocks_l1: weights of the two penalties.
        temperature: how far, in channels, the derivative of a mask reaches.

    Raises:
        TargetError: a share out of range, or one that even single channels and no blocks do not reach.
        GroupingError: the network has no channels that may leave.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Tensor,
        target: float,
        *,
        lam: float = 10.0,
        blocks_l1: float = 1e-3,
        temperature: float = 2.0,
    ) -> None:
        if not 0 < target < 1 or lam <= 0 or blocks_l1 < 0 or temperature <= 0:
            raise TargetError(
                f"need 0 < target < 1, lam > 0, blocks_l1 >= 0, temperature > 0; got target {target!r}, lam {lam!r}, "
                f"blocks_l1 {blocks_l1!r}, temperature {temperature!r}"
            )
        self._model, self._target, self._lam, self._l1 = model, target, lam, blocks_l1
        network = traced(model, example)
        groups = [g for g in channel_groups(network) if g.removable and g.inner]
        self._gates = {name: m for name, m in model.named_modules() if isinstance(m, ResidualGate)}
        self._products = list(_products(network, groups))
        self.start = sum(math.prod(c + sum(m * n for _, m, n in moving) for c, moving in p) for _, p in self._products)
        least = self._least()
        if least > target * self.start:
            raise TargetError(
                f"{target:g} of {self.start} parameters is less than the {least} left with one channel per layer and "
                "no gated block"
            )
        self.shares = {g.name: _attach(model, network, g, temperature) for g in groups}

    def parameters(self) -> Tensor:
        """Parameters of the network as it would be cut now; differentiable."""
        counts = {name: share.soft_count() for name, share in self.shares.items()}
        total = torch.zeros(())
        for key, product in self._products:
            size = torch.ones(())
            for constant, moving in product:
                size = size * sum((m * counts[g] for g, m, _ in moving), torch.tensor(float(constant)))
            for gate in self._around(key):
                size = size * gate.open()
            total = total + size
        return total

    def penalty(self) -> Tensor:
        """What to add to the loss."""
        strengths = sum((g.strength.abs() for g in self._gates.values()), torch.zeros(()))
        return self._lam * (self.parameters() / self.start - self._target) ** 2 + self._l1 * strengths

    def step(self) -> None:
        """After every step of the optimiser."""
        for gate in self._gates.values():
            gate.update()

    def finish(self, *, slack: float = 0.02) -> nn.Module:
        """The model with its masks baked in and closed blocks gone.

        Raises:
            ScheduleError: the share of parameters left is above the target by more than `slack`.
        """
        self.step()
        share = float(self.parameters().detach()) / self.start
        if share > self._target + slack:
            raise ScheduleError(f"{share:.3f} of the parameters are left, the target is {self._target:g}; train longer")
        for module in list(self._model.modules()):
            for name in list(getattr(module, "parametrizations", {})):
                if isinstance(module.parametrizations[name][0], ChannelShare):  # type: ignore[index]
                    parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        for gate in self._gates.values():
            gate.branch = None if gate.closed else gate.branch
        return self._model

    def _around(self, key: str) -> list[ResidualGate]:
        """Gates whose closing removes this parameter."""
        return [g for name, g in self._gates.items() if key == f"{name}.strength" or key.startswith(f"{name}.branch.")]

    def _least(self) -> int:
        kept = [p for key, p in self._products if not self._around(key)]
        return sum(math.prod(c + sum(m for _, m, _ in moving) for c, moving in p) for p in kept)


Factor = tuple[int, list[tuple[str, int, int]]]  # constant, and (group, positions per slot, slots) of what may leave


def _products(network: Network, groups: list[ChannelGroup]) -> Iterator[tuple[str, list[Factor]]]:
    """Parameter key -> one factor per axis; batch norm's running statistics are no parameters."""
    axes = {value: axis for group in groups for value, axis in group.axes.items()}
    seen: set[str] = set()
    for node in network:
        for role, values in followed(network, node, axes).items():
            key = node.parameters[role]
            if key not in seen and not (node.op == "batch_norm" and role in STATISTICS):
                seen.add(key)
                shape = network.parameters[key].shape
                yield key, [_factor(groups, value, n) for value, n in zip(values, shape, strict=True)]


def _factor(groups: list[ChannelGroup], value: str | None, size: int) -> Factor:
    moving = []
    for group in groups:
        positions = sum(p < size for p in group.slots[0].positions.get(value or "", ()))
        if positions:
            moving.append((group.name, positions, len(group.slots)))
    return size - sum(m * n for _, m, n in moving), moving


def _attach(model: nn.Module, network: Network, group: ChannelGroup, temperature: float) -> ChannelShare:
    """One share per group, on its last norm, or on its producer where it has none."""
    node = network.node(group.norms[-1] if group.norms else group.producers[0])
    holder = model.get_submodule(node.parameters["weight"].rpartition(".")[0])
    score: Tensor = holder.weight  # type: ignore[assignment]
    share = ChannelShare(score, temperature)
    for role in ("weight", "bias"):
        if getattr(holder, role, None) is not None:
            parametrize.register_parametrization(holder, role, share)
    return share
