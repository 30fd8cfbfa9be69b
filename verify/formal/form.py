"""Affine forms over shared symbols, for a batch of sub-boxes.

    value[i] = centre[i] + sum_k generator[k, i] xi_k + rho_i ,   |xi_k| <= 1,  |rho_i| <= remainder[i]

The symbols are the input coordinates and the relaxation errors of the original network, of the compact network,
and of the difference. Generators come in blocks of rows, so that a form holds rows only for symbols it can have:

    ORIGINAL     inputs, then errors of the original     in forms of the original and of the difference
    COMPACT      inputs, then errors of the compact      in forms of the compact network
    REST         errors of the compact alone             in forms of the difference
    DIFFERENCE   errors of the difference                in forms of the difference

Row j of a block means the same symbol in every form of the same sub-box; a form made before a symbol existed has
fewer rows. The same row may belong to different neurons in different sub-boxes: symbols are packed per sub-box,
so a batch needs as many rows as its busiest sub-box, not as the union of all.

Remainders also collect every rounding error (theory_notes/floating_point.md), so the forms hold in real
arithmetic. Theory: theory_notes/differential_zonotope.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verify.formal.maps import Map
from verify.formal.rounding import MARGIN, TINY, raised, slack

ORIGINAL, COMPACT, REST, DIFFERENCE = range(4)
BLOCKS = (ORIGINAL, COMPACT, REST, DIFFERENCE)

Rows = tuple[Tensor | None, ...]  # one entry per block
NO_ROWS: Rows = (None,) * len(BLOCKS)


@dataclass(frozen=True)
class Fresh:
    """New symbols of one block, each acting on a single element: row ``start + j`` is ``size[j] e_index[j]``.

    Attributes:
        index, size: ``(p, batch)``; unused slots have size 0.
    """

    block: int
    start: int
    index: Tensor
    size: Tensor


@dataclass(frozen=True)
class Form:
    """Affine forms of a value of `n` elements on `batch` sub-boxes; everything but the rows is ``(batch, n)``.

    Attributes:
        centre: the centres.
        rows: per block None or ``(k, batch, n)`` generators.
        remainder: non-negative.
        radius: upper bound of the distance of the value from the centre.
        size: upper bound of ``|centre| + radius``, hence of every partial sum.
        outer: upper bound of the sum of absolute generators of error symbols (not of inputs); None if there are none,
            and in forms of a difference, where nobody asks for it.
        inputs: number of rows of the ORIGINAL and COMPACT blocks that belong to inputs, the same for all forms.
        fresh: symbols not yet written into `rows`.
    """

    centre: Tensor
    rows: Rows
    remainder: Tensor
    radius: Tensor
    size: Tensor
    outer: Tensor | None
    inputs: int
    fresh: Fresh | None = None

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds ``(batch, n)`` of the value, with a margin for a few roundings to come."""
        reach = torch.add(self.radius, self.size, alpha=MARGIN)
        return self.centre - reach, self.centre + reach

    def bytes(self) -> int:
        """Memory held by the generators."""
        return sum(rows.nbytes for rows in self.rows if rows is not None)

    def input_rows(self) -> Tensor | None:
        """Generators ``(inputs, batch, n)`` of the input coordinates."""
        block = self.rows[ORIGINAL] if self.rows[ORIGINAL] is not None else self.rows[COMPACT]
        return None if block is None or not self.inputs else block[: self.inputs]


def formed(centre: Tensor, rows: Rows, remainder: Tensor, inputs: int) -> Form:
    """A form from its parts; radius and size are computed from the generators."""
    present = [part for part in rows if part is not None]
    outer: Tensor | None = None
    total, count = remainder, sum(part.shape[0] for part in present)
    if len(present) == 1 and inputs < count and inputs:  # one network: errors apart
        magnitude = present[0].abs()
        outer = magnitude[inputs:].sum(0).mul_(1.0 + slack(count))
        total = magnitude[:inputs].sum(0).add_(remainder).add_(outer)
    else:
        for part in present:
            total = part.abs().sum(0).add_(total)
    radius = total * (1.0 + slack(count))
    return Form(centre, rows, remainder, radius, _size(centre, radius), outer, inputs)


def _size(centre: Tensor, radius: Tensor) -> Tensor:
    return (centre.abs() + radius).mul_(1.0 + 2.0**-50)


def constant(value: Tensor, batch: int, inputs: int = 0, error: float = 0.0) -> Form:
    """A value ``(n,)`` that is the same in every sub-box, known up to a relative error; `inputs` as in `Form`."""
    centre = value.expand(batch, -1)
    remainder = centre.abs() * error
    return Form(centre, NO_ROWS, remainder, remainder, _size(centre, remainder), None, inputs)


def combine(
    terms: Sequence[tuple[Map, Form]], offset: Tensor | None = None, offset_error: Tensor | None = None
) -> Form:
    """``sum_t map_t(form_t) + offset``, every rounding error included.

    Args:
        offset: ``(outputs,)``; the true offset differs from it by at most `offset_error`.
    """
    if len(terms) == 1 and terms[0][0].roundings == 0 and offset is None:
        return _moved(*terms[0])
    relative = slack(sum(m.roundings for m, _ in terms) + len(terms) + 1)
    centre = _image(terms, [form.centre for _, form in terms])
    remainder = _remainder(terms, relative)
    if offset is not None:
        centre = centre + offset
        remainder += offset.abs() * relative if offset_error is None else offset.abs() * relative + offset_error
    remainder += TINY
    rows = tuple(_rows(block, terms, centre) for block in BLOCKS)
    return formed(centre, rows, remainder, max(form.inputs for _, form in terms))


