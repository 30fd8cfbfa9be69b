"""Linear bounds of nonlinear entries: lines for one network, planes in (z, D) for the difference.

    z, y:   slope x + offset                 with its own slope below and above
    d:      a z + b D + offset               with its own slopes below and above, d = relu(z) - relu(z - D)

Any slopes are sound: the offset is the extreme of what they leave over, found on the vertices of the region
(`pair_relu.vertices`). Slopes may therefore be chosen by a gradient. Theory: theory_notes/backward_pair.md.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.formal.backward.enclosure import Enclosure, Interval
from verify.formal.pair import Kept
from verify.formal.pair_relu import Region, vertices
from verify.formal.relu import phase_of
from verify.formal.rounding import TINY, above, raised
from verify.formal.rules.rule import Curve

_ROUNDING = 2.0**-46


@dataclass(frozen=True)
class Line:
    """``slope x + offset``; tensors broadcast to ``(batch, rows, n)``."""

    slope: Tensor
    offset: Tensor


@dataclass(frozen=True)
class Plane:
    """``a z + b D + offset``; tensors broadcast to ``(batch, rows, m)``."""

    a: Tensor
    b: Tensor
    offset: Tensor


@dataclass(frozen=True)
class Relaxation:
    """Lower and upper linear bounds of one nonlinear entry; `y`, `d` and `kept` None for a single network."""

    z: tuple[Line, Line]
    y: tuple[Line, Line] | None = None
    d: tuple[Plane, Plane] | None = None
    kept: Kept | None = None


@dataclass(frozen=True)
class Slopes:
    """Free slopes of one ReLU entry, broadcasting to ``(batch, rows, n or m)``.

    Attributes:
        z, y: slopes of the lower lines of unstable elements, in [0, 1].
        upper, lower: slopes ``(a, b)`` of the planes.
    """

    z: Tensor
    y: Tensor | None = None
    upper: tuple[Tensor, Tensor] | None = None
    lower: tuple[Tensor, Tensor] | None = None

    def tensors(self) -> list[Tensor]:
        """All of them: lines, then planes."""
        planes = [*self.upper, *self.lower] if self.upper is not None and self.lower is not None else []
        return [self.z, *([] if self.y is None else [self.y]), *planes]


@dataclass(frozen=True)
class Corner:
    """Vertices of the regions of one ReLU entry, and everything else that does not depend on the slopes.

    Attributes:
        z, y, difference: ``(13, batch, 1, m)``.
        margin: ``(batch, 1, m)``: rounding per unit of ``1 + |a| + |b|``.
        settled: both ReLUs are linear on the region.
        exact: their slopes ``(a, b)``.
    """

    z: Tensor
    y: Tensor
    difference: Tensor
    margin: Tensor
    settled: Tensor
    exact: tuple[Tensor, Tensor]

    def rest(self, a: Tensor, b: Tensor) -> Tensor:
        """``d - a z - b D`` at the vertices, ``(13, batch, rows, m)``."""
        return self.difference - (a + b) * self.z + b * self.y

    def planes(self, slopes: Slopes) -> tuple[Plane, Plane]:
        """Lower and upper plane of given slopes."""
        assert slopes.lower is not None
        assert slopes.upper is not None
        return self._plane(slopes.lower, -1.0), self._plane(slopes.upper, 1.0)

    def _plane(self, chosen: tuple[Tensor, Tensor], sign: float) -> Plane:
        a, b = (torch.where(self.settled, e, c) for e, c in zip(self.exact, chosen, strict=True))
        offset = sign * (sign * self.rest(a, b)).amax(0)
        room = self.margin * (1.0 + (a.abs() + b.abs()).detach())
        return Plane(a, b, torch.where(self.settled, 0.0, offset + sign * room))


def corners(region: Region) -> Corner:
    """Vertices of a region whose bounds are ``(batch, m)``."""
    closed = region.sharpened()
    z, y = (v[:, :, None, :] for v in vertices(closed))
    magnitude = torch.stack(closed.parts()).abs().amax(0)[:, None, :]
    first, second = (
        phase_of(*bounds) for bounds in ((region.z_lower, region.z_upper), (region.y_lower, region.y_upper))
    )
    settled = ~(first.unstable | second.unstable)
    exact = (first.slope - second.slope)[:, None, :], second.slope[:, None, :]
    difference = z.clamp(min=0.0) - y.clamp(min=0.0)
    return Corner(z, y, difference, raised(magnitude * _ROUNDING), settled[:, None, :], exact)


def best_slopes(region: Region, corner: Corner) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Lower and upper slopes, each the candidate whose plane is tightest at the centre of the region."""
    a, b = _candidates(region)
    z = 0.5 * (region.z_lower + region.z_upper)
    d = 0.5 * (region.d_lower + region.d_upper)
    rest = torch.stack([_extremes(corner, s, t) for s, t in zip(a, b, strict=True)])  # (c, 2, batch, m)
    middle = a * z + b * d
    low = (middle + rest[:, 0]).argmax(0)[None]
    high = (middle + rest[:, 1]).argmin(0)[None]
    return _picked(a, b, low), _picked(a, b, high)


