"""Bounds from the output backward, leaf by leaf: exact where the networks are affine, and each of its own element."""

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest

from tests.verify.audit.exact_semantics import exact_values
from tests.verify.audit.known_bounds import known_bounds
from tests.verify.audit.test_descent_edges import program
from tests.verify.audit.test_descent_laws import affine, linear_steps, relu
from verify.audit import backward as module
from verify.audit.backward import Backward, rectified
from verify.audit.grid import InputGrid
from verify.audit.lift import Correspondence, stages_of_pair
from verify.audit.program import Program, Step
from verify.audit.rules import Bounds
from verify.audit.transposed import Pair

TIGHT = Fraction(1, 2**18)
ROOT = tuple((Fraction(v, 8) - 1, Fraction(v, 8) + 1) for v in (1, -2, 3))
LEAVES = [ROOT, tuple((a, (a + b) / 2) for a, b in ROOT), (ROOT[0], (Fraction(1, 4), Fraction(1, 3)), ROOT[2])]


def relu_steps(first: int, second: int) -> list[Step]:
    """Two hidden layers by their seeds."""
    hidden = [affine("h", "x", 3, first), relu("a", "h"), affine("g", "a", 3, second), relu("b", "g")]
    return [*hidden, affine("y", "b", 2, 5)]


class Two:
    """Two networks on three leaves, and what forms know of them."""

    def __init__(self, first: Program, second: Program, *lift: Correspondence) -> None:
        self.nets, stages = (first, second), stages_of_pair(first, second, lift)
        self.pair, self.x = Pair(stages, 3), InputGrid(ROOT).form(LEAVES)
        self.known = known_bounds(stages, self.x)
        self.last = len(stages)

    def ends(self, position: int, steps: int = 1) -> Any:
        """The least and the largest z[kept] - y, (elements, leaves), at points of a grid."""
        found = []
        for leaf in LEAVES:
            rows = []
            for share in product(range(steps + 1), repeat=3):
                point = [a + Fraction(s, steps) * (b - a) for (a, b), s in zip(leaf, share, strict=True)]
                z, y = (exact_values(net, point)[position] for net in self.nets)
                rows.append([z[k] - w for k, w in zip(self.pair.kept(position), y, strict=True)])
            found.append([(min(column), max(column)) for column in zip(*rows, strict=True)])
        return found

    def encloses(self, low: np.ndarray, high: np.ndarray, exponent: int) -> None:
        """The differences at the output lie inside on every leaf."""
        unit = Fraction(2) ** exponent
        for leaf, ends in enumerate(self.ends(self.last, 2)):
            for i, (least, most) in enumerate(ends):
                assert int(low[i, leaf]) * unit <= least
                assert most <= int(high[i, leaf]) * unit


def widened(b: Bounds, by: float) -> Bounds:
    z, y, d = ((p[0] - by, p[1] + by) for p in (b.z, b.y, b.d) if p is not None)
    return Bounds(b.unit, z, y, d)


