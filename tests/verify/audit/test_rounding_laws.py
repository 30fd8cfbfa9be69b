"""What float32 rounds, against the formulas in exact fractions: every output, leaf, weight, bias and length counts."""

from fractions import Fraction

import numpy as np
import pytest

from verify.audit.exact import LONGEST_ROW, Refuted, Resource
from verify.audit.form import CENTRE, Form
from verify.audit.lift import Affine
from verify.audit.linear import linear_map
from verify.audit.program import Program, Step, Unsupported, from_bits
from verify.audit.rounding import LONGEST_SUM, _relative, as_form, check_program, of_affine, of_sum

U = Fraction(1, 2**24)


def total(slacks: list[tuple[np.ndarray, int]], i: int, leaf: int) -> Fraction:
    return sum((int(r[i, leaf]) * Fraction(2) ** e for r, e in slacks), start=Fraction(0))


def gamma(m: int) -> Fraction:
    return m * U / (1 - m * U)


WEIGHTS = np.array([[[3.0, -5.0, 0.0], [-1.0, 7.0, 2.0]], [[9.0, 0.0, 4.0], [2.0, -2.0, 1.0]]])
RADII = np.array([[[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]], [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
TAPS = np.array([[[0, 1, 2], [1, -1, 0]], [[2, 2, 1], [-1, 0, 1]]])
X = Form(-3, CENTRE, np.array([[[-9.0, 2.0]], [[4.0, 0.0]], [[1.0, -6.0]]]), np.array([[1.0, 0], [0, 5], [2, 3]]))


@pytest.mark.parametrize("place", [None, [7, 0, 2, 5, 1, 6, 4, 3]])
@pytest.mark.parametrize("biased", [False, True])
def test_every_output_pays_for_its_own_weights_and_bias(place: list[int] | None, biased: bool) -> None:
    linear = linear_map(WEIGHTS, RADII, 2, TAPS, 3)
    bias, error = np.array([-40.0, 3, 0, 100, -1, 5, 900, 0]), np.array([0.0, 50, 0, 3, 0, 0, 7, 1])
    given = (bias, error) if biased else (None, None)
    found = of_affine(Affine(linear, None if place is None else np.array(place), *given, -2), X)
    m = 3 + 3
    for i in range(8):
        g, o, p = np.unravel_index(i if place is None else place[i], (2, 2, 2))
        for leaf in range(2):
            size = Fraction(int(abs(bias[i]) + error[i]), 4) if biased else Fraction(0)
            for k, tap in enumerate(TAPS[g, p].tolist()):
                entry = abs(X.body[tap, 0, leaf]) + X.rem[tap, leaf] if tap >= 0 else 0
                size += int(abs(WEIGHTS[g, o, k]) + RADII[g, :, :][o, k]) * 4 * int(entry) * Fraction(1, 8)
            least = gamma(m) * size + 2 * (m + 1) * Fraction(1, 2**149)
            assert least <= total(found, i, leaf) <= least * Fraction(m + 2, m)


def test_where_everything_vanishes_the_smallest_numbers_are_all_that_is_lost() -> None:
    tiny = Form(-400, CENTRE, np.ones((3, 1, 2)), np.zeros((3, 2)))
    found = of_affine(Affine(linear_map(WEIGHTS, RADII, 2, TAPS, 3), None, None, None, 0), tiny)
    for i in range(8):
        least = 2 * (3 + 3 + 1) * Fraction(1, 2**149)
        assert least <= total(found, i, 0) <= least * Fraction(1001, 1000)


def test_long_rows_count_all_of_their_products() -> None:
    length = LONGEST_ROW + 500
    linear = linear_map(np.ones((1, 1, length)), np.zeros((1, 1, length)), 0, np.arange(length)[None, None], length)
    x = Form(0, CENTRE, np.full((length, 1, 1), 2.0), np.zeros((length, 1)))
    least = gamma(length + 3) * 2 * length
    assert least <= total(of_affine(Affine(linear, None, None, None, 0), x), 0, 0) <= least * Fraction(1001, 1000)


@pytest.mark.parametrize("length", [1, 2, 7, 5000, 10**5, LONGEST_SUM])
@pytest.mark.parametrize("size", [9.0, 2.0**39 - 4])
def test_every_summand_is_rounded_once_per_term(length: int, size: float) -> None:
    """The factor is gamma rounded up to a whole number of u; what it multiplies is cut to 28 bits, upward."""
    least = gamma(length) * int(size) * 2**5
    ((values, exponent),) = _relative([(np.array([[size]]), 5)], length)
    found = int(values[0, 0]) * Fraction(2) ** exponent
    most = (length + 1 + Fraction(length**2, 2**23)) * U * int(size) * 2**5
    assert least <= found <= most * (1 + Fraction(1, 2**26))


def test_the_sum_of_two_values_rounds_relative_to_both() -> None:
    x = Form(5, CENTRE, np.full((1, 1, 1), -7.0), np.full((1, 1), 2.0))
    found = of_sum([x, X.take(np.array([0]))])
    assert len(found) == 2
    assert gamma(2) * (288 + Fraction(10, 8)) <= total(found, 0, 0) <= 2 * gamma(2) * 290


def test_sums_that_are_too_long_or_too_large_have_no_bound() -> None:
    small, large = (Form(e, CENTRE, np.full((1, 1, 2), 1.0), np.zeros((1, 2))) for e in (98, 99))
    with pytest.raises(Resource, match="too long"):
        _relative([(small.size, 0)], LONGEST_SUM + 1)
    assert of_sum([small, large])
    for size in (2.0, 3.0):  # 2^100 and more
        wide = Form(99, CENTRE, np.array([[[0.0, size]]]), np.zeros((1, 2)))
        with pytest.raises(Refuted, match="overflow"):
            of_sum([small, wide])


def test_errors_are_symbols_without_a_centre() -> None:
    slacks = [(np.array([[5.0, 1.0], [0.0, 7.0]]), -3), (np.array([[2.0, 0.0], [1.0, 1.0]]), 0)]
    for granted in (np.ones((2, 2), dtype=bool), np.zeros((2, 2), dtype=bool)):
        found = as_form(slacks, granted, 9)
        assert not found.body[:, 0].any()
        assert [block for block, _ in found.blocks] == [0, 9][: 1 + granted.any()]
        assert bool(found.rem.any()) is not bool(granted.any())
        for (i, leaf), size in np.ndenumerate(found.size):
            exact = total(slacks, i, leaf)
            assert exact <= int(size) * Fraction(2) ** found.exponent <= exact * (1 + Fraction(1, 2**30))


def affine(weights: list[float], **more: bool) -> Step:
    numbers = from_bits(np.array(weights).tobytes(), "float64").reshape(1, 1, len(weights))
    return Step("y", "affine", ("x",), (1,), np.arange(len(weights))[None, None], numbers, **more)


@pytest.mark.parametrize("number", [0.1, 1 + 2.0**-24, 2.0**128, -(2.0**1023), 2.0**-150, 3 * 2.0**-150, 2.0**-1074])
def test_every_constant_must_be_a_float32_number(number: float) -> None:
    for weights, allowed in (([1.5], True), ([1.5, number], False), ([number, 1.5], False)):
        for step in (affine(weights), Step("g", "gather", ("x",), (1,), np.zeros(1, int), bias=affine(weights).weight)):
            program = Program("x", (2,), False, (step,), "y", "", True)
            if allowed:
                check_program(program)
            else:
                with pytest.raises(Unsupported, match="not float32 numbers"):
                    check_program(program)


def test_a_batch_norm_has_no_bound() -> None:
    check_program(Program("x", (1,), False, (affine([1.0]),), "y", "", True))
    with pytest.raises(Unsupported, match="fold it"):
        check_program(Program("x", (1,), False, (affine([1.0], normalizes=True),), "y", "", True))
    with pytest.raises(Unsupported, match="all float32"):
        check_program(Program("x", (1,), False, (affine([1.0]),), "y", "", False))
