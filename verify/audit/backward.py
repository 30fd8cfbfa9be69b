"""The rule "pair_backward": linear functions of the output rewritten, step by step, as functions of the input.

    p . z + q . y + r . D  <=  c . x + constant      on every leaf,

an affine step by its transposed map, a ReLU by its upper line or plane where a coefficient is positive and by its
lower one where it is negative. Coefficients are forms whose columns are the functions: integers, and a remainder that
bounds how far the exact coefficient may be from the stored one. A remainder is paid for at once, with the largest
absolute value of what it multiplies. Before a ReLU is replaced, the bounds of its argument are sharpened the same way.
A step without such a rule ends the descent: there the known bounds of its value count.

Theory notes: backward_pair.md, exact_audit.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from verify.audit.exact import Array, Index, Mask, power
from verify.audit.form import Form, Summand, Term, settle
from verify.audit.lift import Stage
from verify.audit.linear import LinearMap, image
from verify.audit.planes import ONE, SLOPE_BITS, Inconsistent, slopes, two_planes
from verify.audit.rules import Bounds, sharpened
from verify.audit.transposed import transposed
from verify.audit.upper import Parts, products, total, upward

COLUMN_BYTES = 2**24  # size of the coefficients that are carried together
START_BITS = 30  # coefficients 1 and -1 have this many digits behind the point, so that slopes do not round them away
START_BLOCK = 0


@dataclass(frozen=True)
class Transposed:
    """The transposed maps of an affine stage, None where there is none or it is too large."""

    own: LinearMap | None
    compact: LinearMap | None
    cross: LinearMap | None


@dataclass
class Pending:
    """Coefficients that steps have handed to one value: of z, y and D."""

    z: list[Form] = field(default_factory=list)
    y: list[Form] = field(default_factory=list)
    d: list[Form] = field(default_factory=list)


class Pair:
    """Two networks step by step, with the transposed maps of their affine steps."""

    def __init__(self, stages: Sequence[Stage], inputs: int) -> None:
        self.stages = stages
        self.sizes = [(inputs, inputs)]
        for stage in stages:
            compact = stage.compact or stage.step
            self.sizes.append((int(np.prod(stage.step.shape)), int(np.prod(compact.shape))))

    @cached_property
    def maps(self) -> list[Transposed]:
        """One per stage."""
        found = []
        for n, stage in enumerate(self.stages, start=1):
            if stage.step.kind != "affine":
                found.append(Transposed(None, None, None))
                continue
            (a, b), (c, d) = self.sizes[stage.inputs[0]], self.sizes[n]
            own, compact = transposed(stage.own, c, a), transposed(stage.compact_own, d, b)
            found.append(Transposed(own, compact, transposed(stage.cross, d, a)))
        return found

    @cached_property
    def straight(self) -> list[bool]:
        """Which values are affine functions of the input: forms bound them exactly."""
        flags = [True]
        for stage in self.stages:
            flags.append(stage.step.kind in ("affine", "sum", "gather") and all(flags[i] for i in stage.inputs))
        return flags

    def differences(self, x: Form, known: list[Bounds], position: int) -> tuple[Array, Array, int]:
        """Bounds of D at a position on the boxes of x, in units of 2^exponent; sharpens `known` on the way."""
        for n, stage in enumerate(self.stages[:position], start=1):
            source = stage.inputs[0]
            if stage.step.kind == "relu" and known[source].d is not None:
                if not self.straight[source]:
                    known[source] = self._sharpened(x, known, source, self.kept(source))
                if stage.aligned:
                    known[n] = sharpened(_rectified(known[source], known[n]), self.kept(n))
        everything = np.ones((self.sizes[position][1], x.rem.shape[1]), dtype=bool)
        b = self._better(x, known, position, known[position], "d", everything, short=True)
        b = self._better(x, known, position, b, "d", everything)
        _, _, (low, high) = _three(b)
        return low, high, b.unit

    def kept(self, position: int) -> Index:
        """The elements of the original's value that the compact value stands for."""
        kept = self.stages[position - 1].kept if position else np.arange(self.sizes[0][0])
        if kept is None:
            raise Inconsistent("a difference of values that do not belong together")
        return kept

    def _sharpened(self, x: Form, known: list[Bounds], source: int, kept: Index) -> Bounds:
        """Better bounds of the argument of a ReLU: all from the ReLU before, then those that matter from the input.

        That is z and y where a ReLU is curved, then D where one of the two is.
        """
        b = known[source]
        for part in ("z", "y", "d"):
            b = self._better(x, known, source, b, part, np.ones_like(getattr(b, part)[0], dtype=bool), short=True)
        b = sharpened(b, kept)
        b = self._better(x, known, source, b, "z", _curved(b.z))
        b = sharpened(self._better(x, known, source, b, "y", _curved(_three(b)[1])), kept)
        z, y, _ = _three(b)
        curved = _curved((z[0][kept], z[1][kept])) | _curved(y)
        return sharpened(self._better(x, known, source, b, "d", curved), kept)

    def _better(
        self, x: Form, known: list[Bounds], source: int, b: Bounds, part: str, wanted: Mask, short: bool = False
    ) -> Bounds:
        """Bounds of the elements of z, y or D that any leaf wants, the others as they were."""
        index = np.flatnonzero(wanted.any(axis=1))
        if not len(index):
            return b
        low, high = (end.copy() for end in getattr(b, part))
        upper, exponent = self._bound(x, known, source, part, index, 1.0, short)
        high[index] = np.minimum(high[index], np.ceil(upper * power(exponent - b.unit)))
        negated, exponent = self._bound(x, known, source, part, index, -1.0, short)
        low[index] = np.maximum(low[index], -np.ceil(negated * power(exponent - b.unit)))
        ends = {"z": b.z, "y": b.y, "d": b.d, part: (low, high)}
        return Bounds(b.unit, ends["z"] or b.z, ends["y"], ends["d"])

    def _bound(
        self, x: Form, known: list[Bounds], position: int, part: str, index: Index, sign: float, short: bool = False
    ) -> tuple[Array, int]:
        """Upper bounds (elements, leaves) of sign times some elements of z, y or D, and their exponent.

        `short`: not from the input, but from the results of the last ReLU before.
        """
        leaves = x.rem.shape[1]
        size = self.sizes[position][0 if part == "z" else 1]
        together = max(1, COLUMN_BYTES // (8 * leaves * max(max(s) for s in self.sizes)))
        found = []
        for first in range(0, len(index), together):
            some = index[first : first + together]
            body = np.zeros((size, len(some), leaves))
            body[some, np.arange(len(some))] = sign * power(START_BITS)
            start = Pending(**{part: [_form(-START_BITS, body)]})
            found.append(Descent(self, x, known, (len(some), leaves), short).bound(position, start))
        unit = min(exponent for _, exponent in found)
        return np.concatenate([values * power(exponent - unit) for values, exponent in found]), unit


def _curved(bounds: tuple[Array, Array]) -> Mask:
    """Where a ReLU is not linear."""
    curved: Mask = (bounds[0] < 0) & (bounds[1] > 0)
    return curved


def _rectified(argument: Bounds, b: Bounds) -> Bounds:
    """Bounds of the results of a ReLU, from those of its arguments: it is monotone and moves no two numbers apart."""
    scale = power(argument.unit - b.unit)
    z, y, d = _three(argument)
    old_z, old_y, old_d = _three(b)
    ends = [tuple(np.maximum(e * scale, 0.0) for e in z), tuple(np.maximum(e * scale, 0.0) for e in y)]
    ends.append((np.minimum(d[0] * scale, 0.0), np.maximum(d[1] * scale, 0.0)))
    z, y, d = (_meet(new, old) for new, old in zip(ends, (old_z, old_y, old_d), strict=True))
    return Bounds(b.unit, z, y, d)


def _meet(a: tuple[Array, ...], b: tuple[Array, Array]) -> tuple[Array, Array]:
    """Integers inside both intervals, the first of which may have fractions."""
    return np.maximum(np.floor(a[0]), b[0]), np.minimum(np.ceil(a[1]), b[1])


def _three(b: Bounds) -> tuple[tuple[Array, Array], tuple[Array, Array], tuple[Array, Array]]:
    if b.y is None or b.d is None:
        raise Inconsistent("coefficients of a value without bounds")
    return b.z, b.y, b.d


def _form(exponent: int, body: Array, rem: Array | None = None) -> Form:
    zero = np.zeros((len(body), body.shape[2])) if rem is None else rem
    return Form(exponent, ((START_BLOCK, body.shape[1]),), body, zero)


class Descent:
    """One substitution, from a value to the input."""

    def __init__(self, pair: Pair, x: Form, known: Sequence[Bounds], shape: tuple[int, int], short: bool) -> None:
        self.pair, self.x, self.known, self.short = pair, x, known, short
        self.zero = np.zeros(shape)
        self.pending: dict[int, Pending] = {}
        self.found: Parts = []

    def bound(self, position: int, start: Pending) -> tuple[Array, int]:
        """Upper bounds (R, L) of the functions and their exponent."""
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
        return _form(rows.exponent, rows.body)

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
        shape = form.rem.shape
        values, shift = upward(bias, unit)
        radii = [upward(error, unit), (np.full(len(bias), float(shift > unit)), shift)]  # rounded by less than one unit
        self.found += products(form.body, _repeated(values, shape), form.exponent + shift)
        for radius, exponent in radii:
            if radius.any():
                self.found += products(np.abs(form.body), _repeated(radius, shape), form.exponent + exponent)

    def _relu(self, n: int, stage: Stage, z: Form | None, y: Form | None, d: Form | None) -> None:
        source, other = stage.inputs[0], stage.compact_inputs[0]
        b, c = self.known[source], self.known[other]
        own = self._line(z, b.z, b.unit)
        if d is not None:
            kept = self.pair.kept(source)
            over, d = self._planes(d, b, kept)
            own = self._sum([f for f in (own, over.take(_inverse(kept, self.pair.sizes[source][0]))) if f is not None])
        self._hand(source, z=own, d=d)
        self._hand(other, y=self._line(y, c.y, c.unit))

    def _line(self, form: Form | None, bounds: tuple[Array, Array] | None, unit: int) -> Form | None:
        """max(x, 0) <= s x + height, and >= t x with t = 0 or 1."""
        if form is None or bounds is None:
            return None
        low, high = bounds
        curved, s = _curved(bounds), slopes(low, high)
        height = np.where(curved, np.maximum(-s * low, (ONE - s) * high), 0.0)
        t = np.where(curved, ONE * (high > -low), s)
        self._offset(np.maximum(form.body, 0.0), height, form.exponent + unit - SLOPE_BITS)
        return self._scaled(form, t, s)

    def _planes(self, form: Form, b: Bounds, kept: Index) -> tuple[Form, Form]:
        """Coefficients of z[kept] and of D."""
        z, y, d = _three(b)
        ends = [a for pair in ((z[0][kept], z[1][kept]), y, d) for a in pair]
        shape = ends[0].shape
        low_a, low_b, bottom, high_a, high_b, top = (
            row.reshape(shape) for row in two_planes([a.reshape(-1) for a in ends])
        )
        exponent = form.exponent + b.unit - SLOPE_BITS
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
        return _form(form.exponent, body, (body != exact).any(axis=1).astype(np.float64))

    def _add(self, n: int, stage: Stage, z: Form | None, y: Form | None, d: Form | None) -> None:
        compact = stage.compact or stage.step
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
                self._hand(source, **{part: _form(form.exponent, body[first : first + size])})
                first += size


def _repeated(values: Array, shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(values[:, None], shape)


def _signed(form: Form | None, sign: int) -> Form | None:
    return None if form is None else Form(form.exponent, form.blocks, sign * form.body, form.rem * 0.0)


def _inverse(kept: Index, size: int) -> Index:
    """Position among the kept elements, -1 for the others."""
    inverse = np.full(size, -1, dtype=np.int64)
    inverse[kept] = np.arange(len(kept))
    return inverse
