"""Affine forms over shared symbols, for a batch of sub-boxes.

    value[i] = centre[i] + sum_k generator[k, i] xi_k + rho_i ,   |xi_k| <= 1,  |rho_i| <= remainder[i]

The symbols come in four families, so that a form holds rows only for those that can occur in it: the input
coordinates, the relaxation errors of the original network, those of the compact network, and those of the
difference. Row j of a family means the same symbol in every form of the same sub-box; a form made before a
symbol existed has fewer rows. The same row may belong to different neurons in different sub-boxes: symbols
are packed per sub-box, so a batch needs as many rows as its busiest sub-box, not as the union of all.

Remainders also collect every rounding error (theory_notes/floating_point.md), so the forms hold in real
arithmetic. Theory: theory_notes/differential_zonotope.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verify.formal.maps import Map
from verify.formal.rounding import above, below, raised, slack

INPUT, ORIGINAL, COMPACT, DIFFERENCE = range(4)
FAMILIES = (INPUT, ORIGINAL, COMPACT, DIFFERENCE)

Rows = tuple[Tensor | None, ...]  # one entry per family


@dataclass(frozen=True)
class Fresh:
    """New symbols of one family, each acting on a single element: row ``start + j`` is ``size[j] e_index[j]``.

    Attributes:
        index, size: ``(p, batch)``; unused slots have size 0.
    """

    family: int
    start: int
    index: Tensor
    size: Tensor


@dataclass(frozen=True)
class Form:
    """Affine forms of a value of `n` elements on `batch` sub-boxes.

    Attributes:
        centre: ``(batch, n)``.
        generators: per family None or ``(k, batch, n)``.
        spreads: per family None or ``(batch, n)``, upper bounds of the sum of absolute generators, `fresh` included.
        remainder: ``(batch, n)``, non-negative.
        fresh: symbols not yet written into `generators`.
    """

    centre: Tensor
    generators: Rows
    spreads: Rows
    remainder: Tensor
    fresh: Fresh | None = None

    def spread(self) -> Tensor:
        """Upper bound ``(batch, n)`` of the sum of absolute generators over all families."""
        total = torch.zeros_like(self.centre)
        for part in self.spreads:
            if part is not None:
                total += part
        return raised(total)

    def radius(self) -> Tensor:
        """Upper bound ``(batch, n)`` of the distance of the value from the centre."""
        return raised(self.spread() + self.remainder)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds ``(batch, n)`` of the value, rounded outward."""
        radius = self.radius()
        return below(self.centre - radius), above(self.centre + radius)

    def bytes(self) -> int:
        """Memory held by the generators."""
        return sum(rows.nbytes for rows in self.generators if rows is not None)


def constant(value: Tensor, batch: int) -> Form:
    """A value ``(n,)`` known exactly, the same in every sub-box."""
    centre = value.expand(batch, -1)
    return Form(centre, (None,) * 4, (None,) * 4, torch.zeros_like(centre))


def combine(
    terms: Sequence[tuple[Map, Form]], offset: Tensor | None = None, offset_error: Tensor | None = None
) -> Form:
    """``sum_t map_t(form_t) + offset``, every rounding error included.

    Args:
        offset: ``(outputs,)``; the true offset differs from it by at most `offset_error`.
    """
    centre = _accumulated([(m, f.centre) for m, f in terms])
    roundings = sum(m.roundings for m, _ in terms) + len(terms) + 1
    exact = len(terms) == 1 and terms[0][0].roundings == 0 and offset is None
    remainder = _remainder(terms, 0.0 if exact else slack(roundings))
    if offset is not None:
        centre = centre + offset
        remainder = remainder + (offset.abs() * slack(roundings) + (0.0 if offset_error is None else offset_error))
    if not exact:
        remainder = raised(remainder)
    rows = tuple(_rows(family, terms, centre) for family in FAMILIES)
    return Form(centre, rows, tuple(spread_of(r) for r in rows), remainder)


def _remainder(terms: Sequence[tuple[Map, Form]], relative: float) -> Tensor:
    """Upper bound of what the exact image of the forms and the computed one can differ by, offset aside."""
    parts = []
    for linear, form in terms:
        if relative == 0.0:
            parts.append(linear.absolute(form.remainder))
            continue
        size = raised(form.centre.abs() + form.spread())
        parts.append(linear.absolute(form.remainder * (1.0 + relative) + size * relative))
        if linear.error is not None:
            parts.append(linear.error * selected_size(linear, raised(size + form.remainder)))
    return sum(parts[1:], start=parts[0])


def selected_size(linear: Map, size: Tensor) -> Tensor:
    """Magnitude of the element that each output of a `Diagonal` reads."""
    index = getattr(linear, "index", None)
    return size if index is None else size.index_select(-1, index)


def _accumulated(parts: Sequence[tuple[Map, Tensor]]) -> Tensor:
    total = parts[0][0](parts[0][1])
    for linear, rows in parts[1:]:
        total = total + linear(rows)
    return total


def rows_of(form: Form, family: int) -> int:
    """Number of rows a family has in the form, fresh symbols included."""
    if form.fresh is not None and form.fresh.family == family:
        return form.fresh.start + len(form.fresh.index)
    rows = form.generators[family]
    return 0 if rows is None else len(rows)


