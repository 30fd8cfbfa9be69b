"""Bounds of D on parts of a box: the inputs for which some values inside the networks have decided signs.

What is known on the box holds on every part, and a decided value is cut at zero. For s v >= 0 and b >= 0

    c . D  <=  c . D + sum of b s v,

so the multipliers b of a part are further coefficients of its descents. Any signs and multipliers are sound; that the
parts cover the box is the tree's affair. Where decisions contradict what holds on the box, the part has no inputs.

Theory notes: relu_splits.md, backward_pair.md.
"""

from collections.abc import Sequence

import numpy as np

from verify.audit.backward import Backward, rectified
from verify.audit.certificate import Decision, Multiplier, Part
from verify.audit.descent import Pending, columns
from verify.audit.exact import Array, Index, Mask, Refuted
from verify.audit.form import Form
from verify.audit.planes import Inconsistent
from verify.audit.rules import Bounds, sharpened
from verify.audit.transposed import Pair

DIGITS = 30  # of the largest multiplier; MAX_DECISIONS of them stay below 2^40


def bounds_of_parts(
    pair: Pair, x: Form, known: Sequence[Bounds], parts: Sequence[Part], position: int
) -> tuple[Array, Array, int]:
    """Bounds (outputs, parts) of D at a position, in units of 2^exponent; 0 on parts without inputs.

    Args:
        x, known: of the box that the parts share, one leaf.

    Raises:
        Refuted: a decision about something that is not there.
    """
    for part in parts:
        for decision in part.decisions:
            _check(pair, decision, position)
    copies = np.zeros(len(parts), dtype=np.int64)
    box = [b.some(copies) for b in known]
    values, mixed, empty = list(box), {}, np.zeros(len(parts), dtype=bool)
    decided = sorted({d.position for part in parts for d in part.decisions})
    for n in decided:
        kept = pair.kept(n) if box[n].d is not None else None
        values[n] = _possible(_cut(box[n], n, parts), box[n], kept, empty)
        if kept is not None:
            mixed[n] = _close(box[n], values[n], kept)
    for n, stage in enumerate(pair.stages[:position], start=1):
        if stage.step.kind == "relu" and stage.aligned and stage.inputs[0] in decided:
            values[n] = _possible(rectified(values[stage.inputs[0]], values[n]), box[n], pair.kept(n), empty)
    repeated = Form(x.exponent, x.blocks, x.body[:, :, copies], x.rem[:, copies])
    low, high, exponent = Backward(pair, repeated, values, mixed).from_input(
        position, values[position], _Multiplied(pair, parts).further
    )
    return np.where(empty, 0.0, low), np.where(empty, 0.0, high), exponent


def _possible(b: Bounds, box: Bounds, kept: Index | None, empty: Mask) -> Bounds:
    """The bounds of z, y and D sharpened by each other; those of the box on parts where they contradict each other.

    No input has decisions that contradict what holds: such parts are noted in `empty`.
    """
    ends = [e for e in (b.z, b.y, b.d) if e is not None]
    bad = np.any([(low > high).any(axis=0) for low, high in ends], axis=0)
    for leaf in np.flatnonzero(~bad) if kept is not None else ():
        try:
            sharpened(b.some(np.array([leaf])), kept)  # type: ignore[arg-type]
        except Inconsistent:
            bad[leaf] = True
    empty |= bad
    chosen = _either(b, box, bad)
    return chosen if kept is None else sharpened(chosen, kept)


def _either(b: Bounds, other: Bounds, where: Mask) -> Bounds:
    """The other bounds on some leaves; both are in the same unit."""
    if b.unit != other.unit:
        raise Inconsistent("bounds in different units")
    z, y, d = (
        None if p is None or q is None else (np.where(where, q[0], p[0]), np.where(where, q[1], p[1]))
        for p, q in ((b.z, other.z), (b.y, other.y), (b.d, other.d))
    )
    return Bounds(b.unit, z or b.z, y, d)


def _check(pair: Pair, decision: Decision, position: int) -> None:
    inside = 1 <= decision.position < position
    if not inside or decision.element >= pair.sizes[decision.position][decision.compact]:
        raise Refuted(f"a decision about element {decision.element} of value {decision.position}, which is not there")


def _cut(b: Bounds, position: int, parts: Sequence[Part]) -> Bounds:
    """Bounds of a value whose sign is decided on some parts."""
    ends = {False: [end.copy() for end in b.z], True: [end.copy() for end in b.y or ()]}
    for leaf, part in enumerate(parts):
        for d in part.decisions:
            if d.position == position:
                if not ends[d.compact]:
                    raise Inconsistent("a decision about a value without bounds")
                low, high = ends[d.compact]
                if d.positive:
                    low[d.element, leaf] = max(low[d.element, leaf], 0.0)
                else:
                    high[d.element, leaf] = min(high[d.element, leaf], 0.0)
    z, y = ((e[0], e[1]) if e else None for e in (ends[False], ends[True]))
    return Bounds(b.unit, z or b.z, y, b.d)


def _close(whole: Bounds, b: Bounds, kept: Index) -> Mask:
    """Where z and y differ by little of what z moves on the box."""
    if b.d is None:
        raise Inconsistent("a difference without bounds")
    close: Mask = 2 * (b.d[1] - b.d[0]) <= (whole.z[1] - whole.z[0])[kept]
    return close


class _Multiplied:
    """The multipliers of some parts as coefficients of the values that they multiply."""

    def __init__(self, pair: Pair, parts: Sequence[Part]) -> None:
        self.pair, self.parts = pair, parts

    def further(self, outputs: Index) -> dict[int, Pending]:
        """Coefficients of the decided values in the outputs (functions, parts) and, each behind, in their negatives."""
        chosen: dict[tuple[int, bool], list[tuple[int, int, Decision, Multiplier]]] = {}
        for leaf, part in enumerate(self.parts):
            rows = {int(output): 2 * row for row, output in enumerate(outputs[:, leaf])}
            for m in part.multipliers:
                if m.output in rows:
                    d = part.decisions[m.decision]
                    chosen.setdefault((d.position, d.compact), []).append((rows[m.output] + m.negative, leaf, d, m))
        found: dict[int, Pending] = {}
        for (position, compact), entries in chosen.items():
            form = self._form(self.pair.sizes[position][compact], 2 * len(outputs), entries)
            pending = found.setdefault(position, Pending())
            (pending.y if compact else pending.z).append(form)
        return found

    def _form(self, size: int, count: int, entries: Sequence[tuple[int, int, Decision, Multiplier]]) -> Form:
        """Multipliers (elements, outputs, parts) times the signs of the values; rounded, since any are sound."""
        unit = max(m.mantissa.bit_length() + m.exponent for *_, m in entries) - DIGITS
        body = np.zeros((size, count, len(self.parts)))
        for row, leaf, d, m in entries:
            shift = m.exponent - unit
            whole = m.mantissa << shift if shift >= 0 else m.mantissa >> -shift
            body[d.element, row, leaf] += whole if d.positive else -whole
        return columns(unit, body)
