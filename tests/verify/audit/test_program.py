"""Steps as SPEC.md defines them, written down here once more: exact numbers, windows, enclosures, the digest."""

import hashlib
import itertools
import json
import math
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from verify.audit import program as p
from verify.audit.exact import Index, Real
from verify.audit.program import Malformed, Program, Step, Unsupported, Window

# numbers


def exact(value: Real) -> list[Fraction]:
    """The numbers of a Real without slack, checked to be in the one form that equal numbers have."""
    assert not value.slack.any()
    assert value.mantissa.shape == value.exponent.shape == value.slack.shape
    assert ((np.abs(value.mantissa) >= 2**52) | ((value.mantissa == 0) & (value.exponent == 0))).all()
    assert (np.abs(value.mantissa) < 2**53).all()
    return ends(value)[0]


def parts_of(value: Real) -> list[tuple[int, int, int]]:
    """Mantissa, exponent and slack of every number."""
    rows = zip(value.mantissa.ravel(), value.exponent.ravel(), value.slack.ravel(), strict=True)
    return [(int(m), int(e), int(s)) for m, e, s in rows]


def ends(value: Real) -> tuple[list[Fraction], list[Fraction]]:
    """Lower and upper ends."""
    pairs = [(m * Fraction(2) ** e, (m + s) * Fraction(2) ** e) for m, e, s in parts_of(value)]
    return [low for low, _ in pairs], [high for _, high in pairs]


EDGES = [0.0, -0.0, 1.0, -1.0, 0.1, -3.5, 1e30, -1e-30, 2.0**-126, 2.0**-149, -(2.0**-140), 3.4028234e38, 65504.0]
EDGES_64 = [*EDGES, 5e-324, -(2.0**-1060), 2.0**-1022, 1.7976931348623157e308, 1 / 3]


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_all_halves_are_read_by_their_bits(kind: str) -> None:
    bits = np.arange(2**16, dtype="<u2")
    if kind == "float16":
        wanted = bits.view("<f2").astype(np.float64)
    else:
        with np.errstate(invalid="ignore"):  # some of them signal
            wanted = (bits.astype("<u4") << 16).view("<f4").astype(np.float64)
    finite = np.isfinite(wanted)
    found = p.from_bits(bits[finite].tobytes(), kind)
    assert np.array_equal(np.ldexp(found.mantissa, found.exponent), wanted[finite])
    exact(found[::97])
    for word in (bits[~finite][:3], bits[~finite][-3:], bits[~finite][1000:1003]):
        for one in word:
            with pytest.raises(Malformed):
                p.from_bits(np.array([0, one, 0], "<u2").tobytes(), kind)


@pytest.mark.parametrize(("kind", "code", "values"), [("float32", "f", EDGES), ("float64", "d", EDGES_64)])
def test_numbers_are_read_by_their_bits(kind: str, code: str, values: list[float]) -> None:
    raw = struct.pack(f"<{len(values)}{code}", *values)
    assert exact(p.from_bits(raw, kind)) == [Fraction(v) for v in struct.unpack(f"<{len(values)}{code}", raw)]
    assert exact(p.from_bits(b"", kind)) == []
    for wrong in (math.inf, -math.inf, math.nan):
        with pytest.raises(Malformed):
            p.from_bits(struct.pack(f"<3{code}", 1.0, wrong, 2.0), kind)
    for cut in (raw[:-1], raw[1:], raw[:1]):
        with pytest.raises(Malformed):
            p.from_bits(cut, kind)


def test_small_integers_are_numbers() -> None:
    found = p.integers([0, 1, -3, 2**20, 7, -(2**52) + 1], (2, 3))
    assert found.mantissa.shape == (2, 3)
    assert exact(found) == p.fractions(found) == [0, 1, -3, 2**20, 7, -(2**52) + 1]
    assert exact(p.integers([-1], ())) == [-1]


def bits(value: int) -> int:
    return len(f"{value:b}") if value else 0


def enclosed(low: Fraction, high: Fraction) -> tuple[int, int, int]:
    """Mantissa, exponent and slack by the last paragraph of section 3.3."""
    larger = max(abs(low), abs(high))
    exponent = bits(larger.numerator) - bits(larger.denominator) - 51 if larger else 0
    mantissa = math.floor(low / Fraction(2) ** exponent)
    return mantissa, exponent, math.ceil(high / Fraction(2) ** exponent) - mantissa


