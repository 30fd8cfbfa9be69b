"""The arithmetic kernel against exact fractions."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.audit import exact
from verify.audit.exact import Memory, Real, Resource
from verify.audit.form import CENTRE, Form, Term, absolute_sum, check_memory, constant, settle
from verify.audit.linear import LinearMap, image, linear_map
from verify.audit.program import Malformed, enclosing, fractions, from_bits, integers, normal, root_bounds

FEW = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 2**32 - 1)


def random_form(rng: np.random.Generator, n: int, leaves: int = 2, top: int = 38, columns: int = 4) -> Form:
    body = rng.integers(-(2**top) // columns, 2**top // columns, (n, 1 + columns, leaves)).astype(np.float64)
    body[rng.random(body.shape) < 0.2] = 0.0
    rem = rng.integers(0, 2 ** (top - 10), (n, leaves)).astype(np.float64)
    return Form(int(rng.integers(-60, 10)), ((0, 1), (1, columns)), body, rem)


def point(form: Form, symbols: dict[int, list[Fraction]], eta: np.ndarray) -> list[list[Fraction]]:
    """Exact values [n][leaf] of a form: symbols by block, `eta` (n, L) in {-1, 0, 1} for the remainders."""
    unit, values = Fraction(2) ** form.exponent, []
    weights_of_columns = [w for block, width in form.blocks for w in symbols[block][:width]]
    for i in range(len(form.body)):
        row = []
        for leaf in range(form.body.shape[2]):
            linear = sum(int(b) * w for b, w in zip(form.body[i, :, leaf].tolist(), weights_of_columns, strict=True))
            row.append(unit * (linear + int(form.rem[i, leaf]) * int(eta[i, leaf])))
        values.append(row)
    return values


def random_symbols(rng: np.random.Generator) -> dict[int, list[Fraction]]:
    return {0: [Fraction(1)], **{b: [Fraction(int(v), 8) for v in rng.integers(-8, 9, 64)] for b in range(1, 9)}}


def encloses(form: Form, symbols: dict[int, list[Fraction]], values: list[list[Fraction]]) -> bool:
    """Whether each value lies in the form at the given symbols, up to its remainder."""
    middle = point(form, symbols, np.zeros(form.rem.shape))
    unit = Fraction(2) ** form.exponent
    return all(
        abs(value - middle[i][leaf]) <= unit * int(form.rem[i, leaf])
        for i, row in enumerate(values)
        for leaf, value in enumerate(row)
    )


def prepared(numbers: Real, taps: np.ndarray, inputs: int) -> LinearMap:
    """The linear map of a matrix of numbers, as the auditor prepares it."""
    unit = numbers.top - 52
    return linear_map(*numbers.units(unit), unit, taps, inputs)


@FEW
@given(seeds, st.integers(1, 5), st.integers(1, 6), st.sampled_from([0, 10, 60]))
def test_matrix_product_encloses_the_exact_one(seed: int, rows: int, length: int, spread: int) -> None:
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(rows, length)) * 2.0 ** rng.integers(-spread, spread + 1, (rows, length))
    numbers[rng.random(numbers.shape) < 0.2] = 0.0
    real = from_bits(numbers.tobytes(), "float64").reshape(1, rows, length)
    form = random_form(rng, length)
    taps = np.arange(length)[None, None, :]
    result = settle(*image(prepared(real, taps, len(form.rem)), form))
    symbols, eta = random_symbols(rng), rng.integers(-1, 2, form.rem.shape)
    x = point(form, symbols, eta)
    exact_weights = [[Fraction(v) for v in row] for row in numbers.tolist()]
    y = [[sum(w * x[k][leaf] for k, w in enumerate(row)) for leaf in range(2)] for row in exact_weights]
    assert encloses(result, symbols, y)


@FEW
@given(seeds)
def test_windows_with_missing_elements_and_groups(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups, rows, positions, length, n = 2, 2, 3, 4, 5
    taps = rng.integers(-1, n, (groups, positions, length))
    numbers = rng.normal(size=(groups, rows, length)).astype(np.float32)
    real = from_bits(numbers.tobytes(), "float32").reshape(groups, rows, length)
    form = random_form(rng, n)
    result = settle(*image(prepared(real, taps, len(form.rem)), form))
    symbols, eta = random_symbols(rng), rng.integers(-1, 2, form.rem.shape)
    x = [*point(form, symbols, eta), [Fraction(0)] * 2]
    y = [
        [sum(Fraction(float(numbers[g, o, k])) * x[taps[g, p, k]][leaf] for k in range(length)) for leaf in range(2)]
        for g in range(groups) for o in range(rows) for p in range(positions)
    ]  # fmt: skip
    assert encloses(result, symbols, y)


@FEW
@given(seeds, st.integers(-40, 40))
def test_sums_of_forms_in_other_units_and_blocks(seed: int, apart: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = random_form(rng, 3), random_form(rng, 3)
    a = Form(a.exponent, ((0, 1), (1, 2), (3, 2)), a.body, a.rem)
    b = Form(a.exponent + apart, ((0, 1), (5, 2), (1, 2)), b.body, b.rem)
    factor = rng.integers(-1024, 1025, b.rem.shape).astype(np.float64)
    offset = rng.integers(-(2**30), 2**30, b.rem.shape).astype(np.float64)
    slacks = [(a.rem, a.exponent), (b.rem * np.abs(factor), b.exponent - 10)]
    chosen = rng.random(a.rem.shape) < 0.5
    terms = [Term(a), Term(b, factor, 10), constant(offset, a.exponent - 3)]
    plain, promoted = settle(terms, slacks), settle(terms, slacks, chosen, 9)
    symbols, eta = random_symbols(rng), rng.integers(-1, 2, a.rem.shape)
    x, y = point(a, symbols, eta), point(b, symbols, eta)
    values = [
        [
            x[i][j] + y[i][j] * int(factor[i, j]) / 1024 + int(offset[i, j]) * Fraction(2) ** (a.exponent - 3)
            for j in range(2)
        ]
        for i in range(3)
    ]
    assert encloses(plain, symbols, values)
    assert (promoted.rem[chosen] == 0).all()
    assert np.array_equal(promoted.size, absolute_sum(promoted.body) + promoted.rem)
    assert np.array_equal(promoted.size, plain.size)


@FEW
@given(seeds)
def test_bounds_hold_at_the_extreme_points(seed: int) -> None:
    rng = np.random.default_rng(seed)
    form = random_form(rng, 2)
    for unit in (form.exponent, form.exponent + 7, form.exponent - 3):
        low, high = form.bounds(unit)
        for sign in (-1, 1):
            reach = form.body[:, 0] + sign * form.radius
            scaled = [[int(v) * Fraction(2) ** (form.exponent - unit) for v in row] for row in reach.tolist()]
            assert all(
                int(low[i, j]) <= v <= int(high[i, j]) for i, row in enumerate(scaled) for j, v in enumerate(row)
            )


def test_identical_weights_leave_no_remainder() -> None:
    rng = np.random.default_rng(0)
    real = from_bits(rng.normal(size=6).tobytes(), "float64").reshape(1, 2, 3)
    unit = real.top - 52
    whole, radius = real.units(unit)
    error = np.where(real.same(real), 0.0, 2 * radius)
    zero = linear_map(whole - whole, error, unit, np.arange(3)[None, None, :], 3)
    form = random_form(rng, 3)
    result = settle(*image(zero, form))
    assert not result.size.any()


@pytest.mark.parametrize("kind", ["float32", "float64", "float16"])
def test_bits_are_read_exactly(kind: str) -> None:
    rng = np.random.default_rng(1)
    values = (rng.normal(size=50) * 10.0 ** rng.integers(-4, 4, 50)).astype(kind)
    values[:4] = [0.0, -0.0, np.finfo(kind).smallest_subnormal, np.finfo(kind).max]
    assert fractions(from_bits(values.tobytes(), kind)) == [Fraction(float(v)) for v in values]


def test_bfloat16_is_the_upper_half_of_float32() -> None:
    values = np.array([1.5, -3.0, 2.0**-126, 0.0], dtype=np.float32)
    upper = (values.view(np.uint32) >> 16).astype("<u2")
    assert fractions(from_bits(upper.tobytes(), "bfloat16")) == [Fraction(float(v)) for v in values]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(bad: float) -> None:
    with pytest.raises(Malformed, match="NaN or infinite"):
        from_bits(np.array([1.0, bad], dtype=np.float32).tobytes(), "float32")


@FEW
@given(st.fractions(), st.fractions(min_value=0))
def test_enclosures_of_fractions_and_roots(low: Fraction, width: Fraction) -> None:
    real = enclosing([(low, low + width)])
    unit = Fraction(2) ** int(real.exponent[0])
    middle, slack = int(real.mantissa[0]) * unit, int(real.slack[0]) * unit
    assert middle - slack <= low
    assert low + width <= middle + slack
    if width > 0:
        a, b = root_bounds(width)
        assert a * a <= width <= b * b
        assert b - a <= a / 2**50


def test_out_of_range_is_never_computed() -> None:
    huge, apart = constant(np.full((1, 1), 2.0**51), 0), constant(np.ones((1, 1)), 600)
    assert settle([huge], []).size.max() < 2**40
    assert settle([huge], [(np.full((1, 1), 2.0**51), 300)]).rem.max() >= 2**38
    settled = settle([apart, constant(np.ones((1, 1)), -600)], [])
    assert settled.rem[0, 0] == 1  # what is lost in rounding is in the remainder
    with pytest.raises(Resource, match="blocks"):
        settle([huge, Term(Form(0, ((0, 2),), np.ones((1, 2, 1)), np.ones((1, 1))))], [])
    two = np.arange(2)[None, None, :]
    good = linear_map(np.full((1, 1, 2), 2.0**40), np.zeros((1, 1, 2)), 0, two, 2)
    form = Form(0, CENTRE, np.full((2, 1, 1), 2.0**38), np.ones((2, 1)))
    assert settle(*image(good, form)).body[0, 0, 0] > 0
    with pytest.raises(Resource, match="exceeds the exact range"):
        image(replace(good, tops=(2**33, 0, 2**20)), form)
    with pytest.raises(Resource, match="exceeds the exact range"):
        image(replace(good, tops=(2**20, 0, 2**31)), form)
    with pytest.raises(Memory):
        check_memory(2**20, 2**10, ((0, 1), (1, 100)))


def test_long_rows_are_cut() -> None:
    rng = np.random.default_rng(3)
    length = 2 * exact.LONGEST_ROW + 5
    numbers = rng.normal(size=length)
    real = from_bits(numbers.tobytes(), "float64").reshape(1, 1, length)
    body = rng.integers(-(2**36), 2**36, (length, 1, 1)).astype(np.float64)
    form = Form(-36, CENTRE, body, np.ones((length, 1)))
    result = settle(*image(prepared(real, np.arange(length)[None, None, :], length), form))
    exact_value = sum(Fraction(w) * int(x) for w, x in zip(numbers.tolist(), body[:, 0, 0].tolist(), strict=True))
    assert encloses(result, {0: [Fraction(1)]}, [[exact_value * Fraction(2) ** -36]])


def test_equal_numbers_look_alike() -> None:
    single = from_bits(np.array([0.5, 3.0], dtype=np.float32).tobytes(), "float32")
    double = from_bits(np.array([0.5, 3.0]).tobytes(), "float64")
    assert single.same(double).all()
    assert single.same(normal(np.array([1.0, 6.0]), np.array([-1, -1]))).all()
    assert fractions(integers([3, -4], (2,))) == [3, -4]


def test_the_self_test_passes_and_notices_a_wrong_product(monkeypatch: pytest.MonkeyPatch) -> None:
    exact.self_test()
    honest = np.matmul

    def wrong(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        result = honest(a, b)
        return result + (np.arange(result.size).reshape(result.shape) == 17) if result.dtype.kind == "f" else result

    monkeypatch.setattr(np, "matmul", wrong)
    with pytest.raises(Resource, match="self test"):
        exact.self_test()
