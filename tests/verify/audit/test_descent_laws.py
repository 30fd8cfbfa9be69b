"""Descents function by function: never below what some input attains, and equal to it where the networks are affine."""

from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement, product
from typing import Any

import numpy as np
import pytest

from tests.verify.audit.exact_semantics import exact_values
from tests.verify.audit.test_descent_edges import Known, program
from verify.audit.descent import Descent, Pending, Planes, columns
from verify.audit.exact import Real
from verify.audit.form import Form
from verify.audit.lift import Correspondence
from verify.audit.planes import ONE
from verify.audit.program import Program, Step, fractions, from_bits, integers
from verify.audit.rules import Bounds
from verify.audit.upper import total as sums

DIGITS = 30
TIGHT = Fraction(1, 2**18)
Rows = dict[str, np.ndarray]  # part -> coefficients (elements, functions)


def affine(name: str, source: str, rows: int, seed: int, bias: bool = True, window: int = 3) -> Step:
    rng = np.random.default_rng(seed)
    weight = integers(rng.integers(-7, 8, rows * window).tolist(), (1, rows, window))
    shift = integers(rng.integers(-9, 10, rows).tolist(), (rows,)) if bias else None
    return Step(name, "affine", (source,), (rows,), np.arange(window)[None, None], weight, shift)


def total(name: str, first: str, second: str, *signs: int) -> Step:
    return Step(name, "sum", (first, second), (3,), signs=signs)


def moved(name: str, sources: tuple[str, ...], taps: list[int], fill: int | None) -> Step:
    bias = None if fill is None else integers([fill], (1,))
    return Step(name, "gather", sources, (len(taps),), np.array(taps), bias=bias)


def relu(name: str, source: str, size: int = 3) -> Step:
    return Step(name, "relu", (source,), (size,))


def coefficients(rows: Rows, digits: int = DIGITS) -> Pending:
    return Pending(**{p: [columns(-digits, c[:, :, None].astype(float) * 2.0**digits)] for p, c in rows.items()})


def bounded(case: Known, position: int, rows: Rows, short: bool = False, **more: Any) -> list[Fraction]:
    count = next(iter(rows.values())).shape[1]
    descent = Descent(Planes(case.pair, case.known, {}), case.x, (count, 1), short)
    start = coefficients(rows, more.get("digits", DIGITS))
    found, exponent = descent.bound(position, start, more.get("further", {}))
    assert found.shape == (count, 1)
    return [int(v) * Fraction(2) ** exponent for v in found[:, 0]]


def parts(case: Known, position: int, point: list[Fraction]) -> dict[str, list[Fraction]]:
    seen = vars(case).setdefault("seen", {})
    if tuple(point) not in seen:
        seen[tuple(point)] = [exact_values(net, point) for net in case.programs]
    z, y = (values[position] for values in seen[tuple(point)])
    kept = case.pair.kept(position) if position else range(3)
    return {"z": z, "y": y, "d": [z[k] - w for k, w in zip(kept, y, strict=True)] if len(kept) == len(y) else []}


def points(case: Known, steps: int = 1) -> list[list[Fraction]]:
    shares = product([Fraction(i, steps) for i in range(steps + 1)], repeat=3)
    return [[a + s * (b - a) for (a, b), s in zip(case.box, share, strict=True)] for share in shares]


def attained(case: Known, position: int, rows: Rows, steps: int = 1) -> list[Fraction]:
    """The largest values at the corners of the box, or on a grid."""
    found = []
    for point in points(case, steps):
        values = parts(case, position, point)
        count = next(iter(rows.values())).shape[1]
        found.append(
            [
                sum(int(c[i, r]) * v for part, c in rows.items() for i, v in enumerate(values[part]))
                for r in range(count)
            ]
        )
    return [max(column) for column in zip(*found, strict=True)]


def functions(seed: int, z: int, y: int, names: str = "zyd") -> Rows:
    rng = np.random.default_rng(seed)
    return {n: rng.integers(-5, 6, (z if n == "z" else y, 4)) for n in names}


def pair_of(*steps: list[Step]) -> tuple[Program, Program]:
    first, second = (program(*s) for s in steps)
    return first, second


def linear_steps(seed: int, size: int = 3) -> list[Step]:
    """Everything that is affine: a map, a sum, moved values with a constant among them, joined ones, a map again."""
    return [
        affine("h", "x", 3, seed), total("s", "h", "x", 1, -1), moved("g", ("s",), [2, -1, 0], seed - 5),
        moved("j", ("g", "x"), [4, 0, 1, 3, 0, -1], None), affine("m", "j", size, seed + 1, window=6),
        affine("y", "m", 2, seed + 2, bias=seed % 2 == 0, window=size),
    ]  # fmt: skip