THIRD = Fraction(1, 3)
PAIRS = [
    (THIRD, THIRD), (-THIRD, -THIRD), (-THIRD, 2 * THIRD), (-100 * THIRD, THIRD), (Fraction(0), Fraction(0)),
    (Fraction(0), THIRD),
    (-THIRD, Fraction(0)), (Fraction(1), Fraction(1)), (Fraction(1, 8), Fraction(1, 8)), (Fraction(5), Fraction(7)),
    (Fraction(10**30 + 1, 7), Fraction(10**30 + 2, 7)), (Fraction(1, 10**30), Fraction(1, 10**30 - 1)),
    (Fraction(2**60 + 1), Fraction(2**60 + 3)), (-Fraction(2**60 + 3), -Fraction(2**60 + 1)),
]  # fmt: skip


def test_enclosures_are_the_tightest_of_their_unit() -> None:
    found = p.enclosing(PAIRS)
    assert parts_of(found) == [enclosed(*pair) for pair in PAIRS]
    for low, high, pair in zip(*ends(found), PAIRS, strict=True):
        assert low <= pair[0] <= pair[1] <= high
    assert (found.mantissa == np.floor(found.mantissa)).all()
    assert (found.slack == np.floor(found.slack)).all()
    assert (np.abs(found.mantissa) < 2**53).all()
    assert p.fractions(p.enclosing([(Fraction(3, 4),) * 2])) == [Fraction(3, 4)]


def root(v: Fraction) -> tuple[Fraction, Fraction]:
    """As in section 3.3."""
    t = 54 - (bits(v.numerator) - bits(v.denominator)) // 2
    r = math.isqrt(math.floor(v * Fraction(4) ** t))
    return r / Fraction(2) ** t, (r + 1) / Fraction(2) ** t


@pytest.mark.parametrize(
    "square",
    [Fraction(2), Fraction(1), Fraction(9, 4), THIRD, Fraction(10**40), Fraction(1, 10**40), Fraction(7, 10**9)],
)
def test_roots_lie_between_neighbours(square: Fraction) -> None:
    low, high = p.root_bounds(square)
    assert low**2 <= square < high**2
    assert (high - low) * 2**52 <= low
    assert (low, high) == root(square)


# steps


def steps_are(step: Step, taps: Any, weight: Any, bias: Any, shape: tuple[int, ...], place: Any = None) -> None:
    """An affine step of exact numbers, all of it."""
    assert (step.name, step.kind, step.inputs, step.signs) == ("y", "affine", ("x",), ())
    assert step.shape == shape
    assert step.taps.dtype == np.int64
    assert step.taps.tolist() == taps
    assert step.weight is not None
    wanted = np.array(weight, dtype=object)
    assert step.weight.mantissa.shape == wanted.shape
    assert exact(step.weight) == wanted.ravel().tolist()
    assert (None if step.bias is None else exact(step.bias)) == bias
    assert step.bias is None or step.bias.mantissa.ndim == 1
    assert (None if step.place is None else step.place.tolist()) == place
    assert not step.normalizes


