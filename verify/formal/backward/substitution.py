"""Backward substitution: a linear function of some value becomes a linear function of the input that bounds it.

    c_z z + c_y y + c_d D  <=  A x + constant + error     for every input x of the box

From the last entry to the first: affine steps by their adjoints, nonlinear ones by their upper bounds where a
coefficient is positive and their lower bounds where it is negative. Values that several entries read collect the
coefficients of all of them before they are substituted in turn.

Rounding. With X an upper bound of the values an entry reads, the exact and the computed coefficients differ by at
most gamma |c| |M|, so the function moves by at most gamma |c| (|M| X): one vector per entry, known before any
coefficient. `error` collects these terms. Theory and proof: theory_notes/backward_pair.md, section 3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verify.formal.backward.adjoint import adjoint, roundings
from verify.formal.backward.enclosure import Enclosure
from verify.formal.backward.planes import Line, Plane, Relaxation
from verify.formal.backward.tape import Fixed, Linear, Start, Tape
from verify.formal.maps import Map
from verify.formal.pair import Kept
from verify.formal.rounding import TINY, above, slack
from verify.formal.rules.rule import Affine

_GUARD = 1.0 + 2.0**-20  # for the summation of the error terms themselves
_LONGEST = 2**28  # elements of a value; keeps the relative error of such sums below 2^-24


@dataclass
class Coefficients:
    """Coefficients ``(batch or 1, rows, n or m)`` of z, y and D of one value; None is zero."""

    z: Tensor | None = None
    y: Tensor | None = None
    d: Tensor | None = None

    def add(self, z: Tensor | None = None, y: Tensor | None = None, d: Tensor | None = None) -> None:
        """Add further coefficients."""
        self.z, self.y, self.d = _sum(self.z, z), _sum(self.y, y), _sum(self.d, d)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


@dataclass(frozen=True)
class Function:
    """``inputs x + constant + error``: an upper bound on the box; ``(batch or 1, rows, inputs)`` and ``(.., rows)``."""

    inputs: Tensor
    constant: Tensor
    error: Tensor

    def plus(self, other: "Function") -> "Function":
        """Upper bound of a sum; its two roundings are paid by `largest`."""
        return Function(self.inputs + other.inputs, self.constant + other.constant, self.error + other.error)

    def largest(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Upper bound ``(batch, rows)`` over the box, rounded up; infinite where it is NaN."""
        centre = 0.5 * (lower + upper)
        radius = above(torch.maximum(upper - centre, centre - lower)) * (upper > lower)
        size = self.inputs.abs()
        value = _dot(self.inputs, centre) + _dot(size, radius) + self.constant
        relative = slack(lower.shape[1] + 8)
        with torch.no_grad():
            room = (_dot(size, centre.abs() + radius) + self.constant.abs() + self.error) * relative
            room = (room + self.error + TINY * (1.0 + lower.shape[1])) * _GUARD
        return torch.where(torch.isnan(value + room), torch.inf, value + room)


@dataclass
class _Descent:
    """A substitution under way."""

    tape: Tape
    known: Sequence[Enclosure]
    relaxed: Mapping[int, Relaxation]
    readers: Sequence[int]
    pending: dict[int, Coefficients]
    constant: Tensor
    error: Tensor

    def offset(self, terms: Tensor) -> None:
        """Add to the constant, ``(batch or 1, rows)``."""
        self.constant = self.constant + terms
        self.error = self.error + self.constant.detach().abs() * 2.0**-52

    def blame(self, coefficients: Tensor | None, sizes: Tensor) -> None:
        """Add ``|coefficients| sizes`` to the error; sizes ``(batch, n)`` or ``(batch, rows, n)``."""
        if coefficients is not None:
            self.error = self.error + _dot(coefficients.detach().abs(), sizes)


def readers(tape: Tape) -> tuple[int, ...]:
    """Per entry an upper bound of the number of contributions to one of its coefficients."""
    counts = [0] * len(tape.entries)
    for entry in tape.entries:
        for source in entry.inputs:
            counts[source] += 4
    return tuple(counts)