@pytest.mark.parametrize("room", [1, 2**9, 2**21])
@pytest.mark.parametrize("wide", [False, True])
def test_differences_of_affine_networks_are_exact(room: int, wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many elements go down together, and however little was known before."""
    monkeypatch.setattr(module, "COLUMN_BYTES", room)
    case = Two(*(program(*linear_steps(seed)) for seed in (2, 3)))
    before = case.known[case.last]
    b = widened(before, 2.0**36) if wide else before
    for low, high, exponent in (
        Backward(case.pair, case.x, case.known).from_input(case.last, b),
        Backward(case.pair, case.x, [*case.known[:-1], b]).differences(case.last),
    ):
        unit = Fraction(2) ** exponent
        for leaf, ends in enumerate(case.ends(case.last)):
            for i, (least, most) in enumerate(ends):
                assert least - TIGHT <= int(low[i, leaf]) * unit <= least
                assert most <= int(high[i, leaf]) * unit <= most + TIGHT


def test_bounds_that_are_better_are_kept() -> None:
    """One end of one element on one leaf is known better than any descent tells."""
    case = Two(*(program(*linear_steps(seed)) for seed in (2, 3)))
    b = case.known[case.last]
    assert b.d is not None
    low, high = b.d[0].copy(), b.d[1].copy()
    low[1, 2] = high[1, 2] = np.floor((low[1, 2] + high[1, 2]) / 2)
    low[0, 1] = np.floor((low[0, 1] + high[0, 1]) / 2)
    found = Backward(case.pair, case.x, case.known).from_input(case.last, Bounds(b.unit, b.z, b.y, (low, high)))
    assert found[2] == b.unit
    assert (found[0][1, 2], found[1][1, 2]) == (low[1, 2], high[1, 2])
    assert found[0][0, 1] == low[0, 1]
    assert (found[0] >= low).all()
    assert (found[1] <= high).all()
    assert (b.d[0] <= b.d[1]).all()


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("deep", [False, True])
def test_differences_behind_relus_hold_and_are_sharper_than_forms(moved: bool, deep: bool) -> None:
    steps = relu_steps(2, 4)
    other = relu_steps(2, 6)
    if not deep:
        steps, other = ([*s[:2], affine("y", "a", 2, 5 + i)] for i, s in enumerate((steps, other)))
    lift = [Correspondence("a", "a", 0, (0, 2, 1))] if moved else []
    case = Two(program(*steps), program(*other), *lift)
    forms = list(case.known)
    before = forms[case.last].d
    low, high, exponent = Backward(case.pair, case.x, case.known).differences(case.last)
    case.encloses(low, high, exponent)
    assert before is not None
    scale = 2.0 ** (exponent - forms[case.last].unit)
    assert (low * scale >= before[0]).all()
    assert (high * scale <= before[1]).all()
    assert ((high - low) * scale < before[1] - before[0]).any()
    for n, (old, new) in enumerate(zip(forms, case.known, strict=True)):
        for part in ("z", "y", "d"):
            a, b = getattr(old, part), getattr(new, part)
            assert (b[0] * 2.0 ** (new.unit - old.unit) >= a[0]).all(), (n, part)
            assert (b[1] * 2.0 ** (new.unit - old.unit) <= a[1]).all(), (n, part)


def test_what_is_sharpened_on_the_way_holds() -> None:
    steps = relu_steps(2, 4)
    other = relu_steps(7, 6)
    case = Two(program(*steps), program(*other))
    Backward(case.pair, case.x, case.known).differences(case.last)
    for leaf, box in enumerate(LEAVES):
        for share in product(range(3), repeat=3):
            point = [a + Fraction(s, 2) * (b - a) for (a, b), s in zip(box, share, strict=True)]
            z, y = (exact_values(net, point) for net in case.nets)
            for n, b in enumerate(case.known):
                unit = Fraction(2) ** b.unit
                d = [p - q for p, q in zip(z[n], y[n], strict=True)]
                for ends, values in ((b.z, z[n]), (b.y, y[n]), (b.d, d)):
                    assert ends is not None
                    for i, value in enumerate(values):
                        assert int(ends[0][i, leaf]) * unit <= value <= int(ends[1][i, leaf]) * unit


@pytest.mark.parametrize("coarser", [12, 30])
def test_bounds_in_a_coarse_unit_are_rounded_outward(coarser: int) -> None:
    case = Two(*(program(*linear_steps(seed)) for seed in (2, 3)))
    b = case.known[case.last]
    assert b.y is not None
    unit = Fraction(2) ** (b.unit + coarser)
    wide = np.full_like(b.y[0], -(2.0**38)), np.full_like(b.y[0], 2.0**38)
    low, high, exponent = Backward(case.pair, case.x, case.known).from_input(
        case.last, Bounds(b.unit + coarser, wide, wide, wide)
    )
    assert exponent == b.unit + coarser
    for leaf, ends in enumerate(case.ends(case.last)):
        for i, (least, most) in enumerate(ends):
            assert int(low[i, leaf]) * unit <= least < (int(low[i, leaf]) + 1) * unit + TIGHT
            assert (int(high[i, leaf]) - 1) * unit - TIGHT < most <= int(high[i, leaf]) * unit


def test_a_narrower_network_has_functions_of_its_own_elements() -> None:
    first = relu_steps(2, 4)
    second = [*first[:2], affine("g", "a", 2, 6), relu("b", "g", 2), affine("y", "b", 2, 7, window=2)]
    lift = [Correspondence(name, name, 0, (0, 2)) for name in ("g", "b")]
    case = Two(program(*first), program(*second), *lift)
    low, high, exponent = Backward(case.pair, case.x, case.known).differences(case.last)
    case.encloses(low, high, exponent)


def ends(*pairs: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    low, high = (np.array(column, dtype=np.float64)[:, None] for column in zip(*pairs, strict=True))
    return low, high


@pytest.mark.parametrize("apart", [-2, 0, 1])
def test_results_of_a_relu_lie_between_those_of_the_ends_of_its_argument(apart: int) -> None:
    """In the unit of the results, rounded outward, and never wider than they were known before."""
    z, y = [(-5, 7), (-9, -3), (2, 9), (-1, 1), (0, 0)], [(-3, 3), (-7, 5), (1, 7), (-5, -1), (-1, 9)]
    d = [(-7, 9), (-3, -1), (1, 5), (-9, 3), (0, 0)]
    argument = Bounds(apart, ends(*z), ends(*y), ends(*d))
    for reach in (100, 1):
        old = ends(*[(-reach, reach)] * 5)
        found = rectified(argument, Bounds(0, old, old, old))
        assert found.unit == 0
        for part, pairs in (("z", z), ("y", y), ("d", d)):
            low, high = getattr(found, part)
            for i, (a, b) in enumerate(pairs):
                a, b = (min(a, 0), max(b, 0)) if part == "d" else (max(a, 0), max(b, 0))
                exact = [max(a * Fraction(2) ** apart, -reach), min(b * Fraction(2) ** apart, reach)]
                assert low[i, 0] == np.floor(float(exact[0]))
                assert high[i, 0] == np.ceil(float(exact[1]))
