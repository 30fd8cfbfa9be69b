"""Small exact laws of every part that a bound passes through, and forged certificates; no drawing, so quick."""

import hashlib
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from verify.audit import Verdict, audit, check, rounding, rules
from verify.audit import form as form_module
from verify.audit.certificate import walk
from verify.audit.check import _Enclosure
from verify.audit.exact import FORM_BITS, LARGEST, LONGEST_ROW, Real, Refuted, Resource, coarse, power
from verify.audit.form import CENTRE, Form, Term, constant, place, settle
from verify.audit.grid import InputGrid, scaled_floor
from verify.audit.lift import Correspondence, Stage, _bias, kept_elements, stages_of_pair
from verify.audit.linear import bounded_sums, image, linear_map
from verify.audit.program import Malformed, Program, Step, Unsupported, from_bits, integers

GOLDEN = Path(__file__).parent / "golden"


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)[:, None]


# the comparison with epsilon


@pytest.mark.parametrize(("low", "high"), [(-3, 3), (-4, 0), (0, 4), (-4, 4)])
@pytest.mark.parametrize("exponent", [-5, 0, 5])
def test_both_sides_are_compared_with_epsilon_exactly(low: int, high: int, exponent: int) -> None:
    enclosure = _Enclosure(column(low), column(high), exponent)
    reach = max(-low, high) * Fraction(2) ** exponent
    tiny = Fraction(1, 10**40)
    assert enclosure.largest == reach
    for epsilon, proved in ((reach, True), (reach + tiny, True), (reach - tiny, False), (reach / 2, False)):
        assert bool(enclosure.within(epsilon).all()) is proved


def test_every_output_and_leaf_is_compared() -> None:
    for i in range(2):
        for j in range(3):
            low, high = np.zeros((2, 3)), np.zeros((2, 3))
            high[i, j] = 9.0
            assert np.argwhere(~_Enclosure(low, high, 0).within(Fraction(8))).tolist() == [[i, j]]
            assert np.argwhere(~_Enclosure(-high, low, 0).within(Fraction(8))).tolist() == [[i, j]]


def test_an_infinite_epsilon_is_no_overflow() -> None:
    enclosure = _Enclosure(column(-5), column(5), -1100)
    assert enclosure.within(Fraction(10**9)).all()
    assert enclosure.within(Fraction(5, 2**1100)).all()
    assert not enclosure.within(Fraction(49, 10 * 2**1100)).any()


def test_the_join_is_the_sharper_side_of_each_in_the_finer_unit() -> None:
    a, b = _Enclosure(column(-8, -100), column(8, 2), 0), _Enclosure(column(-3, -7), column(100, 3), 2)
    for joined in (a.joined(b), b.joined(a)):
        assert joined.exponent == 0
        assert joined.low.ravel().tolist() == [-8, -28]
        assert joined.high.ravel().tolist() == [8, 2]


def test_the_largest_bound_is_over_all_outputs_and_leaves() -> None:
    assert _Enclosure(np.array([[-9.0, -1.0]]), np.array([[2.0, 3.0]]), 0).largest == 9
    assert _Enclosure(np.array([[-1.0, -2.0]]), np.array([[8.0, 3.0]]), 0).largest == 8


# the input


@pytest.mark.parametrize("value", [Fraction(7, 3), Fraction(-7, 3), Fraction(5), Fraction(-5), Fraction(0)])
@pytest.mark.parametrize("exponent", [-3, 0, 3])
def test_scaled_floor_is_the_floor(value: Fraction, exponent: int) -> None:
    found = scaled_floor(value, exponent)
    assert found * Fraction(2) ** exponent <= value < (found + 1) * Fraction(2) ** exponent


def test_input_forms_contain_their_boxes_and_hardly_more() -> None:
    third = Fraction(1, 3)
    boxes = [
        ((-third, third), (Fraction(1, 4), Fraction(1, 4)), (Fraction(2), 5 * third * 2)),
        ((-third, Fraction(0)), (Fraction(1, 4), Fraction(1, 4)), (Fraction(5, 2), Fraction(3))),
    ]
    form = InputGrid(boxes[0]).form(boxes)
    unit = Fraction(2) ** form.exponent
    assert form.blocks == ((0, 1), (1, 2))
    assert not form.rem.any()
    assert form.size.max() < 2**FORM_BITS
    for leaf, box in enumerate(boxes):
        for i, (low, high) in enumerate(box):
            centre, *others = (int(v) for v in form.body[i, :, leaf].tolist())
            reach = sum(abs(v) for v in others)
            assert unit * (centre - reach) <= low
            assert high <= unit * (centre + reach)
            assert 2 * unit * reach <= high - low + 4 * unit
            assert sum(v != 0 for v in others) <= 1


# sums of forms


