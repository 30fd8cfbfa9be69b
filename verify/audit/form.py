"""Affine forms with integer coefficients, and their sums.

A form encloses n real values in each of L leaves:

    value = 2^exponent (body[0] + sum_j body[j] xi_j + rem eta),   |xi_j| <= 1 shared by all forms, |eta| <= 1 free

with integers `body`, `rem` and the invariant sum_j |body[j]| + rem < 2^40. What a sum drops (digits below the unit of
the result) is bounded above and added to `rem`. Theory note: exact_audit.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from verify.audit.exact import (
    FORM_BITS,
    LARGEST,
    Array,
    Index,
    Mask,
    Memory,
    OutOfRange,
    Resource,
    Slack,
    bits,
    largest,
    power,
)

Blocks = tuple[tuple[int, int], ...]

CENTRE: Blocks = ((0, 1),)
TILE_BYTES = 2**18  # part of a form that is worked on at a time
MANY_COLUMNS, STRIDE = 64, 8  # forms of more columns get their unit from every eighth column
FORM_BYTES = 2**28  # size of one form


@dataclass(frozen=True)
class Form:
    """Enclosures of n values in each of L leaves; see the head of this file.

    Attributes:
        exponent: the unit of all integers is 2^exponent.
        blocks: (id, width) of the runs of columns of `body`. The first is the centre, one column of id 0.
        body: (n, columns, L). rem: (n, L).
    """

    exponent: int
    blocks: Blocks
    body: Array
    rem: Array

    @cached_property
    def size(self) -> Array:
        """Bound of |value|, (n, L), in units of 2^exponent."""
        return absolute_sum(self.body) + self.rem

    @property
    def radius(self) -> Array:
        """Bound of |value - centre|."""
        return self.size - np.abs(self.body[:, 0])

    def bounds(self, unit: int) -> tuple[Array, Array]:
        """Lower and upper bounds of the values in units of 2^unit, rounded outward."""
        centre, radius, factor = self.body[:, 0], self.radius, power(self.exponent - unit)
        return np.floor((centre - radius) * factor), np.ceil((centre + radius) * factor)

    def take(self, elements: Index) -> "Form":
        """Values by index; -1 stands for the constant 0."""
        body, rem = self.body[elements], self.rem[elements]
        if elements.min(initial=0) < 0:
            body[elements < 0], rem[elements < 0] = 0.0, 0.0
        return Form(self.exponent, self.blocks, body, rem)


def absolute_sum(body: Array) -> Array:
    """Sum of |entries| over the columns, (n, L): exact below 2^53, and otherwise not below 2^52."""
    total: Array = np.abs(body).sum(axis=1)
    return total


@dataclass(frozen=True)
class Part:
    """Integers (n, columns, L), times integers (n, L) if given, in units of 2^exponent.

    |body times factor| <= reach; where `active` (broadcast to (n, L)) is given and false, the product is 0.
    """

    body: Array
    exponent: int
    reach: float
    factor: Array | None = None
    active: Mask | None = None

    def largest(self) -> float:
        """The largest |entry|, where `reach` is too coarse a bound."""
        most = np.max(np.abs(self.body), axis=1, initial=0.0)
        return largest(most if self.factor is None else most * np.abs(self.factor))


class Summand(Protocol):
    """One summand of a form to be; its entries are formed a few columns at a time."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, L)."""

    @property
    def blocks(self) -> Blocks:
        """The runs of its columns."""

    @property
    def reach(self) -> float:
        """Bound of |entries|, 0 only if all are 0."""

    def sizes(self, step: int, stride: int) -> list[Slack]:
        """Bounds of |summand| for every step-th leaf; with a stride, guesses from every stride-th column."""

    def parts(self, columns: slice) -> list[Part]:
        """Some columns of the summand."""


@dataclass(frozen=True)
class Term:
    """One summand of a form to be: the affine part of a form, times factor / 2^digits."""

    form: Form
    factor: Array | None = None
    digits: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.form.rem), self.form.rem.shape[1]

    @property
    def blocks(self) -> Blocks:
        return self.form.blocks

    @cached_property
    def size(self) -> Array:
        """Bounds of |summand|, (n, L), in units of 2^exponent."""
        return self.form.size if self.factor is None else self.form.size * np.abs(self.factor)

    @cached_property
    def reach(self) -> float:
        return largest(self.size)

    @cached_property
    def active(self) -> Mask | None:
        return None if self.factor is None else self.factor != 0

    def sizes(self, step: int, stride: int) -> list[Slack]:
        """Bounds of |summand| for every step-th leaf."""
        return [(self.size[:, ::step], self.form.exponent - self.digits)]

    def parts(self, columns: slice) -> list[Part]:
        """Some columns of the summand."""
        exponent = self.form.exponent - self.digits
        return [Part(self.form.body[:, columns], exponent, self.reach, self.factor, self.active)]


def constant(values: Array, exponent: int) -> Term:
    """Constants (n, L) in units of 2^exponent as a summand."""
    return Term(Form(exponent, CENTRE, values[:, None], np.zeros(values.shape)))


