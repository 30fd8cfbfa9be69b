"""Numbers of the networks: what their units lose is counted, what looks alike is alike, zeros and ends of the range."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from verify.audit.exact import Real, Resource, bits, coarse, largest, power

CASES = list(product([0, 1, -3, 2**52, 1 - 2**53], [-260, -53, -2, -1, 0], [0, 1, 2, 7]))


def numbers(*triples: tuple[int, int, int]) -> Real:
    """Of (mantissa, exponent, slack)."""
    mantissa, exponent, slack = (list(column) for column in zip(*triples, strict=True))
    return Real(np.array(mantissa, dtype=np.float64), np.array(exponent), np.array(slack, dtype=np.float64))


@pytest.mark.parametrize("unit", [0, 1, 3, 40, 300])
def test_integers_and_radii_enclose_both_ends_of_every_number(unit: int) -> None:
    whole, radius = numbers(*CASES).units(unit)
    for (m, e, s), middle, reach in zip(CASES, whole.tolist(), radius.tolist(), strict=True):
        scale = Fraction(2) ** (e - unit)
        assert max(abs((m + sign * s) * scale - int(middle)) for sign in (-1, 1)) <= int(reach)
        assert int(reach) <= s * scale + 2
        assert reach == 0 or s or (m * scale).denominator > 1
    assert (whole == np.rint(whole)).all()
    assert (radius == np.rint(radius)).all()


@pytest.mark.parametrize(("mantissa", "slack"), [(3, 0), (0, 3), (3, 3)])
def test_no_unit_is_finer_than_a_number_and_its_slack(mantissa: int, slack: int) -> None:
    """In its own unit a number is itself; in a finer one it might not fit."""
    one = numbers((mantissa, 7, slack), (0, 90, 0))
    assert [v.tolist() for v in one.units(7)] == [[mantissa, 0], [slack, 0]]
    assert (mantissa + slack) * 2**7 < 2**one.top
    with pytest.raises(Resource, match="range"):
        one.units(6)


def test_zeros_have_no_size() -> None:
    assert numbers((0, 5, 0), (0, -900, 0)).top == 0
    assert [v.tolist() for v in numbers((0, 0, 0)).units(0)] == [[0], [0]]
    assert largest(np.zeros((0, 3))) == bits(0) == 0


def test_numbers_are_the_same_only_where_nothing_is_open() -> None:
    one = (5, -3, 0)
    others = [one, (6, -3, 0), (5, -2, 0), (5, -3, 1), (-5, -3, 0)]
    same = [True, False, False, False, False]
    assert numbers(*[one] * 5).same(numbers(*others)).tolist() == same
    assert numbers(*others).same(numbers(*[one] * 5)).tolist() == same
    assert not numbers((5, -3, 1)).same(numbers((5, -3, 1))).any()


def test_parts_negatives_and_shapes_are_those_of_all_three_arrays() -> None:
    table = numbers((1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12), (13, 14, 15), (16, 17, 18)).reshape(2, 3)
    for found, index in (
        (table[1, 2], (1, 2)), (table.transpose(1, 0), (slice(None),) * 2), (table.expand((4, 2, 3))[3], ...),
    ):  # fmt: skip
        for ours, all_of_them in zip(
            (found.mantissa, found.exponent, found.slack), (table.mantissa, table.exponent, table.slack), strict=True
        ):
            expected = all_of_them.T if index == (slice(None),) * 2 else all_of_them[index]
            assert np.array_equal(ours, expected)
    minus = table.negated()
    assert (minus.mantissa == -table.mantissa).all()
    assert (minus.slack == table.slack).all()
    assert (minus.exponent == table.exponent).all()


def test_powers_of_two_are_exact_as_long_as_it_matters() -> None:
    for exponent in range(-200, 201):
        assert Fraction(power(exponent)) == Fraction(2) ** exponent
    for exponent in (-201, -300, -5000):
        assert Fraction(2) ** exponent <= Fraction(power(exponent)) < Fraction(1, 2**54)


@pytest.mark.parametrize("width", [1, 5, 20])
def test_coarse_integers_are_not_below_and_no_wider_than_asked(width: int) -> None:
    for top in (0, 1, 2**width - 1, 2**width, 2**width + 1, 3 * 2**width + 1, 2**51 + 1):
        values = np.array([0.0, 1.0, top // 3, top])
        found, shift = coarse(values, width)
        assert (found <= 2.0**width).all()
        for before, after in zip(values.tolist(), found.tolist(), strict=True):
            assert int(before) <= int(after) * 2**shift < int(before) + 2**shift
        assert (shift == 0) == (top < 2**width)
