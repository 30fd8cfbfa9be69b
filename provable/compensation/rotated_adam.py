"""Adam in the eigenbases of the gradients' second moments: what a layer's directions need, no weight alone can see.

For a weight matrix W (rows x columns; a convolution's columns are channels x kernel positions) and its gradients G

    A <- b A + (1 - b) G G^T,    B <- b B + (1 - b) G^T G,      P, Q: eigenvectors of A, B, renewed now and then
    Adam on P^T G Q, its step turned back:    W <- W - rate s P (m / (sqrt(v) + eps)) Q^T

Inputs of a layer are correlated, more so after least squares has used every one of them; in the eigenbasis the
objective is nearly separable, which is what Adam's rates per entry are made for. Vectors, and sides longer than
`LONGEST`, are not turned.

Reference: Vyas et al. 2025 (SOAP: improving and stabilizing Shampoo using Adam), moments kept in the turned basis and
turned along when it is renewed. Theory: theory_notes/refinement.md. Not claimed: descent at every step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FIRST, SECOND = 0.9, 0.99
EPSILON, TINY = 1e-4, 1e-30
"""Relative to the root mean square of sqrt(v) over the matrix: directions that only rounding moves must not move."""
SHARE, EVERY = 0.05, 4
"""Weight of a new gradient in A and B, and how often one enters; in the first `EARLY` steps all do."""
EARLY, RENEWED = 32, 100
"""Bases are renewed at the steps 1, 8 and `EARLY`, and then every `RENEWED` steps."""
LONGEST = 1024


@dataclass
class _Matrix:
    """One parameter and its state, as a matrix; a side that is not turned has no entry.

    Attributes:
        parameter: what moves.
        scale: what a rate of 1 means.
        mean, square: Adam's moments in the basis.
        moments: side (0 or 1) -> A or B.
        bases: side -> P or Q.
    """

    parameter: Tensor
    scale: float
    mean: Tensor
    square: Tensor
    moments: dict[int, Tensor]
    bases: dict[int, Tensor]

    @staticmethod
    def at(parameter: Tensor, scale: float) -> "_Matrix":
        flat = _flat(parameter.detach())
        sides = [side for side in (0, 1) if parameter.dim() > 1 and 1 < flat.shape[side] <= LONGEST]
        moments = {side: flat.new_zeros(flat.shape[side], flat.shape[side]) for side in sides}
        bases = {side: torch.eye(flat.shape[side]) for side in sides}
        return _Matrix(parameter, scale, torch.zeros_like(flat), torch.zeros_like(flat), moments, bases)

    def state(self) -> dict[str, Tensor]:
        """Everything but the parameter."""
        found = {"mean": self.mean, "square": self.square}
        found |= {f"moment{side}": value for side, value in self.moments.items()}
        return found | {f"basis{side}": value for side, value in self.bases.items()}

    def turned(self, value: Tensor, *, back: bool = False) -> Tensor:
        """Into the basis, or out of it."""
        if 0 in self.bases:
            value = (self.bases[0] if back else self.bases[0].T) @ value
        return value @ (self.bases[1].T if back else self.bases[1]) if 1 in self.bases else value

    def saw(self, gradient: Tensor) -> None:
        """A gradient enters the second moments."""
        for side, moment in self.moments.items():
            product = gradient @ gradient.T if side == 0 else gradient.T @ gradient
            moment.lerp_(product, SHARE)

    def renew(self) -> None:
        """New bases, the mean turned along; the old ones stay where a moment is not finite."""
        mean = self.turned(self.mean, back=True)
        for side, moment in self.moments.items():
            if bool(torch.isfinite(moment).all()):
                self.bases[side].copy_(torch.linalg.eigh(moment)[1])
        self.mean.copy_(self.turned(mean))

    def move(self, gradient: Tensor, rate: float, steps: int) -> None:
        """Adam's step in the basis."""
        inside = self.turned(gradient)
        self.mean.lerp_(inside, 1.0 - FIRST)
        self.square.mul_(SECOND).addcmul_(inside, inside, value=1.0 - SECOND)
        root = (self.square / (1.0 - SECOND**steps)).sqrt_()
        step = self.mean / root.add_(EPSILON * root.square().mean().sqrt() + TINY)
        outside = self.turned(step, back=True).reshape(self.parameter.shape)
        self.parameter.add_(outside, alpha=-rate * self.scale / (1.0 - FIRST**steps))


class RotatedAdam:
    """Parameters and their state, updated in place.

    Args:
        parameters: what moves.
        scales: per tensor, what a rate of 1 means.

    Attributes:
        parameters: as given.
        steps: taken so far.
    """

    def __init__(self, parameters: Sequence[Tensor], scales: Sequence[float]) -> None:
        self.parameters, self.steps = tuple(parameters), 0
        self._matrices = [_Matrix.at(p, s) for p, s in zip(parameters, scales, strict=True)]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], rate: float) -> None:
        """One step against the gradients."""
        self.steps += 1
        renewed = self.steps in (1, 8, EARLY) or self.steps % RENEWED == 0
        for matrix, gradient in zip(self._matrices, gradients, strict=True):
            flat = _flat(gradient)
            if self.steps <= EARLY or self.steps % EVERY == 0:
                matrix.saw(flat)
            if renewed:
                matrix.renew()
            matrix.move(flat, rate, self.steps)

    def states(self) -> list[Mapping[str, Tensor]]:
        """Per parameter everything but the parameter, by name."""
        return [matrix.state() for matrix in self._matrices]


def _flat(tensor: Tensor) -> Tensor:
    """As a matrix; a vector is one column."""
    return tensor.reshape(len(tensor), -1) if tensor.dim() else tensor.reshape(1, 1)