def _moved(linear: Map, form: Form) -> Form:
    """The image under a map that rounds nothing."""
    if getattr(linear, "identity", False):
        return form
    form = with_fresh_written(form)
    rows = tuple(None if part is None else linear(part) for part in form.rows)
    return formed(linear(form.centre), rows, linear.absolute(form.remainder), form.inputs)


def _image(terms: Sequence[tuple[Map, Form]], parts: Sequence[Tensor]) -> Tensor:
    total = terms[0][0](parts[0])
    for (linear, _), part in zip(terms[1:], parts[1:], strict=True):
        total = total + linear(part)
    return total


def _remainder(terms: Sequence[tuple[Map, Form]], relative: float) -> Tensor:
    """Upper bound of what the exact image of the forms and the computed one can differ by, offset aside."""
    total: Tensor | None = None
    for linear, form in terms:
        part = linear.absolute(torch.add(form.remainder, form.size, alpha=relative))
        if linear.error is not None:
            index = getattr(linear, "index", None)
            part = part + linear.error * (form.size if index is None else form.size.index_select(-1, index))
        total = part if total is None else total.add_(part)
    assert total is not None
    return total


def rows_of(form: Form, block: int) -> int:
    """Number of rows a block has in the form, fresh symbols included."""
    if form.fresh is not None and form.fresh.block == block:
        return form.fresh.start + form.fresh.index.shape[0]
    rows = form.rows[block]
    return 0 if rows is None else rows.shape[0]


def _rows(block: int, terms: Sequence[tuple[Map, Form]], like: Tensor) -> Tensor | None:
    """One block of generators of ``sum_t map_t(form_t)``."""
    longest = max(rows_of(form, block) for _, form in terms)
    if longest == 0:
        return None
    out = torch.empty(longest, *like.shape, dtype=torch.float64)
    written = 0
    for linear, form in terms:
        written = _add_term(linear, form, block, out, written)
    return out


def _add_term(linear: Map, form: Form, block: int, out: Tensor, written: int) -> int:
    """Add one term's rows to `out`, whose rows from `written` on are not initialised; returns the new mark."""
    rows, fresh = form.rows[block], form.fresh
    if rows is not None:
        count = rows.shape[0]
        both = min(count, written)
        if both:
            linear.into(rows[:both], out[:both], add=True)
        if count > both:
            linear.into(rows[both:], out[both:count], add=False)
        written = max(written, count)
    if fresh is None or fresh.block != block:
        return written
    end = fresh.start + fresh.index.shape[0]
    if written <= fresh.start:
        out[written : fresh.start] = 0.0
        out[fresh.start : end] = linear.units(fresh.index, fresh.size)
        return end
    out[written:end] = 0.0
    out[fresh.start : end] += linear.units(fresh.index, fresh.size)
    return max(written, end)


def with_fresh_written(form: Form) -> Form:
    """The same form with its fresh symbols as ordinary rows."""
    if form.fresh is None:
        return form
    fresh = form.fresh
    old = form.rows[fresh.block]
    rows = torch.zeros(rows_of(form, fresh.block), *form.centre.shape, dtype=torch.float64)
    if old is not None:
        rows[: old.shape[0]] = old
    rows[fresh.start :].scatter_(2, fresh.index[..., None], fresh.size[..., None])
    written = tuple(rows if b == fresh.block else part for b, part in zip(BLOCKS, form.rows, strict=True))
    return replace(form, rows=written, fresh=None)


def sloped(
    terms: Sequence[tuple[Tensor, Form]],
    middle: Tensor,
    half: Tensor,
    *,
    rounded: Tensor,
    granted: Tensor,
    fresh: Fresh | None,
) -> Form:
    """``sum_t slope_t form_t + middle ± half``, element by element; slopes, middle and half are ``(batch, n)``.

    The half-width is the size of a fresh symbol where `granted`, and part of the remainder elsewhere. The forms
    must have no fresh symbols, and no more than two may be given.

    Args:
        rounded: elements in which anything is rounded; elsewhere a single slope is 1 or -1 and the rest is 0.
    """
    centre, radius, remainder, weight = middle, half, torch.where(granted, 0.0, half), middle.abs()
    sizes = [slope.abs() for slope, _ in terms]
    for (slope, form), absolute in zip(terms, sizes, strict=True):
        centre = torch.addcmul(centre, slope, form.centre)
        radius = torch.addcmul(radius, absolute, form.radius)
        remainder = torch.addcmul(remainder, absolute, form.remainder)
        weight = torch.addcmul(weight, absolute, form.size)
    error = torch.add(_TINY, weight, alpha=slack(6)).mul_(rounded)
    radius = raised(radius.add_(error))
    outer = _sloped_outer(sizes[0], terms[0][1], half) if len(terms) == 1 else None
    rows = tuple(_sloped_rows(block, terms) for block in BLOCKS)
    inputs = max(form.inputs for _, form in terms)
    return Form(centre, rows, remainder.add_(error), radius, _size(centre, radius), outer, inputs, fresh)


_TINY = torch.tensor(TINY, dtype=torch.float64)


def _sloped_outer(absolute: Tensor, form: Form, half: Tensor) -> Tensor:
    return raised(half if form.outer is None else torch.addcmul(half, absolute, form.outer))


def _sloped_rows(block: int, terms: Sequence[tuple[Tensor, Form]]) -> Tensor | None:
    total: Tensor | None = None
    present = [(slope, rows) for slope, form in terms if (rows := form.rows[block]) is not None]
    for slope, rows in sorted(present, key=lambda pair: -pair[1].shape[0]):
        if total is None:
            total = rows * slope
        else:
            total[: rows.shape[0]].addcmul_(rows, slope)
    return total
