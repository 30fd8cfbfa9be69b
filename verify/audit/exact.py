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

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]
Blocks = tuple[tuple[int, int], ...]
Slack = tuple[Array, int]  # a radius (n, L) >= 0 in units of 2^exponent

LIMB = 20
FORM_BITS = 2 * LIMB  # sum |body| + rem < 2^FORM_BITS
LARGEST = 2**52  # no sum in a float64 product may reach this
LONGEST_ROW = 2**11  # longer rows of weights are cut
COLUMN_BYTES = 2**25  # size of the patches gathered for one matrix product
FORM_BYTES = 2**28  # size of one form


class Resource(Exception):
    """The fixed-point range or the memory allowed does not suffice; says nothing about the claim."""


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
    """Real numbers known to |number - mantissa 2^exponent| <= slack 2^exponent; integral mantissa, |mantissa| < 2^53."""

    mantissa: Array
    exponent: Index
    slack: Array

    @property
    def top(self) -> int:
        """All |numbers| are below 2^top."""
        used = (self.mantissa != 0) | (self.slack != 0)
        return int(self.exponent[used].max()) + 54 if used.any() else 0

    def __getitem__(self, key: object) -> "Real":
        return Real(self.mantissa[key], self.exponent[key], self.slack[key])  # type: ignore[index]

    def reshape(self, *shape: int) -> "Real":
        return Real(self.mantissa.reshape(shape), self.exponent.reshape(shape), self.slack.reshape(shape))

    def transpose(self, *axes: int) -> "Real":
        return Real(self.mantissa.transpose(axes), self.exponent.transpose(axes), self.slack.transpose(axes))

    def expand(self, shape: tuple[int, ...]) -> "Real":
        """Broadcast to `shape`."""
        return Real(*(np.broadcast_to(a, shape) for a in (self.mantissa, self.exponent, self.slack)))

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
        return equal & (self.slack == 0) & (other.slack == 0)


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
        blocks: (id, width) of the columns of `body`, ids increasing. Block 0 is the centre, one column.
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
    total: Array = np.abs(body).sum(axis=-1)
    return total


@dataclass(frozen=True)
class Term:
    """Integers (n, L, columns) in units of 2^exponent: one summand of a form to be."""

    body: Array
    exponent: int
    blocks: Blocks

    @classmethod
    def of(cls, form: Form) -> "Term":
        return cls(form.body, form.exponent, form.blocks)


def settle(terms: Sequence[Term], slacks: Sequence[Slack]) -> Form:
    """The sum of terms and slacks as a form: chooses the unit and puts every rounding error into `rem`."""
    n, leaves = terms[0].body.shape[:2]
    sizes = [(absolute_sum(t.body), t.exponent) for t in terms]
    blocks = tuple(sorted({b: w for t in terms for b, w in t.blocks}.items()))
    check_memory(n, leaves, blocks)
    unit = choose_unit([*sizes, *slacks])
    body = np.zeros((n, leaves, sum(width for _, width in blocks)))
    rem, halves = np.zeros((n, leaves)), np.zeros((n, leaves))
    for term, (size, _) in zip(terms, sizes, strict=True):
        if not size.any():
            continue
        if not largest(size) * power(term.exponent - unit) < 2.0**FORM_BITS:
            raise Resource("a summand leaves the fixed-point range")
        part = term.body * power(term.exponent - unit)
        if term.exponent < unit:
            whole = np.rint(part)
            halves += np.count_nonzero(whole != part, axis=-1)
            part = whole
        add_columns(body, blocks, part, term.blocks)
    for radius, exponent in slacks:
        rem += np.ceil(radius * power(exponent - unit))
    form = Form(unit, blocks, body, rem + np.ceil(halves * 0.5))
    if not largest(form.size) < 2.0**FORM_BITS:
        raise Resource("a sum leaves the fixed-point range")
    return form


def choose_unit(sizes: Sequence[Slack]) -> int:
    """Exponent of a unit in which the sum of the sizes stays below 2^39 (a proposal: `settle` checks)."""
    used = [(size, exponent) for size, exponent in sizes if size.any()]
    if not used:
        return 0
    top = max(bits(largest(size)) + exponent for size, exponent in used)
    total = sum((size * power(exponent - top) for size, exponent in used), start=np.zeros(1))
    return top + int(np.ceil(np.log2(float(np.max(total))))) - (FORM_BITS - 1)


def check_memory(n: int, leaves: int, blocks: Blocks) -> None:
    """Refuse a form that exceeds the memory allowed."""
    if 8 * n * leaves * sum(width for _, width in blocks) > FORM_BYTES:
        raise Resource(f"a form of {n} values in {leaves} leaves exceeds the memory allowed")


def add_columns(body: Array, blocks: Blocks, part: Array, part_blocks: Blocks) -> None:
    """Add the columns of `part` to the columns of the same blocks in `body`."""
    starts = dict(zip((b for b, _ in blocks), np.cumsum([0, *(w for _, w in blocks)]).tolist(), strict=False))
    source = 0
    for block, width in part_blocks:
        begin = starts[block]
        body[:, :, begin : begin + width] += part[:, :, source : source + width]
        source += width


def promote(form: Form, chosen: Mask, block: int) -> Form:
    """Turn the remainders of the chosen (value, leaf) pairs into fresh symbols, one each, as block `block`."""
    chosen = chosen & (form.rem > 0)
    order = np.cumsum(chosen, axis=0) - 1
    width = int(order[-1].max(initial=-1)) + 1 if len(order) else 0
    if width == 0:
        return form
    blocks = (*form.blocks, (block, width))
    check_memory(*form.rem.shape, blocks)
    extra = np.zeros((*form.rem.shape, width))
    rows, leaves = np.nonzero(chosen)
    extra[rows, leaves, order[rows, leaves]] = form.rem[rows, leaves]
    return Form(form.exponent, blocks, np.concatenate([form.body, extra], axis=2), np.where(chosen, 0.0, form.rem))


