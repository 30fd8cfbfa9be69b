"""Exact arithmetic of affine forms: integers carried by float64 arrays, guarded so that no operation rounds.

A form encloses n real values in each of L leaves:

    value = 2^exponent (body[0] + sum_j body[j] xi_j + rem eta),   |xi_j| <= 1 shared by all forms, |eta| <= 1 free

with integers `body`, `rem` and the invariant sum_j |body[j]| + rem < 2^40. A matrix product runs on limbs of 20
bits: k products of at most 2^41 each stay below 2^52, so every partial sum is an integer that float64 holds, and
BLAS returns the exact result in any order of summation. What is dropped (the product of the two low limbs, digits
below the unit of the result, digits of weights below the lowest limb) is bounded above and added to `rem`.

Floating-point division and logarithms only propose (slopes, units); no step of the proof rests on them.
Theory note: exact_audit.md. Not claimed: anything about the rounding of the deployed networks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]
Blocks = tuple[tuple[int, int], ...]
Slack = tuple[Array, int]  # a radius (n, L) >= 0 in units of 2^exponent

CENTRE: Blocks = ((0, 1),)
LIMB = 20
FORM_BITS = 2 * LIMB  # sum |body| + rem < 2^FORM_BITS
LARGEST = 2**52  # no sum in a float64 product may reach this
LONGEST_ROW = 2**11  # longer rows of weights are cut
COLUMN_BYTES = 2**25  # size of the patches gathered for one matrix product
FEW_COLUMNS = 8  # up to here the columns that rounding changes are counted, beyond it all count
FORM_BYTES = 2**28  # size of one form


class Resource(Exception):
    """The fixed-point range or the memory allowed does not suffice; says nothing about the claim."""


class Memory(Resource):
    """Too much memory for this many leaves at once; fewer may do."""


class Refuted(Exception):
    """A step of the proof fails: the certificate does not prove its claim."""


def power(exponent: int) -> float:
    """2^exponent. Below 2^-200 every integer of ours scales to less than a half, as it would by the true factor."""
    if exponent > 200:
        raise Resource(f"numbers of magnitudes 2^{exponent} apart do not fit one fixed-point range")
    return float(2.0 ** max(exponent, -200))


def bits(value: float) -> int:
    """The smallest b with value < 2^b, for an integer-valued value >= 0."""
    return int(value).bit_length()


def largest(values: Array) -> float:
    """Largest element of a non-negative array, 0 if it is empty."""
    return float(values.max(initial=0.0))


def coarse(values: Array, width: int) -> Slack:
    """Non-negative integers rounded up to `width` bits: values <= result 2^shift, result <= 2^width."""
    shift = max(0, bits(largest(values)) - width)
    return (np.ceil(values * power(-shift)), shift) if shift else (values, 0)


@dataclass(frozen=True)
class Real:
    """Real numbers with |number - mantissa 2^exponent| <= slack 2^exponent; integral mantissa, |mantissa| < 2^53."""

    mantissa: Array
    exponent: Index
    slack: Array

    @property
    def top(self) -> int:
        """All |numbers| are below 2^top."""
        used = (self.mantissa != 0) | (self.slack != 0)
        return int(self.exponent[used].max()) + 54 if used.any() else 0

    def __getitem__(self, key: Any) -> "Real":
        return Real(self.mantissa[key], self.exponent[key], self.slack[key])

    def reshape(self, *shape: int) -> "Real":
        return Real(self.mantissa.reshape(shape), self.exponent.reshape(shape), self.slack.reshape(shape))

    def transpose(self, *axes: int) -> "Real":
        return Real(self.mantissa.transpose(axes), self.exponent.transpose(axes), self.slack.transpose(axes))

    def expand(self, shape: tuple[int, ...]) -> "Real":
        """Broadcast to `shape`."""
        mantissa, slack = np.broadcast_to(self.mantissa, shape), np.broadcast_to(self.slack, shape)
        return Real(mantissa, np.broadcast_to(self.exponent, shape), slack)

    def negated(self) -> "Real":
        return Real(-self.mantissa, self.exponent, self.slack)

    def units(self, unit: int) -> tuple[Array, Array]:
        """Integers and radii with |number / 2^unit - integer| <= radius; the radius is 0 where nothing is lost."""
        if self.top - unit > 54:
            raise Resource("a number exceeds the fixed-point range chosen for it")
        shift = np.clip(self.exponent - unit, -200, 0)
        scaled = np.ldexp(self.mantissa, shift)
        whole = np.rint(scaled)
        return whole, np.ceil(np.ldexp(self.slack, shift)) + (whole != scaled)

    def same(self, other: "Real") -> Mask:
        """Where both are the same number for certain."""
        equal = (self.mantissa == other.mantissa) & (self.exponent == other.exponent)
        certain: Mask = equal & (self.slack == 0) & (other.slack == 0)
        return certain


@dataclass(frozen=True)
class Weights:
    """A block matrix (groups, out, in): integers hi 2^20 + lo in units of 2^exponent, and what they miss.

    `loss` (groups, out) bounds the error of every entry of a row, `low` bounds |lo| in it, both in units of
    2^exponent; `upper` bounds |entry| in units of 2^upper_exponent.
    """

    exponent: int
    hi: Array
    lo: Array
    loss: Array
    low: Array
    upper: Array
    upper_exponent: int

    def columns(self, used: Mask) -> "Weights":
        """The matrix without the columns that are not used."""
        parts = {"hi": self.hi[:, :, used], "lo": self.lo[:, :, used], "upper": self.upper[:, :, used]}
        return replace(self, **parts)


def weights(whole: Array, radius: Array, unit: int) -> Weights:
    """Integers (units of 2^unit, known to +-radius, below 2^53) cut into limbs."""
    shift = max(0, bits(largest(np.abs(whole))) - 2 * LIMB)
    scaled = whole * power(-shift)
    whole = np.rint(scaled)
    radius = np.ceil(radius * power(-shift)) + (whole != scaled)
    hi = np.rint(whole * power(-LIMB))
    lo = whole - hi * power(LIMB)
    upper, up = coarse(np.abs(whole) + radius, LIMB)
    return Weights(
        unit + shift,
        hi,
        lo,
        radius.max(axis=-1, initial=0.0),
        np.abs(lo).max(axis=-1, initial=0.0),
        upper,
        unit + shift + up,
    )


def weights_of(numbers: Real) -> Weights:
    """The matrix of `numbers` (groups, out, in), to 52 bits below its largest entry before it is cut."""
    unit = numbers.top - 52
    return weights(*numbers.units(unit), unit)


@dataclass(frozen=True)
class Form:
    """Enclosures of n values in each of L leaves; see the head of this file.

    Attributes:
        exponent: the unit of all integers is 2^exponent.
        blocks: (id, width) of the runs of columns of `body`. The first is the centre, one column of id 0.
        body: (n, L, columns). rem: (n, L).
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
        return self.size - np.abs(self.body[:, :, 0])

    @cached_property
    def limbs(self) -> tuple[Array, Array]:
        """`body` = hi 2^20 + lo."""
        hi = self.body * power(-LIMB)
        np.rint(hi, out=hi)
        lo = hi * -power(LIMB)
        lo += self.body
        return hi, lo

    def bounds(self, unit: int) -> tuple[Array, Array]:
        """Lower and upper bounds of the values in units of 2^unit, rounded outward."""
        centre, radius, factor = self.body[:, :, 0], self.radius, power(self.exponent - unit)
        return np.floor((centre - radius) * factor), np.ceil((centre + radius) * factor)

    def take(self, elements: Index) -> "Form":
        """Values by index; -1 stands for the constant 0."""
        body, rem = self.body[elements], self.rem[elements]
        if elements.min(initial=0) < 0:
            body[elements < 0], rem[elements < 0] = 0.0, 0.0
        return Form(self.exponent, self.blocks, body, rem)


