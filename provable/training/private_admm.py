"""Privacy-preserving pruning: patterns and connectivity of 3x3 kernels, chosen on random synthetic inputs only.

    layer by layer   min_W E_X || layer_W(X_l) - F_l(X) ||^2,  W in S;  X_l: input through the layers pruned so far
    ADMM             W <- Adam on the loss + rho/2 ||W - Z + U||^2,  Z <- Pi_S(W + U),  U <- U + W - Z
                     rho grows, and U shrinks with it (it is the multiplier divided by rho)
    Pi_S             per kernel the pattern of 4 entries that keeps most of its norm; then the kernels of largest norm

    model, residuals = prune_privately(model, Synthetic((1, 28, 28), 0.0, 1.0), input_range=(0.0, 1.0))   # no data
    fix_zeros(model); ...the client's own loop, on private data...; release_zeros(model)

Reference for the idea: Gong et al., 2020; formulas are this project's reading of it. Theory: theory_notes/training.md.
Not claimed: differential privacy. The designer sees no private input, but sees weights that were trained on them.
"""

import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from provable.errors import SyntheticError, TargetError
from provable.progress import Progress, Silent
from provable.training.masks import exactly_top

ENTRIES = 4  # of a pattern: the centre and three neighbours
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


def patterns() -> Tensor:
    """The library: (56, 3, 3) masks with the centre and three of its eight neighbours."""
    around = [i for i in range(9) if i != 4]
    library = torch.zeros(0, 9)
    for chosen in itertools.combinations(around, ENTRIES - 1):
        mask = torch.zeros(1, 9)
        mask[0, [4, *chosen]] = 1.0
        library = torch.cat([library, mask])
    return library.view(-1, 3, 3)


def project(weight: Tensor, connectivity: float, library: Tensor | None = None) -> Tensor:
    """The nearest weight ``(out, in, 3, 3)`` whose kernels are zero or follow a pattern, a share of them not zero.

    Raises:
        TargetError: kernels of another size, or a share that keeps none or more than all.
    """
    if weight.ndim != 4 or weight.shape[2:] != (3, 3):
        raise TargetError(f"patterns are for 3x3 kernels, this weight has shape {tuple(weight.shape)}")
    kernels = weight.flatten(0, 1)
    kept = round(connectivity * len(kernels))
    if not 1 <= kept <= len(kernels):
        raise TargetError(f"a connectivity of {connectivity!r} keeps {kept} of {len(kernels)} kernels")
    masks = (patterns() if library is None else library).to(weight)
    norms = kernels.square().flatten(1) @ masks.flatten(1).T  # (kernels, patterns)
    best, index = norms.max(dim=1)
    fitted = kernels * masks[index] * exactly_top(best, kept)[:, None, None]
    return fitted.view_as(weight)


def prune_privately(
    model: nn.Module,
    synthetic: Synthetic,
    *,
    input_range: tuple[float, float],
    connectivity: float = 0.5,
    layers: Sequence[str] | None = None,
    count: int = 128,
    iterations: int = 20,
    lr: float = 1e-3,
    progress: Progress | None = None,
) -> tuple[nn.Module, tuple[Residuals, ...]]:
    """A pruned copy of the model, made without any data of its owner.

    Args:
        model: trained by the client; not changed.
        synthetic: what is used instead of data.
        input_range: smallest and largest input of the network, as the client declares it.
        connectivity: share of the kernels of every layer that stay.
        layers: names; default all convolutions with 3x3 kernels and one group.
        count, iterations, lr: synthetic inputs, Adam steps per value of rho, and their rate.
        progress: is told of every layer.

    Raises:
        SyntheticError: the synthetic inputs have another range, or a shape that the model cannot read.
        TargetError: no layer with 3x3 kernels, or a share that keeps none.
    """
    if (synthetic.low, synthetic.high) != tuple(input_range):
        raise SyntheticError(
            f"synthetic inputs lie in [{synthetic.low:g}, {synthetic.high:g}], the network's in "
            f"[{input_range[0]:g}, {input_range[1]:g}]; features outside would be those of another network"
        )
    teacher, student = copy.deepcopy(model).eval(), copy.deepcopy(model).eval()
    names = _three_by_three(student, layers)
    inputs = synthetic.inputs(count).to(next(model.parameters()))
    residuals, told = [], progress or Silent()
    told.stage("layers", len(names))
    for name in names:
        wanted = _at(teacher, name, inputs)[1]
        seen = _at(student, name, inputs)[0]
        layer = student.get_submodule(name)
        if isinstance(layer, nn.Conv2d):
            residuals.append(Residuals(name, _admm(layer, seen, wanted, connectivity, iterations, lr)))
        told.step(name)
    return student.train(model.training), tuple(residuals)


def _three_by_three(model: nn.Module, layers: Sequence[str] | None) -> list[str]:
    fit = [
        n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) and m.groups == 1
    ]
    chosen = fit if layers is None else list(layers)
    wrong = [name for name in chosen if name not in fit]
    if wrong or not chosen:
        raise TargetError(
            f"patterns need ungrouped 3x3 convolutions; {wrong[:1] or 'the model has none'}; it has {fit}"
        )
    return chosen


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