def test_products_along_the_last_axis() -> None:
    rows = [[1, -2, 3], [4, 5, -6]]
    weight, bias = p.integers([v for row in rows for v in row], (2, 3)), p.integers([7, -8], (2,))
    for shape in ((3,), (1, 3), (1, 1, 3)):
        steps_are(p.linear("y", "x", shape, weight, None), [[[0, 1, 2]]], [rows], None, (*shape[:-1], 2))
        steps_are(p.linear("y", "x", shape, weight, bias), [[[0, 1, 2]]], [rows], [7, -8], (*shape[:-1], 2))
    four = [[[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]]
    for shape in ((4, 3), (1, 4, 3), (1, 2, 2, 3)):  # flattened (row, position), put back as (position, row)
        found = p.linear("y", "x", shape, weight, bias)
        steps_are(found, four, [rows], [7, -8] * 4, (*shape[:-1], 2), [0, 4, 1, 5, 2, 6, 3, 7])
    steps_are(p.linear("y", "x", (2, 3), weight, None), [[[0, 1, 2], [3, 4, 5]]], [rows], None, (2, 2), [0, 2, 1, 3])
    for shape in ((), (2,), (4,), (3, 2), (1, 4), (3, 1)):
        with pytest.raises(Malformed):
            p.linear("y", "x", shape, weight, None)


def windows(shape: Sequence[int], window: Window) -> tuple[list[list[list[int]]], tuple[int, ...]]:
    """Elements of every window, channel by channel; -1 is padding."""
    spatial, rank = shape[1:], len(shape) - 1
    counts = tuple(
        (n + window.padding[i] + window.padding[i + rank] - window.dilation[i] * (window.kernel[i] - 1) - 1)
        // window.stride[i] + 1
        for i, n in enumerate(spatial)
    )  # fmt: skip

    def element(channel: int, at: tuple[int, ...], offset: tuple[int, ...]) -> int:
        number = channel
        for i, n in enumerate(spatial):
            place = at[i] * window.stride[i] + offset[i] * window.dilation[i] - window.padding[i]
            if not 0 <= place < n:
                return -1
            number = number * n + place
        return number

    places, offsets = (list(itertools.product(*map(range, sizes))) for sizes in (counts, window.kernel))
    return [[[element(c, at, o) for o in offsets] for at in places] for c in range(shape[0])], counts


WINDOWS = [
    ((1, 4), Window((2,), (1,), (0, 0), (1,))), ((2, 5), Window((3,), (2,), (1, 2), (2,))),
    ((3, 3), Window((3,), (1,), (0, 0), (1,))),
    ((2, 4, 5), Window((2, 3), (1, 2), (0, 1, 1, 0), (1, 1))),
    ((2, 5, 4), Window((3, 2), (2, 1), (2, 0, 1, 3), (1, 2))),
    ((1, 2, 3), Window((1, 3), (3, 1), (0, 0, 0, 0), (4, 1))),
    ((2, 2, 3, 2), Window((1, 2, 2), (1, 1, 2), (1, 0, 0, 0, 1, 1), (1, 1, 1))),
    ((4, 3, 3), Window((2, 2), (1, 1), (1, 0, 0, 1), (2, 1))),
    ((1, 4, 4), Window((1, 6), (1, 1), (0, 0, 0, 2), (1, 1))), ((1, 3), Window((1,), (1,), (0, 0), (1,))),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "window"), WINDOWS)
def test_windows_slide_over_every_axis(shape: tuple[int, ...], window: Window) -> None:
    taps, positions = window.taps(shape)
    assert (taps.tolist(), positions) == windows(shape, window)


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((3,), Window((), (), (), ())), ((1, 4), Window((2, 2), (1,), (0, 0), (1,))),
        ((1, 4), Window((2,), (1, 1), (0, 0), (1,))),
        ((1, 4), Window((2,), (1,), (0, 0), (1, 1))), ((1, 4), Window((2,), (1,), (0,), (1,))),
        ((1, 4), Window((2,), (1,), (0, 0, 0), (1,))),
        ((1, 4), Window((2,), (1,), (-1, 0), (1,))), ((1, 4), Window((2,), (1,), (0, -1), (1,))),
        ((1, 4), Window((0,), (1,), (0, 0), (1,))),
        ((1, 4), Window((2,), (0,), (0, 0), (1,))), ((1, 4), Window((2,), (-1,), (0, 0), (1,))),
        ((1, 4), Window((2,), (1,), (0, 0), (0,))),
        ((1, 4), Window((5,), (1,), (0, 0), (1,))), ((1, 4), Window((3,), (1,), (0, 0), (2,))),
        ((1, 4), Window((6,), (1,), (1, 0), (1,))),
        ((1, 4, 4), Window((2, 5), (1, 1), (0, 0, 0, 0), (1, 1))),
        ((1, 4, 4), Window((5, 2), (1, 1), (0, 0, 0, 0), (1, 1))),
        ((1, 4, 4), Window((2, 2), (1, 0), (0, 0, 0, 0), (1, 1))), ((1, 4, 4), Window((2, 2), (1, 1), (0, 0), (1, 1))),
        ((1, 4, 4), Window((2, 2), (1, 1), (0, 0, 0, 0), (1, -1))), ((1, 4, 4), Window((2,), (1,), (0, 0), (1,))),
        ((1, 4, 4), Window((2, 2), (1, 1), (0, 0, 0, 0, 0), (1, 1))),
        ((1, 4, 4), Window((2, 2), (1, 1), (0, 0, 0), (1, 1))),
        ((1, 4, 4), Window((2, 2), (1, 1), (0, 0, -1, 0), (1, 1))),
        ((1, 4, 4), Window((2, -1), (1, 1), (0, 0, 0, 0), (1, 1))),
    ],
)  # fmt: skip
def test_other_windows_are_refused(shape: tuple[int, ...], window: Window) -> None:
    with pytest.raises(Malformed):
        window.taps(shape)