def substitute(
    tape: Tape,
    start: Mapping[int, Coefficients],
    known: Sequence[Enclosure],
    relaxed: Mapping[int, Relaxation],
    shared: "Weights",
    seen: dict[int, Coefficients] | None = None,
) -> Function:
    """Upper bound of ``sum over start of coefficients . value`` as a function of the input.

    Args:
        start: entry -> coefficients; they are taken as exact.
        known: enclosures of every entry that matters, for the rounding terms.
        relaxed: bounds of every nonlinear entry on the way.
        shared: the rounding weights of this tape and these enclosures.
        seen: where to note the coefficients of every value on the way.
    """
    zero = torch.zeros(1, 1, dtype=torch.float64)
    descent = _Descent(tape, known, relaxed, shared.readers, dict(start), zero, zero)
    for index in range(max(start), 0, -1):
        coefficients = descent.pending.pop(index, None)
        if coefficients is None:
            continue
        if seen is not None:
            seen[index] = coefficients
        _step(descent, index, coefficients, shared)
    last = descent.pending.pop(0, Coefficients())
    inputs = _sum(last.z, last.y)  # both networks read the same input, and D = 0 there
    if inputs is None:
        inputs = torch.zeros(1, 1, known[0].z.lower.shape[1], dtype=torch.float64)
    return Function(inputs, descent.constant, descent.error + shared.underflow)


class Weights:
    """What one unit of a coefficient can cost in rounding, per entry of a tape.

    Made when an entry is first asked for; enclosures that are sharpened later only make it too large.
    """

    def __init__(self, tape: Tape, known: Sequence[Enclosure]) -> None:
        self.tape, self.known, self.readers = tape, known, readers(tape)
        self.made: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self.counted, self.total = 0, torch.zeros(1, 1, dtype=torch.float64)
        if max(size for entry in tape.entries for size in entry.sizes) >= _LONGEST:
            raise OverflowError("a value is too large for the rounding bounds of the backward pass")

    @property
    def underflow(self) -> Tensor:
        """``(batch, 1)``: an absolute error of TINY per coefficient that was ever computed."""
        for enclosure in self.known[self.counted :]:
            for part in (enclosure.z, enclosure.y, enclosure.d):
                self.total = self.total + part.magnitude().sum(1, keepdim=True)
        self.counted = len(self.known)
        return TINY * (1.0 + self.total)

    def affine(self, index: int, entry: Linear) -> tuple[Tensor, Tensor, Tensor]:
        """Weights of the coefficients of z, y and D behind an affine step, each ``(batch, n)``."""
        if index not in self.made:
            self.made[index] = self._affine(entry)
        return self.made[index]

    def _affine(self, entry: Linear) -> tuple[Tensor, Tensor, Tensor]:
        step, inputs = entry.step, [self.known[i] for i in entry.inputs]
        fan = max((self.readers[i] for i in entry.inputs), default=0)
        z = _weight(list(zip(step.first.maps, (e.z.magnitude() for e in inputs), strict=True)), step.first, fan)
        if step.second is None:
            return z, z[:, :0], z[:, :0]
        y = _weight(list(zip(step.second.maps, (e.y.magnitude() for e in inputs), strict=True)), step.second, fan)
        d = _weight(list(zip(step.second.maps, (e.d.magnitude() for e in inputs), strict=True)), None, fan)
        if step.change is not None:
            d = d + _weight(
                list(zip(step.change.maps, (e.z.magnitude() for e in inputs), strict=True)), step.change, fan
            )
        return z, y, d


def _weight(terms: list[tuple[Map, Tensor]], affine: Affine | None, fan: int) -> Tensor:
    count = max(roundings(linear) for linear, _ in terms)
    relative = slack(count + fan + terms[0][0].outputs + 8)
    total = torch.zeros(()).double()
    for linear, size in terms:
        total = total + linear.absolute(size) * relative
        if linear.error is not None:
            index = getattr(linear, "index", None)
            total = total + linear.error * (size if index is None else size.index_select(-1, index))
    if affine is not None and affine.offset is not None:
        total = total + affine.offset.abs() * relative
        total = total if affine.offset_error is None else total + affine.offset_error
    return total * (1.0 + 2.0**-20)


def _step(descent: _Descent, index: int, c: Coefficients, shared: Weights) -> None:
    entry = descent.tape.entries[index]
    if isinstance(entry, Linear):
        _affine(descent, entry, c, shared.affine(index, entry))
    elif isinstance(entry, Fixed):
        _constant(descent, entry, c)
    else:
        _nonlinear(descent, entry, c, descent.relaxed[index])


