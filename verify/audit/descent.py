"""One substitution: linear functions of a value rewritten, step by step, as functions of the input.

    p . z + q . y + r . D  <=  c . x + constant      on every leaf,

an affine step by its transposed map, a ReLU by its upper line or plane where a coefficient is positive and by its
lower one where it is negative. Coefficients are forms whose columns are the functions: integers, and a remainder that
bounds how far the exact coefficient may be from the stored one. A remainder is paid for at once, with the largest
absolute value of what it multiplies. A step without such a rule ends the descent: there the known bounds of its value
count. In float32 every step pays for what its execution may round.

Theory notes: backward_pair.md, exact_audit.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from verify.audit import rounding
from verify.audit.exact import Array, Index, Mask, Slack, power
from verify.audit.form import CENTRE, Form, Summand, Term, settle
from verify.audit.lift import Stage
from verify.audit.linear import LinearMap, image
from verify.audit.planes import ONE, SLOPE_BITS, Inconsistent, slopes, two_planes
from verify.audit.rules import Bounds
from verify.audit.transposed import Pair
from verify.audit.upper import Parts, products, total, upward

COLUMNS = 0  # id of the only block of coefficients


@dataclass
class Pending:
    """Coefficients that steps have handed to one value: of z, y and D."""

    z: list[Form] = field(default_factory=list)
    y: list[Form] = field(default_factory=list)
    d: list[Form] = field(default_factory=list)


class Planes:
    """Planes of the pairs of ReLUs, found once for the same bounds of their arguments."""

    def __init__(self, pair: Pair, known: Sequence[Bounds], mixed: Mapping[int, Mask]) -> None:
        self.pair, self.known, self.mixed = pair, known, mixed
        self.found: dict[int, tuple[Bounds, Sequence[Array]]] = {}

    def of(self, source: int) -> Sequence[Array]:
        """Slopes and offset of a lower plane, then of an upper one, each (elements, leaves)."""
        b = self.known[source]
        if source not in self.found or self.found[source][0] is not b:
            z, y, d = three(b)
            kept, mixed = self.pair.kept(source), self.mixed.get(source)
            ends = [a.reshape(-1) for pair in ((z[0][kept], z[1][kept]), y, d) for a in pair]
            rows = two_planes(ends, None if mixed is None else mixed.reshape(-1))
            self.found[source] = b, [row.reshape(y[0].shape) for row in rows]
        return self.found[source][1]


class Descent:
    """One substitution, from a value to the input."""

    def __init__(self, planes: Planes, x: Form, shape: tuple[int, int], short: bool) -> None:
        self.pair, self.known, self.planes, self.x, self.short = planes.pair, planes.known, planes, x, short
        self.zero = np.zeros(shape)
        self.pending: dict[int, Pending] = {}
        self.found: Parts = []

    def bound(self, position: int, start: Pending, further: Mapping[int, Pending]) -> tuple[Array, int]:
        """Upper bounds (R, L) of the functions and their exponent.

        `further`: coefficients of values before `position`, which the functions have as well.
        """
        self.pending.update(further)
        self.pending[position] = start
        for n in range(position, 0, -1):
            here = self.pending.pop(n, None)
            if here is not None:
                self._step(n, here)
        last = self.pending.pop(0, Pending())
        rows = self._sum(last.z + last.y)  # both read the same input, and D = 0 there
        if rows is not None:
            centre, radius = self.x.body[:, 0], self.x.radius
            exponent = rows.exponent + self.x.exponent
            self.found += products(rows.body, centre, exponent) + products(np.abs(rows.body), radius, exponent)
            self._pay(rows, self.x.size, self.x.exponent)
        return total(self.found, self.zero)

    def _sum(self, forms: list[Form]) -> Form | None:
        if len(forms) < 2:
            return forms[0] if forms else None
        return settle([Term(f) for f in forms], [(f.rem, f.exponent) for f in forms])

    def _paid(self, rows: Form | None, bounds: tuple[Array, Array] | None, unit: int) -> Form | None:
        """Coefficients that are exactly the stored ones: their remainders are paid for."""
        if rows is None:
            return None
        if bounds is None:
            raise Inconsistent("coefficients of a value without bounds")
        self._pay(rows, np.maximum(bounds[1], -bounds[0]), unit)
        return columns(rows.exponent, rows.body)

    def _pay(self, rows: Form, sizes: Array, exponent: int) -> None:
        """The remainders of coefficients, times bounds of the absolute values that they multiply."""
        if rows.rem.any():
            rem, shift = upward(rows.rem, rows.exponent)
            self.found += products(rem[:, None], sizes, shift + exponent)

    def _step(self, n: int, here: Pending) -> None:
        stage, b = self.pair.stages[n - 1], self.known[n]
        z, y, d = self._sum(here.z), self._sum(here.y), self._sum(here.d)
        if d is not None and not stage.aligned:  # by its definition
            z, y, d = self._apart(z, y, d, self.pair.kept(n), self.pair.sizes[n][0])
        z, y, d = self._paid(z, b.z, b.unit), self._paid(y, b.y, b.unit), self._paid(d, b.d, b.unit)
        maps = self.pair.maps[n - 1]
        missing = stage.step.kind == "affine" and None in (maps.own, maps.compact, maps.cross if d else maps.own)
        if stage.step.kind == "max" or missing or (self.short and stage.step.kind == "relu"):
            self.found += self._ends(b, z, y, d)
        else:
            {"affine": self._affine, "relu": self._relu, "sum": self._add, "gather": self._gather}[stage.step.kind](
                n, stage, z, y, d
            )

    def _apart(
        self, z: Form | None, y: Form | None, d: Form, kept: Index, size: int
    ) -> tuple[Form | None, Form | None, None]:
        """Coefficients of D = z[kept] - y as coefficients of z and y."""
        minus = Form(d.exponent, d.blocks, -d.body, d.rem)
        spread = d.take(_inverse(kept, size))
        return self._sum([f for f in (z, spread) if f is not None]), self._sum([f for f in (y, minus) if f]), None

    def _ends(self, b: Bounds, *rows: Form | None) -> Parts:
        """The functions end here: the bounds of the value count."""
        parts: Parts = []
        for form, bounds in zip(rows, (b.z, b.y, b.d), strict=True):
            if form is not None:
                if bounds is None:
                    raise Inconsistent("coefficients of a value without bounds")
                exponent = form.exponent + b.unit
                parts += products(np.maximum(form.body, 0.0), bounds[1], exponent)
                parts += products(np.minimum(form.body, 0.0), bounds[0], exponent)
        return parts

    def _hand(self, source: int, **forms: Form | None) -> None:
        slot = self.pending.setdefault(source, Pending())
        for part, form in forms.items():
            if form is not None:
                getattr(slot, part).append(form)

    def _affine(self, n: int, stage: Stage, z: Form | None, y: Form | None, d: Form | None) -> None:
        maps = self.pair.maps[n - 1]
        for form, affine in ((z, stage.own), (y, stage.compact_own), (d, stage.cross)):
            if form is not None and affine is not None and affine.bias is not None and affine.bias_error is not None:
                self._bias(form, affine.bias, affine.bias_error, affine.bias_unit)
        if self.pair.float32 and stage.own is not None and stage.compact_own is not None:
            source, other = self.known[stage.inputs[0]], self.known[stage.compact_inputs[0]]
            errors = rounding.of_affine(stage.own, _size(source.z, source.unit))
            self._round(n, z, y, d, errors, rounding.of_affine(stage.compact_own, _size(other.y, other.unit)))
        own = self._images([(maps.own, z), (maps.cross, d)])
        self._hand(stage.inputs[0], z=own, d=self._images([(maps.compact, d)]))
        self._hand(stage.compact_inputs[0], y=self._images([(maps.compact, y)]))

    def _images(self, terms: Sequence[tuple[LinearMap | None, Form | None]]) -> Form | None:
        summands: list[Summand] = []
        slacks = []
        for linear, form in terms:
            if linear is not None and form is not None and form.size.any():
                more, extra = image(linear, form)
                width = form.body.shape[1]
                summands += [s for s in more if sum(w for _, w in s.blocks) == width]
                slacks += extra
        return settle(summands, slacks) if summands else None

    def _bias(self, form: Form, bias: Array, error: Array, unit: int) -> None:
        """Coefficients times numbers (n,) known up to an error, both in units of 2^unit."""
        values, shift = upward(bias, unit)
        radii = [upward(error, unit), (np.full(len(bias), float(shift > unit)), shift)]  # rounded by less than one unit
        self.found += products(form.body, values[:, None], form.exponent + shift)
        for radius, exponent in radii:
            if radius.any():
                self.found += products(np.abs(form.body), radius[:, None], form.exponent + exponent)

    def _round(
        self, n: int, z: Form | None, y: Form | None, d: Form | None, first: list[Slack], second: list[Slack]
    ) -> None:
        """What the float32 executions of a step may round, in the original and in the compact network."""
        for form, errors in ((z, first), (y, second), (d, second)):
            self._errors(form, errors)
        if d is not None:
            kept = self.pair.kept(n)
            self._errors(d, [(radius[kept], exponent) for radius, exponent in first])

    def _errors(self, form: Form | None, errors: list[Slack]) -> None:
        """Absolute values of coefficients times bounds of what may be added to a value."""
        for radius, unit in errors if form is not None else []:
            values, exponent = upward(radius, unit)
            self.found += products(np.abs(form.body), values, form.exponent + exponent)  # type: ignore[union-attr]

    def _relu(self, n: int, stage: Stage, z: Form | None, y: Form | None, d: Form | None) -> None:
        source, other = stage.inputs[0], stage.compact_inputs[0]
        b, c = self.known[source], self.known[other]
        own = self._line(z, b.z, b.unit)
        if d is not None:
            kept = self.pair.kept(source)
            over, d = self._between(d, self.planes.of(source), b.unit)
            own = self._sum([f for f in (own, over.take(_inverse(kept, self.pair.sizes[source][0]))) if f is not None])
        self._hand(source, z=own, d=d)
        self._hand(other, y=self._line(y, c.y, c.unit))

    def _line(self, form: Form | None, bounds: tuple[Array, Array] | None, unit: int) -> Form | None:
        """max(x, 0) <= s x + height, and >= t x with t = 0 or 1."""
        if form is None or bounds is None:
            return None
        low, high = bounds
        bent, s = curved(bounds), slopes(low, high)
        height = np.where(bent, np.maximum(-s * low, (ONE - s) * high), 0.0)
        t = np.where(bent, ONE * (high > -low), s)
        self._offset(np.maximum(form.body, 0.0), height, form.exponent + unit - SLOPE_BITS)
        return self._scaled(form, t, s)

    def _between(self, form: Form, planes: Sequence[Array], unit: int) -> tuple[Form, Form]:
        """Coefficients of z[kept] and of D."""
        low_a, low_b, bottom, high_a, high_b, top = planes
        exponent = form.exponent + unit - SLOPE_BITS
        self._offset(np.maximum(form.body, 0.0), top, exponent)
        self._offset(-np.minimum(form.body, 0.0), -bottom, exponent)
        return self._scaled(form, low_a, high_a), self._scaled(form, low_b, high_b)

    def _offset(self, positive: Array, offsets: Array, exponent: int) -> None:
        """Coefficients >= 0 times offsets, which may therefore be rounded up."""
        if offsets.any():
            values, shift = upward(offsets, 0)
            self.found += products(positive, values, exponent + shift)

    def _scaled(self, form: Form, below: Array, above: Array) -> Form:
        """Coefficients times slopes in units of 1/ONE, at most ONE: `above` where they are positive."""
        slope = np.where(form.body > 0, above[:, None], below[:, None]) * power(-SLOPE_BITS)
        exact = form.body * slope  # at most 40 + 10 bits
        body = np.rint(exact)
        return columns(form.exponent, body, (body != exact).any(axis=1).astype(np.float64))

    def _add(self, n: int, stage: Stage, z: Form | None, y: Form | None, d: Form | None) -> None:
        compact = stage.compact or stage.step
        if self.pair.float32:
            z_forms = [_size(self.known[i].z, self.known[i].unit) for i in stage.inputs]
            y_forms = [_size(self.known[i].y, self.known[i].unit) for i in stage.compact_inputs]
            self._round(n, z, y, d, rounding.of_sum(z_forms), rounding.of_sum(y_forms))
        for source, sign in zip(stage.inputs, stage.step.signs, strict=True):
            self._hand(source, z=_signed(z, sign), d=_signed(d, sign))
        for source, sign in zip(stage.compact_inputs, compact.signs, strict=True):
            self._hand(source, y=_signed(y, sign))

    def _gather(self, n: int, stage: Stage, z: Form | None, y: Form | None, d: Form | None) -> None:
        compact = stage.compact or stage.step
        for part, form, step, inputs, side in (
            ("z", z, stage.step, stage.inputs, 0), ("y", y, compact, stage.compact_inputs, 1),
            ("d", d, compact, stage.inputs, 1),
        ):  # fmt: skip
            if form is None:
                continue
            if step.bias is not None and part != "d":
                whole, error = step.bias.units(step.bias.top - 52)
                empty = np.where(step.taps < 0, 1.0, 0.0)
                self._bias(form, empty * whole, empty * error, step.bias.top - 52)
            sizes = [self.pair.sizes[i][side] for i in inputs]
            body = np.zeros((sum(sizes) + 1, *form.body.shape[1:]))  # the last element is the constant
            np.add.at(body, step.taps, form.body)
            first = 0
            for source, size in zip(inputs, sizes, strict=True):
                self._hand(source, **{part: columns(form.exponent, body[first : first + size])})
                first += size


def _size(bounds: tuple[Array, Array] | None, unit: int) -> Form:
    """A form that says no more than how large the values may be."""
    if bounds is None:
        raise Inconsistent("a value without bounds")
    size = np.maximum(bounds[1], -bounds[0])
    return Form(unit, CENTRE, np.zeros((len(size), 1, size.shape[1])), size)


def _signed(form: Form | None, sign: int) -> Form | None:
    return None if form is None else Form(form.exponent, form.blocks, sign * form.body, form.rem * 0.0)


def _inverse(kept: Index, size: int) -> Index:
    """Position among the kept elements, -1 for the others."""
    inverse = np.full(size, -1, dtype=np.int64)
    inverse[kept] = np.arange(len(kept))
    return inverse


def curved(bounds: tuple[Array, Array]) -> Mask:
    """Where a ReLU is not linear."""
    found: Mask = (bounds[0] < 0) & (bounds[1] > 0)
    return found


def three(b: Bounds) -> tuple[tuple[Array, Array], tuple[Array, Array], tuple[Array, Array]]:
    if b.y is None or b.d is None:
        raise Inconsistent("coefficients of a value without bounds")
    return b.z, b.y, b.d


def columns(exponent: int, body: Array, rem: Array | None = None) -> Form:
    zero = np.zeros((len(body), body.shape[2])) if rem is None else rem
    return Form(exponent, ((COLUMNS, body.shape[1]),), body, zero)