def test_what_a_sum_rounds_away_is_in_the_remainder() -> None:
    """One unit of 2^-60 next to 2^20: nothing of it fits, so it must be in the remainder."""
    body = np.array([[[0.0], [3.0], [5.0]]])
    small = Form(-60, ((0, 1), (1, 2)), body, np.zeros((1, 1)))
    for factor in (None, np.full((1, 1), -2.0)):
        found = settle([constant(np.full((1, 1), 2.0**20), 0), Term(small, factor)], [(np.full((1, 1), 7.0), -60)])
        scale = 1 if factor is None else 2
        lost = Fraction(2) ** -60 * (scale * 8 + 7) / Fraction(2) ** found.exponent
        assert int(found.rem[0, 0]) >= lost
        assert found.body[0, 0, 0] * Fraction(2) ** found.exponent == 2**20
        assert found.size.max() < 2**FORM_BITS


def test_a_remainder_that_becomes_a_symbol_keeps_its_size() -> None:
    x = Form(0, CENTRE, np.array([[[5.0, 6.0]], [[7.0, 8.0]]]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    chosen = np.array([[True, False], [True, True]])
    found = settle([Term(x)], [(x.rem, 0)], chosen, 9)
    unit = 2.0**found.exponent
    assert found.blocks == ((0, 1), (9, 2))
    assert (found.rem * unit).tolist() == [[0, 2], [0, 0]]
    symbols = (found.body[:, 1:] * unit).tolist()
    assert symbols == [[[1, 0], [0, 0]], [[0, 4], [3, 0]]]


@pytest.mark.parametrize("unit", [-2, 0, 2])
def test_bounds_of_a_form_are_outward(unit: int) -> None:
    form = Form(0, ((0, 1), (1, 1)), np.array([[[7.0], [-4.0]]]), np.array([[2.0]]))
    low, high = form.bounds(unit)
    assert low[0, 0] == np.floor(1 / 2.0**unit)
    assert high[0, 0] == np.ceil(13 / 2.0**unit)
    assert form.radius.tolist() == [[6.0]]


def test_index_minus_one_is_the_constant_zero() -> None:
    form = Form(0, CENTRE, np.array([[[7.0]], [[3.0]]]), np.array([[1.0], [2.0]]))
    taken = form.take(np.array([1, -1]))
    assert taken.body.ravel().tolist() == [3.0, 0.0]
    assert taken.rem.ravel().tolist() == [2.0, 0.0]


def test_only_integers_that_fit_become_forms() -> None:
    with pytest.raises(Resource):
        power(201)
    assert power(200) == 2.0**200
    values, shift = coarse(column(2**30 + 1, 5), 20)
    assert shift == 11
    assert (values * 2.0**shift >= column(2**30 + 1, 5)).all()
    assert values.max() <= 2**20


def test_numbers_in_a_unit_carry_what_they_lose() -> None:
    number = Real(column(2**52 + 1, 3), np.array([[0], [0]]), column(0, 5))
    whole, radius = number.units(1)
    assert [int(v) for v in whole.ravel()] == [2**51, 2]
    assert abs(Fraction(2**52 + 1, 2) - int(whole[0, 0])) <= int(radius[0, 0])
    assert abs(Fraction(8, 2) - int(whole[1, 0])) <= int(radius[1, 0])
    with pytest.raises(Resource, match="range"):
        number.units(-1)


def test_half_a_unit_lost_is_a_unit_of_remainder() -> None:
    for value in (1.0, 3.0, -5.0):
        assert place(np.zeros((1, 1, 1)), CENTRE, [constant(column(value), -1)], 0).tolist() == [[1.0]]


def test_a_unit_that_is_too_fine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit is only proposed: sums that leave the range in it are not used."""
    monkeypatch.setattr(form_module, "choose_unit", lambda *_: -30)
    with pytest.raises(Resource, match="range"):
        settle([constant(column(2**12), 0)], [])
    assert settle([constant(column(2**9), 0)], []).body[0, 0, 0] == 2.0**39


# affine maps


def weights(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array([rows], dtype=np.float64)


def test_products_take_in_remainders_and_inexact_weights() -> None:
    linear = linear_map(weights((3.0, -5.0)), weights((1.0, 2.0)), 0, np.arange(2)[None, None], 2)
    scale = 2**30  # so that the rounding of the lowest limbs is nothing beside the radii of the weights
    form = Form(0, CENTRE, np.array([[[10.0 * scale]], [[100.0 * scale]]]), column(scale, 4 * scale))
    found = settle(*image(linear, form))
    unit, centre = Fraction(2) ** found.exponent, int(found.body[0, 0, 0])
    ends = [scale * (w * x + v * y) for w in (2, 4) for v in (-7, -3) for x in (9, 11) for y in (96, 104)]
    assert unit * (centre - int(found.rem[0, 0])) <= min(ends)
    assert max(ends) <= unit * (centre + int(found.rem[0, 0]))


def test_wide_weights_keep_what_their_limbs_miss() -> None:
    exact_weight = 2**52 + 2**11 + 1
    linear = linear_map(weights((exact_weight,)), weights((0.0,)), -52, np.arange(1)[None, None], 1)
    form = Form(0, CENTRE, np.full((1, 1, 1), 2.0**39 - 1), np.zeros((1, 1)))
    found = settle(*image(linear, form))
    value = Fraction(exact_weight, 2**52) * (2**39 - 1)
    unit = Fraction(2) ** found.exponent
    assert abs(value - unit * int(found.body[0, 0, 0])) <= unit * int(found.rem[0, 0])


def test_the_lowest_products_are_rounded_and_counted_in_every_column() -> None:
    """Nine columns, each of which loses almost half a unit of 2^20."""
    linear = linear_map(weights((3.0,)), weights((0.0,)), 0, np.arange(1)[None, None], 1)
    body = np.full((1, 9, 1), 174_763.0)  # three times this is 2^19 + 1
    found = settle(*image(linear, Form(0, ((0, 1), (1, 8)), body, np.zeros((1, 1)))))
    unit = Fraction(2) ** found.exponent
    lost = sum(abs(3 * 174_763 - unit * int(v)) for v in found.body[0, :, 0].tolist())
    assert lost >= 9 * (2**19 - 1)
    assert lost <= unit * int(found.rem[0, 0])


def test_maps_that_are_zero_have_their_full_shape() -> None:
    taps = np.array([[[0], [1]], [[1], [0]]])
    linear = linear_map(np.zeros((2, 3, 1)), np.zeros((2, 3, 1)), 0, taps, 2)
    assert settle(*image(linear, Form(0, CENTRE, np.ones((2, 1, 4)), np.ones((2, 4))))).rem.shape == (12, 4)


def test_sums_that_could_round_are_refused() -> None:
    linear = linear_map(weights((1.0, 1.0)), weights((0.0, 0.0)), 0, np.arange(2)[None, None], 2)
    assert bounded_sums(linear, linear.both[:, 1:], 1, column(2**20, 2**20)).ravel().tolist() == [2**21]
    with pytest.raises(Resource, match="remainders"):
        bounded_sums(linear, linear.both[:, 1:], LARGEST // 2**21, column(1, 1))


# rounding of float32


def plain_step(length: int, bias: float | None) -> Step:
    taps = np.arange(length).reshape(1, 1, length)
    weight = integers([1] * length, (1, 1, length))
    shift = None if bias is None else from_bits(np.array([bias], dtype="<f4").tobytes(), "float32")
    return Step("y", "affine", ("x",), (1,), taps, weight, shift)


@pytest.mark.parametrize("length", [1, 7, LONGEST_ROW + 3])
@pytest.mark.parametrize("bias", [None, -4096.0])
def test_the_rounding_of_an_affine_step_is_not_below_its_formula(length: int, bias: float | None) -> None:
    from verify.audit.lift import own_map

    affine = own_map(plain_step(length, bias), length)
    assert affine is not None
    x = Form(0, CENTRE, np.full((length, 1, 1), -3.0), np.full((length, 1), 2.0))
    found = sum(int(r[0, 0]) * Fraction(2) ** e for r, e in rounding.of_affine(affine, x))
    m = length + 3
    u = Fraction(1, 2**24)
    size = 5 * length + abs(int(bias or 0))
    least = m * u / (1 - m * u) * size + 2 * (m + 1) * Fraction(1, 2**149)
    assert least <= found <= least * Fraction(m + 2, m)  # gamma is rounded up to a whole number of u


def test_products_may_underflow() -> None:
    """Where all products vanish, 2 (m + 1) 2^-149 is all there is, and it is needed."""
    from verify.audit.lift import own_map

    affine = own_map(plain_step(7, None), 7)
    assert affine is not None
    x = Form(-200, CENTRE, np.ones((7, 1, 1)), np.zeros((7, 1)))
    found = sum(int(r[0, 0]) * Fraction(2) ** e for r, e in rounding.of_affine(affine, x))
    assert found >= 22 * Fraction(1, 2**149)


def test_a_sum_of_two_rounds_once_relative_to_both() -> None:
    a, b = (Form(e, CENTRE, np.full((1, 1, 1), v), np.ones((1, 1))) for e, v in ((0, -7.0), (3, 2.0)))
    found = sum(int(r[0, 0]) * Fraction(2) ** e for r, e in rounding.of_sum([a, b]))
    assert found >= (8 + 24) * Fraction(1, 2**24)


def test_the_remainder_of_an_error_is_a_symbol_only_where_granted() -> None:
    slack = (np.full((2, 1), 5.0), -3)
    form = rounding.as_form([slack], np.array([[True], [False]]), 4)
    unit = Fraction(2) ** form.exponent
    assert [int(v) * unit for v in form.size.ravel()] == [Fraction(5, 8)] * 2
    assert form.rem.ravel().tolist()[0] == 0
    assert form.rem.ravel().tolist()[1] > 0


def test_only_float32_programs_have_float32_claims() -> None:
    tiny = from_bits(np.array([2.0**-1074]).tobytes(), "float64")
    step = Step("y", "affine", ("x",), (1,), np.zeros((1, 1, 1), dtype=np.int64), tiny.reshape(1, 1, 1))
    ok = plain_step(1, 1.0)
    for steps, float32, allowed in (((ok,), True, True), ((ok,), False, False), ((step,), True, False)):
        program = Program("x", (1,), False, steps, "y", "", float32)
        if allowed:
            rounding.check_program(program)
        else:
            with pytest.raises(Unsupported):
                rounding.check_program(program)


# ReLU


def exhaustive(ends: list[int]) -> list[tuple[int, int]]:
    lz, uz, ly, uy, dl, du = ends
    return [(z, y) for z in range(lz, uz + 1) for y in range(ly, uy + 1) if dl <= z - y <= du]


@pytest.mark.parametrize(
    "ends",
    [
        [-3, 4, -2, 5, -1, 2], [1, 4, -2, 5, -1, 2], [-3, 4, 1, 5, -4, 2], [-4, -1, -2, 3, -4, 0],
        [-2, 3, -5, -1, 0, 4], [0, 0, -3, 3, -3, 3], [-3, 3, -3, 3, 0, 0], [-3, 0, 0, 3, -6, 0],
        [-5, 5, -5, 5, -10, 10], [2, 5, -4, -1, 3, 9],
    ],
)  # fmt: skip
@pytest.mark.parametrize("sloped", [True, False])
def test_the_plane_of_a_relu_pair_holds_and_is_touched(ends: list[int], sloped: bool) -> None:
    plane = rules.best_plane([np.array([float(v)]) for v in ends], np.array([sloped]))[:, 0]
    s_z, s_d, bottom, top = (int(v) for v in plane)
    one = int(rules.ONE)
    values = [one * (max(z, 0) - max(y, 0)) - s_z * z - s_d * (z - y) for z, y in exhaustive(ends)]
    assert (bottom, top) == (min(values), max(values))
    assert sloped or (s_z, s_d) == (0, 0)


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (-8, 8), (-3, 100), (-100, 3), (-7, 5), (-6, 0), (0, 6), (3, 6), (-6, -3), (0, 0), (-1, 3), (-3, 1), (-1, 1),
        (-1, 1001), (-1001, 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("budget", [0.0, 1.0])
def test_the_line_of_a_relu_holds_between_its_bounds(low: int, high: int, budget: float) -> None:
    """x = centre + radius xi, so its relu must fit centre', slope' xi and what is new, at both ends and at 0."""
    centre, radius = (low + high) / 2, (high - low) / 2
    x = Form(-1, ((0, 1), (1, 1)), np.array([[[2 * centre], [2 * radius]]]), np.zeros((1, 1)))
    symbols = rules.Symbols(2, np.array([budget]))
    found = rules.relu_line(x, column(low), column(high), 0, symbols)
    unit = Fraction(2) ** found.exponent
    columns = found.body[0, :, 0].tolist()
    slope = int(columns.pop(1)) if (1, 1) in found.blocks else 0
    new = int(found.rem[0, 0]) + sum(abs(int(v)) for v in columns[1:])
    for value in {low, high, *((0,) if low <= 0 <= high else ())}:
        share = Fraction(value) - Fraction(centre)
        xi = share / Fraction(radius) if radius else Fraction(0)
        middle = unit * (int(columns[0]) + xi * slope)
        assert abs(max(value, 0) - middle) <= unit * new
    if low >= 0 or high <= 0:
        assert new == 0
    assert symbols.left[0] >= 0


@pytest.mark.parametrize("budget", [0.0, 9.0])
def test_the_difference_of_two_relus_is_enclosed_on_every_small_region(budget: float) -> None:
    """All regions with bounds from -2 to 2, all their integer points, which include all vertices."""
    ranges = [(a, b) for a in range(-2, 3) for b in range(a, 3)]
    regions = [(*z, *y, z[0] - y[1], z[1] - y[0]) for z in ranges for y in ranges]
    regions += [(*z, *y, -1, 1) for z in ranges for y in ranges if z[0] - y[1] <= -1 and z[1] - y[0] >= 1]
    ends = [np.array(side, dtype=np.float64)[:, None] for side in zip(*regions, strict=True)]
    bounds = rules.Bounds(0, (ends[0], ends[1]), (ends[2], ends[3]), (ends[4], ends[5]))
    count, forms = len(regions), []
    for block, (low, high) in enumerate(((ends[0], ends[1]), (ends[4], ends[5])), 1):
        body = np.stack([low + high, high - low], axis=1)  # in halves, so that the centre is whole
        forms.append(Form(-1, ((0, 1), (block, 1)), body, np.zeros((count, 1))))
    found = rules._relu_difference(*forms, bounds, np.arange(count), rules.Symbols(3, np.array([budget])))
    start, columns = 0, {}
    for block, width in found.blocks:
        columns[block] = np.abs(found.body[:, start : start + width, 0]) if block > 2 else found.body[:, start, 0]
        start += width
    unit = 2.0**found.exponent
    for i, region in enumerate(regions):
        new = found.rem[i, 0] + sum(v[i].sum() for b, v in columns.items() if b > 2)
        for z, y in exhaustive(list(region)):
            middle = columns[0][i]
            for block, value, low, high in ((1, z, *region[:2]), (2, z - y, *region[4:])):
                if block in columns and high > low:
                    middle += columns[block][i] * (2 * value - low - high) / (high - low)
            assert abs((max(z, 0) - max(y, 0)) / unit - middle) <= new + 2.0**-12, (region, z, y)  # float64 quotients


def test_remainders_count_in_full_whatever_the_sign_of_a_slope() -> None:
    """The same regions, z and D known only as centre and remainder: the result as an interval holds every value."""
    ranges = [(a, b) for a in range(-3, 4) for b in range(a, 4)]
    regions = [(*z, *y, z[0] - y[1], z[1] - y[0]) for z in ranges for y in ranges]
    regions += [(*z, z[0] - d, z[1] - d, d, d) for z in ranges for d in range(-5, 6)]  # slopes of z below 0
    ends = [np.array(side, dtype=np.float64)[:, None] for side in zip(*regions, strict=True)]
    bounds = rules.Bounds(0, (ends[0], ends[1]), (ends[2], ends[3]), (ends[4], ends[5]))
    middles = [Form(-1, CENTRE, (low + high)[:, None], high - low) for low, high in (ends[:2], ends[4:])]
    count = len(regions)
    found = rules._relu_difference(*middles, bounds, np.arange(count), rules.Symbols(3, np.array([1e9])))
    low, high = found.bounds(-20)
    for i, region in enumerate(regions):
        values = [max(z, 0) - max(y, 0) for z, y in exhaustive(list(region))]
        assert low[i, 0] <= min(values) * 2**20, region
        assert max(values) * 2**20 <= high[i, 0], region


def test_sums_that_may_overflow_are_refuted_by_their_size() -> None:
    for top, exponent in ((2.0**40, 61), (1.0, 101)):
        with pytest.raises(Refuted, match="overflow"):
            rounding._relative([(column(top), exponent)], 3)
    assert rounding._relative([(column(2.0**38), 61)], 3)


def test_bounds_of_a_pair_sharpen_each_other_soundly() -> None:
    """z in [-10, 10], y in [2, 4], D = z - y in [-1, 1]: so z in [1, 5]."""
    z, y, d = (
        Form(0, CENTRE, np.full((1, 1, 1), float(centre)), np.full((1, 1), float(radius)))
        for centre, radius in ((0, 10), (3, 1), (0, 1))
    )
    b = rules.bounds_of(rules.Values(z, y, d), np.array([0]))
    unit = 2**b.unit
    assert b.z[0][0, 0] * unit <= 1
    assert b.z[0][0, 0] * unit >= 1 - 2 * unit
    assert b.z[1][0, 0] * unit >= 5
    assert b.z[1][0, 0] * unit <= 5 + 2 * unit
    apart = Form(0, CENTRE, np.full((1, 1, 1), 100.0), np.zeros((1, 1)))
    with pytest.raises(rules.Inconsistent):
        rules.bounds_of(rules.Values(apart, y, d), np.array([0]))


def test_the_budget_of_symbols_is_kept_leaf_by_leaf() -> None:
    symbols = rules.Symbols(5, np.array([2.0, 0.0, 9.0]))
    wanted = np.array([[True, True, False], [True, True, True], [True, False, True]])
    granted = symbols.grant(wanted)
    assert granted.tolist() == [[True, False, False], [True, False, True], [False, False, True]]
    assert symbols.left.tolist() == [0, 0, 7]
    assert symbols.block == 6


def test_differences_and_totals_keep_both_remainders() -> None:
    a, b = (Form(0, CENTRE, np.full((1, 1, 1), v), np.full((1, 1), r)) for v, r in ((9.0, 2.0), (4.0, 3.0)))
    for found, centre in ((rules.difference(a, b), 5), (rules.total(a, b), 13)):
        unit = Fraction(2) ** found.exponent
        assert (int(found.body[0, 0, 0]) * unit, int(found.rem[0, 0]) * unit) == (centre, 5)


def test_the_narrower_form_is_taken_whole_value_by_value() -> None:
    a = Form(0, CENTRE, column(1, 2)[:, None], column(4, 1))
    b = Form(1, CENTRE, column(10, 20)[:, None], column(1, 1))
    for found in (rules.narrower(a, b), rules.narrower(b, a)):
        unit = Fraction(2) ** found.exponent
        assert [int(v) * unit for v in found.body.ravel()] == [20, 2]
        assert [int(v) * unit for v in found.rem.ravel()] == [2, 1]


# the lift


def step(name: str, kind: str, source: str, count: int, **more: Any) -> Step:
    return Step(name, kind, (source,), (count,), **more)


def alone(*steps: Step) -> Program:
    return Program("x", (3,), False, steps, steps[-1].name, "")


def stages(first: Program, second: Program, *entries: Correspondence) -> list[Stage]:
    return stages_of_pair(first, second, entries)


def test_a_rule_for_d_needs_its_premise() -> None:
    """The compact ReLU reads other elements than those it stands for: its D must not come from the rule."""
    net, order = alone(step("r", "relu", "x", 3)), Correspondence("r", "r", 0, (0, 2, 1))
    assert stages(net, net)[0].aligned
    assert not stages(net, net, order)[0].aligned
    taps = np.array([0, 1, 2])
    moved = alone(step("r", "gather", "x", 3, taps=taps[::-1].copy()))
    still = alone(step("r", "gather", "x", 3, taps=taps))
    assert stages(still, still)[0].aligned
    assert not stages(still, moved)[0].aligned
    assert stages(still, moved, Correspondence("r", "r", 0, (2, 1, 0)))[0].aligned


def test_fills_and_signs_belong_to_the_premise() -> None:
    taps = np.array([0, -1, 2])
    nets = [alone(step("r", "gather", "x", 3, taps=taps, bias=fill)) for fill in (None, integers([1], ()))]
    nets.append(alone(step("r", "gather", "x", 3, taps=taps, bias=integers([2], ()))))
    for i, first in enumerate(nets):
        for j, second in enumerate(nets):
            assert stages(first, second)[0].aligned is (i == j)
    plus, minus = (alone(Step("s", "sum", ("x", "x"), (3,), signs=(1, s))) for s in (1, -1))
    assert stages(plus, plus)[0].aligned
    assert not stages(plus, minus)[0].aligned


def test_every_input_of_a_sum_must_be_kept_alike() -> None:
    net = Program(
        "x", (3,), False, (step("r", "relu", "x", 3), Step("s", "sum", ("x", "r"), (3,), signs=(1, 1))), "s", ""
    )
    assert stages(net, net)[1].aligned
    assert not stages(net, net, Correspondence("r", "r", 0, (0, 2, 1)))[1].aligned


def test_the_difference_of_two_biases_carries_both_errors() -> None:
    first, second = (
        Step("y", "affine", ("x",), (1,), bias=Real(np.array([v]), np.array([0]), np.array([e])))
        for v, e in ((2.0**52, 300.0), (2.0**51, 500.0))
    )
    for a, b in ((first, second), (second, first)):
        whole, error, unit = _bias(a, b, np.array([0]))
        assert whole is not None
        assert error is not None
        assert int(whole[0]) * Fraction(2) ** unit == (2**51 if a is first else -(2**51))
        assert int(error[0]) * Fraction(2) ** unit >= 800
    same = _bias(first, Step("y", "affine", ("x",), (1,), bias=integers([1], (1,))), np.array([0]))
    assert same[1] is not None
    assert int(same[1][0]) * Fraction(2) ** same[2] >= 300


def test_kept_elements_are_those_of_the_axis() -> None:
    entry = Correspondence("a", "a", 1, (2, 0))
    found = kept_elements((2, 3), (2, 2), entry)
    assert found is not None
    assert found.tolist() == [2, 0, 5, 3]


# forged certificates: small changes of a true one, sealed again


def forged(name: str, path: Path, change: Callable[[dict[str, Any]], object]) -> Verdict:
    data = json.loads((GOLDEN / f"{name}.json").read_text())
    del data["seal"]
    change(data)
    text = json.dumps(data)[:-1] + ",\n"
    path.write_text(f'{text} "seal": "{hashlib.sha256(text.encode()).hexdigest()}"\n}}\n')
    return audit(path, GOLDEN / "original.onnx", GOLDEN / "compact.onnx").verdict


def tree(data: dict[str, Any], text: str, leaves: int) -> None:
    data["evidence"] = [{"leaves": leaves, "tree": text}]


def swap_networks(data: dict[str, Any]) -> None:
    claim = data["claim"]
    claim["original"], claim["compact"] = claim["compact"], claim["original"]


def almost_empty(data: dict[str, Any]) -> None:
    for box in data["claim"]["domain"]:
        box.update(lower=["1." + "0" * 30 + "1"] * len(box["lower"]), upper=["1"] * len(box["upper"]))


FORGERIES: dict[str, tuple[Callable[[dict[str, Any]], object], Verdict]] = {
    "unchanged": (lambda d: None, Verdict.ACCEPT),
    "epsilon 0": (lambda d: d["claim"].update(epsilon="0"), Verdict.REJECT),
    "epsilon negative": (lambda d: d["claim"].update(epsilon="-1"), Verdict.MALFORMED),
    "one leaf stated too many": (
        lambda d: d["evidence"][0].update(leaves=d["evidence"][0]["leaves"] + 1), Verdict.REJECT),
    "no leaf stated": (lambda d: d["evidence"][0].update(leaves=0), Verdict.MALFORMED),
    "no tree": (lambda d: d.update(evidence=[]), Verdict.MALFORMED),
    "half a tree": (lambda d: tree(d, "0:0p0 .", 1), Verdict.MALFORMED),
    "too much of a tree": (lambda d: tree(d, ". .", 2), Verdict.MALFORMED),
    "no domain": (lambda d: (d["claim"].update(domain=[]), d.update(evidence=[])), Verdict.MALFORMED),
    "another input count": (lambda d: d["claim"].update(inputs=1), Verdict.MALFORMED),
    "another output count": (lambda d: d["claim"].update(outputs=d["claim"]["outputs"] + 1), Verdict.REJECT),
    "networks swapped": (swap_networks, Verdict.REJECT),
    "another digest": (lambda d: d["claim"]["compact"].update(digest="0" * 64), Verdict.REJECT),
    "another hash": (lambda d: d["claim"]["original"]["files"][0].update(sha256="0" * 64), Verdict.REJECT),
    "another norm": (lambda d: d["claim"].update(norm="l2"), Verdict.UNSUPPORTED),
    "another rule": (lambda d: d["rule"].update(name="none"), Verdict.UNSUPPORTED),
    "another version": (lambda d: d.update(version=1), Verdict.UNSUPPORTED),
    "version false": (lambda d: d.update(version=False), Verdict.UNSUPPORTED),
    "separate with a lift": (lambda d: d["rule"].update(name="separate"), Verdict.MALFORMED),
    "a box almost empty": (almost_empty, Verdict.MALFORMED),
    "lift twice": (lambda d: d.update(lift=d["lift"] * 2), Verdict.REJECT),
    "lift of a value unknown": (lambda d: d["lift"][0].update(original="nothing"), Verdict.REJECT),
}  # fmt: skip


@pytest.mark.parametrize("name", ["v0_real", "v0_float32"])
@pytest.mark.parametrize("forgery", FORGERIES)
def test_forged_certificates_get_their_verdict(tmp_path: Path, name: str, forgery: str) -> None:
    change, verdict = FORGERIES[forgery]
    assert forged(name, tmp_path / "forged.json", change) is verdict


def test_float32_claims_need_float32_networks(tmp_path: Path) -> None:
    from verify.certificate.emit import emit_certificate
    from verify.network.graph import build
    from verify.network.write_onnx import write_onnx
    from verify.spec.box import Box
    from verify.spec.deviation import Leaf

    for kind, verdict in (("float32", Verdict.ACCEPT), ("float64", Verdict.UNSUPPORTED)):
        parameters = {"w": np.ones((1, 1), kind)}
        write_onnx(
            build("x", (1,), [("y", "linear", ("x",), {"weight": "w"}, {})], "y", parameters), tmp_path / "n.onnx"
        )
        paths = {"original": tmp_path / "n.onnx", "compact": tmp_path / "n.onnx"}
        emit_certificate(
            tmp_path / "c.json", **paths, boxes=[Box.from_floats([0], [1])], epsilon=Fraction(1), lift=(),
            rule="pair_zonotope", parameters={"symbols": 10}, trees=[Leaf()], arithmetic="float32",
        )  # fmt: skip
        assert audit(tmp_path / "c.json", **paths).verdict is verdict


def test_the_report_says_what_was_read(tmp_path: Path) -> None:
    path = GOLDEN / "v0_real.json"
    report = audit(path, GOLDEN / "original.onnx", GOLDEN / "compact.onnx")
    files = [path, GOLDEN / "original.onnx", GOLDEN / "compact.onnx"]
    assert report.hashes == tuple((f.name, hashlib.sha256(f.read_bytes()).hexdigest()) for f in files)
    claim = json.loads(path.read_text())["claim"]
    assert claim["epsilon"] in report.claim_words
    assert f"{claim['inputs']} coordinates" in report.claim_words
    assert report.leaves == 1 or report.leaves == json.loads(path.read_text())["evidence"][0]["leaves"]
    assert report.limits == check.LIMITS[False]


def test_the_proved_bound_is_the_least_epsilon(tmp_path: Path) -> None:
    """epsilon at the bound is proved, and just below it is not: the bound is neither too small nor made up."""
    for name in ("v0_real", "v0_float32"):
        report = audit(GOLDEN / f"{name}.json", GOLDEN / "original.onnx", GOLDEN / "compact.onnx")
        assert report.bound is not None
        bound = report.bound
        for factor, verdict in ((Fraction(1), Verdict.ACCEPT), (1 - Fraction(1, 2**60), Verdict.REJECT)):
            text = str(bound * factor)
            assert forged(name, tmp_path / "b.json", lambda d, t=text: d["claim"].update(epsilon=t)) is verdict


# moves


def test_joined_values_and_their_fill_are_in_place() -> None:
    """Two inputs of different units one after the other; -1 takes the constant, and only there."""
    first = Form(0, CENTRE, column(1, 2)[:, None] * np.ones(3), np.full((2, 3), 1.0))
    second = Form(2, CENTRE, column(10)[:, None] * np.ones(3), np.full((1, 3), 2.0))
    one = Step("g", "gather", ("a", "b"), (4,), np.array([2, -1, 0, 1]), bias=from_bits(b"\x00\x00\xc0\x40", "float32"))
    stage = Stage(one, (0, 1))
    found = rules._gather(stage, [rules.Values(first), rules.Values(second)], rules.Symbols(2, np.zeros(3))).z
    unit = Fraction(2) ** found.exponent
    for leaf in range(3):
        assert [int(v) * unit for v in found.body[:, 0, leaf]] == [40, 6, 1, 2]
        assert [int(v) * unit for v in found.rem[:, leaf]] == [8, 0, 1, 1]


def test_a_maximum_is_taken_over_every_column_and_no_other() -> None:
    """Three competitors, the largest in each place in turn; a missing one counts as absent, not as 0."""
    for place_of_largest in range(3):
        values = [-5.0, -6.0, -7.0]
        values[place_of_largest] = -1.0
        form = Form(0, CENTRE, column(*values)[:, None], np.zeros((3, 1)))
        for taps, largest in (([[0, 1, 2]], max(values)), ([[0, 1, -1]], max(values[:2]))):
            stage = Stage(Step("m", "max", ("x",), (1,), np.array(taps)), (0,))
            found = rules._max(stage, [rules.Values(form)], rules.Symbols(2, np.array([9.0]))).z
            unit = Fraction(2) ** found.exponent
            assert abs(int(found.body[0, 0, 0]) * unit - Fraction(largest)) <= int(found.size[0, 0]) * unit
            low, high = found.bounds(-3)
            assert (low[0, 0] / 8, high[0, 0] / 8) == (largest, largest)


def test_a_lift_names_elements_that_are_there() -> None:
    for kept in ((-1,), (3,), (0, 0), ()):
        with pytest.raises(Refuted):
            kept_elements((3,), (len(kept),), Correspondence("a", "a", 0, kept))


def test_a_split_names_a_coordinate_that_is_there() -> None:
    box = ((Fraction(0), Fraction(1)),)
    assert len(list(walk("0:1p-1 . .", box))) == 2
    with pytest.raises(Malformed):
        list(walk("1:1p-1 . .", box))


@pytest.mark.parametrize(("length", "positions"), [(3, 1), (LONGEST_ROW, 2), (LONGEST_ROW + 1, 1), (5000, 2049)])
def test_long_rows_are_cut_and_no_column_is_lost(length: int, positions: int) -> None:
    taps = np.broadcast_to(np.arange(length), (1, positions, length))
    linear = linear_map(np.ones((1, 1, length)), np.zeros((1, 1, length)), 0, taps, length)
    parts = linear.cut()
    assert np.concatenate([part.taps[0, -1] for part in parts]).tolist() == list(range(length))
    assert all(part.taps.shape[2] == part.both.shape[2] == part.upper.shape[2] <= LONGEST_ROW for part in parts)
    assert (parts[0] is linear) == (length <= LONGEST_ROW)


@pytest.mark.parametrize("exponent", [-7, 0, 9])
def test_magnitudes_are_not_below_what_they_bound(exponent: int) -> None:
    """Of inputs with more digits than are carried."""
    linear = linear_map(np.full((1, 1, 2), 3.0), np.zeros((1, 1, 2)), 0, np.arange(2).reshape(1, 1, 2), 2)
    values = np.array([[2.0**38 + 1], [-5.0]])
    x = Form(exponent, CENTRE, values[:, None], np.ones((2, 1)))
    ((size, unit),) = rounding._magnitudes(linear, x)
    exact = 3 * (2**38 + 2 + 6) * Fraction(2) ** exponent
    assert exact <= int(size[0, 0]) * Fraction(2) ** unit <= exact * Fraction(1001, 1000)
