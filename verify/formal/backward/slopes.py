"""Slopes of the relaxations: a first choice without search, and their optimisation by gradient.

Every choice of slopes gives a sound bound, so the search needs no proof: Adam descends the bound itself, and the
smallest value seen per row counts. Slopes along z are scaled by the ratio of the widths of D and z, because a
slope of the difference moves by no more than that. Theory: theory_notes/backward_pair.md, section 4.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verify.formal.backward.enclosure import Enclosure
from verify.formal.backward.planes import (
    Corner,
    Relaxation,
    Slopes,
    best_slopes,
    corners,
    curve_relaxation,
    rectifier_lines,
    steepest,
)
from verify.formal.backward.tape import Curved, Start
from verify.formal.pair import Kept

RATE, DECAY = 0.05, 0.97


@dataclass(frozen=True)
class Hinge:
    """A ReLU entry with bounds of its argument: everything needed to relax it with any slopes."""

    x: Enclosure
    kept: Kept | None
    corner: Corner | None
    first: Slopes

    def relaxation(self, slopes: Slopes) -> Relaxation:
        """Lines and planes of given slopes."""
        z = rectifier_lines(self.x.z, slopes.z.clamp(0.0, 1.0))
        if self.corner is None or slopes.y is None:
            return Relaxation(z)
        y = rectifier_lines(self.x.y, slopes.y.clamp(0.0, 1.0))
        return Relaxation(z, y, self.corner.planes(slopes), self.kept)

    def moved(self, steps: Sequence[Tensor]) -> Slopes:
        """The first slopes, moved by steps in the order of `Slopes.tensors`."""
        if self.first.y is None or self.first.upper is None or self.first.lower is None:
            return Slopes(self.first.z + steps[0])
        scale = self._scale()
        upper = self.first.upper[0] + scale * steps[2], self.first.upper[1] + steps[3]
        lower = self.first.lower[0] + scale * steps[4], self.first.lower[1] + steps[5]
        return Slopes(self.first.z + steps[0], self.first.y + steps[1], upper, lower)

    def _scale(self) -> Tensor:
        assert self.kept is not None
        r = self.x.region(self.kept)
        width = (r.z_upper - r.z_lower).clamp(min=1e-12)
        return ((r.d_upper - r.d_lower) / width).clamp(1e-9, 1.0)[:, None, :]


def hinge(entry: Start, x: Enclosure) -> Hinge:
    """A ReLU entry with the first choice of slopes."""
    if entry.kept is None:
        return Hinge(x, None, None, Slopes(steepest(x.z)))
    region = x.region(entry.kept)
    corner = corners(region)
    lower, upper = best_slopes(region, corner)
    return Hinge(x, entry.kept, corner, Slopes(steepest(x.z), steepest(x.y), upper, lower))


def fixed_relaxation(entry: Start, x: Enclosure) -> Relaxation:
    """The relaxation without any search."""
    if isinstance(entry, Curved):
        return curve_relaxation(entry.function, x, entry.kept)
    own = hinge(entry, x)
    return own.relaxation(own.first)


def optimised(
    bound: Callable[[Mapping[int, Relaxation]], Tensor],
    hinges: Mapping[int, Hinge],
    others: Mapping[int, Relaxation],
    *,
    rows: int,
    iterations: int,
    over: Callable[[], bool] = lambda: False,
) -> Tensor:
    """The smallest bounds ``(batch, rows)`` found.

    Args:
        bound: the bound to minimise, from the relaxations of all nonlinear entries.
        hinges: entries whose slopes are free; `others` are fixed.
        rows: 1 for slopes that all rows share, else one set per row.
        iterations: number of gradient steps.
        over: no further step once it returns True.
    """
    steps = {i: _zeros(own, rows) for i, own in hinges.items()}
    search = _Adam([t for part in steps.values() for t in part])
    best: Tensor | None = None
    for _ in range(iterations):
        if over():
            break
        with torch.enable_grad():
            relaxed = {**others, **{i: own.relaxation(own.moved(steps[i])) for i, own in hinges.items()}}
            value = bound(relaxed)
            best = value.detach() if best is None else torch.fmin(best, value.detach())
            total = torch.where(torch.isfinite(value), value, 0.0).sum()
            moved = total.requires_grad and search.step(torch.autograd.grad(total, search.at, allow_unused=True))
        if not moved:
            break
    return bound({**others, **{i: own.relaxation(own.first) for i, own in hinges.items()}}) if best is None else best


class _Adam:
    """Kingma and Ba, 2015, with a decaying rate (torch.optim takes seconds to import)."""

    def __init__(self, at: list[Tensor]) -> None:
        self.at, self.count = at, 0
        self.mean, self.square = [torch.zeros_like(t) for t in at], [torch.zeros_like(t) for t in at]

    def step(self, gradients: Sequence[Tensor | None]) -> bool:
        """Move against the gradients; whether they were all finite."""
        self.count += 1
        rate = RATE * DECAY ** (self.count - 1) / (1.0 - 0.9**self.count)
        with torch.no_grad():
            for t, g, mean, square in zip(self.at, gradients, self.mean, self.square, strict=True):
                if g is None:
                    continue
                if not bool(torch.isfinite(g).all()):
                    return False
                mean.mul_(0.9).add_(g, alpha=0.1)
                square.mul_(0.999).addcmul_(g, g, value=0.001)
                t.sub_(
                    rate * mean / ((square / (1.0 - 0.999**self.count)).sqrt() + 1e-8 * square.amax().sqrt() + 1e-30)
                )
        return True


def _zeros(own: Hinge, rows: int) -> list[Tensor]:
    return [
        torch.zeros(t.shape[0], max(rows, t.shape[1]), t.shape[2], dtype=torch.float64, requires_grad=True)
        for t in own.first.tensors()
    ]
