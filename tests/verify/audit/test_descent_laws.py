"""Descents function by function: never below what some input attains, and equal to it where the networks are affine."""

from fractions import Fraction
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest

from tests.verify.audit.exact_semantics import exact_values
from tests.verify.audit.test_descent_edges import Known, program
from verify.audit.descent import Descent, Pending, Planes, columns
from verify.audit.form import Form
from verify.audit.lift import Correspondence
from verify.audit.planes import ONE
from verify.audit.program import Program, Step, integers
from verify.audit.rules import Bounds

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


def coefficients(form: Rows, scale: int = 1) -> Pending:
    forms = {
        part: [columns(-DIGITS, (scale * rows[:, :, None]).astype(float) * 2.0**DIGITS)] for part, rows in form.items()
    }
    return Pending(**forms)


def bounded(case: Known, position: int, rows: Rows, short: bool = False, **further: Any) -> list[Fraction]:
    count = next(iter(rows.values())).shape[1]
    descent = Descent(Planes(case.pair, case.known, {}), case.x, (count, 1), short)
    found, exponent = descent.bound(position, coefficients(rows), further.get("further", {}))
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
    bounds = bounded(case, 2, {part: np.concatenate([eye, -eye, 3 * eye], axis=1)})
    for i, (a, b) in enumerate(zip(low, high, strict=True)):
        above, below = max(b, Fraction(0)), (-a if b > -a else Fraction(0)) if a < 0 < b else -max(a, Fraction(0))
        slope = Fraction(1, 1024) * (b - a)  # slopes are whole numbers of 1/1024
        assert above - TIGHT <= bounds[i] <= above + slope + TIGHT
        assert below - TIGHT <= bounds[3 + i] <= below + TIGHT
        assert 3 * above - TIGHT <= bounds[6 + i] <= 3 * (above + slope) + TIGHT


@pytest.mark.parametrize("radius", [Fraction(1, 16), Fraction(1, 4), Fraction(1)])
@pytest.mark.parametrize("seeds", [(2, 3), (3, 3), (6, 8)])
def test_a_difference_of_relus_is_bounded_by_its_planes(radius: Fraction, seeds: tuple[int, int]) -> None:
    case = Known(*pair_of(*([affine("h", "x", 3, s), relu("r", "h")] for s in seeds)), radius)
    eye = np.eye(3, dtype=int)
    bounds = bounded(case, 2, {"d": np.concatenate([eye, -eye], axis=1)})
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


@pytest.mark.parametrize("names", ["z", "y", "d", "zyd"])
@pytest.mark.parametrize("kind", ["affine", "sum", "place"])
def test_executions_pay_for_what_every_step_rounds(kind: str, names: str) -> None:
    """In z and y once and in D twice, times the absolute values of the coefficients."""
    last = {
        "affine": lambda s: affine("r", "h", 3, s + 5), "sum": lambda s: total("r", "h", "x", 1, -1),
        "place": lambda s: affine("r", "h", 3, s + 7, bias=False),
    }[kind]  # fmt: skip
    case = Known(*pair_of(*([affine("h", "x", 3, s), last(s)] for s in (2, 3))), Fraction(1, 3))
    rows = functions(4, 3, 3, names)
    plain = bounded(case, 2, rows, short=True)
    case.pair.float32 = True
    found = bounded(case, 2, rows)
    u, sizes = Fraction(1, 2**24), {}
    for n in (0, 1):
        for part in "zy":
            low, high = known_ends(case.known[n], part)
            sizes[n, part] = [max(-a, b) for a, b in zip(low, high, strict=True)]

    def errors(n: int, net: int) -> list[Fraction]:
        step, part = case.programs[net].steps[n - 1], "zy"[net]
        if step.kind == "sum":
            return [2 * u * (a + b) for a, b in zip(sizes[1, part], sizes[0, part], strict=True)]
        assert step.weight is not None
        weights = np.abs(np.ldexp(step.weight.mantissa, step.weight.exponent)).reshape(3, 3)
        bias = [0] * 3 if step.bias is None else np.abs(np.ldexp(step.bias.mantissa, step.bias.exponent)).tolist()
        read = sizes[n - 1, part]
        exact = [sum(int(w) * x for w, x in zip(row, read, strict=True)) for row in weights]
        return [6 * u * (size + int(b)) for size, b in zip(exact, bias, strict=True)]

    for r, bound in enumerate(found):
        least = Fraction(0)
        for part, c in rows.items():
            for net in {"z": (0,), "y": (1,), "d": (0, 1)}[part]:
                least += sum(abs(int(c[i, r])) * e for i, e in enumerate(errors(2, net)))
        assert bound - plain[r] >= least - TIGHT / 2**10
        assert kind == "sum" or bound - plain[r] <= 100 * least
