"""Rules for pairs of values: every form contains the exact values at exact points, value after value."""

from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.verify.audit.exact_semantics import correspondences, exact_values, read, region
from verify.audit import rules
from verify.audit.exact import Refuted
from verify.audit.form import CENTRE, Form
from verify.audit.grid import InputGrid
from verify.audit.lift import Correspondence, Stage, kept_elements, stages_alone, stages_of_pair

seeds = st.integers(0, 2**32 - 1)


def gap(form: Form, values: list[Fraction], inputs: list[Fraction], leaf: int, extra: Fraction = Fraction(0)) -> bool:
    """Whether the values fit the form when the input symbols are `inputs` and all others are free."""
    unit, column = Fraction(2) ** form.exponent, 0
    centre = [Fraction(0)] * len(values)
    free = [Fraction(int(r)) for r in form.rem[:, leaf].tolist()]
    for block, width in form.blocks:
        part = form.body[:, column : column + width, leaf].tolist()
        column += width
        for i, row in enumerate(part):
            if block == 0:
                centre[i] += int(row[0])
            elif block == 1:
                centre[i] += sum(int(v) * w for v, w in zip(row, inputs, strict=True))
            else:
                free[i] += sum(abs(int(v)) for v in row)
    return all(abs(v - unit * c) <= unit * r + extra for v, c, r in zip(values, centre, free, strict=True))


def run(stages: list[Stage], first: rules.Values, symbols: int) -> list[rules.Values]:
    """All values, kept for inspection."""
    everything = tuple(range(len(stages) + 1))
    left = np.full(first.z.rem.shape[1], float(symbols))
    return rules.propagate(stages, first, rules.Symbols(2, left), everything)


def check_containment(attacks: ModuleType, kind: str, seed: int, symbols: int) -> None:
    rng = np.random.default_rng(seed)
    original, compact, lift = attacks.pair(kind, rng)
    a, b = read(original), read(compact)
    stages = stages_of_pair(a, b, correspondences(lift))
    count = a.size_of(a.input)
    low = [Fraction(int(v), 64) for v in rng.integers(-64, 64, count)]
    radius = Fraction(int(rng.integers(1, 32)), 64)
    box = tuple((v, v + 2 * radius) for v in low)
    other = tuple((v + radius / 2, v + radius) for v in low)
    x = InputGrid(box).form([box, other])
    zero = Form(0, CENTRE, np.zeros((count, 1, 2)), np.zeros((count, 2)))
    values = run(stages, rules.Values(x, x, zero), symbols)
    kept = [np.arange(count), *(s.kept for s in stages)]
    for leaf, (start, end) in ((0, (Fraction(0), 2 * radius)), (1, (radius / 2, radius))):
        share = [Fraction(int(v), 8) for v in rng.integers(0, 9, count)]
        inside = [v + start + s * (end - start) for v, s in zip(low, share, strict=True)]
        unit = Fraction(2) ** x.exponent
        centre, reach = x.body[:, 0, leaf].tolist(), x.body[range(count), range(1, count + 1), leaf].tolist()
        xi = [(v / unit - int(c)) / int(r) for v, c, r in zip(inside, centre, reach, strict=True)]
        z, y = exact_values(a, inside), exact_values(b, inside)
        slack = Fraction(1, 2**44)  # batch norm and means: the program holds enclosures of their factors
        for i, v in enumerate(values):
            assert gap(v.z, z[i], xi, leaf, slack), (i, "z")
            assert v.y is not None
            assert gap(v.y, y[i], xi, leaf, slack), (i, "y")
            if v.d is not None:
                d = [z[i][k] - w for k, w in zip(kept[i].tolist(), y[i], strict=True)]
                assert gap(v.d, d, xi, leaf, slack), (i, "d")


@pytest.mark.parametrize("kind", ["dense", "residual", "conv", "max_pool", "batch_norm", "average_pool", "shortcut"])
@settings(deadline=None, max_examples=6)
@given(seed=seeds, symbols=st.sampled_from([10**6, 12, 0]))
def test_every_form_contains_the_exact_value(attacks: ModuleType, kind: str, seed: int, symbols: int) -> None:
    check_containment(attacks, kind, seed, symbols)


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(
    kind=st.sampled_from(["dense", "residual", "conv", "max_pool", "batch_norm", "average_pool", "shortcut"]),
    seed=seeds,
    symbols=st.sampled_from([10**6, 12, 3, 0]),
)
def test_every_form_contains_the_exact_value_on_many_pairs(
    attacks: ModuleType, kind: str, seed: int, symbols: int
) -> None:
    check_containment(attacks, kind, seed, symbols)


@settings(deadline=None, max_examples=200)
@given(seeds, st.sampled_from([3, 50, 2**39]))
def test_the_plane_holds_on_the_region_and_is_touched(seed: int, scale: int) -> None:
    rng = np.random.default_rng(seed)
    ends = region(rng, scale)
    vectors = [np.array([float(v)]) for v in ends]
    lz, uz, ly, uy, dl, du = ends
    s_z, s_d, bottom, top = (int(v) for v in rules.best_plane(vectors, np.array([True]))[:, 0])
    values = []
    for _ in range(200):
        z = (
            Fraction(int(rng.integers(lz, uz + 1)))
            if rng.random() < 0.5
            else Fraction(lz) + Fraction(int(rng.integers(0, 65)), 64) * (uz - lz)
        )
        d_low, d_high = max(dl, z - uy), min(du, z - ly)
        if d_low > d_high:
            continue
        d = d_low + Fraction(int(rng.integers(0, 5)), 4) * (d_high - d_low)
        rest = int(rules.ONE) * (max(z, Fraction(0)) - max(z - d, Fraction(0))) - s_z * z - s_d * d
        assert bottom <= rest <= top
        values.append(rest)
    if scale <= 3:
        exhaustive = [
            int(rules.ONE) * (max(z, 0) - max(y, 0)) - s_z * z - s_d * (z - y)
            for z in range(lz, uz + 1) for y in range(ly, uy + 1) if dl <= z - y <= du
        ]  # fmt: skip
        assert (min(exhaustive), max(exhaustive)) == (bottom, top)  # all vertices are integers here


