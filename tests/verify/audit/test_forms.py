"""Sums of forms, column by column in exact fractions: what a sum holds, what it rounds away, and what it refuses."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from verify.audit import form as module
from verify.audit.exact import FORM_BITS, LARGEST, Memory, OutOfRange, Resource
from verify.audit.form import (
    CENTRE,
    Blocks,
    Form,
    Part,
    Term,
    add_part,
    check_memory,
    choose_unit,
    constant,
    place,
    runs,
    settle,
)
from verify.audit.linear import image, linear_map

TWO, N, LEAVES = Fraction(2), 3, 4
Columns = dict[tuple[int, int], np.ndarray]


def fractions(values: np.ndarray, exponent: int) -> np.ndarray:
    assert (values == np.rint(values)).all()
    numbers = [int(v) * TWO**exponent for v in values.ravel().tolist()]
    return np.array(numbers, dtype=object).reshape(values.shape)


def split(blocks: Blocks, body: np.ndarray) -> Columns:
    """Columns (n, L) by block and place in the block."""
    names = [(block, i) for block, width in blocks for i in range(width)]
    assert len(names) == body.shape[1]
    return {name: body[:, i] for i, name in enumerate(names)}


def random_form(seed: int, exponent: int, blocks: Blocks, top: int = 2**36) -> Form:
    rng = np.random.default_rng(seed)
    body = rng.integers(-top, top, (N, sum(w for _, w in blocks), LEAVES)).astype(float)
    body[rng.random(body.shape) < 0.3] = 0.0
    return Form(exponent, blocks, body, rng.integers(0, top, (N, LEAVES)).astype(float))


A: Blocks = ((0, 1), (1, 2), (3, 2))
B: Blocks = ((0, 1), (5, 2), (1, 2))
C: Blocks = ((0, 1), (1, 2), (3, 2), (5, 2))


def terms_of(apart: int, digits: int) -> tuple[list[Any], Columns]:
    """Forms with and without factors, a constant, an image; and their exact sum."""
    rng = np.random.default_rng(apart % 17)
    a, b, c = random_form(1, 0, A), random_form(2, apart, B), random_form(3, -3, C, 2**20)
    factor = rng.integers(-1024, 1025, (N, LEAVES)).astype(float)
    factor[0] = 0.0
    offset = rng.integers(-(2**30), 2**30, (N, LEAVES)).astype(float)
    weights = np.array([[[2.0, -1, 0], [0, 0, 0], [0, 0, 2.0**30 + 1]]])
    linear = linear_map(weights, 0 * weights, -20, np.arange(3)[None, None], 3)
    (product,), _ = image(linear, c)
    exact: Columns = {}
    pieces = [(A, fractions(a.body, 0)), (B, fractions(b.body * factor[:, None], apart - digits))]
    pieces += [(CENTRE, fractions(offset[:, None], -7))]
    pieces += [(C, fractions(part.body, part.exponent)) for part in product.parts(slice(None))]
    for blocks, body in pieces:
        for name, column in split(blocks, body).items():
            exact[name] = exact.get(name, 0) + column
    return [Term(a), Term(b, factor, digits), constant(offset, -7), product], exact


def lost(found: Form, exact: Columns, without: int = 9) -> Any:
    """How far all columns together are from what they should be."""
    columns = split(found.blocks, fractions(found.body, found.exponent))
    assert {name for name in columns if name[0] != without} == set(exact)
    return sum(abs(columns[name] - column) for name, column in exact.items())


@pytest.mark.parametrize("apart", [-60, -21, 0, 3, 30])
@pytest.mark.parametrize("digits", [0, 10])
@pytest.mark.parametrize(("tile", "order"), [(1, -1), (2**9, 1), (2**18, -1), (2**18, 1)])
def test_a_sum_keeps_what_it_does_not_hold(
    apart: int, digits: int, tile: int, order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many columns are worked on at a time, in any order, and with remainders as symbols or not."""
    monkeypatch.setattr(module, "TILE_BYTES", tile)
    terms, exact = terms_of(apart, digits)
    terms = terms[::order]
    slacks = [(np.arange(12.0).reshape(N, LEAVES) * 2**20, -30), (np.full((N, LEAVES), 7.0), 2), (np.zeros((N, 4)), 99)]
    given = sum(fractions(radius, exponent) for radius, exponent in slacks)
    chosen = np.random.default_rng(0).random((N, LEAVES)) < 0.5
    chosen[:, 0] = False
    plain, promoted = settle(terms, slacks), settle(terms, slacks, chosen, 9)
    unit = TWO**plain.exponent
    rem = fractions(plain.rem, plain.exponent)
    assert (rem >= lost(plain, exact) + given).all()
    assert (rem <= given + 16 * unit).all()  # half a unit of each column, and less than one of each slack
    assert plain.size.max() < 2.0**FORM_BITS <= 16 * plain.size.max()
    assert promoted.exponent == plain.exponent
    assert promoted.blocks == (*plain.blocks, (9, int(chosen.sum(axis=0).max())))
    assert lost(promoted, exact).tolist() == lost(plain, exact).tolist()
    for f in (plain, promoted):
        assert np.array_equal(f.size, np.abs(f.body).sum(axis=1) + f.rem)
    width = plain.body.shape[1]
    assert np.array_equal(promoted.body[:, :width], plain.body)
    assert np.array_equal(promoted.rem, np.where(chosen, 0.0, plain.rem))
    for (i, leaf), wanted in np.ndenumerate(chosen):
        symbols = promoted.body[i, width:, leaf].tolist()
        expected = [0.0] * len(symbols)
        if wanted:
            expected[int(chosen[:i, leaf].sum())] = plain.rem[i, leaf]
        assert symbols == expected


