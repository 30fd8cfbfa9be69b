"""VNN-LIB is read exactly, and whatever is not understood is refused with its line."""

import contextlib
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.errors import SpecificationError
from verify.spec.box import Box
from verify.spec.decimal import read_decimal
from verify.spec.vnnlib import Inequality, parse_vnnlib, read_vnnlib

DATA = Path(__file__).parents[4] / "shared" / "data"
HEAD = "(declare-const X_0 Real)\n(declare-const X_1 Real)\n(declare-const Y_0 Real)\n(declare-const Y_1 Real)\n"
UNIT = "(assert (<= X_0 1))\n(assert (>= X_0 0))\n(assert (<= X_1 1))\n(assert (>= X_1 0))\n"


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=Decimal("-1e300"), max_value=Decimal("1e300")))
@settings(deadline=None)
def test_decimals_are_exact(value):
    assert read_decimal(str(value)) == Fraction(value)


@pytest.mark.parametrize("text", ["", "-", "1e", "1e999", "0x10", "1/3", "nan", "inf", "1_0", "9" * 401, "1e-0000401"])
def test_absurd_numbers_are_refused(text):
    with pytest.raises(SpecificationError):
        read_decimal(text)


def test_box_and_condition():
    unsafe = parse_vnnlib(HEAD + UNIT + "(assert (or (and (<= Y_0 Y_1) (> Y_0 (* 2 (- Y_1 0.1)))) (>= Y_1 3)))")
    assert (unsafe.inputs, unsafe.outputs) == (2, 2)
    assert unsafe.boxes == (Box((Fraction(0),) * 2, (Fraction(1),) * 2),)
    first, second = unsafe.disjuncts
    assert first.outputs == (
        Inequality(((0, Fraction(1)), (1, Fraction(-1))), Fraction(0), False),
        Inequality(((0, Fraction(-1)), (1, Fraction(2))), Fraction(2, 10), True),
    )
    assert second.outputs == (Inequality(((1, Fraction(-1)),), Fraction(-3), False),)


def test_disjunction_over_inputs_gives_several_boxes():
    text = HEAD + "(assert (or (and (<= X_0 1) (>= X_0 0.5)) (and (<= X_0 -1) (>= X_0 -2))))" + "(assert (= X_1 0.1))"
    boxes = parse_vnnlib(text).boxes
    tenth = Fraction(1, 10)
    assert boxes == (
        Box((Fraction(1, 2), tenth), (Fraction(1), tenth)),
        Box((Fraction(-2), tenth), (Fraction(-1), tenth)),
    )


