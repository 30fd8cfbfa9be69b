"""A value of both networks and their difference: three affine forms over the same symbols.

    z: original, n elements     y: compact, m elements     d = z[kept] - y, m elements

The difference is propagated on its own, because z[kept] - y loses what the two share; but where that form is
the narrower one, it takes over (`narrower`). Both statements hold at once, so any choice per element is sound.
Theory: theory_notes/differential_zonotope.md.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verify.formal.form import COMPACT, DIFFERENCE, ORIGINAL, Form, Rows, formed, sloped, with_fresh_written
from verify.formal.pair_relu import Region, best_plane
from verify.formal.relu import Phase, phase_of, relu
from verify.formal.rounding import TINY, slack
from verify.formal.symbols import Ledger


class Kept:
    """Where the elements of the compact value sit in the original one: all, a prefix, or an index.

    Args:
        index: stored position of every kept element.
        size: number of elements of the original value.
        order: stored position -> position in the file's order, None where they agree.
    """

    def __init__(self, index: Tensor, size: int, order: Tensor | None = None) -> None:
        self.count, self.index, self.order = len(index), index, order
        self.prefix = bool((index == torch.arange(len(index))).all())
        self.everything = self.prefix and self.count == size

    def of(self, rows: Tensor) -> Tensor:
        """``rows[..., index]``, a view where possible."""
        if self.everything:
            return rows
        return rows[..., : self.count] if self.prefix else rows.index_select(-1, self.index)

    def put(self, rows: Tensor, values: Tensor) -> Tensor:
        """A copy of `rows` whose kept elements are `values`."""
        if self.everything:
            return values
        if self.prefix:
            return torch.cat([values, rows[..., self.count :]], dim=-1)
        return rows.index_copy(-1, self.index, values)

    def form(self, form: Form) -> Form:
        """The kept elements of a form without fresh symbols."""
        if self.everything:
            return form
        rows = tuple(None if part is None else self.of(part) for part in form.rows)
        outer = None if form.outer is None else self.of(form.outer)
        centre, remainder, radius, size = map(self.of, (form.centre, form.remainder, form.radius, form.size))
        return Form(centre, rows, remainder, radius, size, outer, form.inputs)


@dataclass(frozen=True)
class Triple:
    """Forms of one value: original, compact, and difference on the kept elements."""

    z: Form
    y: Form
    d: Form
    kept: Kept

    def written(self) -> "Triple":
        """The same triple with all fresh symbols as ordinary rows."""
        return replace(self, z=with_fresh_written(self.z), y=with_fresh_written(self.y), d=with_fresh_written(self.d))


def plain_difference(z: Form, y: Form) -> Form:
    """``z - y`` for forms of the original and of the compact network, equally many elements, nothing fresh."""
    centre, remainder = _plain_centre(z, y)
    return formed(centre, _plain_rows(z, y, _plain_inputs(z, y)), remainder, z.inputs)


def _plain_centre(z: Form, y: Form) -> tuple[Tensor, Tensor]:
    remainder = torch.add(z.remainder + y.remainder, z.size + y.size, alpha=slack(4)).add_(TINY)
    return z.centre - y.centre, remainder


def _plain_inputs(z: Form, y: Form) -> Tensor | None:
    a, b = z.input_rows(), y.input_rows()
    if a is None or b is None:
        return a if b is None else -b
    return a - b


def _plain_rows(z: Form, y: Form, inputs: Tensor | None) -> Rows:
    own, other = z.rows[ORIGINAL], y.rows[COMPACT]
    first = inputs if own is None or inputs is None else torch.cat([inputs, own[z.inputs :]])
    rest = None if other is None or other.shape[0] == y.inputs else -other[y.inputs :]
    return first, None, rest, None


def narrower(triple: Triple) -> Triple:
    """Replace the difference by ``z[kept] - y`` wherever that form has the smaller radius."""
    z, y, d = triple.kept.form(triple.z), triple.y, triple.d
    if not _may_be_narrower(z, y, d):
        return triple
    inputs = _plain_inputs(z, y)
    centre, remainder = _plain_centre(z, y)
    radius = remainder
    for part in (None if inputs is None else inputs.abs().sum(0), z.outer, y.outer):
        if part is not None:
            radius = radius + part
    radius = radius * (1.0 + slack(z.inputs + 4))
    better = radius < d.radius
    if not bool(better.any()):
        return triple
    rows = tuple(
        _replaced(better, source, old, centre) for source, old in zip(_plain_rows(z, y, inputs), d.rows, strict=True)
    )
    return replace(
        triple,
        d=formed(torch.where(better, centre, d.centre), rows, torch.where(better, remainder, d.remainder), z.inputs),
    )


def _may_be_narrower(z: Form, y: Form, d: Form) -> bool:
    """A quick look: the error symbols of ``z - y`` alone may already be too wide everywhere."""
    parts = [form.outer for form in (z, y) if form.outer is not None]
    return not parts or bool((sum(parts[1:], start=parts[0]) < d.radius).any())


def _replaced(better: Tensor, source: Tensor | None, old: Tensor | None, like: Tensor) -> Tensor | None:
    counts = [0 if part is None else part.shape[0] for part in (source, old)]
    if max(counts) == 0:
        return None
    rows = torch.zeros(max(counts), *like.shape, dtype=torch.float64)
    if old is not None:
        rows[: counts[1]] = old
    box, element = better.nonzero(as_tuple=True)
    rows[:, box, element] = 0.0
    if source is not None:
        rows[: counts[0], box, element] = source[:, box, element]
    return rows


def relu_pair(triple: Triple, ledger: Ledger) -> Triple:
    """``relu`` of both networks' values and of their difference."""
    triple = triple.written()
    kept, size = triple.kept, triple.z.centre.shape[1]
    for form in (triple.z, triple.y, triple.d):
        ledger.watch(form)
    lower, upper, region = sharpened_bounds(triple)
    both = phase_of(torch.cat([lower, region.y_lower], 1), torch.cat([upper, region.y_upper], 1))
    z, y = both.part(0, size), both.part(size, both.lower.shape[1])
    new_z = relu(triple.z, z, ledger, ORIGINAL, kept.order)
    new_y = relu(triple.y, y, ledger, COMPACT)
    near = Phase(*(kept.of(t) for t in (z.lower, z.upper, z.unstable, z.slope)))
    return Triple(new_z, new_y, _relu_difference(triple, region, near, y, ledger), kept)


