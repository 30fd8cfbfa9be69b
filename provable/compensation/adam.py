"""Adam in eight lines: `torch.optim` would import a compiler (seconds, and a hundred megabytes).

    m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
    theta <- theta - rate s (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)      s: scale of the tensor, 1 by default

Reference: Kingma & Ba 2015, algorithm 1. Not claimed: descent at every step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FIRST, SECOND, EPSILON = 0.9, 0.999, 1e-8


@dataclass
class Adam:
    """Parameters and their moments, updated in place.

    Attributes:
        parameters: what moves.
        means, squares: running means of gradients and of their squares.
        scales: per tensor, what a rate of 1 means.
        steps: taken so far.
    """

    parameters: tuple[Tensor, ...]
    means: tuple[Tensor, ...]
    squares: tuple[Tensor, ...]
    scales: tuple[float, ...]
    steps: int = 0

    @staticmethod
    def at(parameters: Sequence[Tensor], scales: Sequence[float] | None = None) -> "Adam":
        """At rest."""
        means, squares = (tuple(torch.zeros_like(p) for p in parameters) for _ in range(2))
        return Adam(tuple(parameters), means, squares, tuple(scales or (1.0,) * len(parameters)))

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], rate: float) -> None:
        """One step against the gradients."""
        self.steps += 1
        first, second = 1.0 - FIRST**self.steps, 1.0 - SECOND**self.steps
        for p, g, m, v, s in zip(self.parameters, gradients, self.means, self.squares, self.scales, strict=True):
            m.mul_(FIRST).add_(g, alpha=1.0 - FIRST)
            v.mul_(SECOND).addcmul_(g, g, value=1.0 - SECOND)
            p.addcdiv_(m, (v / second).sqrt_().add_(EPSILON), value=-rate * s / first)


def half_cosine(rate: float, step: int, steps: int) -> float:
    """The rate at a step: it falls from `rate` to zero."""
    return rate * (1.0 + math.cos(math.pi * step / steps)) / 2.0