@cache
def all_affine(*seeds: int) -> Known:
    return Known(*pair_of(*(linear_steps(seed) for seed in seeds)), Fraction(1, 3))


@pytest.mark.parametrize("names", ["z", "y", "d", "zy", "zyd"])
@pytest.mark.parametrize("seeds", [(2, 3), (4, 4)])
@pytest.mark.parametrize("position", [0, 1, 2, 3, 4, 5, 6])
def test_affine_functions_have_their_exact_maximum(names: str, seeds: tuple[int, int], position: int) -> None:
    case = all_affine(*seeds)
    sizes = case.pair.sizes[position]
    rows = functions(position, *sizes, names)
    for short in (False, True):
        for bound, most in zip(bounded(case, position, rows, short), attained(case, position, rows), strict=True):
            assert most <= bound <= most + TIGHT


@pytest.mark.parametrize("position", [3, 6])
def test_coefficients_of_earlier_values_are_added(position: int) -> None:
    case = all_affine(2, 3)
    rows, first, second = functions(3, *case.pair.sizes[position]), functions(9, 3, 3, "zy"), functions(7, 3, 3, "d")
    further = {1: coefficients(first), 2: coefficients(second)}
    for r, bound in enumerate(bounded(case, position, rows, further=further)):
        values = [
            sum(
                int(c[i, r]) * v
                for n, one in ((position, rows), (1, first), (2, second))
                for part, c in one.items()
                for i, v in enumerate(parts(case, n, point)[part])
            )
            for point in points(case)
        ]
        assert max(values) <= bound <= max(values) + 3 * TIGHT


def test_results_that_do_not_belong_together_have_maps_of_their_own() -> None:
    """Four hidden values and three: the difference at the output is taken apart."""
    case = Known(*pair_of(linear_steps(2, 4), linear_steps(3, 3)), Fraction(1, 3))
    rows = functions(1, 2, 2)
    for bound, most in zip(bounded(case, 6, rows), attained(case, 6, rows), strict=True):
        assert most <= bound <= most + TIGHT


@pytest.mark.parametrize("kind", ["sum", "gather", "relu"])
def test_differences_in_another_order_are_taken_apart(kind: str) -> None:
    """The lift relates the results of a step otherwise than what it reads."""
    last = {"sum": total("r", "h", "x", 1, 1), "gather": moved("r", ("h",), [0, 1, 2], 4), "relu": relu("r", "h")}[kind]
    nets = pair_of([affine("h", "x", 3, 2), last], [affine("h", "x", 3, 3), last])
    case = Known(*nets, Fraction(1, 64), (Correspondence("r", "r", 0, (2, 0, 1)),))
    assert not case.stages[1].aligned
    rows = functions(5, 3, 3)
    for bound, most in zip(bounded(case, 2, rows), attained(case, 2, rows), strict=True):
        assert most <= bound <= most + TIGHT


@pytest.mark.parametrize(
    ("kind", "kept", "aligned"),
    [("relu", (0, 2), True), ("relu", (2, 0), False), ("gather", (0, 1), True), ("gather", (1, 0), False)],
)
def test_a_compact_value_with_fewer_elements_stands_for_some(kind: str, kept: tuple[int, ...], aligned: bool) -> None:
    """Two of three: differences go down as they are, or apart, to the elements that are kept."""
    first, second = [affine("h", "x", 3, 4)], [affine("h", "x", 2, 6)]
    first.append(relu("r", "h") if kind == "relu" else moved("r", ("h",), [2, 0, 1], None))
    second.append(relu("r", "h", 2) if kind == "relu" else moved("r", ("h",), [1, 0], None))
    lift = (Correspondence("h", "h", 0, (0, 2)), Correspondence("r", "r", 0, kept))
    case = Known(*pair_of(first, second), Fraction(1, 64), lift)
    assert case.stages[1].aligned is aligned
    rows = functions(3, 3, 2)
    for bound, most in zip(bounded(case, 2, rows), attained(case, 2, rows), strict=True):
        assert most <= bound <= most + 2