def _affine(descent: _Descent, entry: Linear, c: Coefficients, weights: tuple[Tensor, Tensor, Tensor]) -> None:
    step = entry.step
    for rows, weight in zip((c.z, c.y, c.d), weights, strict=True):
        descent.blame(rows, weight)
    for rows, affine in ((c.z, step.first), (c.y, step.second), (c.d, step.change)):
        if rows is not None and affine is not None and affine.offset is not None:
            descent.offset(rows @ affine.offset)
    for position, source in enumerate(entry.inputs):
        slot = descent.pending.setdefault(source, Coefficients())
        slot.add(z=_pulled(step.first, position, c.z))
        slot.add(z=_pulled(step.change, position, c.d))
        slot.add(y=_pulled(step.second, position, c.y), d=_pulled(step.second, position, c.d))


def _pulled(affine: Affine | None, position: int, rows: Tensor | None) -> Tensor | None:
    return None if affine is None or rows is None else adjoint(affine.maps[position], rows)


def _constant(descent: _Descent, entry: Fixed, c: Coefficients) -> None:
    first, second = entry.first, entry.second
    values: list[tuple[Tensor | None, Tensor | None]] = [(c.z, first), (c.y, second)]
    if second is not None and entry.kept is not None:
        values.append((c.d, entry.kept.of(first) - second))
    for rows, value in values:
        if rows is not None and value is not None:
            descent.offset(rows @ value)
            descent.blame(rows, (value.abs() * slack(len(value) + 8))[None])


def _nonlinear(descent: _Descent, entry: Start, c: Coefficients, relaxation: Relaxation) -> None:
    source = entry.inputs[0]
    x, fan = descent.known[source], descent.readers[source]
    slot = descent.pending.setdefault(source, Coefficients())
    slot.add(z=_along(descent, c.z, relaxation.z, x.z.magnitude(), fan))
    if relaxation.y is not None:
        slot.add(y=_along(descent, c.y, relaxation.y, x.y.magnitude(), fan))
    if c.d is None or relaxation.d is None or relaxation.kept is None:
        return
    lower, upper = relaxation.d
    kept = relaxation.kept
    positive = c.d > 0.0
    a, b = (c.d * torch.where(positive, u, v) for u, v in ((upper.a, lower.a), (upper.b, lower.b)))
    _offsets(descent, c.d, lower.offset, upper.offset)
    descent.blame(c.d, _plane_weight(lower, upper, kept.of(x.z.magnitude()), x.d.magnitude(), fan))
    slot.add(z=_spread(a, kept, x.z.lower.shape[1]), d=b)


def _along(descent: _Descent, c: Tensor | None, lines: tuple[Line, Line], size: Tensor, fan: int) -> Tensor | None:
    if c is None:
        return None
    lower, upper = lines
    _offsets(descent, c, lower.offset, upper.offset)
    steep = torch.maximum(lower.slope.detach().abs(), upper.slope.detach().abs())
    offsets = torch.maximum(lower.offset.detach().abs(), upper.offset.detach().abs())
    descent.blame(c, (steep * size[:, None, :] + offsets) * slack(c.shape[-1] + fan + 8))
    return c * torch.where(c > 0.0, upper.slope, lower.slope)


def _offsets(descent: _Descent, c: Tensor, lower: Tensor, upper: Tensor) -> None:
    """What the offsets add: the upper ones where a coefficient is positive, the lower ones where it is negative."""
    descent.offset(_dot(c.clamp(min=0.0), _flat(upper)))
    if bool(lower.any()):
        descent.offset(_dot(c.clamp(max=0.0), _flat(lower)))


def _flat(vector: Tensor) -> Tensor:
    """``(batch, n)`` where all rows share it."""
    return vector[:, 0] if vector.shape[1] == 1 else vector


def _plane_weight(lower: Plane, upper: Plane, z: Tensor, d: Tensor, fan: int) -> Tensor:
    a, b, offset = (
        torch.maximum(getattr(lower, k).detach().abs(), getattr(upper, k).detach().abs()) for k in ("a", "b", "offset")
    )
    return (a * z[:, None, :] + b * d[:, None, :] + offset) * slack(z.shape[-1] + fan + 8)


def _spread(rows: Tensor, kept: Kept, size: int) -> Tensor:
    """Coefficients of the kept elements among those of all."""
    if kept.everything:
        return rows
    return rows.new_zeros(*rows.shape[:-1], size).index_add(-1, kept.index, rows)


def _dot(rows: Tensor, vector: Tensor) -> Tensor:
    """``(batch, rows)`` products of ``(batch or 1, rows, n)`` with ``(batch, n)`` or ``(batch, rows, n)``."""
    if vector.ndim == 3 and vector.shape[1] == 1:
        vector = vector[:, 0]
    if vector.ndim == 3:
        return (rows * vector).sum(-1)
    return (rows @ vector[..., None])[..., 0]