def test_windows_too_many_are_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    many, wide = ((2, 8), Window((4,), (1,), (0, 0), (1,))), ((3, 4), Window((1,), (50,), (3, 3), (1,)))
    for (shape, window), size in ((many, 2 * 5 * 4), (wide, 3 * 10)):  # elements of all windows; elements with padding
        monkeypatch.setattr(p, "LARGEST_TENSOR", size)
        window.taps(shape)
        monkeypatch.setattr(p, "LARGEST_TENSOR", size - 1)
        with pytest.raises(Unsupported):
            window.taps(shape)


def test_tensors_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert p.bounded(2**26) == 2**26
    with pytest.raises(Unsupported):
        p.bounded(2**26 + 1)
    monkeypatch.setattr(p, "LARGEST_TENSOR", 6)
    assert p.grid((2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(Unsupported):
        p.grid((7,))


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(
    ("shape", "window", "groups", "rows"),
    [(*WINDOWS[n], *sizes) for n, *sizes in ((1, 1, 3), (1, 2, 4), (3, 1, 1), (4, 2, 2), (7, 2, 6), (7, 4, 4))],
)
def test_convolutions_read_windows_of_their_group(
    shape: tuple[int, ...], window: Window, groups: int, rows: int, biased: bool
) -> None:
    depth = shape[0] // groups
    sizes = (rows, depth, *window.kernel)
    values = np.arange(1, 1 + math.prod(sizes)).reshape(sizes) - 5
    bias = list(range(3, 3 + rows)) if biased else None
    found = p.convolution(
        "y", "x", shape, p.integers(values.ravel().tolist(), sizes), p.integers(bias, (rows,)) if bias else None,
        window, groups
    )  # fmt: skip
    all_taps, positions = windows(shape, window)
    count = math.prod(positions)
    channels = [range(g * depth, (g + 1) * depth) for g in range(groups)]
    taps = [[[t for c in group for t in all_taps[c][at]] for at in range(count)] for group in channels]
    weight = values.reshape(groups, rows // groups, -1).tolist()
    steps_are(found, taps, weight, [b for b in bias for _ in range(count)] if bias else None, (rows, *positions))
    assert found.taps.flags.c_contiguous


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ((4, 2, 2, 2), 0), ((4, 2, 2, 2), -2), ((3, 2, 2, 2), 2), ((4, 2, 2, 2), 1), ((4, 4, 2, 2), 2),
        ((4, 1, 2, 2), 2),
        ((4, 2, 2, 3), 2), ((4, 2, 2), 2), ((4, 2, 2, 2, 1), 2), ((4, 2), 2), ((4, 2, 3, 2), 2), ((6, 1, 2, 2), 3),
    ],
)  # fmt: skip
def test_weights_of_other_shapes_are_refused(sizes: tuple[int, ...], groups: int) -> None:
    window = Window((2, 2), (1, 1), (0, 0, 0, 0), (1, 1))
    numbers = [p.integers([1] * math.prod(s), s) for s in ((4, 2, 2, 2), sizes)]
    p.convolution("y", "x", (4, 3, 3), numbers[0], None, window, 2)
    with pytest.raises(Malformed):
        p.convolution("y", "x", (4, 3, 3), numbers[1], None, window, groups)


def test_a_maximum_lists_the_elements_that_exist_first() -> None:
    for shape, window in WINDOWS:
        taps, positions = windows(shape, window)
        rows = [row for channel in taps for row in channel]
        if not all(any(t >= 0 for t in row) for row in rows):
            with pytest.raises(Malformed):
                p.max_pool("y", "x", shape, window)
            continue
        found = p.max_pool("y", "x", shape, window)
        assert (found.name, found.kind, found.inputs, found.shape) == ("y", "max", ("x",), (shape[0], *positions))
        assert found.taps.tolist() == [sorted(row, key=lambda t: t < 0) for row in rows]
        assert (found.weight, found.bias, found.place, found.signs) == (None, None, None, ())


def averages(found: Step, rows: list[list[int]], counts: list[int], shape: tuple[int, ...]) -> None:
    """Means of these elements, over these counts."""
    assert (found.name, found.kind, found.inputs, found.shape) == ("y", "affine", ("x",), shape)
    assert (found.bias, found.place, found.signs, found.normalizes) == (None, None, (), False)
    alike = len(set(counts)) == 1
    assert found.taps.tolist() == ([rows] if alike else [[row] for row in rows])
    assert found.weight is not None
    wanted = [enclosed(Fraction(1, c), Fraction(1, c)) for c in (counts[:1] if alike else counts) for _ in rows[0]]
    assert found.weight.mantissa.shape == (1 if alike else len(rows), 1, len(rows[0]))
    assert parts_of(found.weight) == wanted


@pytest.mark.parametrize("counted", [False, True])
def test_averages_count_the_padding_or_not(counted: bool) -> None:
    for shape, window in WINDOWS:
        taps, positions = windows(shape, window)
        rows = [row for channel in taps for row in channel]
        counts = [len(row) if counted else sum(t >= 0 for t in row) for row in rows]
        if not all(counts):
            with pytest.raises(Malformed):
                p.average_pool("y", "x", shape, window, counted)
            continue
        averages(p.average_pool("y", "x", shape, window, counted), rows, counts, (shape[0], *positions))


@pytest.mark.parametrize(
    ("axes", "rows", "gone", "kept"),
    [
        ([0], [[0, 6], [1, 7], [2, 8], [3, 9], [4, 10], [5, 11]], (3, 2), (1, 3, 2)),
        ([1], [[0, 2, 4], [1, 3, 5], [6, 8, 10], [7, 9, 11]], (2, 2), (2, 1, 2)),
        ([0, 2], [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]], (3,), (1, 3, 1)),
        ([0, 1, 2], [list(range(12))], (), (1, 1, 1)), ([], [[i] for i in range(12)], (2, 3, 2), (2, 3, 2)),
    ],
)  # fmt: skip
def test_means_over_axes(axes: list[int], rows: list[list[int]], gone: tuple[int, ...], kept: tuple[int, ...]) -> None:
    for keepdims, shape in ((False, gone), (True, kept)):
        averages(p.mean("y", "x", (2, 3, 2), axes, keepdims), rows, [len(rows[0])] * len(rows), shape)


