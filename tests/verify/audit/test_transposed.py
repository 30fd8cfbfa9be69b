"""A map read backward is its transposed matrix, entry by entry, with its errors; and what a pair knows of its steps."""

from fractions import Fraction

import numpy as np
import pytest

from verify.audit import transposed as module
from verify.audit.exact import LIMB, Resource
from verify.audit.lift import Affine, stages_of_pair
from verify.audit.linear import linear_map
from verify.audit.planes import Inconsistent
from verify.audit.program import Program, Step, integers
from verify.audit.transposed import Pair, transposed

TAPS = np.array([[[0, 1, 2, 2], [1, -1, 0, 3]], [[2, 2, 1, 0], [-1, 0, 1, 4]]])


def affine(weights: np.ndarray, radii: np.ndarray, taps: np.ndarray, inputs: int, place: list[int] | None) -> Affine:
    linear = linear_map(weights, radii, -5, taps, inputs)
    return Affine(linear, None if place is None else np.array(place), None, None, 0)


@pytest.mark.parametrize("place", [None, [7, 0, 2, 5, 1, 6, 4, 3, 8, 9, 11, 10]])
@pytest.mark.parametrize(("top", "radius"), [(99, 0), (2**39, 0), (2**39, 2**20), (2**52, 0), (2**52, 50)])
def test_the_matrix_has_rows_and_columns_exchanged(place: list[int] | None, top: int, radius: int) -> None:
    """Windows with padding that read elements twice, in two groups of three rows."""
    rng = np.random.default_rng(top % 91)
    weights, radii = rng.integers(-top, top, (2, 3, 4)), rng.integers(0, radius + 1, (2, 3, 4))
    weights[1] = np.abs(weights[1])
    given = affine(weights.astype(float), radii.astype(float), TAPS, 6, place)
    found = transposed(given, 12, 6)
    assert found is not None
    assert found.both.shape == (1, 12, 12)
    assert found.in_order
    unit = Fraction(2) ** (found.exponent + 5)
    matrix, errors = np.zeros((12, 6), dtype=object), np.zeros((12, 6), dtype=object)
    for i, (g, o, p) in enumerate(np.ndindex(2, 3, 2)):
        for k, tap in enumerate(TAPS[g, p].tolist()):
            if tap >= 0:
                matrix[i, tap] += int(weights[g, o, k])
                errors[i, tap] += int(given.linear.loss[g, o]) * Fraction(2) ** (given.linear.exponent + 5)
    rows = [matrix[i] for i in (place or range(12))]
    lost = [errors[i] for i in (place or range(12))]
    for i, o in np.ndindex(6, 12):
        stored = (int(found.both[0, i, o]) * 2**LIMB + int(found.both[0, 6 + i, o])) * unit
        assert abs(stored - rows[o][i]) + (lost[o][i] if top < 2**40 else 0) <= int(found.loss[0, i]) * unit
    for i in range(6):
        assert int(found.loss[0, i]) * unit <= 2 * unit + max(line[i] for line in lost)


@pytest.mark.parametrize(("limit", "fits"), [(6, True), (5, False), (0, False)])
def test_maps_beyond_the_limit_are_not_transposed(monkeypatch: pytest.MonkeyPatch, limit: int, fits: bool) -> None:
    monkeypatch.setattr(module, "LARGEST_MAP", limit)
    given = affine(np.ones((1, 2, 3)), np.zeros((1, 2, 3)), np.arange(3)[None, None], 3, None)
    assert (transposed(given, 2, 3) is not None) is fits


@pytest.mark.parametrize("weight", [1.0 - 2.0**40, 2.0**40 - 1])
@pytest.mark.parametrize("radius", [0.0, 2.0**40])
def test_entries_that_add_up_beyond_the_exact_range_are_refused(weight: float, radius: float) -> None:
    taps = np.zeros((1, 1, 2**13), dtype=int)
    shape = (1, 1, 2**13)
    assert transposed(affine(np.full(shape, weight / 2**10), np.zeros(shape), taps, 1, None), 1, 1) is not None
    for one in ((weight, radius), (1.0, 2.0**40)):
        with pytest.raises(Resource, match="exact range"):
            transposed(affine(np.full(shape, one[0]), np.full(shape, one[1]), taps, 1, None), 1, 1)


def step(name: str, kind: str, *sources: str, size: int = 3, **more: object) -> Step:
    return Step(name, kind, sources, (size,), **more)  # type: ignore[arg-type]


def matrix(name: str, source: str, rows: int, columns: int, first: int = 1) -> Step:
    numbers = integers(list(range(first, first + rows * columns)), (1, rows, columns))
    return step(name, "affine", source, size=rows, taps=np.arange(columns)[None, None], weight=numbers)


def program(*steps: Step) -> Program:
    return Program("x", (3,), False, steps, steps[-1].name, "")


def pair(hidden: int = 3) -> Pair:
    taps = np.array([2, 1, 0])
    first, second = (
        program(
            matrix("h", "x", 3, 3), step("p", "sum", "h", "x", signs=(1, 1)), step("g", "gather", "p", taps=taps),
            step("r", "relu", "g"), step("s", "sum", "p", "r", signs=(1, 1)), matrix("m", "s", size, 3),
            matrix("y", "m", 2, size, 5),
        )
        for size in (3, hidden)
    )  # fmt: skip
    return Pair(stages_of_pair(first, second, ()), 3)


def test_values_before_the_first_relu_are_affine_functions_of_the_input() -> None:
    assert pair().straight == [True, True, True, True, False, False, False, False]
    assert pair().sizes == [(3, 3)] * 7 + [(2, 2)]
    assert pair(2).sizes == [(3, 3)] * 6 + [(3, 2), (2, 2)]


def test_only_affine_steps_have_maps_and_only_values_that_belong_together_have_cross_maps() -> None:
    found = pair(2).maps
    assert [m.own is not None for m in found] == [True, False, False, False, False, True, True]
    assert [m.compact is not None for m in found] == [True, False, False, False, False, True, True]
    assert [m.cross is not None for m in found] == [True, False, False, False, False, False, False]
    for n, own, compact in ((5, (3, 3), (3, 2)), (6, (3, 2), (2, 2))):
        for linear, (rows, columns) in ((found[n].own, own), (found[n].compact, compact)):
            assert linear is not None
            assert linear.upper.shape == (1, rows, columns)
    shared = pair().maps[5].cross
    assert shared is not None
    assert not shared.upper.any()


def test_kept_elements_are_those_of_every_position() -> None:
    assert [pair().kept(n).tolist() for n in range(8)] == [[0, 1, 2]] * 7 + [[0, 1]]
    wide = program(matrix("h", "x", 4, 3))
    assert Pair(stages_of_pair(wide, wide, ()), 3).kept(0).tolist() == [0, 1, 2]
    with pytest.raises(Inconsistent, match="belong together"):
        pair(2).kept(6)
