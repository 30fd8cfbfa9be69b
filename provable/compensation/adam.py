"""Adam in eight lines: `torch.optim` would import a compiler (seconds, and a hundred megabytes).

    m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
    theta <- theta - rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

Reference: Kingma & Ba 2015, algorithm 1. Not claimed: descent at every step.
"""

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
        steps: taken so far.
    """

    parameters: tuple[Tensor, ...]
    means: tuple[Tensor, ...]
    squares: tuple[Tensor, ...]
    steps: int = 0

    @staticmethod
    def at(parameters: Sequence[Tensor]) -> "Adam":
        """At rest."""
        means, squares = (tuple(torch.zeros_like(p) for p in parameters) for _ in range(2))
        return Adam(tuple(parameters), means, squares)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], rate: float) -> None:
        """One step against the gradients."""
        self.steps += 1
        first, second = 1.0 - FIRST**self.steps, 1.0 - SECOND**self.steps
        for p, g, m, v in zip(self.parameters, gradients, self.means, self.squares, strict=True):
            m.mul_(FIRST).add_(g, alpha=1.0 - FIRST)
            v.mul_(SECOND).addcmul_(g, g, value=1.0 - SECOND)
            p.addcdiv_(m, (v / second).sqrt_().add_(EPSILON), value=-rate / first)