def test_slacks_are_rounded_up_one_by_one_and_where_they_are() -> None:
    large = constant(np.full((1, 3), 2.0**20), 0)
    slacks = [(np.array([[0.0, 3, 5]]), -60), (np.array([[1.0, 0, 5]]), -60), (np.array([[0.0, 2.0**12, 0]]), 3)]
    found = settle([large], slacks)
    assert found.exponent > -50
    unit = 2.0**-found.exponent
    assert found.rem.tolist() == [[1.0, 1 + 2**15 * unit, 2.0]]
    assert (found.body * 2.0**found.exponent == 2.0**20).all()


@pytest.mark.parametrize("value", [1.0, -1.0])
def test_the_smallest_numbers_are_not_nothing(value: float) -> None:
    found = settle([constant(np.array([[0.0, value]]), 0)], [])
    assert (found.body[:, 0] * 2.0**found.exponent).tolist() == [[0, value]]
    body = np.full((1, 9, 1), value)
    halves = place(np.zeros((1, 9, 1)), ((0, 1), (1, 8)), [Term(Form(-1, ((0, 1), (1, 8)), body, body[:, 0]))], 0)
    assert halves.tolist() == [[5.0]]  # nine halves are lost


@pytest.mark.parametrize(("size", "fits"), [(2.0**40 - 1, True), (2.0**40, False), (2.0**41, False)])
def test_no_form_reaches_the_limit(size: float, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit is only proposed."""
    monkeypatch.setattr(module, "choose_unit", lambda *_: 0)
    for terms, slacks in (([constant(np.array([[size]]), 0)], []), ([constant(np.zeros((1, 1)), 0)], [(size, 0)])):
        given = [(np.array([[radius]]), exponent) for radius, exponent in slacks]
        if fits:
            assert settle(terms, given).size.tolist() == [[size]]
        else:
            with pytest.raises(Resource, match="range"):
                settle(terms, given)


def test_without_a_chosen_value_there_is_no_block() -> None:
    terms, _ = terms_of(0, 0)
    none = np.zeros((N, LEAVES), dtype=bool)
    assert settle(terms, [], none, 9).blocks == settle(terms, []).blocks


def test_a_sum_of_integers_in_one_unit_is_exact() -> None:
    a = random_form(4, 5, A, 2**30)
    found = settle([Term(a), Term(a, np.full((N, LEAVES), -3.0))], [])
    assert not found.rem.any()
    assert np.array_equal(found.body * 2.0 ** (found.exponent - 5), -2 * a.body)


def test_terms_that_are_zero_leave_the_unit_to_the_others() -> None:
    zero, a = random_form(1, 90, B, 1), random_form(4, -40, A, 2**30)
    found = settle([Term(Form(90, B, 0 * zero.body, 0 * zero.rem)), Term(a)], [(np.zeros((N, LEAVES)), 99)])
    assert found.blocks == A
    assert not found.rem.any()
    nothing = settle([Term(Form(-54, B, 0 * zero.body, 0 * zero.rem))], [])
    assert nothing.blocks == B
    assert not nothing.size.any()
    only = settle([Term(Form(-54, B, 0 * zero.body, 0 * zero.rem))], [(np.full((N, LEAVES), 3.0), 7)])
    assert (only.rem * 2.0**only.exponent == 3 * 2.0**7).all()


def test_nan_is_no_zero() -> None:
    with pytest.raises((Resource, ValueError)), np.errstate(all="ignore"):
        settle([constant(np.array([[1.0, np.nan]]), 0)], [])


def test_one_block_has_one_width() -> None:
    a, b = random_form(1, 0, ((0, 1), (1, 2))), random_form(1, 0, ((0, 1), (1, 3)))
    assert settle([Term(a), Term(a)], []).blocks == a.blocks
    with pytest.raises(Resource, match="width"):
        settle([Term(a), Term(b)], [])


@pytest.mark.parametrize("unit", [-4, 0, 3, 60])
def test_what_is_put_in_place_is_rounded_to_the_nearest(unit: int) -> None:
    terms, exact = terms_of(-9, 0)
    body = np.zeros((N, 7, LEAVES))
    halves = place(body, C, terms, 20 + unit)
    scale = TWO ** (20 + unit)
    found = split(C, body)
    total: Any = sum(abs(found[name] * scale - column) for name, column in exact.items())
    assert (fractions(halves, 20 + unit) >= total).all()
    assert (halves <= 13).all()  # half of 5 + 5 + 1 + 2 * 7 columns


def test_a_column_that_is_not_rounded_costs_nothing() -> None:
    body = np.zeros((1, 1, 3))
    assert place(body, CENTRE, [constant(np.array([[4.0, 5, 6]]), -1)], 0).tolist() == [[0, 1, 0]]
    assert body.tolist() == [[[2, 2, 3]]]
    body = np.zeros((1, 1, 2))
    assert place(body, CENTRE, [constant(np.array([[4.0, 5]]), 0)] * 2, 0).tolist() == [[0, 0]]
    assert body.tolist() == [[[8, 10]]]


def test_sums_beyond_the_exact_range_are_out_of_range() -> None:
    """Judged by the sizes of all summands together, of which none need be large, and by what they really are."""

    def put(*values: float, unit: int = 0) -> float:
        body = np.zeros((1, 1, 1))
        place(body, CENTRE, [constant(np.array([[v]]), 0) for v in values], unit)
        return float(body[0, 0, 0])

    assert put(2.0**51, -(2.0**50), 2.0**50 - 1) == 2.0**51 - 1
    for values in ([2.0**51, 2.0**51], [2.0**50] * 4, [-(2.0**51), 2.0**51], [2.0**52], [2.0**45] * 128):
        with pytest.raises(OutOfRange):
            put(*values)
        assert put(*values, unit=40) == sum(values) / 2.0**40


def test_a_reach_that_is_too_coarse_is_measured() -> None:
    part = Part(np.array([[[3.0, 1], [-9, 0]], [[2, 1], [5, 8]]]), 0, 1e300)
    assert part.largest() == 9
    assert Part(part.body, 0, 1e300, np.array([[-7.0, 2], [3, 1]])).largest() == 63
    assert Part(np.zeros((0, 2, 1)), 0, 1e300).largest() == Part(np.zeros((1, 2, 1)), 0, 1e300).largest() == 0


@pytest.mark.parametrize("empty", [True, False])
@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("factored", [False, True])
def test_a_part_is_scaled_rounded_and_added(empty: bool, scale: float, width: int, factored: bool) -> None:
    body = np.arange(2.0 * width * 2).reshape(2, width, 2) * 3 - 5
    factor = np.array([[1.0, -3.0], [0.0, 2.0]]) if factored else None
    body[1], active = 0.0, np.array([[True], [False]])  # nothing is rounded where a part is not active
    before = np.zeros(body.shape) if empty else np.full(body.shape, 11.0)
    goal = before.copy()
    changed = np.broadcast_to(add_part(goal, Part(body.copy(), 0, 99.0, factor, active), scale, empty), (2, 2))
    exact = body * scale * (1.0 if factor is None else factor[:, None])
    assert np.array_equal(goal - before, np.rint(exact))
    assert (changed >= 2 * np.abs(exact - np.rint(exact)).sum(axis=1)).all()
    assert (changed <= (width * active if scale < 1 else 0)).all()
    assert width > 1 or np.array_equal(changed, (exact != np.rint(exact))[:, 0])


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        (((0, 1), (1, 2), (3, 2), (5, 2)), [(0, 0, 7)]), (((0, 1), (5, 2), (1, 2)), [(0, 0, 1), (1, 5, 2), (3, 1, 2)]),
        (((0, 1), (3, 2), (5, 2), (1, 2)), [(0, 0, 1), (1, 3, 4), (5, 1, 2)]), ((), []),
        (((1, 2), (3, 2)), [(0, 1, 4)]), (((5, 2), (0, 1), (1, 2)), [(0, 5, 2), (2, 0, 3)]),
    ],
)  # fmt: skip
def test_runs_are_the_blocks_that_stay_together(blocks: Blocks, expected: list[tuple[int, int, int]]) -> None:
    assert runs(blocks, {0: 0, 1: 1, 3: 3, 5: 5}) == expected


@pytest.mark.parametrize(("exponent", "values"), [(0, [1.0]), (-50, [2.0**30, 2.0**20]), (9, [5.0, 3.0, 2.0**40])])
def test_the_proposed_unit_leaves_forty_bits_and_wastes_two_at_most(exponent: int, values: list[float]) -> None:
    terms = [constant(np.array([[0.0, v]]), exponent) for v in values]
    slacks = [(np.array([[v, 0.0]]), exponent + 3) for v in values]
    for used, rest in ((terms, []), ([], slacks), (terms, slacks)):
        unit = choose_unit(used, rest, 1)
        size = sum(fractions(t.form.body[:, 0], exponent) for t in used) + sum(fractions(*s) for s in rest)
        assert 2 ** (FORM_BITS - 3) <= max(size.ravel()) / TWO**unit < 2**FORM_BITS


def test_a_form_has_a_limit_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORM_BYTES", 8 * 5 * 3 * 7)
    check_memory(5, 3, ((0, 1), (4, 6)))
    for n, leaves, blocks in ((6, 3, ((0, 7),)), (5, 4, ((0, 7),)), (5, 3, ((0, 1), (4, 7)))):
        with pytest.raises(Memory):
            check_memory(n, leaves, blocks)
    with pytest.raises(Memory):
        settle([constant(np.ones((15, 8)), 0)], [])
    with pytest.raises(Memory):
        settle([constant(np.ones((15, 4)), 0)], [], np.ones((15, 4), dtype=bool), 9)


def test_bounds_and_elements_of_a_form() -> None:
    form = Form(-2, ((0, 1), (1, 2)), np.array([[[7.0], [-4], [1]], [[-9], [2], [2]]]), np.array([[3.0], [4]]))
    assert form.size.ravel().tolist() == [15, 17]
    assert form.radius.ravel().tolist() == [8, 8]
    for unit in (-4, -2, 0, 1):
        low, high = form.bounds(unit)
        scale = TWO ** (-2 - unit)
        for i, (a, b) in enumerate([(-1, 15), (-17, -1)]):
            assert int(low[i, 0]) <= a * scale < int(low[i, 0]) + 1
            assert int(high[i, 0]) - 1 < b * scale <= int(high[i, 0])
    for elements in ([1, 0], [1, -1, 0, -1], [-1], []):
        taken = form.take(np.array(elements, dtype=np.int64))
        assert (taken.exponent, taken.blocks) == (form.exponent, form.blocks)
        for row, rem, i in zip(taken.body, taken.rem, elements, strict=True):
            assert np.array_equal(row, form.body[i] * (i >= 0))
            assert np.array_equal(rem, form.rem[i] * (i >= 0))


def test_a_term_is_its_form_times_a_factor() -> None:
    a, factor = random_form(3, 4, A), np.array([[0.0, -2.0, 3.0, 0.0]] * N)
    plain, scaled = Term(a), Term(a, factor, 3)
    assert plain.active is None
    assert scaled.active is not None
    assert scaled.active.tolist() == [[False, True, True, False]] * N
    assert (plain.shape, plain.blocks) == ((N, LEAVES), A)
    assert np.array_equal(scaled.size, a.size * np.abs(factor))
    assert scaled.reach == scaled.size.max() < LARGEST
    ((size, exponent),) = scaled.sizes(2, 5)
    assert exponent == 1
    assert np.array_equal(size, scaled.size[:, ::2])
    (part,) = scaled.parts(slice(1, 3))
    assert part.exponent == 1
    assert np.array_equal(part.body, a.body[:, 1:3])
    assert part.factor is factor