def test_factors_and_shifts() -> None:
    six = [[[i]] for i in range(6)]
    factors, shifts = [2, -3, 4, 5, -6, 0], [1, 0, -1, 7, 8, 9]
    each, one = p.integers(factors, (2, 3)), p.integers([-3], ())
    moved, same = p.integers(shifts, (2, 3)), p.integers([5], ())
    weight = [[[f]] for f in factors]
    steps_are(p.scaled("y", "x", (2, 3), each, None), six, weight, None, (2, 3))
    steps_are(p.scaled("y", "x", (2, 3), each, moved), six, weight, shifts, (2, 3))
    steps_are(p.scaled("y", "x", (2, 3), one, same), [[[i] for i in range(6)]], [[[-3]]], [5] * 6, (2, 3))
    steps_are(p.scaled("y", "x", (1, 1), one, None), [[[0]]], [[[-3]]], None, (1, 1))


def test_quotients_are_enclosed() -> None:
    divisors = [3, -7, 4, 5, -1, 10]
    found = p.divided("y", "x", (2, 3), p.integers(divisors, (2, 3)))
    assert found.weight is not None
    assert (found.weight.mantissa.shape, found.shape, found.bias) == ((6, 1, 1), (2, 3), None)
    assert found.taps.tolist() == [[[i]] for i in range(6)]
    assert parts_of(found.weight) == [enclosed(Fraction(1, d), Fraction(1, d)) for d in divisors]
    single = p.divided("y", "x", (2, 3), p.integers([3], ()))
    assert single.weight is not None
    assert single.taps.tolist() == [[[i] for i in range(6)]]
    assert parts_of(single.weight) == [enclosed(THIRD, THIRD)]
    for zeros in ([0, 1], [1, 0], [0, 0]):
        with pytest.raises(Malformed):
            p.divided("y", "x", (2,), p.integers(zeros, (2,)))


