"""Maps and their images, number by number: what is stored, what is lost, and that the loss is counted and no more."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from verify.audit import linear as module
from verify.audit.exact import LARGEST, LIMB, LONGEST_ROW, Resource
from verify.audit.form import CENTRE, Form
from verify.audit.linear import LinearMap, apply_map, bounded_sums, image, linear_map

TWO = Fraction(2)
LEAVES = 3


def whole(values: np.ndarray) -> np.ndarray:
    """As integers of any size."""
    assert (values == np.rint(values)).all()
    return np.array([int(v) for v in values.ravel().tolist()], dtype=object).reshape(values.shape)


def applied(weights: np.ndarray, taps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The sum of weights (g, o, k) times values (n, ...), flattened (g, o, p), one by one."""
    padded = np.concatenate([values, 0 * values[:1]])
    rows = [
        sum((w * padded[t] for w, t in zip(row, tap, strict=True)), start=0 * values[0])
        for group, places in zip(weights, taps, strict=True) for row in group for tap in places
    ]  # fmt: skip
    return np.array(rows, dtype=object)


def stored(linear: LinearMap) -> np.ndarray:
    rows = linear.rows
    return whole(linear.both[:, :rows]) * 2**LIMB + whole(linear.both[:, rows:])


MATRICES = [
    ("small", 2**10, 0), ("one limb", 2**19, 5), ("two limbs", 2**40 - 1, 0), ("just too wide", 2**40, 0),
    ("wide", 2**52, 3), ("wide and open", 2**52, 2**20),
]  # fmt: skip


@pytest.mark.parametrize(("name", "top", "radius"), MATRICES)
@pytest.mark.parametrize("sign", [-1, 1])
def test_limbs_hold_the_weights_up_to_what_is_counted(name: str, top: int, radius: int, sign: int) -> None:
    rng = np.random.default_rng(len(name))
    weights, errors = rng.integers(-top, top + 1, (2, 3, 4)), rng.integers(0, radius + 1, (2, 3, 4))
    weights[0, 0], errors[0, 0], weights[1, 2, 3] = 0, 0, sign * top
    weights[1, 1] = sign * 2 ** (top.bit_length() - 1)
    weights *= np.where(sign * weights < 0, -1, 1)  # all of one sign
    linear = linear_map(weights.astype(float), errors.astype(float), -7, np.zeros((2, 1, 4), dtype=int), 1)
    assert linear.exponent == -7 + max(0, top.bit_length() - 40)
    unit, scale = TWO ** (linear.exponent + 7), TWO ** (linear.upper_exponent + 7)
    hi, lo = linear.both[:, :3], linear.both[:, 3:]
    assert linear.tops == tuple(int(np.abs(a).max()) for a in (hi, lo, linear.upper))
    assert linear.tops[0] <= 2**20
    assert linear.tops[1] <= 2**19
    assert linear.tops[2] <= 2**20
    kept = stored(linear)
    for at, weight in np.ndenumerate(weights):
        size = abs(int(weight)) + int(errors[at])
        assert abs(int(weight) - kept[at] * unit) + int(errors[at]) <= int(linear.loss[at[:2]]) * unit
        assert size <= int(linear.upper[at]) * scale < size + unit + scale
        assert (linear.upper[at] == 0) == (size == 0)
    for at, loss in np.ndenumerate(linear.loss):
        lost = max(abs(int(w) - k * unit) + int(e) for w, k, e in zip(weights[at], kept[at], errors[at], strict=True))
        assert int(loss) * unit < lost + 2 * unit
        assert loss == 0 or lost > 0
    assert linear.rows == 3


@pytest.mark.parametrize(
    ("taps", "inputs", "in_order"),
    [
        ([[[0, 1, 2]]], 3, True), ([[[0, 1, 2]]], 4, False), ([[[0, 2, 1]]], 3, False), ([[[0, 1, -1]]], 3, False),
        ([[[0, 1, 2], [0, 1, 2]]], 3, False), ([[[0]]], 1, True), ([[[1, 1, 2]]], 3, False),
    ],
)  # fmt: skip
def test_values_are_in_order_only_where_each_is_read_once_in_its_place(
    taps: list[list[list[int]]], inputs: int, in_order: bool
) -> None:
    weights = np.ones((1, 1, len(taps[0][0])))
    assert linear_map(weights, 0 * weights, 0, np.array(taps), inputs).in_order is in_order