def absolute_sum(body: Array) -> Array:
    """Sum of |entries| over the last axis: exact below 2^53, and otherwise not below 2^52."""
    total: Array = np.matmul(np.abs(body), np.ones(body.shape[2]))
    return total


@dataclass(frozen=True)
class Term:
    """One summand of a form to be: integers (n, L, columns), times integers (n, L) if given, in units of 2^exponent.

    |body times factor| <= reach; where `active` (broadcast to (n, L)) is given and false, the summand is 0.
    """

    body: Array
    exponent: int
    blocks: Blocks
    reach: float
    factor: Array | None = None
    active: Mask | None = None

    def largest(self) -> float:
        """The largest |entry|, where `reach` is too coarse a bound."""
        most = np.max(np.abs(self.body), axis=2, initial=0.0)
        return largest(most if self.factor is None else most * np.abs(self.factor))


def term(form: Form, factor: Array | None = None, digits: int = 0) -> Term:
    """The affine part of a form, times factor / 2^digits."""
    reach = largest(form.size) * (1.0 if factor is None else largest(np.abs(factor)))
    active = None if factor is None else factor != 0
    return Term(form.body, form.exponent - digits, form.blocks, reach, factor, active)


def constant(values: Array, exponent: int) -> Term:
    """Constants (n, L) as a summand."""
    return Term(values[:, :, None], exponent, CENTRE, largest(np.abs(values)))


