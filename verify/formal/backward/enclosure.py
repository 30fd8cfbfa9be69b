"""What is known about every value on a tape: intervals of z, y and D = z[kept] - y, for a batch of sub-boxes.

Two cheap sources, both forward: intervals, entry by entry, and the differential zonotopes over the whole tape.
The backward pass sharpens the arguments of nonlinear entries; every later interval profits. All bounds are rounded
outward and keep a margin for the few roundings that follow (`rounding.MARGIN`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from verify.formal.arithmetic import PairArithmetic, SingleArithmetic
from verify.formal.backward.tape import Curved, Fixed, Linear, Start, Tape
from verify.formal.form import ORIGINAL, Form
from verify.formal.pair import Kept, Triple
from verify.formal.pair_relu import Region
from verify.formal.program import input_form
from verify.formal.rounding import MARGIN, TINY, raised, slack
from verify.formal.rules.rule import Affine, Arithmetic
from verify.formal.symbols import Ledger, MemoryLimit


@dataclass(frozen=True)
class Interval:
    """``lower <= value <= upper``, both ``(batch, n)``."""

    lower: Tensor
    upper: Tensor

    def meet(self, other: "Interval") -> "Interval":
        """What both say; NaN says nothing."""
        return Interval(torch.fmax(self.lower, other.lower), torch.fmin(self.upper, other.upper))

    def magnitude(self) -> Tensor:
        """Upper bound of the absolute value."""
        return torch.maximum(-self.lower, self.upper).clamp(min=0.0)

    def centre(self) -> Tensor:
        """Some point in the middle."""
        return 0.5 * (self.lower + self.upper)

    def widened(self) -> "Interval":
        """With the margin for roundings to come."""
        return Interval(
            self.lower - (self.lower.abs() * MARGIN + TINY), self.upper + (self.upper.abs() * MARGIN + TINY)
        )


@dataclass(frozen=True)
class Enclosure:
    """Intervals of one value: original, compact, difference; the last two are empty for a single network."""

    z: Interval
    y: Interval
    d: Interval

    def meet(self, other: "Enclosure") -> "Enclosure":
        """What both say."""
        return Enclosure(self.z.meet(other.z), self.y.meet(other.y), self.d.meet(other.d))

    def region(self, kept: Kept) -> Region:
        """Bounds of the kept elements."""
        return Region(
            kept.of(self.z.lower), kept.of(self.z.upper), self.y.lower, self.y.upper, self.d.lower, self.d.upper
        )

    def sharpened(self, kept: Kept | None) -> "Enclosure":
        """Each of the three bounded by the other two."""
        if kept is None:
            return self
        r = self.region(kept).sharpened()
        z = Interval(kept.put(self.z.lower, r.z_lower), kept.put(self.z.upper, r.z_upper))
        return Enclosure(z, Interval(r.y_lower, r.y_upper), Interval(r.d_lower, r.d_upper))


def of_input(lower: Tensor, upper: Tensor, *, paired: bool) -> Enclosure:
    """The input box itself: both networks read the same."""
    box = Interval(lower, upper)
    return (
        Enclosure(box, box, exactly(torch.zeros_like(lower))) if paired else Enclosure(box, nothing(box), nothing(box))
    )


def exactly(value: Tensor) -> Interval:
    """One point."""
    return Interval(value, value)


def nothing(like: Interval) -> Interval:
    """The interval of a value without elements."""
    return exactly(like.lower[:, :0])


def image(affine: Affine, inputs: Sequence[Interval]) -> Interval:
    """Interval of ``sum_t map_t(x_t) + offset``, every rounding included."""
    return _image(list(zip(affine.maps, inputs, strict=True)), affine.offset, affine.offset_error)


def _image(terms: list[tuple[Any, Interval]], offset: Tensor | None, offset_error: Tensor | None) -> Interval:
    relative = slack(sum(linear.roundings for linear, _ in terms) + len(terms) + 4)
    middle, reach = torch.zeros(()).double(), torch.zeros(()).double()
    for linear, x in terms:
        centre = x.centre()
        radius = raised(torch.maximum(x.upper - centre, centre - x.lower).clamp(min=0.0))
        size = centre.abs() + radius
        middle = middle + linear(centre)
        reach = reach + linear.absolute(torch.add(radius, size, alpha=relative))
        if linear.error is not None:
            index = getattr(linear, "index", None)
            reach = reach + linear.error * (size if index is None else size.index_select(-1, index))
    if offset is not None:
        middle = middle + offset
        reach = reach + offset.abs() * relative + (0.0 if offset_error is None else offset_error)
    reach = raised(reach * (1.0 + relative))
    return Interval(middle - reach, middle + reach).widened()


def through_affine(entry: Linear, inputs: Sequence[Enclosure]) -> Enclosure:
    """Intervals behind an affine step."""
    step = entry.step
    z = image(step.first, [e.z for e in inputs])
    if step.second is None:
        return Enclosure(z, nothing(z), nothing(z))
    y = image(step.second, [e.y for e in inputs])
    terms = list(zip(step.second.maps, (e.d for e in inputs), strict=True))
    if step.change is None:
        return Enclosure(z, y, _image(terms, None, None))
    terms += zip(step.change.maps, (e.z for e in inputs), strict=True)
    return Enclosure(z, y, _image(terms, step.change.offset, step.change.offset_error))


def through_relu(x: Enclosure) -> Enclosure:
    """ReLU is monotone and 1-Lipschitz; nothing is rounded."""
    z, y = (Interval(i.lower.clamp(min=0.0), i.upper.clamp(min=0.0)) for i in (x.z, x.y))
    return Enclosure(z, y, Interval(x.d.lower.clamp(max=0.0), x.d.upper.clamp(min=0.0)))


def through_curve(entry: Curved, x: Enclosure) -> Enclosure:
    """By enclosures of the values, and of the derivative between the two arguments."""
    z, y = (Interval(*entry.function.values(i.lower, i.upper)).widened() for i in (x.z, x.y))
    if entry.kept is None:
        return Enclosure(z, y, x.d)
    r = x.region(entry.kept)
    low, high = entry.function.derivatives(torch.minimum(r.z_lower, r.y_lower), torch.maximum(r.z_upper, r.y_upper))
    steep = torch.maximum(low.abs(), high.abs())
    reach = raised(steep * x.d.magnitude())
    return Enclosure(z, y, Interval(-reach, reach))


def through_constant(entry: Fixed, batch: int) -> Enclosure:
    """The constants themselves."""
    z = exactly(entry.first.expand(batch, -1))
    if entry.second is None or entry.kept is None:
        return Enclosure(z, nothing(z), nothing(z))
    difference = (entry.kept.of(entry.first) - entry.second).expand(batch, -1)
    return Enclosure(z, exactly(entry.second.expand(batch, -1)), exactly(difference).widened())


def by_zonotopes(tape: Tape, lower: Tensor, upper: Tensor, *, symbols: int, bytes_limit: int) -> list[Enclosure] | None:
    """Enclosures of every entry by forward zonotopes; None beyond the memory limit."""
    ledger = Ledger(lower.shape[0], lower.shape[1], symbols, bytes_limit)
    arithmetic: Arithmetic[Any] = PairArithmetic(ledger) if tape.paired else SingleArithmetic(ledger, ORIGINAL)
    try:
        values = _forward(tape, lower, upper, ledger, arithmetic)
    except MemoryLimit:
        return None
    return [_of_value(value) for value in values]


def _forward(tape: Tape, lower: Tensor, upper: Tensor, ledger: Ledger, arithmetic: Arithmetic[Any]) -> list[Any]:
    values: list[Any] = []
    for entry in tape.entries:
        inputs = [values[i] for i in entry.inputs]
        if not isinstance(entry, Linear | Fixed) and not inputs:
            values.append(_start(entry, lower, upper, ledger))
        elif isinstance(entry, Linear):
            values.append(arithmetic.affine(entry.step, inputs))
        elif isinstance(entry, Curved):
            values.append(arithmetic.curve(entry.function, inputs[0]))
        elif isinstance(entry, Fixed):
            values.append(arithmetic.constant(entry.first, entry.second, entry.kept))
        else:
            values.append(arithmetic.relu(inputs[0]))
    return values


def _start(entry: Start, lower: Tensor, upper: Tensor, ledger: Ledger) -> Any:
    from verify.formal.form import COMPACT, constant

    if entry.kept is None:
        return input_form(lower, upper, ledger, ORIGINAL)
    z, y = (input_form(lower, upper, ledger, block) for block in (ORIGINAL, COMPACT))
    return Triple(z, y, constant(torch.zeros(lower.shape[1]).double(), ledger.batch), entry.kept)


def _of_value(value: Form | Triple) -> Enclosure:
    if isinstance(value, Form):
        z = _of_form(value)
        return Enclosure(z, nothing(z), nothing(z))
    return Enclosure(_of_form(value.z), _of_form(value.y), _of_form(value.d))


def _of_form(form: Form) -> Interval:
    low, high = form.bounds()
    finite = torch.isfinite(low) & torch.isfinite(high)
    return Interval(torch.where(finite, low, -torch.inf), torch.where(finite, high, torch.inf))
