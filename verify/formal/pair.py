"""A value of both networks and their difference: three affine forms over the same symbols.

    z: original, n elements     y: compact, m elements     d = z[kept] - y, m elements

The difference is propagated on its own, because z[kept] - y loses what the two share; but where that form is
the narrower one, it takes over (`narrower`). Both statements hold at once, so any choice per element is sound.
Theory: theory_notes/differential_zonotope.md.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verify.formal.form import COMPACT, DIFFERENCE, INPUT, ORIGINAL, Form, Rows, sloped, with_fresh_written
from verify.formal.pair_relu import Region, best_plane
from verify.formal.relu import Phase, input_share, phase_of, relu
from verify.formal.rounding import raised, slack
from verify.formal.symbols import Ledger


class Kept:
    """Where the elements of the compact value sit in the original one: all, a prefix, or an index."""

    def __init__(self, index: Tensor, size: int) -> None:
        self.count, self.index = len(index), index
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
        return rows.index_copy(-1, self.index, values)

    def form(self, form: Form) -> Form:
        """The kept elements of a form without fresh symbols."""
        return Form(
            self.of(form.centre),
            tuple(None if rows is None else self.of(rows) for rows in form.generators),
            tuple(None if part is None else self.of(part) for part in form.spreads),
            self.of(form.remainder),
        )


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


def narrower(triple: Triple) -> Triple:
    """Replace the difference by ``z[kept] - y`` wherever that form has the smaller radius."""
    z, y, d = triple.kept.form(triple.z), triple.y, triple.d
    inputs = _input_rows_of_difference(z, y)
    spreads = _spreads_of_difference(z, y, inputs)
    size = raised(z.centre.abs() + y.centre.abs() + z.spread() + y.spread())
    remainder = raised(z.remainder + y.remainder + size * slack(2))
    radius = raised(sum((s for s in spreads if s is not None), start=remainder))
    better = radius < d.radius()
    if not bool(better.any()):
        return triple
    centre = torch.where(better, z.centre - y.centre, d.centre)
    parts = zip(d.spreads, spreads, strict=True)
    mixed = tuple(_mixed(better, old, new, d.centre) for old, new in parts)
    rows = _replaced_rows(better, z, y, d, inputs)
    return replace(triple, d=Form(centre, rows, mixed, torch.where(better, remainder, d.remainder)))


def _input_rows_of_difference(z: Form, y: Form) -> Tensor | None:
    a, b = z.generators[INPUT], y.generators[INPUT]
    if a is None or b is None:
        return a if b is None else -b
    return a - b


def _spreads_of_difference(z: Form, y: Form, inputs: Tensor | None) -> Rows:
    shared = None if inputs is None else raised(inputs.abs().sum(0) * (1.0 + slack(len(inputs))))
    return shared, z.spreads[ORIGINAL], y.spreads[COMPACT], None


def _mixed(better: Tensor, old: Tensor | None, new: Tensor | None, like: Tensor) -> Tensor | None:
    if old is None and new is None:
        return None
    zero = torch.zeros_like(like)
    return torch.where(better, zero if new is None else new, zero if old is None else old)


def _replaced_rows(better: Tensor, z: Form, y: Form, d: Form, inputs: Tensor | None) -> Rows:
    compact = y.generators[COMPACT]
    sources = (inputs, z.generators[ORIGINAL], None if compact is None else -compact, None)
    everywhere = bool(better.all())
    return tuple(
        source if everywhere else _replaced(better, source, old, d.centre)
        for source, old in zip(sources, d.generators, strict=True)
    )


def _replaced(better: Tensor, source: Tensor | None, old: Tensor | None, like: Tensor) -> Tensor | None:
    longest = max(0 if source is None else len(source), 0 if old is None else len(old))
    if longest == 0:
        return None
    rows = torch.zeros(longest, *like.shape, dtype=torch.float64)
    if old is not None:
        rows[: len(old)] = old
    box, element = better.nonzero(as_tuple=True)
    rows[:, box, element] = 0.0
    if source is not None:
        rows[: len(source), box, element] = source[:, box, element]
    return rows


def relu_pair(triple: Triple, ledger: Ledger) -> Triple:
    """``relu`` of both networks' values and of their difference."""
    triple = triple.written()
    kept = triple.kept
    for form in (triple.z, triple.y, triple.d):
        ledger.watch(form.radius())
    lower, upper, region = sharpened_bounds(triple)
    z, y = phase_of(lower, upper), phase_of(region.y_lower, region.y_upper)
    new_z = relu(triple.z, z, ledger, ORIGINAL)
    new_y = relu(triple.y, y, ledger, COMPACT)
    near = Phase(kept.of(z.lower), kept.of(z.upper), kept.of(z.unstable), kept.of(z.slope))
    return Triple(new_z, new_y, _relu_difference(triple, region, near, y, ledger), kept)


def sharpened_bounds(triple: Triple) -> tuple[Tensor, Tensor, Region]:
    """Bounds of all of z, and of its kept elements, y and D, each sharpened by the other two."""
    lower, upper = triple.z.bounds()
    kept = triple.kept
    region = Region(kept.of(lower), kept.of(upper), *triple.y.bounds(), *triple.d.bounds()).sharpened()
    return kept.put(lower, region.z_lower), kept.put(upper, region.z_upper), region


def _relu_difference(triple: Triple, region: Region, z: Phase, y: Phase, ledger: Ledger) -> Form:
    d, near = triple.d, triple.kept.form(triple.z)
    undecided = z.unstable | y.unstable
    granted = ledger.grant(undecided)
    a, b = z.slope - y.slope, y.slope.clone()
    middle, half = torch.zeros_like(a), torch.zeros_like(a)
    if bool(undecided.any()):
        plane = best_plane(region.at(undecided), z.slope[undecided], y.slope[undecided], ~granted[undecided])
        a[undecided], b[undecided], middle[undecided], half[undecided] = plane.a, plane.b, plane.middle, plane.half
    fresh = ledger.fresh(DIFFERENCE, granted, half, _share(near, triple.y, ledger))
    return sloped([(a, near), (b, d)], middle, half, granted, fresh)


def _share(z: Form, y: Form, ledger: Ledger) -> Tensor | None:
    shares = [s for s in (input_share(z, ledger), input_share(y, ledger)) if s is not None]
    return torch.maximum(*shares) if len(shares) == 2 else None
