"""Exact arithmetic of affine forms: integers carried by float64 arrays, guarded so that no operation rounds.

A form encloses n real values in each of L leaves:

    value = 2^exponent (body[0] + sum_j body[j] xi_j + rem eta),   |xi_j| <= 1 shared by all forms, |eta| <= 1 free

with integers `body`, `rem` and the invariant sum_j |body[j]| + rem < 2^40. A matrix product runs on limbs of 20
bits: k products of at most 2^41 each stay below 2^52, so every partial sum is an integer that float64 holds, and
BLAS returns the exact result in any order of summation. What is dropped (digits below the unit of the result, digits
of weights below the lowest limb) is bounded above and added to `rem`.

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
TILE_BYTES = 2**18  # part of a form that is worked on at a time
FORM_BYTES = 2**28  # size of one form


class Resource(Exception):
    """The fixed-point range or the memory allowed does not suffice; says nothing about the claim."""


class OutOfRange(Resource):
    """Integers would outgrow the unit chosen for them."""


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
class LinearMap:
    """``sum_k w[g, o, k] value[taps[g, p, k]]`` in the order (g, o, p); tap -1 reads the constant 0.

    The weights are integers hi 2^20 + lo in units of 2^exponent. `both` holds hi and below it lo, (groups, 2 out, in).
    `loss` (groups, out) bounds the error of every entry of a row, in the same units; `upper` bounds |entry| in units of
    2^upper_exponent. `tops` are the largest |hi|, |lo| and `upper`.
    """

    exponent: int
    both: Array
    loss: Array
    upper: Array
    upper_exponent: int
    tops: tuple[int, int, int]
    taps: Index
    in_order: bool  # the taps name all values once, in order

    @property
    def rows(self) -> int:
        return int(self.upper.shape[1])

    @cached_property
    def active(self) -> Mask:
        """Which results may differ from 0, (g o p, 1)."""
        return np.repeat(self.upper.any(axis=2).reshape(-1), self.taps.shape[1])[:, None]

    def columns(self, used: Any) -> "LinearMap":
        """The map of some of the columns alone."""
        return replace(self, both=self.both[:, :, used], upper=self.upper[:, :, used], taps=self.taps[:, :, used])


def linear_map(whole: Array, radius: Array, unit: int, taps: Index, inputs: int) -> LinearMap:
    """The map of weights known to +-radius, in units of 2^unit and below 2^53, on `inputs` values."""
    shift = max(0, bits(largest(np.abs(whole))) - 2 * LIMB)
    scaled = whole * power(-shift)
    whole = np.rint(scaled)
    radius = np.ceil(radius * power(-shift)) + (whole != scaled)
    hi = np.rint(whole * power(-LIMB))
    lo = whole - hi * power(LIMB)
    upper, up = coarse(np.abs(whole) + radius, LIMB)
    tops = [int(largest(np.abs(part))) for part in (hi, lo, upper)]
    return LinearMap(
        exponent=unit + shift,
        both=np.concatenate([hi, lo], axis=1),
        loss=radius.max(axis=-1, initial=0.0),
        upper=upper,
        upper_exponent=unit + shift + up,
        tops=(tops[0], tops[1], tops[2]),
        taps=taps,
        in_order=taps.shape == (1, 1, inputs) and np.array_equal(taps[0, 0], np.arange(inputs)),
    )


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

    def sizes(self, step: int) -> list[Slack]:
        """Bounds of |summand| for every step-th leaf."""
        return [(self.size[:, ::step], self.form.exponent - self.digits)]

    def parts(self, columns: slice) -> list[Part]:
        """Some columns of the summand."""
        exponent = self.form.exponent - self.digits
        return [Part(self.form.body[:, columns], exponent, self.reach, self.factor, self.active)]


def constant(values: Array, exponent: int) -> Term:
    """Constants (n, L) in units of 2^exponent as a summand."""
    return Term(Form(exponent, CENTRE, values[:, None], np.zeros(values.shape)))


@dataclass(frozen=True)
class Image:
    """The image of a form under a linear map as a summand, formed exactly, a few columns at a time.

    `place` permutes the results; `reach` bounds the entries of hi hi, and of the rest.
    """

    linear: LinearMap
    form: Form
    active: Mask
    place: Index | None
    reaches: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.active), self.form.rem.shape[1]

    @property
    def blocks(self) -> Blocks:
        return self.form.blocks

    @property
    def reach(self) -> float:
        return float(max(self.reaches))

    def sizes(self, step: int) -> list[Slack]:
        """Sums of |entries| for every step-th leaf."""
        some = replace(self.form, body=np.ascontiguousarray(self.form.body[:, :, ::step]))
        return [(absolute_sum(part.body), part.exponent) for part in replace(self, form=some).parts(slice(None))]

    def parts(self, columns: slice) -> list[Part]:
        """hi hi, and lo hi + hi lo + lo lo / 2^20 rounded to integers, for some columns."""
        body = self.form.body[:, columns]
        values = body.reshape(len(body), -1)
        hi = np.rint(values * power(-LIMB))
        lo = values - hi * power(LIMB)
        rows = self.linear.rows
        top, bottom = (apply_map(self.linear, self.linear.both, limb) for limb in (hi, lo))
        high, middle = top[:, :rows], top[:, rows:]
        middle += bottom[:, :rows]
        middle += np.rint(bottom[:, rows:] * power(-LIMB))
        unit = self.linear.exponent + self.form.exponent
        arrays = [a.reshape(len(self.active), *body.shape[1:]) for a in (high, middle)]
        if self.place is not None:
            arrays = [a[self.place] for a in arrays]
        exponents = unit + 2 * LIMB, unit + LIMB
        return [
            Part(a, e, float(r), active=self.active) for a, e, r in zip(arrays, exponents, self.reaches, strict=True)
        ]


Summand = Term | Image


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
    for step in (max(1, leaves // 2), 1):
        unit = choose_unit(used, slacks, step)
        body = np.zeros((n, columns + width, leaves))
        try:
            rem = place(body, blocks, used, unit)
        except OutOfRange:  # leaves that the proposal did not look at are larger
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


def choose_unit(terms: Sequence[Summand], slacks: Sequence[Slack], step: int) -> int:
    """Exponent of a unit in which the sums stay below 2^40, judged by every step-th leaf: a proposal."""
    sizes = [size for t in terms for size in t.sizes(step)]
    sizes += [(radius[:, ::step], exponent) for radius, exponent in slacks]
    tops = [largest(size) for size, _ in sizes]
    used = [pair for pair, top in zip(sizes, tops, strict=True) if top]
    if not used:
        return min((exponent for _, exponent in sizes), default=0)  # zeros of the finest unit are not rounded
    top = max(bits(top) + exponent for top, (_, exponent) in zip(tops, sizes, strict=True) if top)
    total = sum((size * power(exponent - top) for size, exponent in used), start=np.zeros(1))
    return top + int(np.ceil(np.log2(float(np.max(total))))) - (FORM_BITS - 1) + (step > 1)


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


def image(linear: LinearMap, form: Form, permutation: Index | None = None) -> tuple[list[Summand], list[Slack]]:
    """The image of a form under a linear map, then permuted, as summands and slacks.

    Raises:
        Resource: some partial sum of a product could reach 2^52.
    """
    groups, positions, _ = linear.taps.shape
    if linear.in_order:
        used = np.flatnonzero(form.size.any(axis=1))  # values that are 0 in every leaf add nothing
        linear, form = replace(linear.columns(used), taps=np.arange(len(used))[None, None]), form.take(used)
    if not (linear.upper.any() and form.size.any()):
        return [constant(np.zeros((groups * linear.rows * positions, form.rem.shape[1])), 0)], []
    active = linear.active if permutation is None else linear.active[permutation]
    summands: list[Summand] = []
    slacks: list[Slack] = []
    for first in range(0, linear.taps.shape[2], LONGEST_ROW):
        part = linear
        if linear.taps.shape[2] > LONGEST_ROW:
            part = replace(linear.columns(slice(first, first + LONGEST_ROW)), in_order=False)
        summands.append(Image(part, form, active, permutation, _reach(part, form)))
        slacks += _remainders(part, form, linear.active)
    if permutation is not None:
        slacks = [(radius[permutation], exponent) for radius, exponent in slacks]
    return summands, slacks


def _reach(linear: LinearMap, form: Form) -> tuple[int, int]:
    """Bounds of |hi hi| and of the rest, in integer arithmetic, checked against the exact range."""
    length = linear.taps.shape[2]
    hi_top, lo_top = int(largest(form.size)) // 2**LIMB + 1, 2 ** (LIMB - 1)
    middle = (linear.tops[1] * hi_top + linear.tops[0] * lo_top + linear.tops[1] * lo_top) * length
    reach = linear.tops[0] * hi_top * length, middle
    if not max(reach) < LARGEST:
        raise Resource(f"a product of {length} terms exceeds the exact range")
    return reach


def apply_map(linear: LinearMap, matrix: Array, values: Array) -> Array:
    """`matrix` (groups, rows, in) applied to the taps of values (n, columns): (groups, rows, positions, columns)."""
    if linear.in_order:
        return np.matmul(matrix[0], values)[None, :, None, :]  # type: ignore[no-any-return]
    order = linear.taps.transpose(0, 2, 1)
    step, found = max(1, COLUMN_BYTES // (8 * order.size)), []
    for first in range(0, values.shape[1], step):
        patches = values[:, first : first + step][order]  # (groups, in, positions, columns)
        patches[order < 0] = 0.0
        if order.shape[1] == 1:
            found.append(matrix[:, :, :, None] * patches)
            continue
        flat = np.matmul(matrix, patches.reshape(*order.shape[:2], -1))
        found.append(flat.reshape(*matrix.shape[:2], order.shape[2], -1))
    return found[0] if len(found) == 1 else np.concatenate(found, axis=3)


def _remainders(linear: LinearMap, form: Form, active: Mask) -> list[Slack]:
    """``sum |w| rem``, what the limbs of the weights miss, and the rounding of lo lo."""
    unit = linear.exponent + form.exponent
    columns = np.full((1, form.rem.shape[1]), np.ceil(form.body.shape[1] * 0.5))
    found: list[Slack] = [(active * columns, unit + LIMB)]
    values, shift = coarse(form.rem, LIMB)
    if largest(values):
        sums = _sums(linear, linear.upper, linear.tops[2], values)
        found.append((sums, linear.upper_exponent + form.exponent + shift))
    if largest(linear.loss):
        values, shift = coarse(form.size, LIMB)
        sums, more = coarse(_sums(linear, np.ones((len(linear.taps), 1, linear.taps.shape[2])), 1, values), 51 - LIMB)
        rows, over = coarse(linear.loss, LIMB)
        groups, positions, _ = linear.taps.shape
        bound = rows[:, :, None, None] * sums.reshape(groups, 1, positions, -1)
        found.append((bound.reshape(-1, sums.shape[1]), unit + shift + more + over))
    return found


def _sums(linear: LinearMap, matrix: Array, top: int, values: Array) -> Array:
    """Exact image (g o p, L) of values (n, L) of at most 20 bits under a matrix of entries up to `top`."""
    if not top * 2**LIMB * linear.taps.shape[2] < LARGEST:
        raise Resource("a sum of remainders exceeds the exact range")
    return apply_map(linear, matrix, values).reshape(-1, values.shape[1])


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
