"""Privacy-preserving pruning: patterns and connectivity of 3x3 kernels, chosen on random synthetic inputs only.

    layer by layer   min_W E_X || layer_W(X_l) - F_l(X) ||^2,  W in S;  X_l: input through the layers pruned so far
    ADMM             W <- Adam on the loss + rho/2 ||W - Z + U||^2,  Z <- Pi_S(W + U),  U <- U + W - Z
                     rho grows, and U shrinks with it (it is the multiplier divided by rho); Pi_S: patterns.py

    pruner = PrivateADMM(model, Synthetic((1, 28, 28), 0.0, 1.0), input_range=(0.0, 1.0))   # no data
    model = pruner.run()                                              # or step() by step(), and state_dict() in between
    fix_zeros(model); ...the client's own loop, on private data...; release_zeros(model)

Reference for the idea: Gong et al., 2020; formulas are this project's reading of it. Theory: theory_notes/training.md.
Not claimed: differential privacy. The designer sees no private input, but sees weights that were trained on them.
"""

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from provable.errors import ScheduleError, SyntheticError, TargetError, TrainingError
from provable.progress import Progress, Silent
from provable.training.patterns import project

RHO = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)  # relative to the spread of the layer's output


@dataclass(frozen=True)
class Synthetic:
    """Inputs that nobody owns: pixels i.i.d. uniform on equally spaced levels.

    Attributes:
        shape: of one input.
        low, high: the smallest and the largest level.
        levels: how many there are.
        seed: of the generator.
    """

    shape: tuple[int, ...]
    low: float
    high: float
    levels: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise SyntheticError(f"synthetic inputs need finite low < high, got {self.low!r} and {self.high!r}")
        if self.levels < 2 or not self.shape or min(self.shape) < 1:
            raise SyntheticError(f"need at least 2 levels and a shape, got {self.levels!r} and {self.shape!r}")

    def inputs(self, count: int) -> Tensor:
        """(count, *shape) float32, the same at every call."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randint(self.levels, (count, *self.shape), generator=generator)
        return self.low + drawn.float() * ((self.high - self.low) / (self.levels - 1))


@dataclass(frozen=True)
class Residuals:
    """How a layer converged: ||W - Z|| / ||W|| after every value of rho."""

    layer: str
    primal: tuple[float, ...]


class PrivateADMM:
    """A copy of a model whose layers are pruned one after the other, without any data of its owner.

    Args:
        model: trained by the client; not changed. Everything is computed where it is.
        synthetic: what is used instead of data.
        input_range: smallest and largest input of the network, as the client declares it.
        connectivity: share of the kernels of every layer that stay.
        layers: names; default all convolutions with 3x3 kernels and one group.
        count, iterations, lr: synthetic inputs, Adam steps per value of rho, and their rate.

    Raises:
        SyntheticError: the synthetic inputs have another range, or a shape that the model cannot read, or are none.
        TargetError: no layer with 3x3 kernels, or a share that keeps none.
        ScheduleError: no steps, or steps that move nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        synthetic: Synthetic,
        *,
        input_range: tuple[float, float],
        connectivity: float = 0.5,
        layers: Sequence[str] | None = None,
        count: int = 128,
        iterations: int = 20,
        lr: float = 1e-3,
    ) -> None:
        _check(synthetic, tuple(input_range), count, iterations, lr)
        self._teacher, self._student = (copy.deepcopy(model).eval() for _ in range(2))
        self._training = model.training
        self._student.requires_grad_(True)
        self._layers = _three_by_three(self._student, layers)
        for layer in self._layers.values():
            project(layer.weight.detach(), connectivity)  # refuses the share before anything is computed
        self._inputs = synthetic.inputs(count).to(next(model.parameters()))
        self._connectivity, self._iterations, self._lr = connectivity, iterations, lr
        self._found: dict[str, Residuals] = {}

    @property
    def left(self) -> tuple[str, ...]:
        """Layers that are still to be pruned, in their order."""
        return tuple(name for name in self._layers if name not in self._found)

    @property
    def done(self) -> bool:
        """Whether every layer is pruned."""
        return not self.left

    @property
    def residuals(self) -> tuple[Residuals, ...]:
        """Of the layers pruned so far."""
        return tuple(self._found.values())

    def step(self) -> None:
        """Prune the next layer, on what the layers before it now compute.

        Raises:
            ScheduleError: there is none left.
        """
        if self.done:
            raise ScheduleError(f"all {len(self._layers)} layers are pruned; call finish()")
        name = self.left[0]
        wanted = _at(self._teacher, name, self._inputs)[1]
        seen = _at(self._student, name, self._inputs)[0]
        primal = _admm(self._layers[name], seen, wanted, self._connectivity, self._iterations, self._lr)
        self._found[name] = Residuals(name, primal)

    def run(self, progress: Progress | None = None) -> nn.Module:
        """Prune all layers that are left; the pruned copy. `progress` is told of every layer."""
        told = progress or Silent()
        told.stage("layers", len(self.left))
        while not self.done:
            name = self.left[0]
            self.step()
            told.step(name)
        return self.finish()

    def finish(self) -> nn.Module:
        """The pruned copy.

        Raises:
            ScheduleError: a layer is still to be pruned.
        """
        if not self.done:
            raise ScheduleError(f"layer {self.left[0]!r} is not pruned yet, {len(self.left)} are left; step() on")
        return self._student.train(self._training)

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Weights and residuals of the layers pruned so far."""
        weights = {name: self._layers[name].weight.detach().clone() for name in self._found}
        return {"weights": weights, "primal": {name: list(found.primal) for name, found in self._found.items()}}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Continue where `state_dict` was taken, with the same model and arguments.

        Raises:
            TrainingError: the state of something else.
        """
        weights, primal = state.get("weights", {}), state.get("primal", {})
        pruned = tuple(self._layers)[: len(weights)]
        fitting = [n for n in pruned if n in weights and weights[n].shape == self._layers[n].weight.shape]
        if set(state) != {"weights", "primal"} or set(primal) != set(weights) or len(fitting) != len(weights):
            raise TrainingError(
                "this is not a state of PrivateADMM for these layers: it needs 'weights' and 'primal' of the first of "
                f"{', '.join(self._layers)}, and was given {', '.join(map(str, weights)) or 'none'}"
            )
        for name in fitting:
            with torch.no_grad():
                self._layers[name].weight.copy_(weights[name])
        self._found = {name: Residuals(name, tuple(primal[name])) for name in fitting}