@pytest.mark.parametrize("names", ["z", "y", "d"])
def test_digits_of_weights_that_are_dropped_are_paid_for(names: str) -> None:
    """Two results that differ beyond the digits that are carried: their difference is not nothing."""

    def nearly_one(*extra: float) -> Step:
        numbers = np.array([[1 + e, 0, 0] for e in extra])
        weight = from_bits(numbers.tobytes(), "float64").reshape(1, 2, 3)
        return Step("y", "affine", ("x",), (2,), np.arange(3)[None, None], weight)

    nets = pair_of([nearly_one(5 * 2.0**-50, 2.0**-50)], [nearly_one(2.0**-50, 5 * 2.0**-50)])
    case = Known(*nets, Fraction(1, 2))
    rows = {names: np.array([[1, -1], [-1, 1]])}
    for bound, most in zip(bounded(case, 1, rows), attained(case, 1, rows), strict=True):
        assert 0 < most <= bound < Fraction(1, 2**34)


@pytest.mark.parametrize("names", ["z", "y", "zyd"])
@pytest.mark.parametrize("kind", ["sum", "gather"])
def test_each_network_adds_and_moves_in_its_own_way(kind: str, names: str) -> None:
    first, second = {
        "sum": (total("r", "h", "x", 1, -1), total("r", "h", "x", 1, 1)),
        "gather": (moved("r", ("h", "x"), [4, -1, 0, 3], 5), moved("r", ("h", "x"), [0, 2, 4, -1], -7)),
    }[kind]
    hidden = 3 if kind == "sum" else 2  # of the compact network
    case = Known(*pair_of([affine("h", "x", 3, 2), first], [affine("h", "x", hidden, 3), second]), Fraction(1, 3))
    rows = functions(2, *case.pair.sizes[2], names)
    for bound, most in zip(bounded(case, 2, rows), attained(case, 2, rows), strict=True):
        assert most <= bound <= most + TIGHT


def test_coefficients_times_slopes_are_integers_and_the_rest_is_kept() -> None:
    """Several functions, of which some are exact; the slope above belongs to positive coefficients only."""
    body = np.array([[[-2.0], [2.0]], [[-1.0], [1.0]], [[0.0], [3.0]], [[1024.0], [-2048.0]], [[1024.0], [1.0]]])
    below, above = (
        np.array([[v] for v in values], dtype=np.float64) for values in ([512, 0, 7, 3, 9], [100, 9, 512, 5, 700])
    )
    found = Descent._scaled(None, columns(-3, body), below, above)  # type: ignore[arg-type]
    assert found.exponent == -3
    assert (found.body == np.rint(found.body)).all()
    for (i, r, _), c in np.ndenumerate(body):
        exact = Fraction(int(c) * int((above if c > 0 else below)[i, 0]), int(ONE))
        assert abs(exact - int(found.body[i, r, 0])) <= int(found.rem[i, 0])
    assert found.rem.ravel().tolist() == [1, 1, 1, 0, 1]


def known_ends(b: Bounds, part: str) -> tuple[list[Fraction], list[Fraction]]:
    low, high = getattr(b, part)
    low, high = ([int(v) * Fraction(2) ** b.unit for v in end[:, 0]] for end in (low, high))
    return low, high


def from_known(b: Bounds, rows: Rows, r: int) -> Fraction:
    """What the bounds of a value say of a function."""
    found = Fraction(0)
    for part, c in rows.items():
        for i, (low, high) in enumerate(zip(*known_ends(b, part), strict=True)):
            found += int(c[i, r]) * (high if c[i, r] > 0 else low)
    return found


@pytest.mark.parametrize("names", ["z", "y", "d", "zyd"])
def test_a_maximum_ends_a_descent_and_a_relu_a_short_one(names: str) -> None:
    largest = Step("r", "max", ("h",), (3,), np.array([[0, 1], [1, 2], [2, -1]]))
    for last, short in ((largest, False), (relu("r", "h"), True)):
        nets = pair_of([affine("h", "x", 3, 2), last], [affine("h", "x", 3, 3), last])
        case = Known(*nets, Fraction(1))
        rows = functions(6, 3, 3, names)
        for r, bound in enumerate(bounded(case, 2, rows, short)):
            expected = from_known(case.known[2], rows, r)
            assert expected <= bound <= expected + TIGHT


def identity(name: str, source: str) -> Step:
    """Three values of one input: x, -x and x + 1 times 8."""
    weight = integers([8, 0, 0, -8, 0, 0, 8, 0, 0], (1, 3, 3))
    return Step(name, "affine", (source,), (3,), np.arange(3)[None, None], weight, integers([0, 0, 8], (3,)))


