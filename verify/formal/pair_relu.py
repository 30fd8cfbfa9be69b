"""The difference of two ReLUs, one rule instead of a table of cases.

For d = relu(z) - relu(y), y = z - D, and ANY slopes (a, b), the plane a z + b D + offset bounds d on the region

    { lz <= z <= uz,  ly <= y <= uy,  dl <= z - y <= du }

when the offset is the extreme of d - a z - b D over it. That function is linear on the cells into which the
lines z = 0 and y = 0 cut the polygon, so its extremes lie on the vertices of the cells. Slopes are therefore a
free choice; of a short list the one with the narrowest offsets wins.
Theory and proof: theory_notes/pair_relu.md. Not claimed: that the chosen slopes are the best.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.formal.relu import chord_slope
from verify.formal.rounding import above, below, raised

_ROUNDING = 2.0**-46  # 64 units of roundoff per magnitude: see floating_point.md, section 5


@dataclass(frozen=True)
class Region:
    """Bounds of z, y and D = z - y, all of one shape, rounded outward."""

    z_lower: Tensor
    z_upper: Tensor
    y_lower: Tensor
    y_upper: Tensor
    d_lower: Tensor
    d_upper: Tensor

    def at(self, where: Tensor) -> "Region":
        """The elements selected by a mask, flattened."""
        return Region(*(bound[where] for bound in self.parts()))

    def sharpened(self) -> "Region":
        """Bounds of D from z and y, then of y from z and D, then of z from y and D."""
        d_lower = torch.maximum(self.d_lower, below(self.z_lower - self.y_upper))
        d_upper = torch.minimum(self.d_upper, above(self.z_upper - self.y_lower))
        y_lower = torch.maximum(self.y_lower, below(self.z_lower - d_upper))
        y_upper = torch.minimum(self.y_upper, above(self.z_upper - d_lower))
        z_lower = torch.maximum(self.z_lower, below(y_lower + d_lower))
        z_upper = torch.minimum(self.z_upper, above(y_upper + d_upper))
        return Region(z_lower, z_upper, y_lower, y_upper, d_lower, d_upper)

    def parts(self) -> tuple[Tensor, ...]:
        """The six bounds."""
        return self.z_lower, self.z_upper, self.y_lower, self.y_upper, self.d_lower, self.d_upper

    def magnitude(self) -> Tensor:
        """Upper bound of |z| + |y| + |D|."""
        z, y, d = (torch.maximum(a.abs(), b.abs()) for a, b in zip(self.parts()[::2], self.parts()[1::2], strict=True))
        return raised(z + y + d)


@dataclass(frozen=True)
class Plane:
    """``d in a z + b D + middle ± half``."""

    a: Tensor
    b: Tensor
    middle: Tensor
    half: Tensor


def vertices(region: Region) -> tuple[Tensor, Tensor]:
    """Points ``(13, ...)`` of a closed region, z and y, among which every extreme of a cell-wise linear function is."""
    zero = torch.zeros_like(region.z_lower)
    z_points, y_points = [], []
    for z in (region.z_lower, zero.clamp(region.z_lower, region.z_upper), region.z_upper):
        low = torch.maximum(region.y_lower, z - region.d_upper)
        high = torch.minimum(region.y_upper, z - region.d_lower)
        z_points += [z, z]
        y_points += [low, high]
    z_points.append(z_points[2])  # the origin, where it belongs to the region
    y_points.append(zero.clamp(y_points[2], y_points[3]))
    for y in (region.y_lower, zero.clamp(region.y_lower, region.y_upper), region.y_upper):
        z_points += [
            torch.maximum(region.z_lower, y + region.d_lower),
            torch.minimum(region.z_upper, y + region.d_upper),
        ]
        y_points += [y, y]
    return torch.stack(z_points), torch.stack(y_points)


def offsets(region: Region, slopes: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Lower and upper offset, rounded outward, for each pair of slopes with 0 <= a + b <= 1 and 0 <= b <= 1."""
    closed = region.sharpened()
    z, y = vertices(closed)
    difference = z.clamp(min=0.0) - y.clamp(min=0.0)
    margin = closed.magnitude() * _ROUNDING
    result = []
    for a, b in slopes:
        rest = difference - a * z - b * (z - y)
        result.append((below(rest.amin(0) - margin), above(rest.amax(0) + margin)))
    return result


def best_plane(region: Region, slope_z: Tensor, slope_y: Tensor, hulled: Tensor) -> Plane:
    """The candidate plane with the narrowest offsets.

    Args:
        slope_z, slope_y: slopes of the two ReLUs (1 active, 0 inactive).
        hulled: elements that must use slopes (0, 0), since no symbol is left for them.
    """
    one, zero = torch.ones_like(slope_z), torch.zeros_like(slope_z)
    low, high = region.d_lower, region.d_upper
    slopes = [
        (zero, zero), (zero, one), (zero, chord_slope(low, high)), (slope_z, zero),
        (slope_z - slope_y, slope_y), (one - slope_y, slope_y), (slope_z - one, one),
    ]  # fmt: skip
    bounds = offsets(region, slopes)
    bounds[0] = _tightened(bounds[0], low.clamp(max=0.0), high.clamp(min=0.0))
    bounds[1] = _tightened(bounds[1], -high.clamp(min=0.0), -low.clamp(max=0.0))
    (a, b), (lower, upper) = slopes[0], bounds[0]
    for slope, bound in zip(slopes[1:], bounds[1:], strict=True):
        better = (bound[1] - bound[0] < upper - lower) & ~hulled
        a, b = torch.where(better, slope[0], a), torch.where(better, slope[1], b)
        lower, upper = torch.where(better, bound[0], lower), torch.where(better, bound[1], upper)
    middle = 0.5 * (lower + upper)
    return Plane(a, b, middle, above(torch.maximum(upper - middle, middle - lower)).clamp(min=0.0))


def _tightened(bound: tuple[Tensor, Tensor], lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection with offsets known in closed form (ReLU is monotone and 1-Lipschitz), free of rounding."""
    return torch.maximum(bound[0], lower), torch.minimum(bound[1], upper)