NORM = {"weight": [3, -2, 0, 5], "bias": [1, -1, 7, 0], "mean": [2, -3, 4, 0], "variance": [1, 0, 3, 2]}


@pytest.mark.parametrize("epsilon", [Fraction(1, 100), Fraction(3, 4)])
@pytest.mark.parametrize("spatial", [(), (2,), (2, 3)])
def test_batch_norms_are_enclosed(spatial: tuple[int, ...], epsilon: Fraction) -> None:
    roles = [p.integers(values, (4,)) for values in NORM.values()]
    found = p.batch_norm("y", "x", (4, *spatial), roles, epsilon)
    count = math.prod(spatial)
    assert (found.name, found.kind, found.inputs, found.shape) == ("y", "affine", ("x",), (4, *spatial))
    assert found.normalizes
    assert found.taps.tolist() == [[[c * count + i] for i in range(count)] for c in range(4)]
    assert found.weight is not None
    assert found.bias is not None
    assert (found.weight.mantissa.shape, found.bias.mantissa.shape) == ((4, 1, 1), (4 * count,))
    for c, (w, b, m, v) in enumerate(zip(*NORM.values(), strict=True)):
        factors = [w / r for r in root(v + epsilon)]
        shifts = [b - f * m for f in factors]
        assert parts_of(found.weight[c]) == [enclosed(min(factors), max(factors))]
        shifted = found.bias[c * count : (c + 1) * count]
        assert parts_of(shifted) == [enclosed(min(shifts), max(shifts))] * count


@pytest.mark.parametrize(("variance", "epsilon"), [(-1, 1), (0, 0), (-2, 1), (-1, Fraction(1, 2))])
def test_batch_norms_without_a_root_are_refused(variance: int, epsilon: Fraction) -> None:
    for values in ([1, variance], [variance, 1]):
        with pytest.raises(Malformed):
            p.batch_norm("y", "x", (2,), [*[p.integers([1, 1], (2,))] * 3, p.integers(values, (2,))], Fraction(epsilon))


def test_batch_norms_take_roots_of_what_is_positive() -> None:
    for variance, epsilon in ((-1, Fraction(3, 2)), (1, Fraction(0)), (0, Fraction(1, 10**6)), (1, Fraction(-1, 2))):
        one = p.integers([1], (1,))
        found = p.batch_norm("y", "x", (1,), [one, one, one, p.integers([variance], (1,))], epsilon)
        assert found.weight is not None
        low, high = (1 / r for r in root(variance + epsilon)[::-1])
        below, above = ends(found.weight)
        assert below[0] <= low < high <= above[0]


@pytest.mark.parametrize("wrong", range(4))
@pytest.mark.parametrize("shape", [(3,), (1,), (), (2, 1)])
def test_parameters_of_a_batch_norm_are_one_per_channel(wrong: int, shape: tuple[int, ...]) -> None:
    roles = [p.integers([1, 1], (2,))] * 4
    roles[wrong] = p.integers([1] * math.prod(shape), shape)
    for all_wrong in (roles, [roles[wrong]] * 4):
        with pytest.raises(Malformed):
            p.batch_norm("y", "x", (2, 5), all_wrong, Fraction(1))


# programs


def relu(name: str, *inputs: str) -> Step:
    return Step(name, "relu", inputs, (1, 2))


def test_a_program_knows_the_shapes_of_its_values() -> None:
    shapes = {"a": (1, 2, 3), "b": (6,), "c": (2, 3)}
    steps = tuple(Step(name, "gather", ("x",), shape) for name, shape in shapes.items())
    for batch in (True, False):
        net = Program("x", (1, 6), batch, steps, "c", "")
        assert [net.shape_of(n) for n in "xabc"] == [(1, 6), (1, 2, 3), (6,), (2, 3)]
        assert [net.size_of(n) for n in "xabc"] == [6] * 4
        samples = [(6,), (2, 3), (6,), (2, 3)] if batch else [(1, 6), (1, 2, 3), (6,), (2, 3)]
        assert [net.sample_shape(n) for n in "xabc"] == samples
        assert not net.float32
    assert Program("x", (1, 1, 4), True, (), "x", "").sample_shape("x") == (1, 4)


