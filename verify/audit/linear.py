"""Images of forms under linear maps with exactly known weights.

Weights and forms are cut into limbs of 20 bits, whose products float64 holds exactly. What is dropped (digits of
weights below the lowest limb) is bounded above and becomes a slack of the image. Theory note: exact_audit.md.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from verify.audit.exact import (
    LARGEST,
    LIMB,
    LONGEST_ROW,
    Array,
    Index,
    Mask,
    Resource,
    Slack,
    bits,
    coarse,
    largest,
    power,
)
from verify.audit.form import Blocks, Form, Part, Summand, absolute_sum, constant

COLUMN_BYTES = 2**25  # size of the patches gathered for one matrix product


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

    def cut(self) -> list["LinearMap"]:
        """Maps of at most LONGEST_ROW columns each, whose images add up to the image."""
        firsts = range(0, self.taps.shape[2], LONGEST_ROW)
        if len(firsts) <= 1:
            return [self]
        return [replace(self.columns(slice(i, i + LONGEST_ROW)), in_order=False) for i in firsts]


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

    def sizes(self, step: int, stride: int) -> list[Slack]:
        """Sums of |entries| for every step-th leaf, guessed from every stride-th column."""
        some = replace(self.form, body=np.ascontiguousarray(self.form.body[:, ::stride, ::step]))
        parts = replace(self, form=some).parts(slice(None))
        return [(stride * absolute_sum(part.body), part.exponent) for part in parts]

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
    for part in linear.cut():
        summands.append(Image(part, form, active, permutation, _reach(part, form)))
        slacks += _remainders(part, form, linear.active)
    if permutation is not None:
        slacks = [(radius[permutation], exponent) for radius, exponent in slacks]
    return summands, slacks


def _reach(linear: LinearMap, form: Form) -> tuple[int, int]:
    """Bounds of |hi hi| and of the rest, in integer arithmetic, checked against the exact range."""
    length = linear.taps.shape[2]
    hi_top, lo_top = int(largest(form.size)) // 2**LIMB + 1, 2 ** (LIMB - 1)
    middle = (linear.tops[1] * hi_top + linear.tops[0] * lo_top) * length  # |lo (hi + lo / 2^20)| < tops[1] hi_top
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
        sums = bounded_sums(linear, linear.upper, linear.tops[2], values)
        found.append((sums, linear.upper_exponent + form.exponent + shift))
    if largest(linear.loss):
        (values, shift), (rows, over) = coarse(form.size, LIMB), coarse(linear.loss, LIMB)
        groups, positions, length = linear.taps.shape
        sums = bounded_sums(linear, np.ones((groups, 1, length)), 2**LIMB, values)  # below 2^52 also times `rows`
        bound = rows[:, :, None, None] * sums.reshape(groups, 1, positions, -1)
        found.append((bound.reshape(-1, sums.shape[1]), unit + shift + over))
    return found


def bounded_sums(linear: LinearMap, matrix: Array, top: int, values: Array) -> Array:
    """Exact image (g o p, L) of values (n, L) >= 0 of at most 20 bits under a matrix of entries from 0 to `top`."""
    if not top * 2**LIMB * linear.taps.shape[2] < LARGEST:
        raise Resource("a sum of remainders exceeds the exact range")
    return apply_map(linear, matrix, values).reshape(-1, values.shape[1])
