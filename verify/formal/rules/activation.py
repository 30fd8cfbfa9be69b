"""Rules of activations: each says in `verify.network.operations.activations` how it is composed, bounds follow.

Intervals, affine forms of both networks, their difference and backward planes come from three pieces: weighted sums,
ReLU and curves. Theory: theory_notes/differential_zonotope.md, sections 4 and 5.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verify.formal.maps import Diagonal, identity
from verify.formal.rules.rule import Affine, AffineStep, Arithmetic, Compiled, Curve, Rule, Site
from verify.network.operations.activations import ACTIVATIONS
from verify.network.operations.activations.activation import Activation
from verify.network.operations.activations.activation import Curve as Function


class ActivationRule(Rule):
    """An activation of the table."""

    def __init__(self, activation: Activation) -> None:
        self.name, self.activation = activation.name, activation

    def compile(self, site: Site) -> Compiled:
        plan, node = _Plan(site), site.first
        self.activation.bound(node, plan, None)
        return lambda arithmetic, inputs: self.activation.bound(node, _Bounds(arithmetic, iter(plan.sums)), inputs[0])


@dataclass(frozen=True)
class _Plan:
    """Bounds of nothing: collects the weighted sums that an activation is going to ask for, in order."""

    site: Site
    sums: list[AffineStep] = field(default_factory=list)

    def weighted_sum(self, factors: Sequence[Fraction], values: Sequence[None], shift: Fraction) -> None:
        self.sums.append(scaled_sum(self.site, self.site.first.name, [float(f) for f in factors], float(shift)))

    def relu(self, value: None) -> None:
        pass

    def curve(self, function: Function, value: None) -> None:
        pass


@dataclass(frozen=True)
class _Bounds:
    """Bounds by an arithmetic, with the weighted sums of the plan."""

    arithmetic: Arithmetic[Any]
    sums: Iterator[AffineStep]

    def weighted_sum(self, factors: Sequence[Fraction], values: Sequence[Any], shift: Fraction) -> Any:
        return self.arithmetic.affine(next(self.sums), values)

    def relu(self, value: Any) -> Any:
        return self.arithmetic.relu(value)

    def curve(self, function: Function, value: Any) -> Any:
        return self.arithmetic.curve(_OnTensors(function), value)


@dataclass(frozen=True)
class _OnTensors(Curve):
    """A curve of the table, on tensors."""

    function: Function

    def values(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        with np.errstate(all="ignore"):  # what is not finite proves nothing later on
            low, high = self.function.values(lower.numpy(), upper.numpy())
        return torch.from_numpy(low), torch.from_numpy(high)

    def derivatives(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        with np.errstate(all="ignore"):
            low, high = self.function.derivatives(lower.numpy(), upper.numpy())
        return torch.from_numpy(low), torch.from_numpy(high)


def scaled_sum(site: Site, name: str, factors: Sequence[float], shift: float) -> AffineStep:
    """``sum_i factors[i] x_i + shift`` for inputs shaped like value `name`; `shift` is exact, a factor rounded once."""
    sides = []
    for side, node in site.sides:
        size = side.size(node.name)
        maps = tuple(
            identity(size) if f == 1.0 else Diagonal(torch.full((size,), f, dtype=torch.float64), size) for f in factors
        )
        sides.append(Affine(maps, torch.full((size,), shift, dtype=torch.float64) if shift else None))
    return AffineStep(sides[0], sides[1] if len(sides) == 2 else None, None, site.kept(name))


ACTIVATION_RULES: tuple[Rule, ...] = tuple(ActivationRule(activation) for activation in ACTIVATIONS)