def test_without_a_symbol_the_plane_is_flat() -> None:
    ends = [np.array([v]) for v in (-4.0, 6.0, -5.0, 5.0, -1.0, 2.0)]
    s_z, s_d, _, _ = rules.best_plane(ends, np.array([False]))[:, 0]
    assert (s_z, s_d) == (0, 0)


@settings(deadline=None, max_examples=100)
@given(st.integers(-(2**39), 2**39), st.integers(0, 2**39))
def test_slopes_are_within_their_range(low: int, width: int) -> None:
    slope = rules.slopes(np.array([float(low)]), np.array([float(low + width)]))[0]
    assert 0 <= slope <= rules.ONE
    assert slope == int(slope)
    assert low < 0 or slope == rules.ONE


def test_enclosures_that_do_not_meet_are_noticed() -> None:
    ends = [np.array([v]) for v in (1.0, 2.0, 5.0, 6.0, 0.0, 1.0)]
    with pytest.raises(rules.Inconsistent, match="empty"):
        rules.best_plane(ends, np.array([True]))


def test_equal_networks_have_a_difference_of_exactly_zero(attacks: ModuleType) -> None:
    for kind in ("dense", "residual", "conv", "max_pool", "shortcut"):
        original, _, _ = attacks.pair(kind, np.random.default_rng(5))
        program = read(original)
        stages = stages_of_pair(program, program, ())
        count = program.size_of(program.input)
        box = tuple((Fraction(-1, 3), Fraction(2, 3)) for _ in range(count))
        x = InputGrid(box).form([box])
        zero = Form(0, CENTRE, np.zeros((count, 1, 1)), np.zeros((count, 1)))
        last = run(stages, rules.Values(x, x, zero), 10**6)[-1]
        assert last.d is not None
        assert not last.d.size.any()


def test_a_wrong_lift_costs_tightness_and_not_truth(attacks: ModuleType) -> None:
    rng = np.random.default_rng(11)
    original, compact, lift = attacks.pair("dense", rng)
    a, b = read(original), read(compact)
    wrong = tuple(Correspondence(c.original, c.compact, c.axis, c.kept[::-1]) for c in lift)
    mixed = (*correspondences(lift)[:2], *wrong[2:])
    box = tuple((Fraction(-1, 2), Fraction(1, 2)) for _ in range(a.size_of(a.input)))
    grid = InputGrid(box)
    widths = []
    for entries in (correspondences(lift), wrong, mixed):
        x = grid.form([box])
        zero = Form(0, CENTRE, np.zeros((len(box), 1, 1)), np.zeros((len(box), 1)))
        last = run(stages_of_pair(a, b, entries), rules.Values(x, x, zero), 10**6)[-1]
        d = rules.difference(last.z, last.y) if last.d is None else last.d
        widths.append(float(d.size.max()) * 2.0**d.exponent)
        point = [Fraction(1, 3)] * len(box)
        exact = [v - w for v, w in zip(exact_values(a, point)[-1], exact_values(b, point)[-1], strict=True)]
        unit = Fraction(2) ** d.exponent
        assert all(abs(v) <= int(s) * unit for v, s in zip(exact, d.size[:, 0].tolist(), strict=True))
    assert widths[0] < widths[1]


@pytest.mark.parametrize(
    "kept", [(0, 0), (0, 9), (-1, 0), (0, 1, 2), ()], ids=["repeated", "beyond", "negative", "too many", "none"]
)
def test_ill_fitting_correspondences_are_refused(kept: tuple[int, ...]) -> None:
    with pytest.raises(Refuted):
        kept_elements((4, 2), (2, 2), Correspondence("a", "a", 0, kept))
    with pytest.raises(Refuted):
        kept_elements((4, 2), (2, 2), Correspondence("a", "a", 2, (0, 1)))
    assert kept_elements((4, 2), (2, 2), Correspondence("a", "a", 0, (3, 1))).tolist() == [6, 7, 2, 3]  # type: ignore[union-attr]
    assert kept_elements((4,), (3,), None) is None


def test_the_premise_of_the_affine_rule_is_checked(attacks: ModuleType) -> None:
    """With the true lift every step of every kind is aligned, so the fallback is not what makes proofs pass."""
    for kind in attacks.KINDS:
        original, compact, lift = attacks.pair(kind, np.random.default_rng(3))
        stages = stages_of_pair(read(original), read(compact), correspondences(lift))
        assert all(s.aligned for s in stages), kind


def test_one_network_alone_has_one_form_per_value(attacks: ModuleType, tmp_path: Path) -> None:
    original, _, _ = attacks.pair("max_pool", np.random.default_rng(2))
    program = read(original)
    count = program.size_of(program.input)
    box = tuple((Fraction(0), Fraction(1)) for _ in range(count))
    values = run(stages_alone(program), rules.Values(InputGrid(box).form([box])), 50)
    exact = exact_values(program, [Fraction(1, 2)] * count)
    assert all(v.y is None and v.d is None for v in values)
    assert gap(values[-1].z, exact[-1], [Fraction(0)] * count, 0, Fraction(1, 2**30))
