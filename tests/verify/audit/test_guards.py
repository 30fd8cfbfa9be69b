"""Guards that ordinary files do not meet: second lines behind checks made before, and edges of the kernel."""

import hashlib
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from verify.audit import Verdict, audit, check, planes, rounding, rules
from verify.audit.certificate import Certificate
from verify.audit.exact import LARGEST, OutOfRange, Real, Refuted, Resource
from verify.audit.form import CENTRE, Form, Term, constant, place, settle
from verify.audit.lift import Correspondence, Stage, _bias, _cross, stages_of_pair
from verify.audit.linear import image, linear_map
from verify.audit.planes import Inconsistent
from verify.audit.program import Step, from_bits, integers
from verify.certificate.emit import emit_certificate
from verify.spec.box import Box
from verify.spec.deviation import Leaf

GOLDEN = Path(__file__).parent / "golden"
BOX = Box.from_floats([0.0] * 3, [0.5] * 3)
FILES = GOLDEN / "v0_real.json", GOLDEN / "original.onnx", GOLDEN / "compact.onnx"

# second lines


class Alike(int):
    """A number that claims to differ from none."""

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


@pytest.mark.parametrize(("stated", "found"), [(Alike(7), 1), (Alike(1), 2), (0, 0)])
def test_leaves_are_counted_once_more_at_the_end(monkeypatch: pytest.MonkeyPatch, stated: int, found: int) -> None:
    """Whatever happens at a box: fewer or more leaves than stated, or none at all, are no proof."""
    honest = check.read_certificate

    def read_certificate(data: bytes) -> Certificate:
        read = honest(data)
        return Certificate(read.claim, read.lift, read.rule, read.symbols, read.trees, (stated,) * len(read.leaves))

    monkeypatch.setattr(check, "read_certificate", read_certificate)
    monkeypatch.setattr(check._Prover, "prove", lambda *_: found)
    report = audit(*FILES)
    assert report.verdict is Verdict.REJECT
    assert report.reason == "not every leaf was proved"


def test_outputs_without_bounds_are_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = check.propagate, check.bounds_of

    def without_y(*arguments: Any) -> list[rules.Values]:
        z, y = honest[0](*arguments)
        return [z, rules.Values(y.z)]

    with monkeypatch.context() as patch:
        patch.setattr(check, "propagate", without_y)
        report = audit(*FILES)
    assert report.verdict is Verdict.RESOURCE
    assert "no output" in report.reason
    monkeypatch.setattr(check, "bounds_of", lambda v, kept: honest[1](rules.Values(v.z, v.y), kept))
    report = audit(*FILES)
    assert report.verdict is Verdict.RESOURCE
    assert "no bounds" in report.reason


def test_maps_that_are_not_there_are_no_maps() -> None:
    relu = Step("r", "relu", ("x",), (1,))
    kept = np.arange(1)
    assert _cross(relu, relu, kept, kept, 1) is None
    with pytest.raises(Inconsistent, match="without a map"):
        rules._affine(Stage(relu, (0,)), [rules.Values(None)], rules.Symbols(2, np.zeros(1)))  # type: ignore[arg-type]


def test_numbers_too_large_for_their_unit_are_refused() -> None:
    number = Real(np.array([2.0**52]), np.array([10]), np.array([0.0]))
    assert number.top == 64
    assert number.negated().mantissa.tolist() == [-(2.0**52)]
    assert number.reshape(1, 1).transpose(1, 0).mantissa.shape == (1, 1)


# biases