def test_bounds_with_the_number_first_and_scaled_variables():
    text = HEAD + "(assert (and (<= 0 X_0) (>= 1 X_0) (<= (* 2 X_1) 1) (>= (+ X_1 1) (- 0.5))))"
    assert parse_vnnlib(text).boxes == (Box((Fraction(0), Fraction(-3, 2)), (Fraction(1), Fraction(1, 2))),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: no input variable"),
        (HEAD, "X_0 has no lower bound"),
        (HEAD + UNIT.replace("(assert (<= X_1 1))\n", ""), "X_1 has no upper bound"),
        (HEAD + UNIT + "(assert (<= X_2 1))", "9: variable X_2 is not declared"),
        (HEAD + UNIT + "(assert (<= Y_2 1))", "9: variable Y_2 is not declared"),
        (HEAD + UNIT + "(assert (<= X_0 -1))", "9: contradictory bounds: 0.0 <= X_0 <= -1.0"),
        (HEAD + UNIT + "(assert (< X_0 1))", "9: strict"),
        (HEAD + UNIT + "(assert (<= X_0 X_1))", "9: this comparison couples"),
        (HEAD + UNIT + "(assert (<= X_0 Y_0))", "9: this comparison couples"),
        (HEAD + UNIT + "(assert (<= 0 1))", "9: this comparison holds no variable"),
        (HEAD + UNIT + "(assert (<= (* Y_0 Y_1) 1))", "9: a product"),
        (HEAD + UNIT + "(assert (<= Y_0 1e401))", "9: .*exponents"),
        (HEAD + UNIT + "(assert (<= Y_0 " + "1" * 500 + "))", "9: .*characters"),
        (HEAD + UNIT + "(assert (not (<= Y_0 1)))", "9: unknown formula 'not'"),
        (HEAD + UNIT + "(assert (<= Y_0))", "9: unknown formula"),
        (HEAD + UNIT + "(assert Y_0)", "9: expected a formula"),
        (HEAD + UNIT + "(assert ())", "9: unknown formula"),
        (HEAD + UNIT + "(assert (or))", "9: unknown formula"),
        (HEAD + UNIT + "(assert (<= (/ Y_0 2) 1))", "9: unknown term '/'"),
        (HEAD + UNIT + "(check-sat)", "9: unknown command 'check-sat'"),
        (HEAD + UNIT + "()", "9: unknown command"),
        (HEAD + UNIT + "assert", "9: 'assert' outside"),
        (HEAD + UNIT + ")", "9: '\\)' outside"),
        (HEAD + UNIT + "(assert (<= Y_0 1)", "9: this bracket is never closed"),
        (HEAD + UNIT + "(assert (<= |Y_0| 1))", "9: unexpected character"),
        (HEAD + UNIT + "(" * 65, "9: brackets nested deeper"),
        (HEAD + "(declare-const X_0 Real)", "5: variable X_0 is declared twice"),
        (HEAD + "(declare-const X_1 Int)", "5: expected"),
        (HEAD + "(declare-const Z_1 Real)", "5: expected"),
        (HEAD + "(declare-const X_01 Real)", "5: expected"),
        (HEAD + "(declare-const X_3 Real)" + UNIT, "X_2 is not declared, X_3 is"),
        (HEAD + "(declare-const Y_9999999 Real)" + UNIT, "variables"),
        (HEAD + UNIT + "(assert (or (<= Y_0 1) (>= Y_0 2)))" * 13, "disjuncts"),
        (HEAD + UNIT + "(assert (and " + "(or (<= Y_0 1) (>= Y_0 2))" * 13 + "))", "disjuncts"),
    ],
)
def test_ill_formed_text_is_refused_with_its_line(text, message):
    with pytest.raises(SpecificationError, match=message):
        parse_vnnlib(text, "p.vnnlib")


def test_files_that_cannot_be_read(tmp_path):
    link = tmp_path / "link.vnnlib"
    link.symlink_to(tmp_path / "gone.vnnlib")
    with pytest.raises(SpecificationError, match="is a link"):
        read_vnnlib(link)
    with pytest.raises(SpecificationError, match="cannot read"):
        read_vnnlib(tmp_path / "absent.vnnlib")
    (tmp_path / "binary.vnnlib").write_bytes(b"\xff\xfe(assert)")
    with pytest.raises(SpecificationError, match="UTF-8"):
        read_vnnlib(tmp_path / "binary.vnnlib")


@given(st.text(alphabet="()XY_01<=>or and assert;declare-const Real\n.e-", max_size=200))
@settings(deadline=None, max_examples=200)
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(SpecificationError):
        parse_vnnlib(HEAD + UNIT + text)


@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason="no real data folder ../shared/data")
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=p.name, marks=pytest.mark.slow if i % 4 else ())
        for i, p in enumerate(sorted(DATA.glob("*/*.vnnlib")))
    ],
)
def test_real_properties(path):
    real = read_vnnlib(path)
    assert real.inputs in (5, 784, 3072)
    assert real.outputs in (5, 10)
    assert len(real.boxes) == 1


@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason="no real data folder ../shared/data")
def test_acas_property_3():
    unsafe = read_vnnlib(DATA / "acasxu" / "prop_3.vnnlib")
    (box,) = unsafe.boxes
    assert box.lower[0] == Fraction("-0.303531156")
    assert box.upper[4] == Fraction(1, 2)
    assert len(unsafe.disjuncts[0].outputs) == 4
