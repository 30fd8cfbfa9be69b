"""Global sparse momentum: every step only the Q most useful weights of the whole network follow the objective.

    metric_i = |w_i dL/dw_i| over all matrices and kernels,  mask = 1 at its Q largest,  Q = int(nonzero_ratio #weights)
    v <- beta v + eta w + mask dL/dw,   w <- w - lr v

Weights that are not selected only decay; after training the Q largest stay and the cut is nearly free. How many each
layer keeps is an outcome.

    optimizer = GSM(model.named_parameters(), lr=5e-3, nonzero_ratio=0.1)
    ...your loop...
    optimizer.prune()

Reference: Ding et al., Global Sparse Momentum SGD, NeurIPS 2019. Theory: theory_notes/training.md.
Parameters with fewer than two axes are not ranked and follow the objective. Not claimed: anything about accuracy.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from provable.errors import TargetError
from provable.training.contraction import vanishing_steps
from provable.training.masks import exactly_top
from provable.training.serve import check_options, dense_gradient, refuse_closure


class GSM(Optimizer):
    """SGD with momentum whose objective gradient reaches Q weights per step.

    Args:
        params: parameters or parameter groups, as for any torch optimiser.
        lr, momentum, weight_decay: as in SGD; the decay must be positive, it is what prunes.
        nonzero_ratio: share of the ranked weights that stay, one number for the whole network.

    Raises:
        TrainingError: options out of range.
        TargetError: no weight, or every weight, would stay.
        ScheduleError: options under which weights that are not selected never vanish.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        nonzero_ratio: float,
        momentum: float = 0.98,
        weight_decay: float = 1e-4,
    ) -> None:
        if not 0 < nonzero_ratio < 1:
            raise TargetError(f"nonzero_ratio must lie strictly between 0 and 1, got {nonzero_ratio!r}")
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nonzero_ratio": nonzero_ratio}
        super().__init__(params, defaults)
        if len({group["nonzero_ratio"] for group in self.param_groups}) > 1:
            raise TargetError("nonzero_ratio is one number for the whole network; parameter groups differ in it")
        if self.count < 1:
            raise TargetError(
                f"nonzero_ratio {nonzero_ratio:g} of {self._size} weights with two or more axes is none; pass the "
                f"weights of layers, and a ratio that keeps one of them"
            )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; refuses a group that the rule cannot serve."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        check_options(group, "lr", "momentum", "weight_decay")
        if any(map(_ranked, group["params"])):
            passive_steps(**{name: group[name] for name in ("lr", "weight_decay", "momentum")})

    @property
    def count(self) -> int:
        """Q: how many weights receive the gradient per step, and stay in the end."""
        return int(self.param_groups[0]["nonzero_ratio"] * self._size)

    @property
    def _size(self) -> int:
        return sum(p.numel() for p in self._matrices())

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update from the gradients at hand.

        Raises:
            TrainingError: a closure, or a gradient that is sparse or not finite.
        """
        refuse_closure(self, closure)
        gradients = {p: dense_gradient(self, name, p) for name, p in self._named()}
        masks = self._chosen([_metric(p, gradients[p]) for p in self._matrices()])
        for group in self.param_groups:
            for p in group["params"]:
                gradient = gradients[p]
                if gradient is not None:
                    self._move(group, p, gradient * masks[p] if p in masks else gradient)

    def _move(self, group: dict[str, Any], p: Tensor, gradient: Tensor) -> None:
        velocity = self.state[p].setdefault("velocity", torch.zeros_like(p))
        velocity.mul_(group["momentum"]).add_(p, alpha=group["weight_decay"]).add_(gradient)
        p.sub_(velocity, alpha=group["lr"])

    @torch.no_grad()
    def prune(self) -> list[float]:
        """Zero all ranked weights but the Q largest; the share of zeros of every ranked parameter, in their order."""
        masks = self._chosen([p.abs().flatten() for p in self._matrices()])
        for p, mask in masks.items():
            p.mul_(mask)
        return [float((mask == 0).double().mean()) for mask in masks.values()]

    def _chosen(self, scores: list[Tensor]) -> dict[Tensor, Tensor]:
        """Parameter -> mask of its weights among the Q best of the network."""
        matrices = self._matrices()
        best = exactly_top(torch.cat([s.to(matrices[0].device) for s in scores]), self.count)
        parts = torch.split(best, [p.numel() for p in matrices])
        return {p: part.view_as(p).to(p) for p, part in zip(matrices, parts, strict=True)}

    def _all(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        """Names where the caller gave any, for messages; else the place in the parameter groups."""
        for i, group in enumerate(self.param_groups):
            places = [f"parameter {j} of group {i}" for j in range(len(group["params"]))]
            yield from zip(group.get("param_names", places), group["params"], strict=True)

    def _matrices(self) -> list[Tensor]:
        return [p for p in self._all() if _ranked(p)]


def passive_steps(*, lr: float, weight_decay: float, momentum: float = 0.98, to: float = 1e-3) -> int:
    """Steps after which a weight that is never selected is `to` times its start, asymptotically.

    Raises:
        ScheduleError: it never gets there.
    """
    return vanishing_steps(
        "a weight that is never selected", lr=lr, pull="weight_decay", size=weight_decay, momentum=momentum, to=to
    )


def _ranked(parameter: Tensor) -> bool:
    return parameter.ndim >= 2


def _metric(parameter: Tensor, gradient: Tensor | None) -> Tensor:
    return torch.zeros_like(parameter).flatten() if gradient is None else (parameter * gradient).abs().flatten()