@pytest.mark.parametrize("now", [None, [2, 0, 1]])
def test_a_bias_may_be_missing_on_either_side(now: list[int] | None) -> None:
    """Three outputs: the difference of the biases has three elements, whoever has one."""

    def step(values: list[int] | None) -> Step:
        return Step("y", "affine", ("x",), (3,), bias=None if values is None else integers(values, (3,)))

    kept = np.arange(3) if now is None else np.array(now)
    first, second = [5, 6, 7], [1, 1, 2]
    for a, b in ((first, None), (None, second), (first, second)):
        whole, error, unit = _bias(step(a), step(b), kept)
        assert whole is not None
        assert error is not None
        assert (whole.shape, error.tolist()) == ((3,), [0, 0, 0])
        wanted = [(a[k] if a else 0) - (b[j] if b else 0) for j, k in enumerate(kept.tolist())]
        assert [int(v) * Fraction(2) ** unit for v in whole] == wanted
    whole, error, unit = _bias(step(first), None, None)
    assert [int(v) * Fraction(2) ** unit for v in whole] == first  # type: ignore[union-attr]
    assert _bias(step(None), step(None), kept) == (None, None, 0)


def test_a_contradiction_in_one_of_three_bounds_is_seen() -> None:
    def ends(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
        return np.array([[low]]), np.array([[high]])

    with pytest.raises(Inconsistent):
        rules.sharpened(rules.Bounds(0, ends(1, 0), ends(0, 1), ends(-5, 5)), np.array([0]))


def test_equal_biases_cancel_although_they_are_rounded() -> None:
    """Next to 2^40 a small number is rounded to the unit of both; the difference of equal ones is 0 all the same."""
    bias = from_bits(np.array([2.0**40, 0.1]).tobytes(), "float64")
    step, kept = Step("y", "affine", ("x",), (2,), bias=bias), np.arange(2)
    whole, error, _ = _bias(step, replace(step, name="z"), kept)
    assert whole is not None
    assert error is not None
    assert whole.tolist() == error.tolist() == [0.0, 0.0]
    _, error, _ = _bias(step, None, None)
    assert error is not None
    assert error[1] > 0


def test_summands_that_cancel_beyond_the_exact_range_are_refused() -> None:
    """2^57 + 1 - 2^57 is 0 in float64: summands of such a size have no place, however small their sum."""
    large, one = constant(np.array([[2.0**12]]), 0), constant(np.array([[1.0]]), -45)
    minus = constant(np.array([[-(2.0**12)]]), 0)
    with pytest.raises(OutOfRange):
        place(np.zeros((1, 1, 1)), CENTRE, [large, one, minus], -45)
    body = np.zeros((1, 1, 1))
    assert place(body, CENTRE, [large, one, minus], -35).tolist() == [[1.0]]  # 2^-10 of a unit is lost, and counted
    assert body.tolist() == [[[0.0]]]


def test_values_that_are_asked_for_are_kept() -> None:
    relu = [Step(name, "relu", (source,), (1,)) for name, source in (("r", "x"), ("s", "r"))]
    x = Form(0, CENTRE, np.full((1, 1, 1), 3.0), np.zeros((1, 1)))
    stages = [Stage(relu[0], (0,)), Stage(relu[1], (1,))]
    found = rules.propagate(stages, rules.Values(x), rules.Symbols(2, np.zeros(1)), (0, 1, 2))
    assert [float(v.z.bounds(0)[0][0, 0]) for v in found] == [3, 3, 3]


@pytest.mark.parametrize("rule", ["separate", "pair_zonotope", "pair_backward"])
def test_equal_networks_are_certified_by_every_rule(tmp_path: Path, rule: str) -> None:
    emit_certificate(
        tmp_path / "c.json", original=FILES[1], compact=FILES[1], boxes=[BOX], epsilon=Fraction(1000), rule=rule,
        lift=None if rule == "separate" else (), parameters={"symbols": 9}, trees=[Leaf()],
    )  # fmt: skip
    report = audit(tmp_path / "c.json", FILES[1], FILES[1])
    assert report.verdict is Verdict.ACCEPT, report
    assert (report.bound == 0) is (rule != "separate")


def test_a_lift_pairs_values_of_the_same_step(tmp_path: Path) -> None:
    program = check.read_network([FILES[1].read_bytes()])
    one, other = program.steps[0], program.steps[-1]
    for pair in ((one.name, other.name), ("nothing", one.name), (one.name, "nothing")):
        entry = Correspondence(*pair, 0, (0,))
        with pytest.raises(Refuted, match="at the same step"):
            stages_of_pair(program, program, (entry,))


@pytest.mark.parametrize(("weight", "radius"), [(3.0, 1.0), (-3.0, 3.0), (0.0, 2.0), (5.0, 0.0)])
@pytest.mark.parametrize("unit", [-30, 0, 30])
@pytest.mark.parametrize("exponent", [-20, 0, 20])
def test_inexact_weights_times_remainders_alone(weight: float, radius: float, unit: int, exponent: int) -> None:
    """A value in [-r, r] without a centre, a weight in [w - e, w + e]: the product reaches (|w| + e) r."""
    linear = linear_map(np.full((1, 1, 1), weight), np.full((1, 1, 1), radius), unit, np.zeros((1, 1, 1), np.int64), 1)
    size = 2.0**30
    found = settle(*image(linear, Form(exponent, CENTRE, np.zeros((1, 1, 1)), np.full((1, 1), size))))
    reached = int(found.radius[0, 0]) * Fraction(2) ** (found.exponent - unit - exponent)
    assert int((abs(weight) + radius) * size) <= reached <= int((abs(weight) + 2 * radius + 1) * size)


def test_forms_hold_integers_whatever_was_rounded_away() -> None:
    one, third = np.ones((1, 1, 1)), np.full((1, 1, 1), 3.0)
    for large in (2.0**20, 2.0**38, -(2.0**38)):
        found = settle(
            [
                constant(np.array([[large]]), 0),
                Term(Form(-3, CENTRE, third, one[0])),
                Term(Form(-9, CENTRE, one, one[0])),
            ],
            [],
        )
        assert (found.body == np.rint(found.body)).all()
        assert (found.rem == np.rint(found.rem)).all()


@pytest.mark.parametrize("top", [2**19, 2**39 + 5, 2**52 - 1])
@pytest.mark.parametrize("values", [2**18, 2**38 + 3, 2**39 - 1])
@pytest.mark.parametrize("length", [1, 7])
def test_the_reach_of_an_image_bounds_its_entries(top: int, values: int, length: int) -> None:
    """The guard against sums beyond the exact range rests on it."""
    signs = np.where(np.arange(length) % 3 == 0, -1.0, 1.0)
    whole = (signs * top)[None, None]
    linear = linear_map(whole, np.zeros_like(whole), 0, np.arange(length)[None, None], length)
    form = Form(0, CENTRE, (signs * values)[:, None, None], np.zeros((length, 1)))
    (summand,), _ = image(linear, form)
    for part in summand.parts(slice(None)):
        assert np.abs(part.body).max() <= part.reach < LARGEST
    found = settle(*image(linear, form))
    (low,), (high,) = (a[0] for a in found.bounds(found.exponent))
    assert (
        int(low) * Fraction(2) ** found.exponent <= length * top * values <= int(high) * Fraction(2) ** found.exponent
    )


@pytest.mark.parametrize("words", [[3], "none", [None], ["fine"] * 101, {}])
def test_what_is_not_established_is_a_list_of_sentences(tmp_path: Path, words: Any) -> None:
    data = json.loads(FILES[0].read_text())
    del data["seal"]
    text = json.dumps({**data, "not_established": words})[:-1] + ",\n"
    seal = hashlib.sha256(text.encode()).hexdigest()
    (tmp_path / "c.json").write_text(f'{text} "seal": "{seal}"\n}}\n')
    assert audit(tmp_path / "c.json", *FILES[1:]).verdict is Verdict.MALFORMED


def test_regions_without_a_point_and_sums_without_end_are_refused() -> None:
    ends = [np.array([float(v)]) for v in (0, 1, 5, 6, 0, 1)]  # z in [0, 1], y in [5, 6], z - y in [0, 1]
    with pytest.raises(Inconsistent, match="empty"):
        planes.vertices(*ends)
    size = [(np.ones((1, 1)), 0)]
    assert rounding._relative(size, rounding.LONGEST_SUM)
    with pytest.raises(Resource, match="too long"):
        rounding._relative(size, rounding.LONGEST_SUM + 1)