@pytest.mark.parametrize("radius", [Fraction(1, 16), Fraction(1, 8), Fraction(1, 2), Fraction(3)])
@pytest.mark.parametrize("part", ["z", "y"])
def test_a_relu_alone_is_bounded_by_its_lines(radius: Fraction, part: str) -> None:
    """Above by the chord, which ends at 0 and at the largest argument; below by 0 or by the argument."""
    case = Known(*pair_of([identity("h", "x"), relu("r", "h")], [identity("h", "x"), relu("r", "h")]), radius)
    low, high = known_ends(case.known[1], part)
    eye = np.eye(3, dtype=int)
    rows = {part: np.concatenate([eye, -eye, 3 * eye], axis=1)}
    bounds = bounded(case, 2, rows, digits=10)  # products with slopes are exact
    for i, (a, b) in enumerate(zip(low, high, strict=True)):
        above, below = max(b, Fraction(0)), (-a if b > -a else Fraction(0)) if a < 0 < b else -max(a, Fraction(0))
        slope = Fraction(1, 1024) * (b - a)  # slopes are whole numbers of 1/1024
        assert above - TIGHT <= bounds[i] <= above + slope + TIGHT
        assert b > 0 or bounded(case, 2, {part: eye[:, [i]]}) == bounded(case, 2, {part: -eye[:, [i]]}) == [0]
        assert below - TIGHT <= bounds[3 + i] <= below + TIGHT
        assert 3 * above - TIGHT <= bounds[6 + i] <= 3 * (above + slope) + TIGHT


@pytest.mark.parametrize("sign", [-1, 1])
def test_lines_hold_between_whole_numbers(sign: int) -> None:
    """Bounds of a few units, where one unit more or less would show."""
    case = all_affine(2, 3)
    for low, high in combinations_with_replacement(range(-3, 4), 2):
        descent = Descent(Planes(case.pair, case.known, {}), case.x, (1, 1), False)
        ends = np.array([[float(low)]]), np.array([[float(high)]])
        line = descent._line(columns(-10, np.full((1, 1, 1), 1024.0 * sign)), ends, 5)
        assert line is not None
        assert line.exponent == -10
        offset, exponent = sums(descent.found, descent.zero)
        gaps = []
        for x in {low, high, min(max(0, low), high)}:
            bound = Fraction(int(line.body[0, 0, 0]) * x, 1024) + int(offset[0, 0]) * Fraction(2) ** (exponent - 5)
            gaps.append(bound - sign * max(x, 0))
        assert min(gaps) == 0
        assert low < 0 < high or max(gaps) == 0


@pytest.mark.parametrize("radius", [Fraction(1, 16), Fraction(1, 4), Fraction(1)])
@pytest.mark.parametrize("seeds", [(2, 3), (3, 3), (6, 8)])
def test_a_difference_of_relus_is_bounded_by_its_planes(radius: Fraction, seeds: tuple[int, int]) -> None:
    case = Known(*pair_of(*([affine("h", "x", 3, s), relu("r", "h")] for s in seeds)), radius)
    eye = np.eye(3, dtype=int)
    bounds = bounded(case, 2, {"d": np.concatenate([eye, -eye], axis=1)}, digits=10)
    planes = [[int(v) for v in row[:, 0]] for row in Planes(case.pair, case.known, {}).of(1)]
    unit = Fraction(2) ** case.known[1].unit
    values = [parts(case, 1, point) for point in points(case)]
    for i in range(3):
        for sign, (a, b, offset) in ((-1, [row[i] for row in planes[:3]]), (1, [row[i] for row in planes[3:]])):
            most = max(sign * (a * v["z"][i] + b * v["d"][i] + offset * unit) for v in values) / int(ONE)
            found = bounds[i if sign > 0 else 3 + i]
            assert most <= found <= most + TIGHT
    rows = functions(8, 3, 3)
    for bound, most in zip(bounded(case, 2, rows), attained(case, 2, rows, 4), strict=True):
        assert most <= bound


