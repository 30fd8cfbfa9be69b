"""ReLU on one affine form.

On [l, u] with l < 0 < u and any slope s in [0, 1]: relu(v) - s v lies in [0, max(-s l, (1 - s) u)], the value at
the ends (convexity). With s = u / (u - l) both ends agree: the form s v + half ± half of least area; its error
becomes a new symbol. Where none is left the hull [0, u] is narrower, and its half-width goes to the remainder.
Theory: theory_notes/differential_zonotope.md, section 2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.formal.form import INPUT, Form, sloped
from verify.formal.rounding import above, raised
from verify.formal.symbols import FEW_INPUTS, Ledger

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


def phase_of(lower: Tensor, upper: Tensor) -> Phase:
    """Classify bounds; NaN counts as unstable."""
    return Phase(lower, upper, ~((lower >= 0.0) | (upper <= 0.0)), chord_slope(lower, upper))


def chord_slope(lower: Tensor, upper: Tensor) -> Tensor:
    """Slope of ReLU's chord over ``[lower, upper]``: 1 or 0 where it is linear, else rounded to `SLOPE_BITS` bits."""
    proposed = torch.round(upper / (upper - lower) * 2.0**SLOPE_BITS) * 2.0**-SLOPE_BITS
    slope = torch.nan_to_num(proposed).clamp(0.0, 1.0)
    return torch.where(lower >= 0.0, 1.0, torch.where(upper <= 0.0, 0.0, slope))


def relu(form: Form, phase: Phase, ledger: Ledger, family: int) -> Form:
    """``relu(form)`` with new symbols of `family` for unstable elements."""
    granted = ledger.grant(phase.unstable)
    hulled = phase.unstable & ~granted
    slope = torch.where(hulled, 0.0, phase.slope)
    top = above(torch.maximum(-slope * phase.lower, (1.0 - slope) * phase.upper) * (1.0 + 2.0**-50))
    half = torch.where(phase.unstable, 0.5 * top, 0.0)
    fresh = ledger.fresh(family, granted, half, input_share(form, ledger))
    return sloped([(slope, form)], half, half, granted, fresh)


def input_share(form: Form, ledger: Ledger) -> Tensor | None:
    """Part ``(inputs, batch, n)`` of each input in the radius of a value, for the choice of splits."""
    rows = form.generators[INPUT]
    if rows is None or len(rows) > FEW_INPUTS or ledger.budget <= 0:
        return None
    return rows.abs() / raised(form.spread())