def settle(terms: Sequence[Term], slacks: Sequence[Slack], chosen: Mask | None = None, block: int = 0) -> Form:
    """The sum of terms and slacks as a form: chooses the unit and puts every rounding error into `rem`.

    The remainders of the `chosen` (value, leaf) pairs become fresh symbols, one each, as block `block`.
    """
    n, leaves = terms[0].body.shape[:2]
    slacks = [s for s in slacks if s[0].any()]
    parts = [t for t in terms if t.reach > 0]
    widths: dict[int, int] = {}
    if any(widths.setdefault(b, w) != w for t in parts or terms for b, w in t.blocks):
        raise Resource("blocks of symbols differ in width")
    blocks = tuple(widths.items())
    order = None if chosen is None else np.cumsum(chosen, axis=0) - 1
    width = 0 if order is None else int(order[-1].max()) + 1
    check_memory(n, leaves, (*blocks, (block, width)))
    columns = sum(w for _, w in blocks)
    for step in (max(1, leaves // 16), 1):
        unit = choose_unit(parts, slacks, step)
        body = np.zeros((n, leaves, columns + width))
        rem = place(body, blocks, parts, unit)
        for radius, exponent in slacks:
            rem += np.ceil(radius * power(exponent - unit))
        form = Form(unit, blocks, body, rem)
        if largest(form.size) < 2.0**FORM_BITS:
            break
    else:
        raise Resource("a sum leaves the fixed-point range")
    if chosen is None or order is None or not width:
        return form
    rows, at = np.nonzero(chosen)
    body[rows, at, columns + order[rows, at]] = rem[rows, at]
    fresh = Form(unit, (*blocks, (block, width)), body, np.where(chosen, 0.0, rem))
    fresh.__dict__["size"] = form.size  # a symbol in place of a remainder leaves the sum as it is
    return fresh


def choose_unit(terms: Sequence[Term], slacks: Sequence[Slack], step: int) -> int:
    """Exponent of a unit in which the sums stay below 2^40, judged by every step-th leaf: a proposal."""
    sizes = []
    for t in terms:
        size = absolute_sum(t.body[:, ::step])
        sizes.append((size if t.factor is None else size * np.abs(t.factor[:, ::step]), t.exponent))
    sizes += [(radius[:, ::step], exponent) for radius, exponent in slacks]
    used = [(size, exponent) for size, exponent in sizes if size.any()]
    if not used:
        return max([t.exponent for t in terms], default=0)
    top = max(bits(largest(size)) + exponent for size, exponent in used)
    total = sum((size * power(exponent - top) for size, exponent in used), start=np.zeros(1))
    return top + int(np.ceil(np.log2(float(np.max(total))))) - (FORM_BITS - 1) + (step > 1)


def place(body: Array, blocks: Blocks, terms: Sequence[Term], unit: int) -> Array:
    """Write the sum of the terms into `body` (zeros before), rounded to units of 2^unit; the errors, (n, L)."""
    starts = dict(zip((b for b, _ in blocks), np.cumsum([0, *(w for _, w in blocks)]).tolist(), strict=False))
    halves, reach = np.zeros(body.shape[:2]), 0.0
    written = 0
    for t in terms:
        scale = power(t.exponent - unit)
        reach += t.reach * scale if t.reach * scale < LARGEST // 16 else t.largest() * scale
        if not reach < LARGEST:
            raise Resource("a summand leaves the fixed-point range")
        factor = np.float64(scale) if t.factor is None else (t.factor * scale)[:, :, None]
        for begin, start, width in runs(t.blocks, starts):
            source, target = t.body[:, :, begin : begin + width], body[:, :, start : start + width]
            fresh = start >= written
            part = np.multiply(source, factor, out=target if fresh else None)
            if t.exponent < unit:
                halves += round_off(part, t.active)
            if fresh:
                written = start + width
            else:
                target += part
    return np.ceil(halves * 0.5)


def round_off(part: Array, active: Mask | None) -> Any:
    """Round to integers in place; how many columns per (value, leaf) may have changed, by at most 1/2 each."""
    if part.shape[2] > FEW_COLUMNS:
        np.rint(part, out=part)
        return part.shape[2] if active is None else part.shape[2] * active
    whole = np.rint(part)
    changed = np.count_nonzero(whole != part, axis=2)
    part[...] = whole
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


def product(matrix: Weights, taps: Index, form: Form) -> tuple[list[Term], list[Slack]]:
    """``sum_k matrix[g, o, k] value[taps[g, p, k]]`` in the order (g, o, p), as terms and slacks.

    `taps` is (groups, positions, in); -1 stands for the constant 0.
    """
    terms: list[Term] = []
    slacks: list[Slack] = []
    unit = matrix.exponent + form.exponent
    if not form.size.any():
        return [
            Term(
                np.zeros((taps.shape[0] * taps.shape[1] * matrix.hi.shape[1], form.rem.shape[1], 1)), unit, CENTRE, 0.0
            )
        ], []
    if _in_order(taps, len(form.body)):
        used = form.size.any(axis=1)  # values that are 0 in every leaf add nothing
        form, matrix, taps = form.take(np.flatnonzero(used)), matrix.columns(used), taps[:, :, : int(used.sum())]
    hi, lo = form.limbs
    reach_hi, reach_lo = int(largest(form.size)) // 2**LIMB + 1, 2 ** (LIMB - 1)
    active = np.repeat(matrix.upper.any(axis=2).reshape(-1), taps.shape[1])[:, None]
    for first in range(0, taps.shape[2], LONGEST_ROW):
        part = slice(first, first + LONGEST_ROW)
        here, high, low = taps[:, :, part], matrix.hi[:, :, part], matrix.lo[:, :, part]
        top = blocks_product([(high, hi, reach_hi)], here)
        middle = blocks_product([(low, hi, reach_hi), (high, lo, reach_lo)], here)
        terms.append(Term(top[0], unit + 2 * LIMB, form.blocks, top[1], active=active))
        terms.append(Term(middle[0], unit + LIMB, form.blocks, middle[1], active=active))
        slacks.append(_remainders(matrix, part, here, form))
        slacks += _losses(matrix, here, form)
    return terms, slacks


def blocks_product(pairs: Sequence[tuple[Array, Array, int]], taps: Index) -> tuple[Array, float]:
    """Sum of exact block products (g, o, k) x values (n, L, columns) gathered by taps (g, p, k); |values| <= reach.

    Returns the product, (g o p, L, columns), and a bound of its entries.

    Raises:
        Resource: some partial sum could reach 2^52.
    """
    reach = sum(int(largest(np.abs(m))) * r * taps.shape[2] for m, _, r in pairs)
    if not reach < LARGEST:
        raise Resource(f"a product of {taps.shape[2]} terms exceeds the exact range")
    groups, positions, _ = taps.shape
    leaves, columns = pairs[0][1].shape[1:]
    total = leaves * columns
    out = np.empty((groups, pairs[0][0].shape[1], positions, total))
    step = max(1, COLUMN_BYTES // (8 * taps.size)) if not _in_order(taps, len(pairs[0][1])) else total
    for first in range(0, total, step):
        part = slice(first, min(first + step, total))
        for i, (matrix, values, _) in enumerate(pairs):
            _multiply(matrix, values.reshape(len(values), total)[:, part], taps, out[:, :, :, part], i > 0)
    return out.reshape(-1, leaves, columns), float(reach)


def _in_order(taps: Index, count: int) -> bool:
    """Whether the taps name all values in order, once."""
    return taps.shape == (1, 1, count) and np.array_equal(taps[0, 0], np.arange(count))


def _multiply(matrix: Array, values: Array, taps: Index, out: Array, add: bool) -> None:
    """Write or add one block product into out (g, o, p, columns)."""
    groups, _, length = taps.shape
    if _in_order(taps, len(values)):
        if add:
            out[0, :, 0] += np.matmul(matrix[0], values)
        else:
            np.matmul(matrix[0], values, out=out[0, :, 0])
        return
    order = taps.transpose(0, 2, 1)
    patches = values[order]  # (g, k, p, columns)
    if order.min(initial=0) < 0:
        patches[order < 0] = 0.0
    if length == 1:
        result = matrix[:, :, :, None] * patches
    else:
        result = np.matmul(matrix, patches.reshape(groups, length, -1)).reshape(out.shape)
    if add:
        out += result
    else:
        out[...] = result


def _remainders(matrix: Weights, part: slice, taps: Index, form: Form) -> Slack:
    """Upper bound of ``sum_k |matrix| rem``."""
    rem, shift = coarse(form.rem, LIMB)
    bound, _ = blocks_product([(matrix.upper[:, :, part], rem[:, :, None], 2**LIMB)], taps)
    return bound[:, :, 0], matrix.upper_exponent + form.exponent + shift


def _losses(matrix: Weights, taps: Index, form: Form) -> list[Slack]:
    """What the limbs of the weights miss, and the product of the low limbs that is never formed."""
    losses: list[Slack] = []
    low_data = np.minimum(form.size, form.body.shape[2] * 2.0 ** (LIMB - 1))
    for row, data in ((matrix.loss, form.size), (matrix.low, low_data)):
        if not row.any():
            continue
        values, up = coarse(data, 25)
        rows, over = coarse(row, LIMB)
        ones = np.ones((len(taps), 1, taps.shape[2]))
        summed, _ = blocks_product([(ones, values[:, :, None], 2**25)], taps)
        sums, more = coarse(summed[:, :, 0], 25)
        bound = rows[:, :, None, None] * sums.reshape(len(taps), 1, taps.shape[1], -1)
        losses.append((bound.reshape(-1, sums.shape[1]), matrix.exponent + form.exponent + up + over + more))
    return losses


def self_test() -> None:
    """Known answers at the edge of the exact range; a machine that misses one must not judge.

    Raises:
        Resource: rounding, the matrix product or subnormal numbers do not behave as IEEE 754 says.
    """
    rounded = np.rint(np.array([0.5, 1.5, 2.5, -0.5, -1.5])).tolist() == [0.0, 2.0, 2.0, 0.0, -2.0]
    kept = 2.0**-1074 > 0.0 and (2.0**52 + 1.0) - 2.0**52 == 1.0
    left = 2**LIMB - np.arange(40 * LONGEST_ROW, dtype=np.int64).reshape(40, LONGEST_ROW) % 7
    right = 2**LIMB - np.arange(LONGEST_ROW * 5, dtype=np.int64).reshape(LONGEST_ROW, 5) % 5
    right[1::2, 1:] *= -1  # column 0 reaches 2^51, the others cancel
    product_of_floats = np.matmul(left.astype(np.float64), right.astype(np.float64))
    corner = sum(a * b for a, b in zip(left[0].tolist(), right[:, 0].tolist(), strict=True))
    exact = np.array_equal(product_of_floats, np.matmul(left, right)) and int(product_of_floats[0, 0]) == corner
    if not (rounded and kept and exact):
        raise Resource("this machine's float64 arithmetic fails the self test")
