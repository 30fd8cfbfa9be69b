"""The two kinds of bounds the rules can compute: one network, or a pair with its difference."""

from collections.abc import Sequence

from torch import Tensor

from verify.formal.curve import curve, curve_pair
from verify.formal.form import BLOCKS, Form, combine, constant, rows_of, with_fresh_written
from verify.formal.maps import Map
from verify.formal.pair import Kept, Triple, narrower, relu_pair
from verify.formal.relu import phase_of, relu
from verify.formal.rounding import slack
from verify.formal.rules.rule import Affine, AffineStep, Arithmetic, Curve
from verify.formal.symbols import Ledger


class SingleArithmetic(Arithmetic[Form]):
    """Forms of one network, whose rows are in `block`."""

    def __init__(self, ledger: Ledger, block: int) -> None:
        self.ledger, self.block = ledger, block

    def affine(self, step: AffineStep, inputs: Sequence[Form]) -> Form:
        return _applied(self.ledger, step.first, inputs)

    def relu(self, value: Form) -> Form:
        written = with_fresh_written(value)
        self.ledger.watch(written)
        return relu(written, phase_of(*written.bounds()), self.ledger, self.block)

    def curve(self, function: Curve, value: Form) -> Form:
        return curve(with_fresh_written(value), function, self.ledger, self.block)

    def constant(self, first: Tensor, second: Tensor | None, kept: Kept | None) -> Form:
        return constant(first, self.ledger.batch, self.ledger.inputs)


class PairArithmetic(Arithmetic[Triple]):
    """Forms of both networks and of their difference."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def affine(self, step: AffineStep, inputs: Sequence[Triple]) -> Triple:
        assert step.second is not None
        assert step.kept is not None
        z = _applied(self.ledger, step.first, [t.z for t in inputs])
        y = _applied(self.ledger, step.second, [t.y for t in inputs])
        terms = list(zip(step.second.maps, (t.d for t in inputs), strict=True))
        change = step.change
        if change is None:
            d = _combined(self.ledger, terms, None, None)
        else:
            terms += zip(change.maps, (t.z for t in inputs), strict=True)
            d = _combined(self.ledger, terms, change.offset, change.offset_error)
        triple = Triple(z, y, d, step.kept)
        return narrower(triple) if step.compare else triple

    def relu(self, value: Triple) -> Triple:
        return relu_pair(value, self.ledger)

    def curve(self, function: Curve, value: Triple) -> Triple:
        return curve_pair(value, function, self.ledger)

    def constant(self, first: Tensor, second: Tensor | None, kept: Kept | None) -> Triple:
        assert second is not None
        assert kept is not None
        batch, inputs = self.ledger.batch, self.ledger.inputs
        difference = constant(kept.of(first) - second, batch, inputs, error=slack(1))
        return Triple(constant(first, batch, inputs), constant(second, batch, inputs), difference, kept)


def _applied(ledger: Ledger, affine: Affine, inputs: Sequence[Form]) -> Form:
    return _combined(ledger, list(zip(affine.maps, inputs, strict=True)), affine.offset, affine.offset_error)


def _combined(ledger: Ledger, terms: list[tuple[Map, Form]], offset: Tensor | None, error: Tensor | None) -> Form:
    rows = sum(max(rows_of(form, block) for _, form in terms) for block in BLOCKS)
    ledger.reserve(rows, terms[0][0].outputs)
    return combine(terms, offset, error)