@pytest.mark.parametrize("cuts", [1, 2])
def test_maps_of_some_columns_add_up(cuts: int) -> None:
    length = cuts * LONGEST_ROW + 3
    weights = np.arange(2.0 * length).reshape(1, 2, length)
    linear = linear_map(weights, 0 * weights, 0, np.arange(length)[None, None], length)
    parts = linear.cut()
    assert [p.taps.shape[2] for p in parts] == [LONGEST_ROW] * cuts + [3]
    assert not any(p.in_order for p in parts)
    for name in ("both", "upper", "taps"):
        assert np.array_equal(np.concatenate([getattr(p, name) for p in parts], axis=2), getattr(linear, name))
    short = linear.columns(slice(0, LONGEST_ROW))
    assert [short] == short.cut()


def example(kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Weights, radii, taps and how many values they read."""
    rng = np.random.default_rng(5)
    groups, rows, positions, length, n = {
        "in order": (1, 3, 1, 5, 5), "windows": (2, 2, 3, 4, 6), "single": (3, 1, 2, 1, 4), "row": (1, 2, 1, 3, 5),
        "long": (1, 1, 1, LONGEST_ROW + 70, LONGEST_ROW + 70),
    }[kind]  # fmt: skip
    weights = rng.integers(2**50, 2**52, (groups, rows, length)) * rng.choice([-1, 1], (groups, rows, length))
    taps = rng.integers(-1, n, (groups, positions, length))
    if kind in ("in order", "long"):
        taps = np.arange(n)[None, None]
    return weights, rng.integers(0, 2**40, weights.shape), taps, n


def form(n: int, exponent: int = -9, top: int = 2**36) -> Form:
    rng = np.random.default_rng(n)
    body = rng.integers(-top, top, (n, 5, LEAVES)).astype(float)
    body[n // 2], body[0, :, 1] = 0.0, 0.0
    rem = rng.integers(top // 2, top, (n, LEAVES)).astype(float)
    rem[n // 2], rem[0, 1] = 0.0, 0.0
    return Form(exponent, ((0, 1), (4, 3), (7, 1)), body, rem)


KINDS = ["in order", "windows", "single", "row", "long"]


def added(arrays: list[tuple[np.ndarray, int]], unit: int) -> Any:
    return sum(whole(a) * 2 ** (e - unit) for a, e in arrays)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("digits", [11, 19, 41, 52])
@pytest.mark.parametrize("moved", [False, True])
def test_what_an_image_leaves_out_is_in_its_slacks(kind: str, digits: int, moved: bool) -> None:
    weights, radii, taps, n = example(kind)
    weights, radii = weights >> (52 - digits), radii * (digits == 52)
    weights[-1, -1, 0] = 0
    x = form(n, 5 if moved else -9)
    linear = linear_map(weights.astype(float), radii.astype(float), -60, taps, n)
    outputs = len(weights) * weights.shape[1] * taps.shape[1]
    order = np.random.default_rng(1).permutation(outputs) if moved else np.arange(outputs)
    summands, slacks = image(linear, x, order if moved else None)
    unit = -60 + x.exponent - 60
    parts = [p for s in summands for p in s.parts(slice(None))]
    found = added([(p.body, p.exponent) for p in parts], unit)
    kept = stored(linear) * 2 ** (linear.exponent + 60) * 2**60
    exact = applied(kept, taps, whole(x.body))[order]
    lost = np.abs(found - exact).sum(axis=1)
    size = whole(x.size) - whole(x.rem)
    upper = applied(whole(np.abs(weights)) + radii, taps, whole(x.rem))[order] * 2**60
    open_ = np.abs(kept - whole(weights) * 2**60) + whole(radii) * 2**60
    needed = lost + upper + applied(open_, taps, size)[order]
    slack = added(slacks, unit)
    assert (slack >= needed).all()
    most = 3 * len(linear.cut()) * 2 ** (linear.exponent + x.exponent + LIMB - unit)  # half a unit of each column
    loss = whole(np.repeat(linear.loss[:, :, None], weights.shape[2], axis=2)) * 2 ** (linear.exponent + 60 + 60)
    most = most + upper + applied(loss, taps, whole(x.size))[order]
    assert (slack * 1000 <= most * 1001 + most.max() // 50).all()  # sums are cut to 20 bits of the largest
    for s in summands:
        assert s.shape == (outputs, LEAVES)
        assert s.blocks == x.blocks
        most_of_all = max(float(np.abs(p.body).max()) for p in s.parts(slice(None)))
        assert most_of_all <= s.reach < LARGEST
        for columns, one in ((slice(1, 3), s.parts(slice(1, 3))), (slice(0, 1), s.parts(slice(0, 1)))):
            for part, all_columns in zip(one, s.parts(slice(None)), strict=True):
                assert np.array_equal(part.body, all_columns.body[:, columns])
                assert part.exponent == all_columns.exponent
                assert np.abs(part.body).max() <= part.reach
                assert part.active is not None
                assert not part.body[~np.broadcast_to(part.active, (outputs, LEAVES)).any(axis=1)].any()
        for total, (guess, exponent) in zip(s.parts(slice(None)), s.sizes(2, 1), strict=True):
            assert exponent == total.exponent
            assert np.array_equal(guess, np.abs(total.body).sum(axis=1)[:, ::2])
        for total, (guess, _) in zip(s.parts(slice(None)), s.sizes(1, 3), strict=True):
            assert np.array_equal(guess, 3 * np.abs(total.body[:, ::3]).sum(axis=1))


def test_results_of_zero_weights_are_not_active() -> None:
    weights = np.array([[[1.0, 0], [0, 0]], [[0, 0], [0, 3]]])
    linear = linear_map(weights, 0 * weights, 0, np.array([[[0, 1], [1, 2], [2, 0]]] * 2), 3)
    assert linear.active.tolist() == [[True]] * 3 + [[False]] * 6 + [[True]] * 3
    order = np.array([3, 0, 9, *(i for i in range(12) if i not in (3, 0, 9))])
    (summand,), slacks = image(linear, form(3), order)
    assert summand.parts(slice(None))[0].active.ravel().tolist()[:3] == [False, True, True]
    for radius, _ in slacks:
        assert not radius[0].any()


@pytest.mark.parametrize(("weight", "size", "rem"), [(0, 1, 1), (1, 0, 0)])
def test_zeros_have_the_image_zero(weight: int, size: int, rem: int) -> None:
    weights = np.full((2, 3, 2), float(weight))
    x = Form(4, CENTRE, np.full((4, 1, LEAVES), float(size)), np.full((4, LEAVES), float(rem)))
    (zero,), slacks = image(linear_map(weights, 0 * weights, 0, np.zeros((2, 5, 2), dtype=int), 4), x)
    assert not slacks
    assert zero.shape == (30, LEAVES)
    assert zero.reach == 0
    assert zero.blocks == CENTRE


def test_remainders_alone_have_an_image() -> None:
    weights = np.array([[[2.0, -3.0]]])
    x = Form(0, CENTRE, np.zeros((2, 1, 1)), np.array([[0.0], [5.0]]))
    _, slacks = image(linear_map(weights, 0 * weights, 0, np.arange(2)[None, None], 2), x)
    unit = min(e for _, e in slacks)
    assert 15 <= added(slacks, unit)[0, 0] * TWO**unit <= 15 + 2**LIMB


@pytest.mark.parametrize("kind", KINDS[:4])
@pytest.mark.parametrize("room", [1, 100, 2**25])
def test_a_map_is_applied_however_many_columns_are_gathered(
    kind: str, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COLUMN_BYTES", room)
    weights, _, taps, n = example(kind)
    weights >>= 40
    linear = linear_map(weights.astype(float), 0.0 * weights, 0, taps, n)
    values = np.random.default_rng(3).integers(-99, 99, (n, 7))
    found = apply_map(linear, weights.astype(float), values.astype(float))
    assert found.shape == (*weights.shape[:2], taps.shape[1], 7)
    assert (found.reshape(-1, 7) == applied(weights, taps, values)).all()


def test_products_that_could_reach_the_limit_are_refused() -> None:
    weights = np.ones((1, 1, 2))
    linear = linear_map(weights, 0 * weights, 0, np.arange(2)[None, None], 2)
    values = np.ones((2, 1))
    top = LARGEST // 2 ** (LIMB + 1)
    assert bounded_sums(linear, weights, top - 1, values).tolist() == [[2]]
    for larger in (top, top + 1, 2 * top):
        with pytest.raises(Resource, match="remainders"):
            bounded_sums(linear, weights, larger, values)


def one_product(weight: float, value: float, columns: int = 1, length: int = 1) -> tuple[Any, Any]:
    """Summand and slacks of equal weights on equal values without remainders."""
    weights = np.full((1, 1, length), weight)
    x = Form(3, ((0, 1), (1, columns - 1)), np.full((length, columns, 1), value), np.zeros((length, 1)))
    (summand,), slacks = image(linear_map(weights, 0 * weights, 0, np.arange(length)[None, None], length), x)
    return summand, slacks


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize(
    ("weight", "value", "high", "middle"),
    [
        (3 * 2.0**20, 5 * 2.0**20 - 1, 15, 3 * 2**19), (2.0**19, 2.0**39 - 1, 0, 2**38), (7.0, 3 * 2.0**20 - 1, 0, 21),
        (5 * 2.0**20, 2.0**19, 5, 5 * 2**19), (5 * 2.0**20 - 3, 6 * 2.0**20 + 2, 35, 5 * 2**19 + 21),
    ],
)  # fmt: skip
def test_the_reach_of_products_is_that_of_their_limbs(
    weight: float, value: float, high: int, middle: int, sign: float
) -> None:
    for length in (1, 50):
        summand, _ = one_product(sign * weight, value, length=length)
        assert summand.reaches == (high * length, middle * length)
        for part, reach in zip(summand.parts(slice(None)), (high, middle), strict=True):
            assert np.abs(part.body).max() <= part.reach == reach * length <= summand.reach


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("length", "hi", "lo"), [(1, 2**20, 2**19), (50, 2**19 + 1, 1), (2048, 2**20, 2**19)])
def test_no_sum_of_limbs_exceeds_its_reach(length: int, hi: int, lo: int, sign: int) -> None:
    """Limbs of both signs, as large as they come, and products of the lowest that round to one more."""
    for weight in (hi * 2**20 - lo, hi * 2**19 + lo, lo, 1):
        for value in (2**39 - 2**19, 2**39 - 2**19 - 1, 2**19 + 1, 2**19, 2**20 - 1):
            summand, _ = one_product(float(min(weight, 2**40 - 1)), float(sign * value), length=length)
            for part in summand.parts(slice(None)):
                assert np.abs(part.body).max() <= part.reach < LARGEST


@pytest.mark.parametrize("columns", [1, 2, 9])
@pytest.mark.parametrize("value", [-1.0, 1.0, 2.0**19 - 1, -(2.0**19)])
def test_half_a_unit_of_the_lowest_products_is_lost_per_column(columns: int, value: float) -> None:
    summand, ((radius, exponent),) = one_product(1.0, value, columns)
    assert radius.tolist() == [[-(-columns // 2)]]
    assert exponent == LIMB + 3
    found = added([(p.body, p.exponent) for p in summand.parts(slice(None))], 0)
    assert abs(found - 8 * int(value)).sum() <= int(radius[0, 0]) * 2 ** (LIMB + 3)


@pytest.mark.parametrize(("length", "fits"), [(2**12 - 1, True), (2**12, False)])
def test_rows_that_are_not_cut_are_refused(monkeypatch: pytest.MonkeyPatch, length: int, fits: bool) -> None:
    """Of what weights leave open, a row of 2^12 terms might not be summed exactly."""
    monkeypatch.setattr(module, "LONGEST_ROW", 2**13)
    ones = np.ones((1, 1, length))
    linear = linear_map(ones, ones, 0, np.arange(length)[None, None], length)
    x = Form(0, CENTRE, np.full((length, 1, 1), 2.0**20), np.zeros((length, 1)))
    if fits:
        assert added(image(linear, x)[1], 0)[0, 0] == (length + 1) * 2**20
    else:
        with pytest.raises(Resource, match="remainders"):
            image(linear, x)


def test_products_beyond_the_exact_range_are_refused() -> None:
    ones = np.ones((1, 1, 2))
    linear = linear_map(ones, 0 * ones, 0, np.arange(2)[None, None], 2)
    x = Form(0, CENTRE, np.full((2, 1, 1), 2.0**39 - 1), np.zeros((2, 1)))
    for tops, fits in (((2**31, 0, 1), True), ((2**32, 0, 1), False), ((0, 2**31, 1), True), ((0, 2**32, 1), False)):
        if fits:
            assert image(replace(linear, tops=tops), x)[0]
        else:
            with pytest.raises(Resource, match="exceeds the exact range"):
                image(replace(linear, tops=tops), x)


def test_a_map_of_nothing_loses_nothing() -> None:
    nothing = np.zeros((1, 2, 0))
    linear = linear_map(nothing, nothing, 0, np.zeros((1, 1, 0), dtype=int), 0)
    assert linear.loss.tolist() == [[0, 0]]
    assert linear.tops == (0, 0, 0)