@pytest.mark.parametrize("position", [0, 1, 2, 3])
@pytest.mark.parametrize("part", ["z", "y", "d"])
def test_what_coefficients_leave_open_is_paid_for(position: int, part: str) -> None:
    """A remainder of a coefficient times the largest absolute value of what it multiplies."""
    case = all_affine(2, 3)
    rng = np.random.default_rng(position)
    body, rem = rng.integers(-9, 9, (3, 2, 1)).astype(float), rng.integers(0, 5, (3, 2)).astype(float)[:, :1]
    start = Pending(**{part: [Form(-2, ((0, 2),), body, rem)]})
    found, exponent = Descent(Planes(case.pair, case.known, {}), case.x, (2, 1), False).bound(position, start, {})
    plain = bounded(case, position, {part: body[:, :, 0].astype(int)})
    sizes = {name: [max(-a, b) for a, b in zip(*known_ends(case.known[position], name), strict=True)] for name in "zyd"}
    if part == "d" and position and not case.stages[position - 1].aligned:  # taken apart
        sizes["d"] = [a + b for a, b in zip(sizes["z"], sizes["y"], strict=True)]
    if position == 0 and part == "d":
        assert not found.any()
        return
    open_ = sum(int(r) * size for r, size in zip(rem[:, 0], sizes[part], strict=True))
    for r in range(2):
        exact = (plain[r] + open_) / 4
        assert exact - TIGHT <= int(found[r, 0]) * Fraction(2) ** exponent <= exact + 4 * TIGHT


@pytest.mark.parametrize("kind", ["affine", "gather"])
@pytest.mark.parametrize("names", ["z", "y", "d"])
def test_constants_that_are_not_known_exactly_are_paid_for_where_they_are(kind: str, names: str) -> None:
    """Of three elements one has a constant between 4 - 1/2 and 4 + 1/2."""

    def nets(slack: float) -> list[list[Step]]:
        numbers = Real(np.full(3, 2.0**52), np.full(3, -50), np.array([0.0, slack, 0.0]))
        if kind == "gather":
            return [[Step("r", "gather", ("x",), (3,), np.array([2, -1, 0]), bias=numbers[1:2])]] * 2
        return [[replace(affine("r", "x", 3, seed), bias=numbers)] for seed in (2, 3)]

    exact, open_ = (Known(*pair_of(*nets(slack)), Fraction(1, 3)) for slack in (0.0, 2.0**49))
    rows = {names: np.array([[0, 1, -2], [1, 3, -5], [2, 0, 1]])}
    errors = {("affine", "d"): 1, ("gather", "d"): 0}.get((kind, names), Fraction(1, 2))  # both networks, or the same
    for r, (before, after) in enumerate(zip(bounded(exact, 1, rows), bounded(open_, 1, rows), strict=True)):
        lost = errors * abs(int(rows[names][1, r]))
        if (kind, names) == ("gather", "d"):  # fills with an error are not known to be the same: taken apart
            lost = Fraction(abs(int(rows[names][1, r])))
        assert before + lost - TIGHT <= after <= before + lost + TIGHT


@pytest.mark.parametrize("names", ["z", "y", "d", "zyd"])
@pytest.mark.parametrize("kind", ["affine", "sum", "place"])
def test_executions_pay_for_what_a_step_rounds(kind: str, names: str) -> None:
    """In z and y once and in D twice, times the absolute values of the coefficients."""

    def steps(seed: int) -> list[Step]:
        if kind == "sum":
            return [total("r", "x", "x", 1, -1)]
        place = np.array([2, 0, 1]) if kind == "place" else None
        return [replace(affine("r", "x", 3, seed), place=place)]

    case = Known(*pair_of(steps(2), steps(3)), Fraction(1, 3))
    rows = functions(4, 3, 3, names)
    plain = bounded(case, 1, rows)
    case.pair.float32 = True
    sizes = [max(-a, b) for a, b in zip(*known_ends(case.known[0], "z"), strict=True)]

    def errors(net: int) -> list[Fraction]:
        step = case.programs[net].steps[0]
        if step.weight is None or step.bias is None:
            return [2 * Fraction(1, 2**24) * 2 * size for size in sizes]
        weights = np.array(fractions(step.weight), dtype=object).reshape(3, 3)
        exact = [sum(abs(w) * x for w, x in zip(row, sizes, strict=True)) for row in weights]
        placed = exact if step.place is None else [exact[i] for i in step.place]
        return [6 * Fraction(1, 2**24) * (e + abs(b)) for e, b in zip(placed, fractions(step.bias), strict=True)]

    for r, bound in enumerate(bounded(case, 1, rows)):
        least = Fraction(0)
        for part, c in rows.items():
            for net in {"z": (0,), "y": (1,), "d": (0, 1)}[part]:
                least += sum(abs(int(c[i, r])) * e for i, e in enumerate(errors(net)))
        assert least * Fraction(999, 1000) <= bound - plain[r] <= least * Fraction(1501, 1000)
