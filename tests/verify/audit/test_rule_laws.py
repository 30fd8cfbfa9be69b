"""Rules step by step: every value is seen, budgets are kept, and what each rule says holds at every whole point."""

from fractions import Fraction

import numpy as np
import pytest

from tests.verify.audit.test_descent_edges import program
from tests.verify.audit.test_descent_laws import linear_steps
from verify.audit import rules
from verify.audit.form import CENTRE, Form
from verify.audit.grid import InputGrid
from verify.audit.lift import Stage, stages_of_pair
from verify.audit.program import Program, Step, integers
from verify.audit.rules import Symbols, Values, apply, propagate

BOX = tuple((Fraction(-1, 3), Fraction(1, 2)) for _ in range(3))


@pytest.mark.parametrize("keep", [(6,), (0, 2, 6), (2, 2), (5, 0)])
def test_every_value_is_seen_in_turn_and_those_asked_for_are_returned(keep: tuple[int, ...]) -> None:
    """Also where a value is read again much later."""
    stages = stages_of_pair(*(program(*linear_steps(seed)) for seed in (2, 3)), ())
    x, zero = InputGrid(BOX).form([BOX]), Form(0, CENTRE, np.zeros((3, 1, 1)), np.zeros((3, 1)))
    first, seen = Values(x, x, zero), list[Values]()
    found = propagate(stages, first, Symbols(2, np.full(1, 1e6)), keep, seen.append)
    assert seen[0] is first
    assert [len(v.z.rem) for v in seen] == [3, 3, 3, 3, 6, 3, 2]
    assert all(v.y is not None and v.d is not None for v in seen)
    assert [v is seen[i] for v, i in zip(found, keep, strict=True)] == [True] * len(keep)
    assert len(seen) == 7


def form(*entries: tuple[int, int], exponent: int = 0, leaves: int = 2, width: int = 3) -> Form:
    """(centre, remainder) per element, on leaves that differ by one, with symbols of size 1 in every column."""
    centre, rem = (np.array(column, dtype=np.float64) for column in zip(*entries, strict=True))
    body = np.ones((len(entries), 1 + width, leaves))
    body[:, 0] = centre[:, None] + np.arange(leaves)
    return Form(exponent, ((0, 1), (1, width)), body, rem[:, None] * np.ones(leaves))


def ends(found: Form | None) -> list[list[tuple[Fraction, Fraction]]]:
    """Lower and upper bounds per element and leaf."""
    assert found is not None
    low, high = found.bounds(-30)
    return [
        [(Fraction(int(a), 2**30), Fraction(int(b), 2**30)) for a, b in zip(*row, strict=True)]
        for row in zip(low, high, strict=True)
    ]


def near(found: Form | None, *expected: tuple[float, float]) -> None:
    """The bounds of every element on the first leaf, a little wider at most."""
    for row, (low, high) in zip(ends(found), expected, strict=True):
        assert Fraction(low) - Fraction(1, 10**4) <= row[0][0] <= Fraction(low)
        assert Fraction(high) <= row[0][1] <= Fraction(high) + Fraction(1, 10**4)


def two_by_two(*numbers: int) -> Step:
    return Step("y", "affine", ("x",), (2,), np.arange(2)[None, None], integers(list(numbers), (1, 2, 2)))


def symbols(float32: bool = False) -> Symbols:
    return Symbols(9, np.full(2, 1e6), float32)


@pytest.mark.parametrize("float32", [False, True])
def test_an_affine_step_keeps_the_remainders_of_what_it_reads(float32: bool) -> None:
    """Of z and y in theirs, and of z and D in that of D: W z, V y, and (W - V) z + V D."""
    first, second = two_by_two(1, -2, 3, 4), two_by_two(1, -1, 3, 5)
    (stage,) = stages_of_pair(*(Program("x", (2,), False, (s,), "y", "") for s in (first, second)), ())
    z, y, d = form((10, 1), (20, 2), width=0), form((9, 3), (21, 1), width=0), form((1, 2), (-1, 3), width=0)
    found = apply(stage, [Values(z, y, d)], symbols(float32))
    lost = Fraction(1, 2**24) * 100 if float32 else 0
    for value, expected in (
        (found.z, [(-35, -25), (99, 121)]), (found.y, [(-16, -8), (118, 146)]), (found.d, [(-25, -11), (-45, 1)])
    ):  # fmt: skip
        for row, (low, high) in zip(ends(value), expected, strict=True):
            assert low - 40 * lost - Fraction(1, 10**4) <= row[0][0] <= low
            assert high <= row[0][1] <= high + 40 * lost + Fraction(1, 10**4)


