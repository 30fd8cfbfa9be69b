"""Bounds of a box where the signs of some arguments of ReLUs are decided, with multipliers.

On the part of a box where s_k v_k(x) >= 0 for some values v_k of either network, s_k = 1 or -1, and for any b_k >= 0

    c . D(x)  <=  c . D(x) + sum_k b_k s_k v_k(x),

and the right-hand side is bounded over the box by backward substitution, in which the decided ReLUs are linear. The
bounds of all other arguments stay those of the whole box, so a part costs one substitution per trial of multipliers.
Theory: theory_notes/relu_splits.md. Not claimed: that these are the best multipliers; any are sound.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from verify.errors import SpecificationError
from verify.formal.backward.bound import Analysis, Effort, both_signs
from verify.formal.backward.enclosure import Enclosure, Interval
from verify.formal.backward.planes import Relaxation
from verify.formal.backward.slopes import Hinge, hinge
from verify.formal.backward.substitution import Coefficients, Function
from verify.formal.backward.tape import Rectifier, Tape
from verify.formal.program import EVERY_SYMBOL
from verify.formal.rounding import TINY
from verify.spec.deviation import Sign

STEPS = 12  # of the search for multipliers
RATE, DECAY = 0.3, 0.85
COEFFICIENTS = 2**19  # of one value, for all parts that are bounded at once
DIGITS = 10  # of a multiplier: they are written to certificates
CLOSE = 0.5  # of the width of z in the whole box
MATTERS = 0.5  # rows below this part of the worst one need no multipliers yet
EVERY = slice(None)
NOTHING = 0  # in place of a decision


@dataclass(frozen=True)
class Value:
    """An argument of a ReLU whose sign may be decided.

    Attributes:
        name: of the value in the original. entry: its place on the tape.
        compact: whether it is the compact network's.
        first: number of its first element among all that may be decided.
        size: how many elements it has.
    """

    name: str
    entry: int
    compact: bool
    first: int
    size: int


@dataclass(frozen=True)
class Parts:
    """What holds on some parts of a box.

    Attributes:
        upper: ``(parts, 2 outputs)`` bounds of D, then of -D.
        multipliers: ``(parts, 2 outputs, depth)``, in the order of the decisions.
        wish: ``(parts,)`` number + 1 of the element to decide next, 0 where there is none.
        worst: ``(parts, inputs)`` corner of the box where the linear bound of the worst row is attained.
    """

    upper: Tensor
    multipliers: Tensor
    wish: Tensor
    worst: Tensor


def decidable(tape: Tape) -> tuple[Value, ...]:
    """The arguments of ReLUs that bear a name, of the original and of the compact network."""
    names = {entry: name for name, entry in tape.names.items()}
    found: list[Value] = []
    first = 0
    for entry in tape.entries:
        if isinstance(entry, Rectifier) and entry.inputs[0] in names and entry.kept is not None:
            source = entry.inputs[0]
            for compact in (False, True):
                found.append(Value(names[source], source, compact, first, entry.sizes[compact]))
                first += entry.sizes[compact]
    return tuple(found)


class Phases:
    """One box, bounded once, and its parts."""

    def __init__(self, tape: Tape, lower: Tensor, upper: Tensor, *, seconds: float, started: float) -> None:
        self.tape, self.lower, self.upper = tape, lower, upper
        self.values = decidable(tape)
        with torch.no_grad():
            self.analysis = Analysis(tape, lower, upper, Effort(0, 0, EVERY_SYMBOL, started, seconds)).run()
            self.start = both_signs(tape.entries[tape.output].sizes[1])

    @cached_property
    def known(self) -> Tensor:
        """What holds on the whole box, ``(1, 2 outputs)``."""
        d = self.analysis.known[self.tape.output].d
        return torch.cat([d.upper, -d.lower], dim=1)

    @cached_property
    def magnitudes(self) -> Tensor:
        """Largest absolute value of everything that may be decided, ``(1 + elements,)`` by number."""
        known = self.analysis.known
        found = [(known[v.entry].y if v.compact else known[v.entry].z).magnitude()[0] for v in self.values]
        return torch.cat([torch.zeros(1).double(), *found])

    @property
    def together(self) -> int:
        """How many parts to bound at once."""
        widest = max(max(entry.sizes) for entry in self.tape.entries)
        return max(1, COEFFICIENTS // (widest * self.start.shape[1]))

    def name(self, number: int) -> tuple[str, bool, int]:
        """Of the value with a number (from 1): its name, whether it is the compact network's, and the element."""
        value = next(v for v in self.values if v.first < number <= v.first + v.size)
        return value.name, value.compact, number - 1 - value.first

    def number(self, sign: Sign) -> int:
        """Of the element whose sign is decided.

        Raises:
            SpecificationError: it is no argument of a ReLU.
        """
        for value in self.values:
            if (value.name, value.compact) == (sign.value, sign.compact) and 0 <= sign.element < value.size:
                return value.first + sign.element + 1
        raise SpecificationError(f"no argument of a ReLU: element {sign.element} of value {sign.value!r}")

    def bounds(
        self, decided: Tensor, target: float = 0.0, *, multipliers: Tensor | None = None, steps: int = STEPS
    ) -> Parts:
        """Bounds of parts given by their decisions ``(parts, depth)``: signed numbers from 1 on, 0 for none.

        Args:
            target: bounds up to it need no multipliers.
            multipliers: where to start, ``(parts, 2 outputs, depth)``.
            steps: of the search for multipliers.
        """
        zero = torch.zeros(len(decided), self.start.shape[1], decided.shape[1], dtype=torch.float64)
        with torch.no_grad():
            relaxed, shut = self._relaxed(decided)
            seen: dict[int, Coefficients] = {}
            function = self._function(relaxed, decided, zero, seen)
            best, chosen = function.largest(self.lower, self.upper).expand(len(decided), -1), zero
            if steps and decided.shape[1]:
                start = zero if multipliers is None else multipliers
                chosen = _short(self._descent(relaxed, decided, start, best, target, steps))
                function = self._function(relaxed, decided, chosen, seen)
                found = function.largest(self.lower, self.upper)
                chosen = torch.where((found < best)[..., None], chosen, 0.0)
                best = torch.fmin(found, best)
            best = torch.fmin(best, self.known)
            rows = function.inputs.expand(*best.shape, -1)
            worst = torch.where(_row(rows, best.argmax(1)) > 0.0, self.upper, self.lower)
            return Parts(best, chosen, self._wish(relaxed, seen, best, shut), worst)

    def _relaxed(self, decided: Tensor) -> tuple[dict[int, Relaxation], dict[int, Enclosure]]:
        """Relaxations in which the decided ReLUs are linear, and the bounds of their arguments."""
        relaxed, shut = {}, {}
        for index, entry in enumerate(self.tape.entries):
            if isinstance(entry, Rectifier):
                source = entry.inputs[0]
                x = self._shut(source, decided)
                own = self._blunt(hinge(entry, x), source)
                relaxed[index], shut[source] = own.relaxation(own.first), x
        return relaxed, shut

    def _blunt(self, own: Hinge, source: int) -> Hinge:
        """Where one ReLU is open and the other shut while z and y are close: between 0 and D instead of z or -y.

        Both are right, and the latter is exact, but it trades a small D for a z that the box hardly limits.
        """
        if own.corner is None or own.kept is None or own.first.lower is None or own.first.upper is None:
            return own
        r, z = own.x.region(own.kept), self.analysis.known[source].z
        close = r.d_upper - r.d_lower <= CLOSE * own.kept.of(z.upper - z.lower)
        falls, rises = close & (r.z_upper <= 0.0) & (r.y_lower >= 0.0), close & (r.z_lower >= 0.0) & (r.y_upper <= 0.0)
        mixed, zero = (falls | rises)[:, None], torch.zeros(())
        corner = replace(own.corner, settled=own.corner.settled & ~mixed)
        lower, upper = (
            (torch.where(mixed, zero, a), torch.where(mixed, slope[:, None].double(), b))
            for (a, b), slope in ((own.first.lower, falls), (own.first.upper, rises))
        )
        return replace(own, corner=corner, first=replace(own.first, lower=lower, upper=upper))

    def _shut(self, source: int, decided: Tensor) -> Enclosure:
        """Bounds of a value, cut at zero where its sign is decided."""
        x, parts = self.analysis.known[source], {}
        for value in self.values:
            if value.entry == source:
                old = x.y if value.compact else x.z
                sign = self._signs(value, decided)
                lower, upper = old.lower.expand(len(decided), -1), old.upper.expand(len(decided), -1)
                lower = torch.where(sign > 0, lower.clamp(min=0.0), lower)
                parts[value.compact] = Interval(lower, torch.where(sign < 0, upper.clamp(max=0.0), upper))
        if not parts:
            return x
        d = Interval(*(t.expand(len(decided), -1) for t in (x.d.lower, x.d.upper)))
        return Enclosure(parts[False], parts[True], d).sharpened(self.tape.entries[source].kept)

    def _signs(self, value: Value, decided: Tensor) -> Tensor:
        """1, -1 or 0 for every element of a value, ``(parts, size)``."""
        at = decided.abs() - 1 - value.first
        own = (at >= 0) & (at < value.size) & (decided != NOTHING)
        signs = torch.zeros(len(decided), value.size, dtype=torch.float64)
        return signs.scatter_add_(1, torch.where(own, at, 0), torch.where(own, decided.sign(), 0).double())

    def _function(
        self,
        relaxed: Mapping[int, Relaxation],
        decided: Tensor,
        multipliers: Tensor,
        seen: dict[int, Coefficients] | None = None,
        rows: Tensor | slice = EVERY,
    ) -> Function:
        """The upper bound of some rows, with their multipliers, as a function of the input."""
        start = {self.tape.output: Coefficients(d=self.start[:, rows])}
        for value in self.values:
            at = decided.abs() - 1 - value.first
            own = (at >= 0) & (at < value.size) & (decided != NOTHING)
            if bool(own.any()):
                index = torch.where(own, at, 0)[:, None].expand(multipliers.shape)
                signed = multipliers * torch.where(own, decided.sign(), 0)[:, None]
                added = signed.new_zeros(*multipliers.shape[:2], value.size).scatter_add(2, index, signed)
                start.setdefault(value.entry, Coefficients()).add(**{"y" if value.compact else "z": added})
        return self.analysis.function(start, relaxed, self.analysis.weights, seen)

    def _descent(
        self,
        relaxed: Mapping[int, Relaxation],
        decided: Tensor,
        start: Tensor,
        plain: Tensor,
        target: float,
        steps: int,
    ) -> Tensor:
        """Multipliers ``(parts, rows, depth)`` by projected gradient steps on the bound itself (Adam)."""
        high = torch.fmin(plain, self.known)
        wanted = high > torch.clamp(MATTERS * high.amax(1, keepdim=True), min=target)
        kept, rows = torch.zeros_like(start), wanted.any(0).nonzero()[:, 0]
        plain, wanted, start = plain[:, rows], wanted[:, rows], start[:, rows]
        size = self.magnitudes[decided.abs()].clamp(min=TINY)  # (parts, depth)
        scale = plain.abs()[..., None] / size[:, None] * (decided != NOTHING)[:, None] + TINY
        at = start / scale
        best, chosen = plain, torch.zeros_like(start)
        mean, square = torch.zeros_like(at), torch.zeros_like(at)
        for step in range(1, steps + 1):
            with torch.enable_grad():
                moving = at.clone().requires_grad_(True)
                function = self._function(relaxed, decided, moving * scale, rows=rows)
                value = function.largest(self.lower, self.upper)
                (gradient,) = torch.autograd.grad(torch.where(wanted, value, 0.0).sum(), moving)
            better = (value.detach() < best) & wanted
            chosen = torch.where(better[..., None], at * scale, chosen)
            best = torch.where(better, value.detach(), best)
            gradient = torch.nan_to_num(gradient)
            mean, square = 0.7 * mean + 0.3 * gradient, 0.95 * square + 0.05 * gradient**2
            move = (mean / (1.0 - 0.7**step)) / ((square / (1.0 - 0.95**step)).sqrt() + TINY)
            at = (at - RATE * DECAY ** (step - 1) * move).clamp(min=0.0)
        kept[:, rows] = chosen
        return kept

    def _wish(
        self,
        relaxed: Mapping[int, Relaxation],
        seen: Mapping[int, Coefficients],
        upper: Tensor,
        shut: Mapping[int, Enclosure],
    ) -> Tensor:
        """The element to decide next: where the relaxation costs the worst row most."""
        row = upper.argmax(1)
        scores = torch.zeros(len(upper), len(self.magnitudes), dtype=torch.float64)
        for value in self.values:
            for index, entry in enumerate(self.tape.entries):
                if isinstance(entry, Rectifier) and entry.inputs[0] == value.entry and index in seen:
                    x = shut[value.entry].y if value.compact else shut[value.entry].z
                    cost = _cost(seen[index], relaxed[index], row, value.compact)
                    open_ = (x.lower < -TINY) & (x.upper > TINY)
                    scores[:, value.first + 1 : value.first + 1 + value.size] += torch.where(open_, cost, 0.0)
        best, at = scores.max(1)
        return torch.where(best > 0.0, at, NOTHING)