def _picked(a: Tensor, b: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    return a.gather(0, which).transpose(0, 1), b.gather(0, which).transpose(0, 1)


def _extremes(corner: Corner, a: Tensor, b: Tensor) -> Tensor:
    rest = corner.rest(a[:, None, :], b[:, None, :])[:, :, 0]
    return torch.stack([rest.amin(0), rest.amax(0)])


def _candidates(region: Region) -> tuple[Tensor, Tensor]:
    """Slopes ``(c, batch, m)`` of planes that are tight in one case or another."""
    z = phase_of(region.z_lower, region.z_upper).slope
    y = phase_of(region.y_lower, region.y_upper).slope
    rise = phase_of(region.d_lower, region.d_upper).slope
    fall = 1.0 - rise
    one, zero = torch.ones_like(z), torch.zeros_like(z)
    a = torch.stack([zero, zero, zero, zero, zero, z, z - y, one - y, z - one])
    b = torch.stack([zero, one, rise, fall, 0.5 * one, zero, y, y, one])
    return a, b


def rectifier_lines(x: Interval, lower_slope: Tensor) -> tuple[Line, Line]:
    """ReLU of one network: ``slope x`` below, the chord above; `lower_slope` in [0, 1] where unstable."""
    phase = phase_of(x.lower, x.upper)
    unstable, slope = phase.unstable[:, None, :], phase.slope[:, None, :]
    lift = torch.maximum(-phase.slope * phase.lower, (1.0 - phase.slope) * phase.upper)
    offset = torch.where(phase.unstable, raised(lift.clamp(min=0.0)), 0.0)[:, None, :]
    return Line(torch.where(unstable, lower_slope, slope), torch.zeros_like(offset)), Line(slope, offset)


def steepest(x: Interval) -> Tensor:
    """The usual first choice of lower slopes ``(batch, 1, n)``: 1 where the positive side is the longer one."""
    return (x.upper > -x.lower).to(torch.float64)[:, None, :]


def curve_relaxation(function: Curve, x: Enclosure, kept: Kept | None) -> Relaxation:
    """Lines by the mean value theorem or the hull, whichever is narrower; planes ``b D ± half`` likewise."""
    z = _curve_lines(function, x.z)
    if kept is None:
        return Relaxation(z)
    return Relaxation(z, _curve_lines(function, x.y), _curve_planes(function, x.region(kept)), kept)


def _curve_lines(function: Curve, x: Interval) -> tuple[Line, Line]:
    """``phi(c) + s (x - c) ± spread rad``."""
    low, high = function.derivatives(x.lower, x.upper)
    slope, spread = 0.5 * (low + high), above(0.5 * (high - low))
    centre = x.centre()
    radius = above(torch.maximum(x.upper - centre, centre - x.lower))
    at = function.values(centre, centre)
    middle = 0.5 * (at[0] + at[1]) - slope * centre
    noise = 2.0**-50 * (at[0].abs() + at[1].abs() + (slope * centre).abs())
    half = raised(spread * radius + (at[1] - at[0]) + noise)
    ends = function.values(x.lower, x.upper)
    flat = ~(half < 0.5 * (ends[1] - ends[0]))
    slope = torch.where(flat, 0.0, slope)[:, None, :]
    below, over = torch.where(flat, ends[0], middle - half), torch.where(flat, ends[1], middle + half)
    return Line(slope, _lowered(below)[:, None, :]), Line(slope, -_lowered(-over)[:, None, :])


def _curve_planes(function: Curve, r: Region) -> tuple[Plane, Plane]:
    low, high = function.derivatives(torch.minimum(r.z_lower, r.y_lower), torch.maximum(r.z_upper, r.y_upper))
    slope = 0.5 * (low + high)
    half = raised(above(0.5 * (high - low)) * torch.maximum(-r.d_lower, r.d_upper).clamp(min=0.0))
    z, y = function.values(r.z_lower, r.z_upper), function.values(r.y_lower, r.y_upper)
    apart = ~(half < 0.5 * (z[1] - y[0] - z[0] + y[1]))
    slope = torch.where(apart, 0.0, slope)[:, None, :]
    below, over = torch.where(apart, z[0] - y[1], -half), torch.where(apart, z[1] - y[0], half)
    zero = torch.zeros_like(slope)
    return Plane(zero, slope, _lowered(below)[:, None, :]), Plane(zero, slope, -_lowered(-over)[:, None, :])


def _lowered(x: Tensor) -> Tensor:
    """A little below, for one or two roundings of numbers of this size."""
    return x - (x.abs() * 2.0**-50 + TINY)