def _check(synthetic: Synthetic, declared: tuple[float, ...], count: int, iterations: int, lr: float) -> None:
    if (synthetic.low, synthetic.high) != declared:
        raise SyntheticError(
            f"synthetic inputs lie in [{synthetic.low:g}, {synthetic.high:g}], the network's in "
            f"[{', '.join(f'{end:g}' for end in declared)}]; features outside would be those of another network"
        )
    if count < 1:
        raise SyntheticError(f"need at least one synthetic input, got count {count!r}")
    if iterations < 1 or not 0 < lr < math.inf:
        raise ScheduleError(
            f"with iterations {iterations!r} and lr {lr!r} the weights never come near their projection; take "
            "iterations >= 1 and a positive, finite lr"
        )


def _three_by_three(model: nn.Module, layers: Sequence[str] | None) -> dict[str, nn.Conv2d]:
    found = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    fit = {name: m for name, m in found.items() if m.kernel_size == (3, 3) and m.groups == 1}
    chosen = list(fit if layers is None else layers)
    wrong = [name for name in chosen if name not in fit]
    if wrong or not chosen:
        what = f"{wrong[0]!r} is none" if wrong else "the model has none"
        raise TargetError(f"patterns need ungrouped 3x3 convolutions; {what}; it has {', '.join(fit) or 'no other'}")
    return {name: fit[name] for name in chosen}


@torch.no_grad()
def _at(model: nn.Module, name: str, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """What the layer reads and what it computes."""
    found: list[tuple[Tensor, Tensor]] = []
    hook = model.get_submodule(name).register_forward_hook(lambda _, x, y: found.append((x[0], y)))
    try:
        model(inputs)
    except RuntimeError as error:
        raise SyntheticError(f"the model cannot read inputs of shape {tuple(inputs.shape[1:])}: {error}") from None
    finally:
        hook.remove()
    return found[-1]


def _admm(
    layer: nn.Conv2d, seen: Tensor, wanted: Tensor, connectivity: float, iterations: int, lr: float
) -> tuple[float, ...]:
    """Prune one layer in place; the primal residual after every value of rho."""
    weight = layer.weight
    projected = project(weight.detach(), connectivity)
    dual = torch.zeros_like(weight)
    scale = wanted.var() + 1e-12
    optimizer, primal = torch.optim.Adam([weight], lr=lr), []
    for previous, rho in itertools.pairwise((RHO[0], *RHO)):
        dual = dual * (previous / rho)
        for _ in range(iterations):
            optimizer.zero_grad()
            loss = (layer(seen) - wanted).square().mean() / scale
            (loss + rho / 2 * (weight - projected + dual).square().sum()).backward()
            optimizer.step()
        with torch.no_grad():
            projected = project(weight + dual, connectivity)
            dual = dual + weight - projected
            primal.append(float((weight - projected).norm() / weight.norm()))
    with torch.no_grad():
        weight.copy_(projected)
    weight.grad = None
    return tuple(primal)
