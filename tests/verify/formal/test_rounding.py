"""Rounding: every affine map, and the element-wise step, against exact rational arithmetic without any tolerance."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.formal.form import DIFFERENCE, ORIGINAL, Fresh, combine, formed, sloped, with_fresh_written
from verify.formal.maps import AxisMean, Convolution, Dense, Diagonal, Gather, WindowMean, negation
from verify.formal.rounding import slack
from verify.formal.symbols import Ledger, packed

WINDOW = {"stride": (1, 2), "padding": (1, 0, 0, 1), "dilation": (1, 1)}


def numbers(rng, *shape):
    """Magnitudes from 2^-40 to 2^40, zeros, and cancelling neighbours."""
    values = rng.standard_normal(shape) * 2.0 ** rng.integers(-40, 41, shape)
    values[rng.random(shape) < 0.1] = 0.0
    flat = values.ravel()
    flat[1::7] = -flat[: len(flat[1::7]) * 7 : 7][: len(flat[1::7])] * (1 + 2.0**-50)
    return torch.from_numpy(flat.reshape(shape))


def a_map(kind, rng):
    n = 24  # (2, 3, 4) or 24
    if kind == "dense":
        return Dense(numbers(rng, 5, n))
    if kind == "dense on tokens":
        return Dense(numbers(rng, 3, 6), positions=4)
    if kind == "conv":
        return Convolution(numbers(rng, 3, 2, 2, 2), (2, 3, 4), groups=1, **WINDOW)
    if kind == "grouped conv":
        return Convolution(numbers(rng, 4, 1, 2, 2), (2, 3, 4), groups=2, **WINDOW)
    if kind == "diagonal":
        return Diagonal(numbers(rng, n), n)
    if kind == "picked diagonal":
        return Diagonal(numbers(rng, 7), n, index=torch.from_numpy(rng.integers(0, n, 7)))
    if kind == "negation":
        return negation(n)
    if kind == "gather":
        return Gather(torch.from_numpy(rng.integers(-1, n, 9)), n)
    if kind == "window mean":
        return WindowMean((2, 3, 4), (2, 2), torch.tensor(COUNTS), **WINDOW)
    return AxisMean((2, 3, 4), (0, 2))


COUNTS = [[2.0, 2.0], [4.0, 4.0], [4.0, 3.0]]
KINDS = (
    "dense", "dense on tokens", "conv", "grouped conv", "diagonal", "picked diagonal", "negation", "gather",
    "window mean", "axis mean",
)  # fmt: skip


def matrix(linear, kind):
    """The exact matrix: images of unit vectors, and exact reciprocals for means."""
    columns = linear(torch.eye(linear.inputs, dtype=torch.float64)).numpy()  # (inputs, outputs)
    exact = [[Fraction(float(v)) for v in row] for row in columns.T]
    if "mean" in kind:
        exact = [[v.limit_denominator(100) for v in row] for row in exact]
    return exact


def random_form(rng, n, fresh=False):
    rows = (numbers(rng, 4, 1, n), None, None, numbers(rng, 2, 1, n))
    form = formed(numbers(rng, 1, n), rows, numbers(rng, 1, n).abs(), inputs=2)
    if not fresh:
        return form
    index, used = packed(torch.from_numpy(rng.random((1, n)) < 0.2))
    size = numbers(rng, *index.shape).abs() * used
    half = torch.zeros(1, n, dtype=torch.float64).scatter_add_(1, index.T, size.T)
    wider = formed(form.centre, form.rows, form.remainder + half, 2)
    return type(form)(
        form.centre,
        form.rows,
        form.remainder,
        wider.radius,
        wider.size,
        wider.radius,
        2,
        Fresh(ORIGINAL, 4, index, size),
    )


def value(form, signs, share):
    """The value, exactly, for symbols +-1 and remainders taken up to a share of -1..1."""
    form = with_fresh_written(form)
    total = [Fraction(float(v)) for v in form.centre[0]]
    for block, rows in enumerate(form.rows):
        for k in range(0 if rows is None else len(rows)):
            total = [t + signs[block, k] * Fraction(float(g)) for t, g in zip(total, rows[k, 0], strict=True)]
    return [t + s * Fraction(float(r)) for t, s, r in zip(total, share, form.remainder[0], strict=True)]


def symbols_of(rng):
    return {(block, k): int(rng.choice([-1, 1])) for block in range(4) for k in range(64)}


def assert_inside(exact, form, signs):
    centre = value(form, signs, [0] * len(exact))
    remainder = [Fraction(float(r)) for r in form.remainder[0]]
    for e, c, r in zip(exact, centre, remainder, strict=True):
        assert abs(e - c) <= r
    lower, upper = form.bounds()
    for e, low, high in zip(exact, lower[0], upper[0], strict=True):
        assert Fraction(float(low)) <= e <= Fraction(float(high))


def product(rows, x):
    return [sum((a * b for a, b in zip(row, x, strict=True) if a), start=Fraction(0)) for row in rows]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fresh", [False, True])
def test_affine_maps_enclose_the_exact_image(kind, fresh):
    for seed in range(6):
        rng = np.random.default_rng([seed, KINDS.index(kind)])
        linear, form = a_map(kind, rng), random_form(rng, 24, fresh)
        offset = numbers(rng, linear.outputs) if seed % 2 else None
        image = combine([(linear, form)], offset)
        signs = symbols_of(rng)
        x = value(form, signs, [Fraction(int(s)) for s in rng.choice([-1, 1], 24)])
        exact = product(matrix(linear, kind), x)
        if offset is not None:
            exact = [e + Fraction(float(o)) for e, o in zip(exact, offset, strict=True)]
        assert_inside(exact, image, signs)


def test_sums_of_two_maps_enclose_the_exact_image():
    for seed in range(10):
        rng = np.random.default_rng([seed, 99])
        maps, forms = [a_map("dense", rng), a_map("dense", rng)], [random_form(rng, 24, True), random_form(rng, 24)]
        terms, offset = list(zip(maps, forms, strict=True)), numbers(rng, 5)
        signs = symbols_of(rng)
        parts = [product(matrix(m, "dense"), value(f, signs, [1] * 24)) for m, f in terms]
        parts.append([Fraction(float(o)) for o in offset])
        assert_inside([sum(v) for v in zip(*parts, strict=True)], combine(terms, offset), signs)


def test_coefficients_known_up_to_an_error_are_enclosed():
    for seed in range(10):
        rng = np.random.default_rng([seed, 7])
        coefficient, error = numbers(rng, 24), numbers(rng, 24).abs() * 2.0**-20
        form = random_form(rng, 24)
        image = combine([(Diagonal(coefficient, 24, error=error), form)])
        signs = symbols_of(rng)
        x = value(form, signs, [1] * 24)
        true = [
            Fraction(float(c)) + int(rng.choice([-1, 1])) * Fraction(float(e))
            for c, e in zip(coefficient, error, strict=True)
        ]
        assert_inside([a * b for a, b in zip(true, x, strict=True)], image, signs)


def test_element_wise_steps_enclose_the_exact_image():
    for seed in range(20):
        rng = np.random.default_rng([seed, 5])
        first, second = random_form(rng, 12), random_form(rng, 12)
        a, b = (torch.from_numpy(rng.integers(-1024, 1025, (1, 12)) * 2.0**-10) for _ in range(2))
        middle, half = numbers(rng, 1, 12), numbers(rng, 1, 12).abs()
        everywhere = torch.ones(1, 12, dtype=torch.bool)
        index = torch.arange(12)[:, None]
        fresh = Fresh(DIFFERENCE, 2, index, half.T)
        image = sloped([(a, first), (b, second)], middle, half, rounded=everywhere, granted=everywhere, fresh=fresh)
        signs = symbols_of(rng)
        x, y = value(first, signs, [1] * 12), value(second, signs, [-1] * 12)
        exact = [
            Fraction(float(s)) * u
            + Fraction(float(t)) * v
            + Fraction(float(m))
            + signs[DIFFERENCE, 2 + i] * Fraction(float(h))
            for i, (s, u, t, v, m, h) in enumerate(zip(a[0], x, b[0], y, middle[0], half[0], strict=True))
        ]
        assert_inside(exact, image, signs)


def test_exact_elements_keep_their_remainder():
    rng = np.random.default_rng(0)
    form = random_form(rng, 12)
    one, zero = torch.ones(1, 12, dtype=torch.float64), torch.zeros(1, 12, dtype=torch.float64)
    nothing = torch.zeros(1, 12, dtype=torch.bool)
    image = sloped([(one, form)], zero, zero, rounded=nothing, granted=nothing, fresh=None)
    assert torch.equal(image.remainder, form.remainder)
    assert torch.equal(image.centre, form.centre)
    moved = combine([(Gather(torch.arange(12).flip(0), 12), form)])
    assert torch.equal(moved.remainder, form.remainder.flip(1))


def test_slack_is_small_grows_and_has_a_limit():
    assert slack(0) < slack(10) < slack(10**9) < 1e-6
    with pytest.raises(OverflowError):
        slack(2**41)


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 7))
@settings(deadline=None, max_examples=60)
def test_packed_lists_the_true_elements_in_order(seed, batch, n):
    mask = torch.from_numpy(np.random.default_rng(seed).random((batch, n)) < 0.5)
    index, used = packed(mask)
    for b in range(batch):
        assert index[: int(used[:, b].sum()), b].tolist() == mask[b].nonzero()[:, 0].tolist()


@given(st.integers(0, 10**6), st.integers(0, 30))
@settings(deadline=None, max_examples=60)
def test_every_sub_box_gets_its_budget_and_no_more(seed, budget):
    rng = np.random.default_rng(seed)
    masks = [torch.from_numpy(rng.random((4, 6)) < rng.random((4, 1))) for _ in range(5)]
    ledger = Ledger(4, 2, budget, 2**30)
    orders = [None, torch.from_numpy(rng.permutation(6)), None, torch.from_numpy(rng.permutation(6)), None]
    granted = [ledger.grant(m, order) for m, order in zip(masks, orders, strict=True)]
    served = [g if order is None else g[:, order.argsort()] for g, order in zip(granted, orders, strict=True)]
    asked = [m if order is None else m[:, order.argsort()] for m, order in zip(masks, orders, strict=True)]
    granted, wanted = torch.cat(served, dim=1), torch.cat(asked, dim=1)
    for b in range(4):
        first = wanted[b].nonzero()[:, 0].tolist()[: max(0, budget - 2)]
        assert granted[b].nonzero()[:, 0].tolist() == first
