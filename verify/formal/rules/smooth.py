"""Rules of differentiable element-wise functions, from enclosures of values and derivatives.

By the mean value theorem, with derivatives in [m, M] on the hull of both arguments:

    phi(z) in phi(c) + s (z - c) ± (M - m)/2 rad(z),  s = (m + M)/2
    phi(z) - phi(z - D) in s D ± (M - m)/2 max|D|

Elementary functions of torch are taken to be accurate to 2^-44 relative plus 2^-44 absolute: an assumption, not
a proof, which the result of a verification states. Theory: theory_notes/differential_zonotope.md, section 5.
"""

import math

import torch
from torch import Tensor

from verify.formal.rules.rule import Compiled, Curve, Rule, Site

_LIBRARY = 2.0**-44


def widened(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the error of the library's elementary functions."""
    return lower - (lower.abs() + 1.0) * _LIBRARY, upper + (upper.abs() + 1.0) * _LIBRARY


def _across(
    function: object, lower: Tensor, upper: Tensor, turning: tuple[tuple[float, float], ...]
) -> tuple[Tensor, Tensor]:
    """Range of a function with extremes ``(at, value)`` between monotone parts, evaluated at the ends."""
    assert callable(function)
    ends = function(lower), function(upper)
    low, high = torch.minimum(*ends), torch.maximum(*ends)
    for at, value in turning:
        near = (lower <= at + 1e-6) & (upper >= at - 1e-6)
        low = torch.where(near, low.clamp(max=value - 1e-9), low)
        high = torch.where(near, high.clamp(min=value + 1e-9), high)
    return widened(low, high)


class Sigmoid(Curve):
    """``1 / (1 + exp(-x))``: increasing; the derivative peaks at 0 with 1/4."""

    def values(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return widened(torch.sigmoid(lower), torch.sigmoid(upper))

    def derivatives(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return _across(lambda x: torch.sigmoid(x) * torch.sigmoid(-x), lower, upper, ((0.0, 0.25),))


class Tanh(Curve):
    """Increasing; the derivative peaks at 0 with 1."""

    def values(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return widened(torch.tanh(lower), torch.tanh(upper))

    def derivatives(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return _across(lambda x: 1.0 - torch.tanh(x) ** 2, lower, upper, ((0.0, 1.0),))


class Erf(Curve):
    """Increasing; the derivative peaks at 0 with 2/sqrt(pi)."""

    def values(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return widened(torch.erf(lower), torch.erf(upper))

    def derivatives(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        peak = 2.0 / math.sqrt(math.pi)
        return _across(lambda x: peak * torch.exp(-x * x), lower, upper, ((0.0, peak),))


class Silu(Curve):
    """``x sigmoid(x)``: least value -0.2784645 at -1.2784645; derivative in [-0.0998394, 1.0998394] at ∓2.3993573."""

    def values(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return _across(lambda x: x * torch.sigmoid(x), lower, upper, ((-1.2784645427, -0.2784645428),))

    def derivatives(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        turning = ((-2.3993572805, -0.0998393201), (2.3993572805, 1.0998393201))
        return _across(lambda x: torch.sigmoid(x) * (1.0 + x * torch.sigmoid(-x)), lower, upper, turning)


class Gelu(Curve):
    """``x Phi(x)``, exact: least value at -0.7517916; derivative extreme at ∓sqrt(2)."""

    def values(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return _across(_gelu, lower, upper, ((-0.7517915246935645, -0.16997120747990369),))

    def derivatives(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        root = math.sqrt(2.0)
        least = float(_gelu_derivative(torch.tensor(-root, dtype=torch.float64)))
        return _across(_gelu_derivative, lower, upper, ((-root, least), (root, 1.0 - least)))


def _gelu(x: Tensor) -> Tensor:
    return 0.5 * x * torch.erfc(-x / math.sqrt(2.0))


def _gelu_derivative(x: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-x / math.sqrt(2.0)) + x * torch.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


class HardSwish(Curve):
    """``x clip(x / 6 + 1/2, 0, 1)``: least value -3/8 at -3/2; the derivative jumps at ±3."""

    def values(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return _across(lambda x: x * (x + 3.0).clamp(0.0, 6.0) / 6.0, lower, upper, ((-1.5, -0.375),))

    def derivatives(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        def slope(x: Tensor) -> Tensor:
            return torch.where(x < -3.0, 0.0, torch.where(x > 3.0, 1.0, (2.0 * x + 3.0) / 6.0))

        return _across(slope, lower, upper, ((-3.0, -0.5), (-3.0, 0.0), (3.0, 1.5), (3.0, 1.0)))


class CurveRule(Rule):
    """An activation given by a curve."""

    def __init__(self, name: str, curve: Curve) -> None:
        self.name, self.function = name, curve

    def compile(self, site: Site) -> Compiled:
        if self.name == "gelu" and site.first.attributes["approximate"] != "none":
            from verify.errors import UnsupportedOperation

            raise UnsupportedOperation("gelu", site.first.name, ("gelu",), 'bounds exist for approximate="none" only')
        return lambda arithmetic, inputs: arithmetic.curve(self.function, inputs[0])


SMOOTH_RULES: tuple[Rule, ...] = (
    CurveRule("sigmoid", Sigmoid()), CurveRule("tanh", Tanh()), CurveRule("erf", Erf()),
    CurveRule("silu", Silu()), CurveRule("gelu", Gelu()), CurveRule("hardswish", HardSwish()),
)  # fmt: skip
