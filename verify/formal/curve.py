"""Differentiable element-wise functions on one form and on a pair: the mean value theorem.

Theory: theory_notes/differential_zonotope.md, section 5.
"""

import torch
from torch import Tensor

from verify.formal.form import COMPACT, DIFFERENCE, ORIGINAL, Form, sloped
from verify.formal.pair import Triple
from verify.formal.rounding import raised
from verify.formal.rules.rule import Curve
from verify.formal.symbols import Ledger


def curve(form: Form, function: Curve, ledger: Ledger, block: int, order: Tensor | None = None) -> Form:
    """``function(form)``; `form` has no fresh symbols."""
    ledger.watch(form)
    lower, upper = form.bounds()
    low, high = function.derivatives(lower, upper)
    slope, spread = _middle_and_spread(low, high)
    at_centre = function.values(form.centre, form.centre)
    middle = 0.5 * (at_centre[0] + at_centre[1]) - slope * form.centre
    half = raised(spread * form.radius + (at_centre[1] - at_centre[0])) + 2.0**-50 * (
        at_centre[0].abs() + at_centre[1].abs() + (slope * form.centre).abs()
    )
    everywhere = torch.ones_like(slope, dtype=torch.bool)
    granted = ledger.grant(everywhere, order)
    flat_middle, flat_half = _hull(*function.values(lower, upper))
    flat = ~granted | ~(half < flat_half)
    slope, middle = torch.where(flat, 0.0, slope), torch.where(flat, flat_middle, middle)
    half = torch.where(flat, flat_half, half)
    fresh = ledger.fresh(block, granted, half, form)
    return sloped([(slope, form)], middle, half, rounded=everywhere, granted=granted, fresh=fresh)


def curve_pair(triple: Triple, function: Curve, ledger: Ledger) -> Triple:
    """``function`` of both networks' values and of their difference."""
    triple = triple.written()
    z = curve(triple.z, function, ledger, ORIGINAL, triple.kept.order)
    y = curve(triple.y, function, ledger, COMPACT)
    return Triple(z, y, _difference(triple, function, ledger), triple.kept)


def _difference(triple: Triple, function: Curve, ledger: Ledger) -> Form:
    ledger.watch(triple.d)
    z_lower, z_upper = (triple.kept.of(b) for b in triple.z.bounds())
    y_lower, y_upper = triple.y.bounds()
    d_lower, d_upper = triple.d.bounds()
    low, high = function.derivatives(torch.minimum(z_lower, y_lower), torch.maximum(z_upper, y_upper))
    slope, spread = _middle_and_spread(low, high)
    reach = torch.maximum(d_lower.abs(), d_upper.abs())
    half = raised(spread * reach)
    whole = raised(half + slope.abs() * reach)  # without a symbol: the interval around 0
    z_values, y_values = function.values(z_lower, z_upper), function.values(y_lower, y_upper)
    apart_middle, apart_half = _hull(z_values[0] - y_values[1], z_values[1] - y_values[0])
    everywhere = torch.ones_like(slope, dtype=torch.bool)
    granted = ledger.grant(everywhere)
    half = torch.where(granted, half, whole)
    apart = ~(half < apart_half)
    slope = torch.where(granted & ~apart, slope, 0.0)
    middle, half = torch.where(apart, apart_middle, 0.0), torch.where(apart, apart_half, half)
    fresh = ledger.fresh(DIFFERENCE, granted, half, triple.d)
    return sloped([(slope, triple.d)], middle, half, rounded=everywhere, granted=granted, fresh=fresh)


def _middle_and_spread(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """A slope in the middle of the derivatives, and an upper bound of their distance from it."""
    return 0.5 * (low + high), raised(0.5 * (high - low) + (low.abs() + high.abs()) * 2.0**-52)


def _hull(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Middle and half-width of an interval, the half-width rounded up generously."""
    middle = 0.5 * (lower + upper)
    return middle, raised(torch.maximum(upper - middle, middle - lower)) + middle.abs() * 2.0**-50