def product(matrix: Weights, taps: Index, form: Form) -> tuple[list[Term], list[Slack]]:
    """``sum_k matrix[g, o, k] value[taps[g, p, k]]`` in the order (g, o, p), as terms and slacks.

    `taps` is (groups, positions, in); -1 stands for the constant 0.
    """
    terms: list[Term] = []
    slacks: list[Slack] = []
    hi = np.rint(form.body * power(-LIMB))
    lo = form.body - hi * power(LIMB)
    unit = matrix.exponent + form.exponent
    for first in range(0, taps.shape[2], LONGEST_ROW):
        part = slice(first, first + LONGEST_ROW)
        here, high, low = taps[:, :, part], matrix.hi[:, :, part], matrix.lo[:, :, part]
        terms.append(Term(_matmul([(high, hi)], here), unit + 2 * LIMB, form.blocks))
        terms.append(Term(_matmul([(low, hi), (high, lo)], here), unit + LIMB, form.blocks))
        slacks.append(_remainders(matrix, part, here, form))
        slacks += _losses(matrix, here, form)
    return terms, slacks


def _matmul(pairs: Sequence[tuple[Array, Array]], taps: Index) -> Array:
    """Sum of block products (g, o, k) x values (n, L, columns) gathered by taps (g, p, k): exact, (g o p, L, columns)."""
    _guard(pairs, taps.shape[2])
    groups, positions, _ = taps.shape
    rows = pairs[0][0].shape[1]
    leaves, columns = pairs[0][1].shape[1:]
    total = leaves * columns
    out = np.empty((groups, rows, positions, total))
    step = max(1, COLUMN_BYTES // (8 * taps.size))
    for first in range(0, total, step):
        part = slice(first, min(first + step, total))
        out[:, :, :, part] = sum(_block(m, x.reshape(len(x), total)[:, part], taps) for m, x in pairs)
    return out.reshape(groups * rows * positions, leaves, columns)


def _block(matrix: Array, values: Array, taps: Index) -> Array:
    groups, positions, length = taps.shape
    if positions == 1 and groups == 1 and length == len(values) and np.array_equal(taps[0, 0], np.arange(length)):
        return np.matmul(matrix[0], values)[None, :, None, :]
    order = taps.transpose(0, 2, 1)
    patches = values[order]  # (g, k, p, columns)
    if order.min(initial=0) < 0:
        patches[order < 0] = 0.0
    if length == 1:
        return matrix[:, :, :, None] * patches
    flat = np.matmul(matrix, patches.reshape(groups, length, -1))
    return flat.reshape(groups, matrix.shape[1], positions, -1)


def _guard(pairs: Sequence[tuple[Array, Array]], length: int) -> None:
    """Refuse a product in which some partial sum could reach 2^52."""
    reach = sum(int(largest(np.abs(m))) * int(largest(np.abs(x))) * length for m, x in pairs)
    if not reach < LARGEST:
        raise Resource(f"a product of {length} terms exceeds the exact range")


def _remainders(matrix: Weights, part: slice, taps: Index, form: Form) -> Slack:
    """Upper bound of ``sum_k |matrix| rem``."""
    rem, shift = coarse(form.rem, LIMB)
    bound = _matmul([(matrix.upper[:, :, part], rem[:, :, None])], taps)[:, :, 0]
    return bound, matrix.upper_exponent + form.exponent + shift


def _losses(matrix: Weights, taps: Index, form: Form) -> list[Slack]:
    """What the limbs of the weights miss, and the product of the low limbs that is never formed."""
    losses: list[Slack] = []
    low_data = np.minimum(form.size, form.body.shape[2] * 2.0 ** (LIMB - 1))
    for row, data in ((matrix.loss, form.size), (matrix.low, low_data)):
        if not row.any():
            continue
        values, up = coarse(data, 25)
        rows, over = coarse(row, LIMB)
        summed = _matmul([(np.ones((len(taps), 1, taps.shape[2])), values[:, :, None])], taps)[:, :, 0]
        summed, more = coarse(summed, 25)
        bound = rows[:, :, None, None] * summed.reshape(len(taps), 1, taps.shape[1], -1)
        losses.append((bound.reshape(-1, summed.shape[1]), matrix.exponent + form.exponent + up + over + more))
    return losses


def self_test() -> None:
    """Known answers at the edge of the exact range; a machine that misses one must not judge.

    Raises:
        Resource: rounding, the matrix product or subnormal numbers do not behave as IEEE 754 says.
    """
    rounded = np.rint(np.array([0.5, 1.5, 2.5, -0.5, -1.5])).tolist() == [0.0, 2.0, 2.0, 0.0, -2.0]
    left = 2**LIMB - np.arange(64 * 2048, dtype=np.int64).reshape(64, 2048) % 7
    right = 2**LIMB - np.arange(2048 * 9, dtype=np.int64).reshape(2048, 9) % 5
    right[1::2] *= -1
    right[0] = 2**LIMB
    got = np.matmul(left.astype(np.float64), right.astype(np.float64))
    expected = [
        [sum(a * b for a, b in zip(row, column, strict=True)) for column in right.T.tolist()]
        for row in left[:2].tolist()
    ]
    if (
        not rounded
        or got[:2].astype(object).tolist() != expected
        or 2.0**-1074 == 0.0
        or (2.0**52 + 1.0) - 2.0**52 != 1.0
    ):
        raise Resource("this machine's float64 arithmetic fails the self test")
