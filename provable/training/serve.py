"""What an optimiser of this package refuses to serve, in one place so that all refuse in the same words."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from provable.errors import TrainingError


def refuse_closure(optimizer: Optimizer, closure: Callable[[], float] | None) -> None:
    """These rules use one gradient per step, which is already there.

    Raises:
        TrainingError: a closure was given.
    """
    if closure is not None:
        raise TrainingError(
            f"{type(optimizer).__name__}.step takes no closure: compute the loss, call backward(), then step()"
        )


def clock(method: str, state: Mapping[str, Any], *names: str) -> tuple[float, ...]:
    """The numbers of a method's own state_dict, in the order of the names.

    Raises:
        TrainingError: it is the state of something else.
    """
    if set(state) != set(names) or not all(isinstance(state[n], int | float) and state[n] >= 0 for n in names):
        raise TrainingError(
            f"this is not a state of {method}: it needs {', '.join(names)}, and was given {dict(state)!r}"
        )
    return tuple(state[name] for name in names)


def check_options(group: Mapping[str, Any], *names: str) -> None:
    """Options are finite and not negative; momentum is below 1.

    Raises:
        TrainingError: one is not.
    """
    for name in names:
        value = group[name]
        if not 0 <= value < (1 if name == "momentum" else float("inf")):
            raise TrainingError(f"{name} must be finite, at least 0{', below 1' * (name == 'momentum')}; got {value!r}")
    for p in group["params"]:
        if not p.is_floating_point():
            raise TrainingError(f"a parameter of type {p.dtype} and shape {tuple(p.shape)}; only real ones are served")


def dense_gradient(optimizer: Optimizer, name: str, parameter: Tensor) -> Tensor | None:
    """The gradient, or None where there is none.

    Raises:
        TrainingError: it is sparse, or not finite.
    """
    gradient = parameter.grad
    if gradient is None:
        return None
    if gradient.is_sparse:
        raise TrainingError(f"{type(optimizer).__name__} serves no sparse gradients; {name!r} has one")
    if not bool(torch.isfinite(gradient).all()):
        raise TrainingError(f"the gradient of {name!r} is not finite; lower the learning rate or clip it")
    return gradient
