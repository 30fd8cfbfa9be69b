"""Backward bounds of the difference of two networks on a batch of boxes.

    forward intervals and zonotopes ─► arguments of every nonlinear entry sharpened backward, in order ─► the output

The answer is the smallest of: the pair's own backward bound, with slopes first chosen and then optimised; the
backward bound of each network on its own (CROWN, alpha-CROWN); and the forward zonotope. Networks without a lift
get the last two only. Theory: theory_notes/backward_pair.md. Not claimed: that an auditor re-does
the search for slopes; a certificate's rule "pair_backward" is without it (`leaves.py`).
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from verify.formal.backward.enclosure import (
    Enclosure,
    Interval,
    by_zonotopes,
    of_input,
    through_affine,
    through_constant,
    through_curve,
    through_relu,
)
from verify.formal.backward.planes import Relaxation
from verify.formal.backward.slopes import Hinge, fixed_relaxation, hinge, optimised
from verify.formal.backward.substitution import Coefficients, Function, Weights, substitute
from verify.formal.backward.tape import Curved, Fixed, Linear, Rectifier, Tape, record_pair, record_separate
from verify.formal.lift import Lift
from verify.formal.program import EVERY_SYMBOL
from verify.network.graph import Network

ITERATIONS, INNER_ITERATIONS = 40, 10
INNER_SHARE = 0.6  # of the time
SHARED = 0.8  # boxes share one list of elements unless their own lists are shorter than this part of it
ELEMENTS = 2**22  # coefficients of one value that a batch of rows may hold
ZONOTOPE_BYTES = 2**29


@dataclass(frozen=True)
class BackwardBounds:
    """What holds for the difference of the outputs on each box of a batch.

    Attributes:
        lower, upper: ``(batch, outputs)``, rounded outward; infinite where nothing could be shown.
        by_method: upper bounds ``(batch,)`` of the max norm, one per method: "pair", "pair_optimised", "separate",
            "separate_optimised", "zonotope". All of them hold.
    """

    lower: Tensor
    upper: Tensor
    by_method: Mapping[str, Tensor]

    def deviation(self) -> Tensor:
        """Upper bound ``(batch,)`` of the max norm of the difference."""
        return torch.maximum(-self.lower, self.upper).amax(1)


def backward_bounds(
    original: Network,
    compact: Network,
    lift: Lift | None,
    lower: Tensor,
    upper: Tensor,
    *,
    iterations: int = ITERATIONS,
    inner_iterations: int = INNER_ITERATIONS,
    symbols: int = EVERY_SYMBOL,
    seconds: float = math.inf,
) -> BackwardBounds:
    """Bound ``original(x) - compact(x)`` on boxes ``[lower, upper]``, both ``(batch, inputs)`` float64.

    Args:
        lift: correspondence of the two networks (`align`), or None to bound each on its own.
        iterations: gradient steps on the slopes of the final bound; 0 for none.
        inner_iterations: the same for the arguments of nonlinear entries.
        symbols: budget of the forward zonotopes; 0 for intervals.
        seconds: time after which nothing further is sharpened or optimised; what is under way is finished.

    Raises:
        UnsupportedOperation: a node has no bound propagation rule.
    """
    effort = Effort(iterations, inner_iterations, symbols, time.monotonic(), seconds)
    with torch.no_grad():
        if lift is None:
            return _apart(record_separate(original, compact), lower, upper, effort)
        return _together(record_pair(original, compact, lift), lower, upper, effort)


def analyse(tape: Tape, lower: Tensor, upper: Tensor) -> list[Enclosure]:
    """Enclosures of every entry of a tape on boxes ``(batch, inputs)``, sharpened backward without search."""
    with torch.no_grad():
        return Analysis(tape, lower, upper, Effort(0, 0, EVERY_SYMBOL, 0.0, math.inf)).run().known


@dataclass(frozen=True)
class Effort:
    """How much to do: gradient steps on the final and on inner bounds, symbols, and the seconds since `started`."""

    final: int
    inner: int
    symbols: int
    started: float
    seconds: float

    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() - self.started >= self.seconds

    def inner_over(self) -> bool:
        """Whether the time for arguments of nonlinear entries is up; the output keeps its share."""
        return time.monotonic() - self.started >= INNER_SHARE * self.seconds


@dataclass
class Analysis:
    """One tape on a batch of boxes, with everything known so far.

    Attributes:
        known: enclosure per entry; hinges: ReLU entries; relaxed: every nonlinear entry with its first slopes.
    """

    tape: Tape
    lower: Tensor
    upper: Tensor
    effort: Effort
    known: list[Enclosure] = field(default_factory=list)
    hinges: dict[int, Hinge] = field(default_factory=dict)
    relaxed: dict[int, Relaxation] = field(default_factory=dict)
    zonotope: list[Enclosure] | None = None
    weights: Weights = field(init=False)

    def __post_init__(self) -> None:
        self.weights = Weights(self.tape, self.known)

    def run(self) -> "Analysis":
        """Go through the tape once."""
        tape, effort = self.tape, self.effort
        self.zonotope = by_zonotopes(tape, self.lower, self.upper, symbols=effort.symbols, bytes_limit=ZONOTOPE_BYTES)
        if self.zonotope is None:
            self.zonotope = by_zonotopes(tape, self.lower, self.upper, symbols=0, bytes_limit=2**62)
        sharpened: set[int] = set()
        straight = tape.straight()
        for index, entry in enumerate(tape.entries):
            if isinstance(entry, Rectifier | Curved):
                source = entry.inputs[0]
                if source not in sharpened and not (straight[source] and effort.symbols >= self.lower.shape[1]):
                    self._sharpen(source, whole=isinstance(entry, Curved))
                sharpened.add(source)
                self._relax(index, entry)
            self.known.append(self._forward(index))
        return self

    def _forward(self, index: int) -> Enclosure:
        entry = self.tape.entries[index]
        inputs = [self.known[i] for i in entry.inputs]
        if isinstance(entry, Linear):
            found = through_affine(entry, inputs)
        elif isinstance(entry, Curved):
            found = through_curve(entry, inputs[0])
        elif isinstance(entry, Rectifier):
            found = through_relu(inputs[0])
        elif isinstance(entry, Fixed):
            found = through_constant(entry, len(self.lower))
        else:
            found = of_input(self.lower, self.upper, paired=self.tape.paired)
        if self.zonotope is not None:
            found = found.meet(self.zonotope[index])
        return found.sharpened(entry.kept)

    def _relax(self, index: int, entry: Rectifier | Curved) -> None:
        x = self.known[entry.inputs[0]]
        if isinstance(entry, Rectifier):
            own = hinge(entry, x)
            self.hinges[index] = own
            self.relaxed[index] = own.relaxation(own.first)
        else:
            self.relaxed[index] = fixed_relaxation(entry, x)

    def _sharpen(self, source: int, *, whole: bool) -> None:
        """Better bounds of an argument: of the networks first, then of the difference where it is still open."""
        entry, x = self.tape.entries[source], self.known[source]
        x = Enclosure(self._better("z", source, x.z, _open(x.z, whole)), x.y, x.d)
        if self.tape.paired and entry.kept is not None:
            x = Enclosure(x.z, self._better("y", source, x.y, _open(x.y, whole)), x.d).sharpened(entry.kept)
            region = x.region(entry.kept)
            undecided = _open(x.y, whole) | _open(Interval(region.z_lower, region.z_upper), whole)
            x = Enclosure(x.z, x.y, self._better("d", source, x.d, undecided)).sharpened(entry.kept)
        self.known[source] = x

    def _better(self, part: str, source: int, old: Interval, wanted: Tensor) -> Interval:
        """Bounds of the wanted elements ``(batch, n)`` by substitution, the others as they were."""
        index = _packed(wanted)
        if not index.shape[1] or self.effort.inner_over():
            return old
        found = Interval(
            -self._rows(part, source, index, old, -1.0), self._rows(part, source, index, old, 1.0)
        ).widened()
        index = index.expand(len(old.lower), -1)
        lower, upper = torch.full_like(old.lower, -torch.inf), torch.full_like(old.upper, torch.inf)
        lower, upper = lower.scatter(1, index, found.lower), upper.scatter(1, index, found.upper)
        # Others that came along would make a box's bounds depend on its batch, which no auditor knows.
        return old.meet(Interval(torch.where(wanted, lower, -torch.inf), torch.where(wanted, upper, torch.inf)))

    def _rows(self, part: str, source: int, index: Tensor, like: Interval, sign: float) -> Tensor:
        size = like.lower.shape[1]
        widest = max(max(entry.sizes) for entry in self.tape.entries[: source + 1])
        chunk = max(1, ELEMENTS // (widest * len(self.lower)))
        results = []
        for some in torch.split(index, chunk, dim=1):
            if self.effort.inner_over():
                results.append(torch.full((len(self.lower), some.shape[1]), torch.inf, dtype=torch.float64))
                continue
            rows = torch.zeros(*some.shape, size, dtype=torch.float64).scatter_(2, some[..., None], sign)
            start = {source: Coefficients(**{part: rows})}
            results.append(self.upper_bound(start, self.effort.inner, per_row=False))
        return torch.cat(results, dim=1)

    def upper_bound(self, start: Mapping[int, Coefficients], iterations: int, *, per_row: bool) -> Tensor:
        """Upper bounds ``(batch, rows)`` of linear functions of known values, with optimised slopes if asked."""
        weights = self.weights
        plain = self._value(start, self.relaxed, weights)
        over = self.effort.over if per_row else self.effort.inner_over
        if not iterations or over() or not any(i < max(start) for i in self.hinges):
            return plain
        rows = plain.shape[1] if per_row else 1
        found = optimised(
            lambda relaxed: self._value(start, relaxed, weights),
            {i: h for i, h in self.hinges.items() if i < max(start)},
            {i: r for i, r in self.relaxed.items() if i not in self.hinges},
            rows=rows,
            iterations=iterations,
            over=over,
        )
        return torch.fmin(plain, found)

    def function(
        self,
        start: Mapping[int, Coefficients],
        relaxed: Mapping[int, Relaxation],
        weights: Weights,
        seen: dict[int, Coefficients] | None = None,
    ) -> Function:
        """The upper bound as a function of the input."""
        copies = {i: Coefficients(c.z, c.y, c.d) for i, c in start.items()}
        return substitute(self.tape, copies, self.known, relaxed, weights, seen)

    def _value(self, start: Mapping[int, Coefficients], relaxed: Mapping[int, Relaxation], weights: Weights) -> Tensor:
        found = self.function(start, relaxed, weights).largest(self.lower, self.upper)
        return found.expand(len(self.lower), -1)


def _open(x: Interval, whole: bool) -> Tensor:
    """Elements ``(batch, n)`` that are undecided; all of them where the whole value matters."""
    undecided = ~((x.lower >= 0.0) | (x.upper <= 0.0))
    return torch.ones_like(undecided) if whole else undecided


def _packed(wanted: Tensor) -> Tensor:
    """Indices ``(batch or 1, k)`` that hold the wanted elements of every box: one list for all where that is short."""
    together = wanted.any(0).nonzero()[:, 0]
    most = int(wanted.sum(1).max())
    if most > SHARED * len(together):
        return together[None]
    return wanted.to(torch.uint8).topk(most, dim=1).indices


def _together(tape: Tape, lower: Tensor, upper: Tensor, effort: Effort) -> BackwardBounds:
    analysis = Analysis(tape, lower, upper, effort).run()
    rows = both_signs(tape.entries[tape.output].sizes[1])
    pair = {tape.output: Coefficients(d=rows)}
    apart = {tape.output: Coefficients(z=rows, y=-rows)}
    found = _search(analysis.upper_bound, {"pair": pair, "separate": apart}, effort.final)
    assert analysis.zonotope is not None
    d = analysis.zonotope[tape.output].d
    return _result(found | {"zonotope": torch.cat([d.upper, -d.lower], dim=1)})


def _search(
    bound: Callable[..., Tensor], starts: Mapping[str, Mapping[int, Coefficients]], iterations: int
) -> dict[str, Tensor]:
    found = {}
    for name, start in starts.items():
        found[name] = bound(start, 0, per_row=False)
        if iterations:
            found[f"{name}_optimised"] = torch.fmin(found[name], bound(start, iterations, per_row=True))
    return found


def _apart(tapes: tuple[Tape, Tape], lower: Tensor, upper: Tensor, effort: Effort) -> BackwardBounds:
    first, second = (Analysis(tape, lower, upper, effort).run() for tape in tapes)
    rows = both_signs(tapes[0].entries[tapes[0].output].sizes[0])

    def bound(signs: tuple[Tensor, Tensor], iterations: int, *, per_row: bool) -> Tensor:
        parts = [
            (a, {a.tape.output: Coefficients(z=c)}, a.weights) for a, c in zip((first, second), signs, strict=True)
        ]

        def value(relaxed: Sequence[Mapping[int, Relaxation]]) -> Tensor:
            f, g = (a.function(start, r, w) for (a, start, w), r in zip(parts, relaxed, strict=True))
            return f.plus(g).largest(lower, upper).expand(len(lower), -1)

        plain = value([first.relaxed, second.relaxed])
        if not iterations:
            return plain
        offset = len(tapes[0].entries)
        hinges = {**first.hinges, **{offset + i: h for i, h in second.hinges.items()}}

        def split(relaxed: Mapping[int, Relaxation]) -> Tensor:
            own = {**first.relaxed, **{i: r for i, r in relaxed.items() if i < offset}}
            other = {**second.relaxed, **{i - offset: r for i, r in relaxed.items() if i >= offset}}
            return value([own, other])

        return torch.fmin(
            plain, optimised(split, hinges, {}, rows=rows.shape[1], iterations=iterations, over=effort.over)
        )

    found = {"separate": bound((rows, -rows), 0, per_row=False)}
    if effort.final:
        found["separate_optimised"] = bound((rows, -rows), effort.final, per_row=True)
    f, g = (a.zonotope[a.tape.output].z for a in (first, second) if a.zonotope is not None)
    apart = torch.cat([f.upper - g.lower, g.upper - f.lower], dim=1)
    return _result(found | {"intervals": apart + apart.abs() * 2.0**-50})


def both_signs(outputs: int) -> Tensor:
    """Rows ``(1, 2 outputs, outputs)``: each output, then its negative."""
    identity = torch.eye(outputs, dtype=torch.float64)
    return torch.cat([identity, -identity])[None]


def _result(found: Mapping[str, Tensor]) -> BackwardBounds:
    clean = {name: torch.where(torch.isnan(t), torch.inf, t) for name, t in found.items()}
    best = torch.stack(list(clean.values())).amin(0)
    upper, negated = best.chunk(2, dim=1)
    return BackwardBounds(-negated, upper, {name: t.amax(1) for name, t in clean.items()})
