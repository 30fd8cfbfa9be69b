"""Differentiable element-wise functions on one form and on a pair: the mean value theorem.

Theory: theory_notes/differential_zonotope.md, section 5.
"""

import torch
from torch import Tensor

from verify.formal.form import COMPACT, DIFFERENCE, ORIGINAL, Form, sloped
from verify.formal.pair import Triple
from verify.formal.relu import input_share
from verify.formal.rounding import above, raised
from verify.formal.rules.rule import Curve
from verify.formal.symbols import Ledger


def curve(form: Form, function: Curve, ledger: Ledger, family: int) -> Form:
    """``function(form)``; `form` has no fresh symbols."""
    ledger.watch(form.radius())
    lower, upper = form.bounds()
    low, high = function.derivatives(lower, upper)
    slope, spread = 0.5 * (low + high), above(0.5 * (high - low))
    at_centre = function.values(form.centre, form.centre)
    middle = 0.5 * (at_centre[0] + at_centre[1]) - slope * form.centre
    half = raised(spread * form.radius() + (at_centre[1] - at_centre[0])) + 2.0**-50 * (
        at_centre[0].abs() + at_centre[1].abs() + (slope * form.centre).abs()
    )
    everywhere = torch.ones_like(slope, dtype=torch.bool)
    granted = ledger.grant(everywhere)
    flat_middle, flat_half = _hull(*function.values(lower, upper))
    flat = ~granted | ~(half < flat_half)
    slope, middle, half = (
        torch.where(flat, *p) for p in ((slope * 0.0, slope), (flat_middle, middle), (flat_half, half))
    )
    fresh = ledger.fresh(family, granted, half, input_share(form, ledger))
    return sloped([(slope, form)], middle, half, granted, fresh)


def curve_pair(triple: Triple, function: Curve, ledger: Ledger) -> Triple:
    """``function`` of both networks' values and of their difference."""
    triple = triple.written()
    z = curve(triple.z, function, ledger, ORIGINAL)
    y = curve(triple.y, function, ledger, COMPACT)
    return Triple(z, y, _difference(triple, function, ledger), triple.kept)


def _difference(triple: Triple, function: Curve, ledger: Ledger) -> Form:
    z_lower, z_upper = (triple.kept.of(b) for b in triple.z.bounds())
    y_lower, y_upper = triple.y.bounds()
    d_lower, d_upper = triple.d.bounds()
    low, high = function.derivatives(torch.minimum(z_lower, y_lower), torch.maximum(z_upper, y_upper))
    slope = 0.5 * (low + high)
    reach = torch.maximum(d_lower.abs(), d_upper.abs())
    half = raised(above(0.5 * (high - low)) * reach)
    z_values, y_values = function.values(z_lower, z_upper), function.values(y_lower, y_upper)
    apart = _hull(z_values[0] - y_values[1], z_values[1] - y_values[0])
    granted = ledger.grant(torch.ones_like(slope, dtype=torch.bool))
    flat = ~granted & ~(raised(half + slope.abs() * reach) < apart[1])
    flat |= ~(half < apart[1])
    boxed = ~granted & ~flat  # no symbol: the interval of s D ± half, centred at 0
    half = torch.where(flat, apart[1], torch.where(boxed, raised(half + slope.abs() * reach), half))
    slope = torch.where(flat | boxed, 0.0, slope)
    middle = torch.where(flat, apart[0], 0.0)
    fresh = ledger.fresh(DIFFERENCE, granted, half, input_share(triple.d, ledger))
    return sloped([(slope, triple.d)], middle, half, granted, fresh)


def _hull(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Middle and half-width of an interval, the half-width rounded up generously."""
    middle = 0.5 * (lower + upper)
    return middle, raised(torch.maximum(upper - middle, middle - lower)) + middle.abs() * 2.0**-50