def _rows(family: int, terms: Sequence[tuple[Map, Form]], like: Tensor) -> Tensor | None:
    """Generators of one family of ``sum_t map_t(form_t)``."""
    longest = max(rows_of(form, family) for _, form in terms)
    if longest == 0:
        return None
    if len(terms) == 1 and terms[0][0].roundings == 0 and terms[0][1].fresh is None:
        return terms[0][0](terms[0][1].generators[family])  # type: ignore[arg-type]
    out = torch.empty(longest, *like.shape, dtype=torch.float64)
    written = 0
    for linear, form in terms:
        written = _add_term(linear, form, family, out, written)
    return out


def _add_term(linear: Map, form: Form, family: int, out: Tensor, written: int) -> int:
    """Add one term's rows to `out`, whose rows from `written` on are not initialised; returns the new mark."""
    rows, fresh = form.generators[family], form.fresh
    if rows is not None:
        both = min(len(rows), written)
        if both:
            linear.into(rows[:both], out[:both], add=True)
        if len(rows) > both:
            linear.into(rows[both:], out[both : len(rows)], add=False)
        written = max(written, len(rows))
    if fresh is None or fresh.family != family:
        return written
    end = fresh.start + len(fresh.index)
    out[written:end] = 0.0
    out[fresh.start : end] += linear.units(fresh.index, fresh.size)
    return max(written, end)


def spread_of(rows: Tensor | None) -> Tensor | None:
    """Upper bound ``(batch, n)`` of the sum of absolute rows."""
    if rows is None:
        return None
    return rows.abs().sum(0).mul_(1.0 + slack(len(rows)))


def with_fresh_written(form: Form) -> Form:
    """The same form with its fresh symbols as ordinary rows."""
    if form.fresh is None:
        return form
    fresh = form.fresh
    old = form.generators[fresh.family]
    rows = torch.zeros(rows_of(form, fresh.family), *form.centre.shape, dtype=torch.float64)
    if old is not None:
        rows[: len(old)] = old
    rows[fresh.start :].scatter_(2, fresh.index[..., None], fresh.size[..., None])
    generators = tuple(rows if f == fresh.family else g for f, g in zip(FAMILIES, form.generators, strict=True))
    return replace(form, generators=generators, fresh=None)


def sloped(
    terms: Sequence[tuple[Tensor, Form]], middle: Tensor, half: Tensor, granted: Tensor, fresh: Fresh | None
) -> Form:
    """``sum_t slope_t form_t + middle ± half``, element by element; slopes, middle and half are ``(batch, n)``.

    The half-width is the size of a fresh symbol where `granted`, and part of the remainder elsewhere. Where a
    single slope is 1 or -1 and the rest is 0, nothing is rounded. The forms must have no fresh symbols.
    """
    sizes = [slope.abs() for slope, _ in terms]
    scales = [raised(form.centre.abs() + form.spread()) for _, form in terms]
    centre = sum((slope * form.centre for slope, form in terms), start=middle)
    moved = sum((size * scale for size, scale in zip(sizes, scales, strict=True)), start=middle.abs())
    kept = sum((size * form.remainder for size, (_, form) in zip(sizes, terms, strict=True)), start=moved * 0.0)
    exact = _is_exact([slope for slope, _ in terms], middle) & (half == 0.0)
    rest = torch.where(granted, 0.0, half)
    remainder = torch.where(exact, kept, raised(kept + moved * slack(2 * len(terms) + 2) + rest))
    rows = tuple(_sloped_rows(family, terms) for family in FAMILIES)
    spreads = tuple(_sloped_spread(family, terms, sizes, half * granted, fresh) for family in FAMILIES)
    return Form(centre, rows, spreads, remainder, fresh)


def _is_exact(slopes: Sequence[Tensor], middle: Tensor) -> Tensor:
    used = sum(((s != 0.0).to(torch.int8) for s in slopes), start=torch.zeros_like(middle, dtype=torch.int8))
    whole = torch.ones_like(middle, dtype=torch.bool)
    for slope in slopes:
        whole &= (slope == 0.0) | (slope.abs() == 1.0)
    return whole & (used <= 1) & (middle == 0.0)


def _sloped_rows(family: int, terms: Sequence[tuple[Tensor, Form]]) -> Tensor | None:
    total: Tensor | None = None
    present = [(slope, rows) for slope, form in terms if (rows := form.generators[family]) is not None]
    for slope, rows in sorted(present, key=lambda pair: -len(pair[1])):
        if total is None:
            total = rows * slope
        else:
            total[: len(rows)].addcmul_(rows, slope)
    return total


def _sloped_spread(
    family: int, terms: Sequence[tuple[Tensor, Form]], sizes: Sequence[Tensor], half: Tensor, fresh: Fresh | None
) -> Tensor | None:
    pairs = zip(sizes, (form.spreads[family] for _, form in terms), strict=True)
    parts = [size * spread for size, spread in pairs if spread is not None]
    if fresh is not None and fresh.family == family:
        parts.append(half)
    return raised(sum(parts[1:], start=parts[0])) if parts else None
