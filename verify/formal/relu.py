"""ReLU on one affine form.

On [l, u] and for any slope s in [0, 1]: relu(v) - s v lies in [0, max(-s l, (1 - s) u)] when l <= 0 <= u, the value
at the ends (convexity). With s near u / (u - l) the ends agree and the form s v + half ± half has the least area;
its error becomes a new symbol. Where none is left the hull [0, u] is narrower, and its half-width goes to the
remainder. Where the sign is known, relu is linear and nothing is lost.
Theory: theory_notes/differential_zonotope.md, section 2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.formal.form import Form, sloped
from verify.formal.symbols import Ledger

SLOPE_BITS = 10  # short dyadic slopes, so that exact arithmetic can use the very same ones


@dataclass(frozen=True)
class Phase:
    """Where the elements of a value ``(batch, n)`` stand with respect to zero.

    Attributes:
        lower, upper: bounds of the argument, rounded outward.
        unstable: ``lower < 0 < upper``.
        slope: 1 where active, 0 where inactive, about ``upper / (upper - lower)`` where unstable (`chord_slope`).
    """

    lower: Tensor
    upper: Tensor
    unstable: Tensor
    slope: Tensor

    def part(self, start: int, stop: int) -> "Phase":
        """Some neighbouring elements."""
        return Phase(*(t[:, start:stop] for t in (self.lower, self.upper, self.unstable, self.slope)))


def phase_of(lower: Tensor, upper: Tensor) -> Phase:
    """Classify bounds; NaN counts as unstable."""
    return Phase(lower, upper, ~((lower >= 0.0) | (upper <= 0.0)), chord_slope(lower, upper))


def chord_slope(lower: Tensor, upper: Tensor) -> Tensor:
    """Slope of ReLU's chord over ``[lower, upper]``: 1 or 0 where it is linear, else rounded to `SLOPE_BITS` bits."""
    slope = (upper / (upper - lower)).mul_(2.0**SLOPE_BITS).round_().mul_(2.0**-SLOPE_BITS)
    return torch.where(lower >= 0.0, 1.0, torch.where(upper <= 0.0, 0.0, slope))


def relu(form: Form, phase: Phase, ledger: Ledger, block: int, order: Tensor | None = None) -> Form:
    """``relu(form)`` with new symbols in `block` for unstable elements; `form` has no fresh symbols.

    Args:
        order: as in `Ledger.grant`.
    """
    granted = ledger.grant(phase.unstable, order)
    slope = phase.slope if granted is phase.unstable else torch.where(phase.unstable & ~granted, 0.0, phase.slope)
    half = torch.maximum(-slope * phase.lower, (1.0 - slope) * phase.upper).mul_(0.5)
    fresh = ledger.fresh(block, granted, half, form)
    return sloped([(slope, form)], half, half, rounded=phase.unstable, granted=granted, fresh=fresh)
