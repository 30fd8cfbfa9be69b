"""Masks on weights: which layers carry them, exactly how many entries stay, and a mask that training cannot undo."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from provable.errors import TrainingError

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
Made = TypeVar("Made", bound=nn.Module)


class FixedMask(nn.Module):
    """Parametrisation: the weight times a constant mask; masked entries are 0 and get no gradient."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight where the mask is 1, exactly 0 elsewhere."""
        return torch.where(self.mask.bool(), weight, torch.zeros_like(weight))


def layers_of(model: nn.Module, names: Sequence[str] | None = None) -> dict[str, Layer]:
    """Name -> linear or convolution layer, in module order; all of them, or those named.

    Raises:
        TrainingError: a name that is no such layer, a layer whose weight is parametrised already, or none at all.
    """
    found = {name: m for name, m in model.named_modules() if isinstance(m, Layer)}
    chosen = list(found) if names is None else list(names)
    unknown = [name for name in chosen if name not in found]
    if unknown or not chosen:
        what = f"no linear or convolution layer {unknown[0]!r}" if unknown else "no layer to prune"
        raise TrainingError(f"{what}; the model has {', '.join(map(repr, found)) or 'none'}")
    busy = [name for name in chosen if parametrize.is_parametrized(found[name], "weight")]
    if busy:
        raise TrainingError(f"the weight of {busy[0]!r} is parametrised already; finish that method first")
    return {name: found[name] for name in chosen}


def attach(layers: dict[str, Layer], make: Callable[[str, Layer], Made]) -> dict[str, Made]:
    """Put a parametrisation on the weight of every layer; layer name -> what was made for it."""
    made = {name: make(name, layer) for name, layer in layers.items()}
    for name, layer in layers.items():
        parametrize.register_parametrization(layer, "weight", made[name])
    return made


def dense_weight(layer: Layer) -> Tensor:
    """The parameter behind a parametrised weight: what the optimiser moves."""
    original: Tensor = layer.parametrizations["weight"].original  # type: ignore[index, union-attr]
    return original


def bake(model: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """Make what the parametrisations of that kind compute in evaluation mode the weights themselves, in place."""
    training = model.training
    model.eval()
    for layer in list(model.modules()):
        chain = getattr(layer, "parametrizations", None)
        if isinstance(layer, Layer) and chain is not None and isinstance(chain["weight"][0], kind):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return model.train(training)


def fix_zeros(model: nn.Module, names: Sequence[str] | None = None) -> nn.Module:
    """Freeze the zeros of the weights, in place: retraining moves the other entries only. `release_zeros` undoes it."""
    attach(layers_of(model, names), lambda name, layer: FixedMask((layer.weight.detach() != 0).to(layer.weight.dtype)))
    return model


def release_zeros(model: nn.Module) -> nn.Module:
    """Take the fixed masks off, in place; the zeros stay."""
    return bake(model, FixedMask)


def exactly_top(scores: Tensor, count: int) -> Tensor:
    """True at the `count` largest of every row ``(..., n)``; ties go to the first positions, so exactly `count`."""
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = scores.kthvalue(scores.shape[-1] - count + 1, dim=-1, keepdim=True).values
    reached = scores >= threshold
    if int(reached.sum()) == count * (scores.numel() // scores.shape[-1]):  # no ties: the usual case, and the quick one
        return reached
    above, tied = scores > threshold, scores == threshold
    missing = count - above.sum(dim=-1, keepdim=True)
    return above | (tied & (tied.cumsum(dim=-1) <= missing))


def sparsity(model: nn.Module, names: Sequence[str] | None = None) -> dict[str, float]:
    """Layer name -> share of zero weights."""
    layers = {n: m for n, m in model.named_modules() if isinstance(m, Layer) and (names is None or n in names)}
    return {name: float((layer.weight == 0).double().mean()) for name, layer in layers.items()}
