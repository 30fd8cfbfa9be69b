"""Bounds of one step from bounds of its inputs: of the original z, the compact y, and D = z[kept] - y.

Affine steps are exact up to the rounding that `exact` accounts for. A ReLU is replaced by a line or a plane with any
slopes, and an offset that makes it valid: the extreme of a piecewise-linear function over the vertices of its domain
(all candidates are computed, so no case analysis can miss one). A maximum is a tournament of max(p, q) =
q + relu(p - q). Every new error becomes a symbol of its own while the budget lasts, and a remainder beyond it.

Theory note: exact_audit.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from verify.audit import rounding
from verify.audit.exact import Array, Index, Mask, Slack, power
from verify.audit.form import Form, Summand, Term, constant, settle
from verify.audit.lift import Affine, Stage
from verify.audit.linear import image
from verify.audit.planes import ONE, SLOPE_BITS, Inconsistent, best_plane, slopes

ROUNDING_SYMBOLS = 512  # in float32, steps with more outputs add their rounding to the remainders
BOUND_SHIFT = 1  # bounds below 2^39 (differences below 2^40): ONE times three of them stays below 2^52


@dataclass
class Symbols:
    """Id of the next block of symbols, and how many symbols each leaf may still get, (L,).

    `float32`: the values are those of float32 executions, and every step adds its rounding.
    """

    block: int
    left: Array
    float32: bool = False

    def grant(self, wanted: Mask) -> Mask:
        """Which of the wanted (value, leaf) pairs get a symbol: in order of the values, while the budget lasts."""
        granted: Mask = wanted & (np.cumsum(wanted, axis=0) <= self.left)
        self.left = self.left - granted.sum(axis=0)
        self.block += 1
        return granted


@dataclass(frozen=True)
class Values:
    """Forms of one value in both networks: z, and where known y and D."""

    z: Form
    y: Form | None = None
    d: Form | None = None


def propagate(
    stages: Sequence[Stage],
    first: Values,
    symbols: Symbols,
    keep: tuple[int, ...],
    seen: Callable[[Values], None] = lambda value: None,
) -> list[Values]:
    """The values at the positions `keep` (0 is the input, i + 1 is stage i), from those at the input.

    `seen` is called with every value in turn.
    """
    values: list[Values | None] = [first]
    seen(first)
    last = {i: n for n, stage in enumerate(stages) for i in (*stage.inputs, *stage.compact_inputs)}
    for n, stage in enumerate(stages):
        values.append(_complete(stage, apply(stage, values, symbols)))
        seen(values[-1])  # type: ignore[arg-type]
        for i in (*stage.inputs, *stage.compact_inputs):
            if last[i] == n and i not in keep:
                values[i] = None
    return [values[i] for i in keep]  # type: ignore[misc]


def apply(stage: Stage, values: Sequence[Values | None], symbols: Symbols) -> Values:
    """The value of one stage; D only by its own rule."""
    z = [values[i].z for i in stage.inputs]  # type: ignore[union-attr]
    if stage.compact is None:
        return _RULES[stage.step.kind](stage, [Values(form) for form in z], symbols)
    y = [values[i].y for i in stage.compact_inputs]  # type: ignore[union-attr]
    d = [values[i].d if stage.aligned else None for i in stage.inputs]  # type: ignore[union-attr]
    return _RULES[stage.step.kind](stage, [Values(*v) for v in zip(z, y, d, strict=True)], symbols)


def _complete(stage: Stage, v: Values) -> Values:
    """D as z[kept] - y where it has no rule, and after affine steps wherever that is narrower."""
    if v.y is None or stage.kept is None or (v.d is not None and stage.step.kind != "affine"):
        return v
    plain = difference(v.z.take(stage.kept), v.y)
    return Values(v.z, v.y, plain if v.d is None else narrower(v.d, plain))


def difference(a: Form, b: Form) -> Form:
    """a - b, symbol by symbol."""
    minus = Term(b, np.full(b.rem.shape, -1.0))
    return settle([Term(a), minus], [(a.rem, a.exponent), (b.rem, b.exponent)])


def total(a: Form, b: Form) -> Form:
    """a + b, symbol by symbol."""
    return settle([Term(a), Term(b)], [(a.rem, a.exponent), (b.rem, b.exponent)])


def narrower(a: Form, b: Form) -> Form:
    """Per value and leaf the form of smaller radius; both enclose the same values."""
    unit = max(a.exponent, b.exponent)
    better = b.radius * power(b.exponent - unit) < a.radius * power(a.exponent - unit)
    if not better.any():
        return a
    if better.all():
        return b
    keep, take = (~better).astype(np.float64), better.astype(np.float64)
    return settle([Term(a, keep), Term(b, take)], [(a.rem * keep, a.exponent), (b.rem * take, b.exponent)])


# affine steps, sums and moves


def _map(affine: Affine, form: Form, bias: bool = True) -> tuple[list[Summand], list[Slack]]:
    summands, slacks = image(affine.linear, form, affine.place)
    if bias and affine.bias is not None and affine.bias_error is not None:
        ones = np.ones(summands[0].shape)
        summands.append(constant(affine.bias[:, None] * ones, affine.bias_unit))
        slacks.append((affine.bias_error[:, None] * ones, affine.bias_unit))
    return summands, slacks


def _affine(stage: Stage, inputs: list[Values], symbols: Symbols) -> Values:
    (v,) = inputs
    own, compact, cross = stage.own, stage.compact_own, stage.cross
    if own is None:
        raise Inconsistent("an affine step without a map")
    z_error = _errors(rounding.of_affine(own, v.z), symbols) if symbols.float32 else None
    z = _rounded(*_map(own, v.z), z_error)
    if v.y is None or compact is None:
        return Values(z)
    y_error = _errors(rounding.of_affine(compact, v.y), symbols) if symbols.float32 else None
    y = _rounded(*_map(compact, v.y), y_error)
    if v.d is None or cross is None:
        return Values(z, y)
    terms, slacks = _map(cross, v.z)
    more, extra = _map(compact, v.d, bias=False)
    return Values(z, y, _rounded([*terms, *more], [*slacks, *extra], _apart(z_error, y_error, stage.kept)))


def _errors(slacks: list[Slack], symbols: Symbols) -> Form:
    """Rounding errors as a form; those that get a symbol are the same error wherever they go from here."""
    shape = slacks[0][0].shape
    granted = symbols.grant(np.full(shape, shape[0] <= ROUNDING_SYMBOLS))
    return rounding.as_form(slacks, granted, symbols.block)


def _rounded(terms: list[Summand], slacks: list[Slack], error: Form | None) -> Form:
    """The sum, with the rounding error of its execution if there is one."""
    if error is None:
        return settle(terms, slacks)
    return settle([*terms, Term(error)], [*slacks, (error.rem, error.exponent)])


def _apart(z_error: Form | None, y_error: Form | None, kept: Index | None) -> Form | None:
    """The error of D = z[kept] - y."""
    if z_error is None or y_error is None or kept is None:
        return None
    return difference(z_error.take(kept), y_error)


def _sum(stage: Stage, inputs: list[Values], symbols: Symbols) -> Values:
    def error(forms: list[Form | None]) -> Form | None:
        known = [f for f in forms if f is not None]
        return _errors(rounding.of_sum(known), symbols) if symbols.float32 and len(known) == len(forms) else None

    def add(forms: list[Form | None], signs: tuple[int, ...], lost: Form | None) -> Form | None:
        known = [f for f in forms if f is not None]
        if len(known) < len(forms):
            return None
        terms: list[Summand] = [Term(f, np.full(f.rem.shape, float(s))) for f, s in zip(known, signs, strict=True)]
        return _rounded(terms, [(f.rem, f.exponent) for f in known], lost)

    z_error, y_error = error([v.z for v in inputs]), error([v.y for v in inputs])
    z = add([v.z for v in inputs], stage.step.signs, z_error)
    y = add([v.y for v in inputs], (stage.compact or stage.step).signs, y_error)
    known = not symbols.float32 or stage.kept is not None
    d = add([v.d for v in inputs], stage.step.signs, _apart(z_error, y_error, stage.kept)) if known else None
    return Values(z, y, d)  # type: ignore[arg-type]


def _gather(stage: Stage, inputs: list[Values], symbols: Symbols) -> Values:
    compact = stage.compact or stage.step
    joined = [_joined([getattr(v, name) for v in inputs]) for name in ("z", "y", "d")]
    fills = (stage.step.bias, compact.bias, None)
    taps = (stage.step.taps, compact.taps, compact.taps)
    moved = [None if f is None else _filled(f.take(t), t, c) for f, t, c in zip(joined, taps, fills, strict=True)]
    return Values(*moved)  # type: ignore[arg-type]


def _joined(forms: list[Form | None]) -> Form | None:
    """The values of several forms one after the other."""
    known = [f for f in forms if f is not None]
    if len(known) < len(forms):
        return None
    if len(known) == 1:
        return known[0]
    count, leaves = sum(len(f.rem) for f in known), known[0].rem.shape[1]
    terms: list[Summand] = []
    slacks, start = [], 0
    for f in known:
        part = slice(start, start + len(f.rem))
        body, rem = np.zeros((count, f.body.shape[1], leaves)), np.zeros((count, leaves))
        body[part], rem[part] = f.body, f.rem
        terms.append(Term(Form(f.exponent, f.blocks, body, rem)))
        slacks.append((rem, f.exponent))
        start += len(f.rem)
    return settle(terms, slacks)


def _filled(form: Form, taps: Index, fill: object) -> Form:
    """Put the constant in the places that read no element (they hold 0 so far)."""
    if fill is None or not (taps < 0).any():
        return form
    unit = fill.top - 52  # type: ignore[attr-defined]
    whole, error = fill.units(unit)  # type: ignore[attr-defined]
    empty = np.where(taps < 0, 1.0, 0.0)[:, None] * np.ones(form.rem.shape)
    return settle([Term(form), constant(empty * whole, unit)], [(form.rem, form.exponent), (empty * error, unit)])


# ReLU


@dataclass(frozen=True)
class Bounds:
    """Lower and upper bounds (n, L) of z, and of y and D = z[kept] - y, in units of 2^unit."""

    unit: int
    z: tuple[Array, Array]
    y: tuple[Array, Array] | None = None
    d: tuple[Array, Array] | None = None

    def some(self, leaves: Index) -> "Bounds":
        """The bounds on some leaves."""
        z, y, d = (None if p is None else (p[0][:, leaves], p[1][:, leaves]) for p in (self.z, self.y, self.d))
        return Bounds(self.unit, z, y, d)  # type: ignore[arg-type]


def bounds_of(v: Values, kept: Index | None) -> Bounds:
    """Bounds of z, y and D, each sharpened by the other two."""
    unit = BOUND_SHIFT + (v.z.exponent if v.y is None else max(v.z.exponent, v.y.exponent))
    z = v.z.bounds(unit)
    if v.y is None:
        return Bounds(unit, z)
    y = v.y.bounds(unit)
    if v.d is None or kept is None:
        return Bounds(unit, z, y)
    return sharpened(Bounds(unit, z, y, v.d.bounds(unit)), kept)


def sharpened(b: Bounds, kept: Index) -> Bounds:
    """Bounds of z, y and D = z[kept] - y, each sharpened by the other two.

    Raises:
        Inconsistent: they contradict each other.
    """
    if b.y is None or b.d is None:
        return b
    z, y, d = (b.z[0].copy(), b.z[1].copy()), b.y, b.d
    lz, uz = z[0][kept], z[1][kept]
    d = np.maximum(d[0], lz - y[1]), np.minimum(d[1], uz - y[0])
    y = np.maximum(y[0], lz - d[1]), np.minimum(y[1], uz - d[0])
    z[0][kept], z[1][kept] = np.maximum(lz, y[0] + d[0]), np.minimum(uz, y[1] + d[1])
    if any((low > high).any() for low, high in (z, y, d)):
        raise Inconsistent("two enclosures of the same values do not meet")
    return Bounds(b.unit, z, y, d)


def relu_line(form: Form, low: Array, high: Array, unit: int, symbols: Symbols) -> Form:
    """relu(x) in [s x, s x + m] for low <= x <= high, with s in [0, 1] and m = max(-s low, (1 - s) high), 0 if linear.

    Without a symbol for the error, s = 0: the interval [0, high].
    """
    curved = (low < 0) & (high > 0)
    granted = symbols.grant(curved)
    slope = np.where(curved & ~granted, 0.0, slopes(low, high))
    height = np.where(curved, np.maximum(-slope * low, (ONE - slope) * high), 0.0)
    terms = [Term(form, slope, SLOPE_BITS), constant(height, unit - SLOPE_BITS - 1)]
    slacks = [(height, unit - SLOPE_BITS - 1), (form.rem * slope, form.exponent - SLOPE_BITS)]
    return settle(terms, slacks, granted, symbols.block)


def relu(v: Values, kept: Index | None, symbols: Symbols) -> Values:
    """relu(z), relu(y) and relu(z[kept]) - relu(y)."""
    b = bounds_of(v, kept)
    z = relu_line(v.z, *b.z, b.unit, symbols)
    if v.y is None or b.y is None:
        return Values(z)
    y = relu_line(v.y, *b.y, b.unit, symbols)
    if v.d is None or b.d is None or kept is None:
        return Values(z, y)
    return Values(z, y, _relu_difference(v.z.take(kept), v.d, b, kept, symbols))


def _relu_difference(z: Form, d: Form, b: Bounds, kept: Index, symbols: Symbols) -> Form:
    """relu(z) - relu(z - D) in s_z z + s_D D + [bottom, top], slopes and offsets per value and leaf."""
    ends = [a for pair in ((b.z[0][kept], b.z[1][kept]), b.y or (), b.d or ()) for a in pair]
    plane = np.zeros((4, *z.rem.shape))
    plane[1] = ONE  # both active: relu(z) - relu(y) = D
    busy = ((ends[0] < 0) | (ends[2] < 0)) & ((ends[1] > 0) | (ends[3] > 0))
    plane[:, ~busy & (ends[1] <= 0) & (ends[3] <= 0)] = 0.0
    open_ends = ((ends[0] < 0) & (ends[1] > 0)) | ((ends[2] < 0) & (ends[3] > 0))
    granted = symbols.grant(open_ends)
    plane[:, busy] = best_plane([a[busy] for a in ends], (granted | ~open_ends)[busy])
    s_z, s_d, bottom, top = plane
    unit = b.unit - SLOPE_BITS - 1
    terms = [Term(z, s_z, SLOPE_BITS), Term(d, s_d, SLOPE_BITS), constant(bottom + top, unit)]
    slacks = [
        (top - bottom, unit),
        (z.rem * np.abs(s_z), z.exponent - SLOPE_BITS),
        (d.rem * np.abs(s_d), d.exponent - SLOPE_BITS),
    ]
    return settle(terms, slacks, granted & (top > bottom), symbols.block)


def _relu(stage: Stage, inputs: list[Values], symbols: Symbols) -> Values:
    return relu(inputs[0], stage.kept, symbols)


def _max(stage: Stage, inputs: list[Values], symbols: Symbols) -> Values:
    """max over the columns of the taps, one after the other: q <- q + relu(p - q)."""
    (v,) = inputs
    taps, compact_taps = stage.step.taps, (stage.compact or stage.step).taps
    best = _column(v, taps, compact_taps, 0)
    for i in range(1, max(taps.shape[1], compact_taps.shape[1])):
        step = _column(v, taps, compact_taps, i)
        rise = relu(_over(step, best, taps, compact_taps, i), stage.kept, symbols)
        best = Values(*(None if r is None else total(b, r) for b, r in zip(_forms(best), _forms(rise), strict=True)))  # type: ignore[arg-type]
    return best


def _forms(v: Values) -> tuple[Form | None, ...]:
    return v.z, v.y, v.d


def _column(v: Values, taps: Index, compact_taps: Index, i: int) -> Values:
    """Competitor i of every window (the constant 0 where there is none)."""
    chosen = [t[:, min(i, t.shape[1] - 1)] for t in (taps, compact_taps, compact_taps)]
    return Values(*(None if f is None else f.take(t) for f, t in zip(_forms(v), chosen, strict=True)))  # type: ignore[arg-type]


def _over(p: Values, q: Values, taps: Index, compact_taps: Index, i: int) -> Values:
    """p - q, and 0 where there is no competitor i."""
    forms: list[Form | None] = []
    for a, b, t in zip(_forms(p), _forms(q), (taps, compact_taps, compact_taps), strict=True):
        if a is None or b is None:
            forms.append(None)
            continue
        form = difference(a, b)
        present = (t[:, i] >= 0) if i < t.shape[1] else np.zeros(len(t), dtype=bool)
        mask = np.where(present, 1.0, 0.0)[:, None]
        forms.append(Form(form.exponent, form.blocks, form.body * mask[:, None], form.rem * mask))
    return Values(*forms)  # type: ignore[arg-type]


_RULES = {"affine": _affine, "relu": _relu, "max": _max, "gather": _gather, "sum": _sum}
