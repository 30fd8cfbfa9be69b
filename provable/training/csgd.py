"""Centripetal SGD: filters of one cluster are trained to become identical, so that all but one can be trimmed.

    g_j = mean over the cluster of dL/dF_k + eta F_j + eps (F_j - mean over the cluster of F_k)
    v <- beta v + g,   F <- F - lr v

The objective moves a cluster as one; the last term pulls its members together. Without momentum the distance of a
member from its cluster's mean shrinks by exactly 1 - lr (eta + eps) per step, whatever the loss.

    plan = collapse_plan(trace(model, x), groups, keep=0.5, generator=np.random.default_rng(0))
    optimizer = CSGD(model.named_parameters(), plan, lr=0.03, strength=0.1)
    ...your loop...
    result = trim(model, plan, x)

Reference: Ding, Ding, Guo & Han, CVPR 2019. Theory: theory_notes/training.md. Differences from the published code: the
strength is the same for all parameters unless a parameter group sets its own. Not claimed: anything about accuracy.
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from provable.errors import TrainingError
from provable.training.clusters import Collapse, CollapsePlan
from provable.training.contraction import vanishing_steps
from provable.training.serve import check_options, dense_gradient, refuse_closure


class CSGD(Optimizer):
    """SGD under which the filters of a cluster collapse.

    Args:
        params: `model.named_parameters()`, or parameter groups with such pairs: the plan speaks of names.
        plan: which rows become identical.
        lr, momentum, weight_decay: as in SGD; the decay is part of the centripetal rule.
        strength: eps, how hard members are pulled to their mean. Options may differ between parameter groups.

    Raises:
        TrainingError: parameters without names, a plan that speaks of others, options out of range.
        ScheduleError: options under which the members of a cluster never come together.
    """

    def __init__(
        self,
        params: Iterable[Any],
        plan: CollapsePlan,
        *,
        lr: float,
        strength: float,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
    ) -> None:
        defaults = {
            "lr": lr, "strength": strength, "momentum": momentum, "weight_decay": weight_decay, "plan": _digest(plan),
        }  # fmt: skip
        self._plan = plan
        self._rows: dict[str, tuple[Tensor, Tensor]] = {}
        super().__init__(params, defaults)
        held = {name for group in self.param_groups for name in group["param_names"]}
        absent = sorted(key for key, c in plan.collapses.items() if c.trained and key not in held)
        if absent:
            raise TrainingError(f"the plan makes rows of {absent[0]!r} identical, which no parameter group holds")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; refuses a group that the rule cannot serve."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if "param_names" not in group:
            raise TrainingError("CSGD needs names: pass model.named_parameters(), not model.parameters()")
        check_options(group, "lr", "strength", "momentum", "weight_decay")
        pulled = [name for name in group["param_names"] if name in self._plan.collapses]
        if pulled:
            collapse_steps(**{name: group[name] for name in ("lr", "strength", "weight_decay", "momentum")})
        for name, p in zip(group["param_names"], group["params"], strict=True):
            collapse = self._plan.collapses.get(name)
            if collapse and p.shape[collapse.axis] != len(collapse.labels):
                raise TrainingError(
                    f"the plan has {len(collapse.labels)} rows for {name!r}, whose shape is {tuple(p.shape)}"
                )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's.

        Raises:
            TrainingError: the state belongs to other clusters.
        """
        if any(group.get("plan") != _digest(self._plan) for group in state_dict["param_groups"]):
            raise TrainingError("this state was saved with other clusters; build the optimiser with the plan it had")
        super().load_state_dict(state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update from the gradients at hand.

        Raises:
            TrainingError: a closure, or a gradient that is sparse.
        """
        refuse_closure(self, closure)
        for group in self.param_groups:
            for name, p in zip(group["param_names"], group["params"], strict=True):
                gradient = dense_gradient(self, name, p)
                if gradient is not None:
                    self._move(group, name, p, gradient)

    def _move(self, group: dict[str, Any], name: str, p: Tensor, gradient: Tensor) -> None:
        collapse = self._plan.collapses.get(name)
        if collapse is None:
            direction = gradient + group["weight_decay"] * p
        else:
            rows = self._rows_of(name, collapse, p.device)
            pull = group["weight_decay"] * p + group["strength"] * (p - _mean(p, collapse.axis, *rows))
            direction = _mean(gradient, collapse.axis, *rows) + pull
        if group["momentum"]:
            velocity = self.state[p].setdefault("velocity", torch.zeros_like(p))
            direction = velocity.mul_(group["momentum"]).add_(direction)
        p.sub_(direction, alpha=group["lr"])

    def _rows_of(self, name: str, collapse: Collapse, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cluster of every row, and the sizes of the clusters; made once per parameter."""
        if name not in self._rows or self._rows[name][0].device != device:
            inverse = np.unique(collapse.labels, return_inverse=True)[1]
            labels = torch.from_numpy(inverse).to(device)
            self._rows[name] = (labels, torch.bincount(labels))
        return self._rows[name]


def collapse_steps(
    *, lr: float, strength: float, weight_decay: float = 1e-4, momentum: float = 0.0, to: float = 1e-6
) -> int:
    """Steps after which the within-cluster deviation is `to` times its start (with momentum: asymptotically).

    Raises:
        ScheduleError: the deviation never gets there.
    """
    return vanishing_steps(
        "the distance within a cluster", lr=lr, pull="strength + weight_decay", size=strength + weight_decay,
        momentum=momentum, to=to,
    )  # fmt: skip


def _mean(tensor: Tensor, axis: int, labels: Tensor, sizes: Tensor) -> Tensor:
    """Every row replaced by the mean of its cluster's rows."""
    shape = [1] * tensor.ndim
    shape[axis] = -1
    sums = torch.zeros_like(tensor).index_add_(axis, labels, tensor).narrow(axis, 0, len(sizes))
    return (sums / sizes.to(tensor.dtype).view(shape)).index_select(axis, labels)


def _digest(plan: CollapsePlan) -> str:
    rows = sorted((key, c.axis, c.labels) for key, c in plan.collapses.items())
    return hashlib.sha256(repr(rows).encode()).hexdigest()