def record(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


def number_records(numbers: list[tuple[float, int, float]] | None) -> list[bytes]:
    if numbers is None:
        return [b""] * 3
    return [struct.pack(f"<{len(numbers)}{code}", *(n[i] for n in numbers)) for i, code in enumerate("dqd")]


def index_record(values: Index | None) -> bytes:
    return b"" if values is None else struct.pack(f"<{values.size}q", *values.ravel().tolist())


def digest(source: list[Any], steps: Sequence[Step]) -> str:
    """Section 3.3 of SPEC.md."""
    text = b"provable-pruning program 0\n" + record(json.dumps(source).encode())
    for s in steps:
        text += record(json.dumps([s.name, s.kind, list(s.inputs), list(s.shape), list(s.signs)]).encode())
        numbers: list[bytes] = []
        for real in (s.weight, s.bias):
            if real is None:
                numbers += number_records(None)
                continue
            parts = zip(real.mantissa.ravel(), real.exponent.ravel(), real.slack.ravel(), strict=True)
            numbers += number_records([(float(m) if m else 0.0, int(e), float(r)) for m, e, r in parts])
        for part in (index_record(s.taps), index_record(s.place), *numbers):
            text += record(part)
    return hashlib.sha256(text).hexdigest()


def test_the_digest_is_that_of_all_records() -> None:
    weight = p.from_bits(np.array([0.0, -0.0, 1.5, -3.0, 0.1, 7.0], "<f4").tobytes(), "float32").reshape(2, 3)
    fill = p.integers([-2], ())
    steps = (
        p.linear("h", "x", (2, 3), weight, p.integers([1, -1], (2,))),
        p.linear("k", "x", (2, 3), weight, None),
        Step("s", "sum", ("h", "k"), (2, 2), signs=(1, -1)),
        p.divided("q", "s", (2, 2), p.integers([3], ())),
        Step("r", "relu", ("q",), (2, 2)),
        p.gather("g", ["r", "x"], (5, 1), np.array([[9], [-1], [0], [4], [3]]), fill),
        p.gather("\u00e9", ["g"], (2,), np.array([1, 0])),
    )
    found = p.finish("x", (2, 3), True, steps, "\u00e9")
    assert (found.input, found.input_shape, found.batch, found.output) == ("x", (2, 3), True, "\u00e9")
    assert found.steps == steps
    assert found.digest == digest(["x", [2, 3], True, "\u00e9"], steps)
    assert not found.float32
    assert p.finish("x", (2, 3), False, steps[:1], "h").digest == digest(["x", [2, 3], False, "h"], steps[:1])


def test_gathers_read_all_inputs_joined() -> None:
    found = p.gather("g", ["a", "b"], (2, 2), np.array([[3, -1], [0, 1]]), p.integers([4], ()))
    assert (found.name, found.kind, found.inputs, found.shape) == ("g", "gather", ("a", "b"), (2, 2))
    assert found.taps.tolist() == [3, -1, 0, 1]
    assert found.bias is not None
    assert exact(found.bias) == [4]
    assert p.gather("g", ["a"], (1,), np.array([0])).bias is None


def test_zero_has_one_form_in_the_digest() -> None:
    def net(zero: float) -> str:
        weight = p.from_bits(np.array([zero], "<f4").tobytes(), "float32").reshape(1, 1)
        return p.finish("x", (1,), False, (p.linear("y", "x", (1,), weight, None),), "y").digest

    assert net(0.0) == net(-0.0)


@pytest.mark.parametrize(
    "steps",
    [
        (relu("x", "x"),), (relu("a", "x"), relu("a", "x")), (relu("a", "b"),), (relu("a", "a"),),
        (relu("a", "b"), relu("b", "x")),
        (relu("a", "x"), Step("b", "sum", ("a", "c"), (1, 2), signs=(1, 1))),
    ],
)  # fmt: skip
def test_every_value_is_defined_once_and_before_it_is_read(steps: tuple[Step, ...]) -> None:
    with pytest.raises(Malformed):
        p.finish("x", (1, 2), True, steps, steps[-1].name)


def test_refusals_are_of_two_kinds() -> None:
    p.require(True, "")
    p.supported(True, "")
    with pytest.raises(Malformed, match="this"):
        p.require(False, "this")
    with pytest.raises(Unsupported, match="that"):
        p.supported(False, "that")