def settle(terms: Sequence[Summand], slacks: Sequence[Slack], chosen: Mask | None = None, block: int = 0) -> Form:
    """The sum of terms and slacks as a form: chooses the unit and puts every rounding error into `rem`.

    The remainders of the `chosen` (value, leaf) pairs become fresh symbols, one each, as block `block`.
    """
    n, leaves = terms[0].shape
    slacks = [s for s in slacks if s[0].any()]
    used = [t for t in terms if t.reach > 0]
    widths: dict[int, int] = {}
    if any(widths.setdefault(b, w) != w for t in used or terms for b, w in t.blocks):
        raise Resource("blocks of symbols differ in width")
    blocks, columns = tuple(widths.items()), sum(widths.values())
    order = None if chosen is None else np.cumsum(chosen, axis=0) - 1
    width = 0 if order is None else int(order[-1].max()) + 1
    check_memory(n, leaves, (*blocks, (block, width)))
    for step, stride in ((max(1, leaves // 2), STRIDE if columns > MANY_COLUMNS else 1), (1, 1)):
        unit = choose_unit(used, slacks, step, stride)
        body = np.zeros((n, columns + width, leaves))
        try:
            rem = place(body, blocks, used, unit)
        except OutOfRange:  # what the proposal did not look at is larger
            continue
        for radius, exponent in slacks:
            rem += np.ceil(radius * power(exponent - unit))
        size = absolute_sum(body[:, :columns]) + rem
        if largest(size) < 2.0**FORM_BITS:
            break
    else:
        raise Resource("a sum leaves the fixed-point range")
    if chosen is not None and order is not None and width:
        rows, at = np.nonzero(chosen)
        body[rows, columns + order[rows, at], at] = rem[rows, at]
        rem[chosen] = 0.0
        blocks = (*blocks, (block, width))
    form = Form(unit, blocks, body, rem)
    form.__dict__["size"] = size  # the cached property: a symbol in place of a remainder leaves the sum as it is
    return form


def choose_unit(terms: Sequence[Summand], slacks: Sequence[Slack], step: int, stride: int = 1) -> int:
    """Exponent of a unit in which the sums stay below 2^40, judged by some leaves and columns: a proposal."""
    sizes = [size for t in terms for size in t.sizes(step, stride)]
    sizes += [(radius[:, ::step], exponent) for radius, exponent in slacks]
    tops = [largest(size) for size, _ in sizes]
    used = [pair for pair, top in zip(sizes, tops, strict=True) if top]
    if not used:
        return min((exponent for _, exponent in sizes), default=0)  # zeros of the finest unit are not rounded
    top = max(bits(top) + exponent for top, (_, exponent) in zip(tops, sizes, strict=True) if top)
    total = sum((size * power(exponent - top) for size, exponent in used), start=np.zeros(1))
    return top + int(np.ceil(np.log2(float(np.max(total))))) - (FORM_BITS - 1) + (step > 1 or stride > 1)


def place(body: Array, blocks: Blocks, terms: Sequence[Summand], unit: int) -> Array:
    """Write the sum of the terms into `body` (zeros before), rounded to units of 2^unit.

    Returns bounds of the rounding errors, (n, L).

    Raises:
        Resource: a partial sum could reach 2^52.
    """
    starts = dict(zip((b for b, _ in blocks), np.cumsum([0, *(w for _, w in blocks)]).tolist(), strict=False))
    halves = np.zeros((len(body), body.shape[2]))
    together = max(1, TILE_BYTES // (8 * halves.size))
    written, total = 0, 0.0
    for t in terms:
        reached: dict[int, float] = {}
        for begin, start, width in runs(t.blocks, starts):
            for first in range(0, width, together):
                count = min(together, width - first)
                goal = body[:, start + first : start + first + count]
                for i, part in enumerate(t.parts(slice(begin + first, begin + first + count))):
                    scale = power(part.exponent - unit)
                    reach = part.reach if part.reach * scale < LARGEST // 16 else part.largest()
                    reached[i] = max(reached.get(i, 0.0), reach * scale)
                    halves += add_part(goal, part, scale, start + first >= written and i == 0)
            written = max(written, start + width)
        total += sum(reached.values())
    if not total < LARGEST:
        raise OutOfRange("a summand leaves the fixed-point range")
    return np.ceil(halves * 0.5)


def add_part(goal: Array, part: Part, scale: float, empty: bool) -> Any:
    """Add a part, scaled and rounded to integers, to `goal`, which holds zeros if `empty`.

    Returns how many columns per (value, leaf) rounding may have changed, by at most 1/2 each.
    """
    factor = np.float64(scale) if part.factor is None else (part.factor * scale)[:, None]
    scaled = np.multiply(part.body, factor, out=goal if empty else None)
    changed: Any = 0
    if scale < 1.0:
        width = part.body.shape[1]
        changed = width if part.active is None else width * part.active
        if width == 1:
            changed = (scaled != np.rint(scaled))[:, 0]
        np.rint(scaled, out=scaled)
    if not empty:
        goal += scaled
    return changed


def runs(blocks: Blocks, starts: Mapping[int, int]) -> list[tuple[int, int, int]]:
    """(first column, first column in the target, width) of the longest runs of blocks that stay together."""
    found: list[tuple[int, int, int]] = []
    begin = 0
    for block, width in blocks:
        if found and starts[block] == found[-1][1] + found[-1][2]:
            found[-1] = (found[-1][0], found[-1][1], found[-1][2] + width)
        else:
            found.append((begin, starts[block], width))
        begin += width
    return found


def check_memory(n: int, leaves: int, blocks: Blocks) -> None:
    """Refuse a form that exceeds the memory allowed."""
    if 8 * n * leaves * sum(width for _, width in blocks) > FORM_BYTES:
        raise Memory(f"a form of {n} values in {leaves} leaves exceeds the memory allowed")