def test_a_sum_has_the_differences_of_its_terms() -> None:
    step = Step("s", "sum", ("x", "x"), (1,), signs=(1, -1))
    stage = Stage(step, (0, 1), step, (0, 1), kept=np.arange(1), aligned=True)
    a, b = form((10, 4)), form((3, 1), exponent=1)
    first, second = Values(a, a, form((0, 0), width=0)), Values(b, b, form((5, 2), width=0))
    found = apply(stage, [first, second], Symbols(9, np.full(2, 1e6)))
    near(found.z, (4 - 3 - 6, 4 + 3 + 6))
    near(found.y, (4 - 3 - 6, 4 + 3 + 6))
    near(found.d, (-7, -3))
    rounded = apply(stage, [first, second], symbols(True))
    assert rounded.d is not None
    wide, narrow = (f.bounds(-30)[1] - f.bounds(-30)[0] for f in (rounded.d, found.d))
    assert (wide >= narrow + 2 * 2 * 2**30 * (10 + 6) / 2**24).all()
    unrelated = Stage(step, (0, 1), step, (0, 1))
    assert rules._sum(unrelated, [first, second], symbols(True)).d is None


def test_each_network_moves_its_own_elements() -> None:
    """Values of two inputs in other units; D goes with the compact network."""
    first = Step("g", "gather", ("a", "b"), (3,), np.array([2, -1, 0]), bias=integers([7], (1,)))
    second = Step("g", "gather", ("a", "b"), (3,), np.array([1, 2, -1]), bias=integers([9], (1,)))
    stage = Stage(first, (0, 1), second, (0, 1), kept=np.arange(3), aligned=True)
    a = Values(form((10, 1), (20, 2)), form((30, 3), (40, 4)), form((50, 5), (60, 6)))
    b = Values(form((5, 1), exponent=2), form((6, 2), exponent=2), form((7, 3), exponent=2))
    found = apply(stage, [a, b], symbols())
    near(found.z, (20 - 4 - 12, 20 + 4 + 12), (7, 7), (10 - 4, 10 + 4))
    near(found.y, (40 - 7, 40 + 7), (24 - 8 - 12, 24 + 8 + 12), (9, 9))
    near(found.d, (60 - 9, 60 + 9), (28 - 12 - 12, 28 + 12 + 12), (0, 0))
    alone = apply(Stage(first, (0, 1)), [a, b], symbols())
    near(alone.z, (20 - 4 - 12, 20 + 4 + 12), (7, 7), (10 - 4, 10 + 4))


@pytest.mark.parametrize(("left", "blocks"), [(0.0, [1, 1, 1]), (1.0, [2, 1, 1]), (2.0, [2, 2, 1]), (3.0, [2, 2, 2])])
def test_a_relu_takes_no_more_symbols_than_are_left(left: float, blocks: list[int]) -> None:
    """First for z, then for y, then for their difference; what gets none is in the remainder."""
    z, y, d = form((1, 4), width=0), form((0, 4), width=0), form((1, 1), width=0)
    budget = Symbols(9, np.full(2, left))
    found = rules.relu(Values(z, y, d), np.arange(1), budget)
    for value, count in zip((found.z, found.y, found.d), blocks, strict=True):
        assert value is not None
        widths = [w for _, w in value.blocks if w]
        assert len(widths) == count
        assert (value.rem > 1).all() == (count == 1)
    assert budget.left.tolist() == [max(0.0, left - 3)] * 2
