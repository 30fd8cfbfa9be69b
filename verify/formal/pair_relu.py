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
from verify.formal.rounding import raised

_ROUNDING = 2.0**-46  # per magnitude: floating_point.md, section 5


@dataclass(frozen=True)
class Region:
    """Bounds of z, y and D = z - y, all of one shape, rounded outward with a margin (`rounding.MARGIN`)."""

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
        d_lower = torch.maximum(self.d_lower, self.z_lower - self.y_upper)
        d_upper = torch.minimum(self.d_upper, self.z_upper - self.y_lower)
        y_lower = torch.maximum(self.y_lower, self.z_lower - d_upper)
        y_upper = torch.minimum(self.y_upper, self.z_upper - d_lower)
        z_lower = torch.maximum(self.z_lower, y_lower + d_lower)
        z_upper = torch.minimum(self.z_upper, y_upper + d_upper)
        return Region(z_lower, z_upper, y_lower, y_upper, d_lower, d_upper)

    def parts(self) -> tuple[Tensor, ...]:
        """The six bounds."""
        return self.z_lower, self.z_upper, self.y_lower, self.y_upper, self.d_lower, self.d_upper


@dataclass(frozen=True)
class Plane:
    """``d in a z + b D + middle ± half``."""

    a: Tensor
    b: Tensor
    middle: Tensor
    half: Tensor


def vertices(region: Region) -> tuple[Tensor, Tensor]:
    """Points ``(11, n)`` of a sharpened region, z and y, among which every extreme of a cell-wise linear function is.

    A sharpened region is a hexagon with the corners (lz, ly) and (uz, uy); D = dl cuts off the corner (lz, uy) and
    D = du the corner (uz, ly). Then the ends of the lines z = 0 and y = 0 in it, and the origin where it is inside.
    """
    lz, uz, ly, uy, dl, du = region.parts()
    zero = torch.zeros_like(lz)
    z, y = zero.clamp(lz, uz), zero.clamp(ly, uy)
    y_low, y_high = torch.maximum(ly, z - du), torch.minimum(uy, z - dl)
    z_low, z_high = torch.maximum(lz, y + dl), torch.minimum(uz, y + du)
    z_cut, y_cut = torch.maximum(lz, uy + dl), torch.minimum(uy, lz - dl)
    z_low_cut, y_low_cut = torch.minimum(uz, ly + du), torch.maximum(ly, uz - du)
    z_points = [lz, uz, lz, z_cut, uz, z_low_cut, z, z, z_low, z_high, z]
    y_points = [ly, uy, y_cut, uy, y_low_cut, ly, y_low, y_high, y, y, zero.clamp(y_low, y_high)]
    return torch.stack(z_points), torch.stack(y_points)


def offsets(region: Region, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper offsets ``(c, n)``, rounded outward, for slopes ``(c, n)`` with 0 <= a + b <= 1, 0 <= b <= 1."""
    closed = region.sharpened()
    z, y = vertices(closed)
    difference = z.clamp(min=0.0) - y.clamp(min=0.0)
    rest = torch.addcmul(difference, (a + b)[:, None], z, value=-1.0).addcmul_(b[:, None], y)  # (c, 11, n)
    magnitude = torch.stack(closed.parts()).abs().amax(0)
    margin = raised(magnitude * _ROUNDING)
    return rest.amin(1) - margin, rest.amax(1) + margin


def best_plane(region: Region, slope_z: Tensor, slope_y: Tensor, hulled: Tensor) -> Plane:
    """The candidate plane with the narrowest offsets, the first of equals; all arguments are ``(n,)``.

    Args:
        slope_z, slope_y: slopes of the two ReLUs (1 active, 0 inactive).
        hulled: elements that must use slopes (0, 0), since no symbol is left for them.
    """
    one, zero = torch.ones_like(slope_z), torch.zeros_like(slope_z)
    low, high = region.d_lower, region.d_upper
    a = torch.stack([zero, zero, zero, slope_z, slope_z - slope_y, one - slope_y, slope_z - one])
    b = torch.stack([zero, one, chord_slope(low, high), zero, slope_y, slope_y, one])
    lower, upper = offsets(region, a, b)
    down, up = low.clamp(max=0.0), high.clamp(min=0.0)  # relu is monotone and 1-Lipschitz: known without rounding
    lower[0], upper[0] = torch.maximum(lower[0], down), torch.minimum(upper[0], up)
    lower[1], upper[1] = torch.maximum(lower[1], -up), torch.minimum(upper[1], -down)
    best = torch.where(hulled, 0, (upper - lower).argmin(0))[None]
    a, b, lower, upper = (t.gather(0, best)[0] for t in (a, b, lower, upper))
    middle = 0.5 * (lower + upper)
    half = raised(torch.maximum(upper - middle, middle - lower).clamp(min=0.0))
    return Plane(a, b, middle, torch.where((lower == 0.0) & (upper == 0.0), 0.0, half))
