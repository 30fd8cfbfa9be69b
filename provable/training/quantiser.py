"""A quantiser whose range, step and exponent are trained.

    x^ = sign(x) clip(|x| - q_s, 0, q_m - q_s)^t,   x_q = d round(x^ / d),   b = ceil(log2((q_m - q_s)^t / d + 1)) + 1

Gradients pass the rounding as if it were the identity, so that d, q_m and t are learnt from the loss.
Reference for the idea: Wang, Lu & Blankevoort, ECCV 2020. Theory: theory_notes/training.md.
"""

import math

import torch
from torch import Tensor, nn

from provable.errors import TrainingError

POWERS = (2, 4, 8, 16)


class LearnedQuantiser(nn.Module):
    """Rounds a tensor to a learnt grid.

    Args:
        largest: q_m, the magnitude above which values are clipped.
        bits: at the start.
        lower: q_s, the magnitude below which values become 0; fixed.
        restricted: whether bits are a power of two (2, 4, 8, 16): the step then follows from them.

    Raises:
        TrainingError: a range that is empty or not finite, fewer than 2 bits.
    """

    def __init__(self, largest: float, bits: int, *, lower: float = 0.0, restricted: bool = False) -> None:
        super().__init__()
        if not (0 <= lower < largest < math.inf and bits >= 2):
            raise TrainingError(f"need 0 <= lower < largest and bits >= 2, got {lower!r}, {largest!r}, {bits!r}")
        self.lower, self.restricted = lower, restricted
        self.log_largest = nn.Parameter(torch.tensor(math.log(largest)))
        self.log_step = nn.Parameter(torch.tensor(math.log((largest - lower) / (2 ** (bits - 1) - 1))))
        self.log_exponent = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        """The quantised tensor, of the same shape."""
        span, step = self.span(), self.step()
        inside = torch.minimum((x.abs() - self.lower).clamp_min(0.0), self.log_largest.exp() - self.lower)
        powered = torch.where(inside > 0, inside.clamp_min(1e-12) ** self.log_exponent.exp(), torch.zeros_like(inside))
        levels = torch.minimum(powered, span) / step
        return torch.sign(x) * step * (levels + (levels.round() - levels).detach())

    def span(self) -> Tensor:
        """(q_m - q_s)^t, the largest value that comes out."""
        return torch.pow((self.log_largest.exp() - self.lower).clamp_min(1e-12), self.log_exponent.exp())

    def step(self) -> Tensor:
        """d; under the restriction, the one that the rounded bits leave."""
        if not self.restricted:
            return self.log_step.exp()
        value: Tensor = self.span() / (2 ** (self.bits() - 1) - 1)
        return value

    def soft_bits(self) -> Tensor:
        """b without rounding up: differentiable."""
        return torch.log2(self.span() / self.log_step.exp() + 1.0) + 1.0

    def bits(self) -> int:
        """b; under the restriction the next power of two, at most 16."""
        wanted = max(2, math.ceil(float(self.soft_bits().detach()) - 1e-6))
        return next((b for b in POWERS if b >= wanted), POWERS[-1]) if self.restricted else wanted