def sharpened_bounds(triple: Triple) -> tuple[Tensor, Tensor, Region]:
    """Bounds of all of z, and of its kept elements, y and D, each sharpened by the other two."""
    lower, upper = triple.z.bounds()
    kept = triple.kept
    region = Region(kept.of(lower), kept.of(upper), *triple.y.bounds(), *triple.d.bounds()).sharpened()
    return kept.put(lower, region.z_lower), kept.put(upper, region.z_upper), region


def _relu_difference(triple: Triple, region: Region, z: Phase, y: Phase, ledger: Ledger) -> Form:
    near = triple.kept.form(triple.z)
    undecided = z.unstable | y.unstable
    granted = ledger.grant(undecided)
    a, b = z.slope - y.slope, y.slope.clone()
    middle, half = torch.zeros_like(a), torch.zeros_like(a)
    where = undecided.nonzero(as_tuple=True)
    if where[0].shape[0]:
        open_region = Region(*(bound[where] for bound in region.parts()))
        plane = best_plane(open_region, z.slope[where], y.slope[where], ~granted[where])
        a[where], b[where], middle[where], half[where] = plane.a, plane.b, plane.middle, plane.half
    fresh = ledger.fresh(DIFFERENCE, granted, half, near)
    rounded = undecided | (a * b != 0.0)
    return sloped([(a, near), (b, triple.d)], middle, half, rounded=rounded, granted=granted, fresh=fresh)