def _cost(c: Coefficients, relaxed: Relaxation, row: Tensor, compact: bool) -> Tensor:
    """How much the relaxation of each element may add to the chosen row, ``(parts, size)``."""
    own, lines = (c.y, relaxed.y) if compact else (c.z, relaxed.z)
    assert lines is not None
    total = torch.zeros_like(lines[1].offset[:, 0])
    if own is not None:
        picked = _row(own, row)
        total = (
            total
            + picked.clamp(min=0.0) * lines[1].offset[:, 0]
            + 0.5 * (-picked).clamp(min=0.0) * lines[1].offset[:, 0]
        )
    if c.d is not None and relaxed.d is not None and relaxed.kept is not None:
        picked = _row(c.d, row)
        low, high = relaxed.d
        share = picked.clamp(min=0.0) * high.offset[:, 0] + (-picked).clamp(min=0.0) * -low.offset[:, 0]
        total = total + share if compact else relaxed.kept.put(total, relaxed.kept.of(total) + share)
    return total


def _row(rows: Tensor, which: Tensor) -> Tensor:
    rows = rows.expand(len(which), -1, -1)
    return rows[torch.arange(len(which)), which]


def _short(multipliers: Tensor) -> Tensor:
    """Rounded to a few binary digits."""
    mantissa, exponent = torch.frexp(multipliers)
    return torch.ldexp((mantissa * 2.0**DIGITS).round(), exponent - DIGITS)
