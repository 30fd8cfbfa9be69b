"""Boxes as forms: the unit fits the largest number, and every leaf lies inside its form."""

from fractions import Fraction

import pytest

from verify.audit.exact import FORM_BITS
from verify.audit.grid import InputGrid

Interval = tuple[Fraction, Fraction]


def interval(low: str, high: str) -> Interval:
    return Fraction(low), Fraction(high)


@pytest.mark.parametrize(
    ("box", "reach"),
    [
        ([("-5", "1")], "5"), ([("1", "5")], "5"), ([("0", "1"), ("-1/3", "3/7")], "1"),
        ([("1/1000", "3/1000")], "3/1000"),
        ([("-1/1073741824", "0")], "1/1073741824"), ([("7", "123456789")], "123456789"), ([("1/2", "1/2")], "1/2"),
    ],
)  # fmt: skip
def test_the_unit_leaves_two_bits_and_wastes_none(box: list[tuple[str, str]], reach: str) -> None:
    grid = InputGrid(tuple(interval(*ends) for ends in box))
    assert 2 ** (FORM_BITS - 4) <= Fraction(reach) / Fraction(2) ** grid.exponent < 2 ** (FORM_BITS - 2)


def test_a_root_of_zeros_has_the_unit_of_ones() -> None:
    assert InputGrid((interval("0", "0"),)).exponent == 2 - FORM_BITS


def test_a_coordinate_moves_where_it_moves_on_any_leaf() -> None:
    root = interval("0", "1"), interval("2", "3"), interval("4", "4")
    leaves = [(root[0], interval("2", "2"), root[2]), (interval("0", "1/3"), root[1], root[2])]
    grid = InputGrid(root)
    x = grid.form(leaves)
    assert x.blocks == ((0, 1), (1, 2))
    assert x.body.shape == (3, 3, 2)
    assert not x.rem.any()
    low, high = x.bounds(x.exponent)
    for leaf, box in enumerate(leaves):
        for i, (a, b) in enumerate(box):
            ends = [int(end[i, leaf]) * Fraction(2) ** x.exponent for end in (low, high)]
            assert ends[0] <= a <= b <= ends[1]
            assert ends[1] - ends[0] <= b - a + 4 * Fraction(2) ** x.exponent
