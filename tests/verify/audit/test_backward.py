"""The rule "pair_backward": exact values lie inside at every step, and certificates of it are never false."""

import json
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.verify.audit.exact_semantics import correspondences, exact_values, read, region
from tests.verify.audit.known_bounds import known_bounds
from verify.audit import Verdict, check, planes
from verify.audit.backward import Backward
from verify.audit.exact import Resource
from verify.audit.grid import InputGrid
from verify.audit.lift import stages_of_pair
from verify.audit.program import fractions
from verify.audit.transposed import Pair, transposed
from verify.audit.upper import products, total, upward

KINDS = ["dense", "residual", "conv", "max_pool", "batch_norm", "average_pool", "shortcut"]
SLACK = Fraction(1, 2**44)  # batch norm and means: the program holds enclosures of their factors
seeds = st.integers(0, 2**32 - 1)


def integers(rng: np.random.Generator, bits: int, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(-(2**bits) + 1, 2**bits, shape).astype(np.float64)


@settings(deadline=None, max_examples=60)
@given(seeds, st.integers(1, 1200), st.sampled_from([3, 20, 40]), st.sampled_from([3, 20, 40]), st.sampled_from([1, 3]))
def test_sums_of_products_are_exact_and_totals_not_below_them(
    seed: int, count: int, bits: int, other: int, leaves: int
) -> None:
    """Values of three leaves, or one value for all three."""
    rng = np.random.default_rng(seed)
    body, values = integers(rng, bits, (count, 2, 3)), integers(rng, other, (count, leaves))
    parts = products(body, values, -7)
    bound, unit = total(parts, np.zeros((2, 3)))
    for r in range(2):
        for leaf in range(3):
            exact = sum(int(a) * int(b) for a, b in zip(body[:, r, leaf], values[:, leaf % leaves], strict=True))
            assert sum(int(p[r, leaf]) * Fraction(2) ** (e + 7) for p, e in parts) == exact
            above = int(bound[r, leaf]) * Fraction(2) ** unit - exact * Fraction(1, 2**7)
            assert 0 <= above <= len(parts) * Fraction(2) ** unit


def test_numbers_beyond_the_exact_range_give_no_sum() -> None:
    with pytest.raises(Resource):
        products(np.full((1, 1, 1), 2.0**41), np.ones((1, 1)), 0)
    with pytest.raises(Resource):
        products(np.ones((1, 1, 1)), np.full((1, 1), -(2.0**41)), 0)


@settings(deadline=None, max_examples=60)
@given(seeds, st.sampled_from([5, 40, 52]))
def test_rounding_up_never_goes_down(seed: int, bits: int) -> None:
    values = integers(np.random.default_rng(seed), bits, (3, 4))
    found, exponent = upward(values, -3)
    assert (np.abs(found) <= 2.0**40).all()
    for before, after in zip(values.ravel(), found.ravel(), strict=True):
        gain = int(after) * Fraction(2) ** exponent - int(before) * Fraction(1, 8)
        assert 0 <= gain < Fraction(2) ** exponent


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=4)
@given(seeds)
def test_a_transposed_map_is_the_transposed_matrix(attacks: ModuleType, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    original, compact, lift = attacks.pair(kind, rng)
    a, b = read(original), read(compact)
    for stage, step in zip(stages_of_pair(a, b, correspondences(lift)), a.steps, strict=True):
        if stage.own is None:
            continue
        inputs, outputs = a.size_of(step.inputs[0]), a.size_of(step.name)
        found = transposed(stage.own, outputs, inputs)
        assert found is not None
        matrix = np.zeros((outputs, inputs), dtype=object)
        weights = np.array(fractions(step.weight), dtype=object).reshape(step.weight.mantissa.shape)
        groups, rows, positions = weights.shape[0], weights.shape[1], step.taps.shape[1]
        for g, o, p in np.ndindex(groups, rows, positions):
            at = np.ravel_multi_index((g, o, p), (groups, rows, positions))
            for k, tap in enumerate(step.taps[g, p]):
                if tap >= 0:
                    matrix[at, tap] += weights[g, o, k]
        matrix = matrix if step.place is None else matrix[step.place]
        hi, lo = found.both[0, :inputs], found.both[0, inputs:]
        unit = Fraction(2) ** found.exponent
        for i, o in np.ndindex(inputs, outputs):
            stored = (int(hi[i, o]) * 2**20 + int(lo[i, o])) * unit
            assert abs(stored - matrix[o, i]) <= int(found.loss[0, i]) * unit + SLACK


@settings(deadline=None, max_examples=150)
@given(seeds, st.sampled_from([3, 50, 2**39]))
def test_two_planes_hold_on_the_region(seed: int, scale: int) -> None:
    rng = np.random.default_rng(seed)
    ends = region(rng, scale)
    lz, uz, ly, uy, dl, du = ends
    low_a, low_b, bottom, high_a, high_b, top = (
        int(v) for v in planes.two_planes([np.array([float(v)]) for v in ends])[:, 0]
    )
    linear = (lz >= 0 or uz <= 0) and (ly >= 0 or uy <= 0)
    for _ in range(100):
        z = Fraction(lz) + Fraction(int(rng.integers(0, 65)), 64) * (uz - lz)
        d_low, d_high = max(dl, z - uy), min(du, z - ly)
        if d_low > d_high:
            continue
        d = d_low + Fraction(int(rng.integers(0, 5)), 4) * (d_high - d_low)
        value = int(planes.ONE) * (max(z, Fraction(0)) - max(z - d, Fraction(0)))
        below, above = low_a * z + low_b * d + bottom, high_a * z + high_b * d + top
        assert below <= value <= above
        assert not linear or below == value == above


def check_containment(attacks: ModuleType, kind: str, seed: int, symbols: int) -> None:
    rng = np.random.default_rng(seed)
    original, compact, lift = attacks.pair(kind, rng)
    a, b = read(original), read(compact)
    stages = stages_of_pair(a, b, correspondences(lift))
    count = a.size_of(a.input)
    low = [Fraction(int(v), 64) for v in rng.integers(-64, 64, count)]
    radius = Fraction(int(rng.integers(1, 32)), 64)
    boxes = [tuple((v, v + 2 * radius) for v in low), tuple((v + radius / 2, v + radius) for v in low)]
    x = InputGrid(boxes[0]).form(boxes)
    kept = [np.arange(count), *(s.kept for s in stages)]
    known = known_bounds(stages, x, float(symbols))
    forms = list(known)
    lowest, highest, exponent = Backward(Pair(stages, count), x, known).differences(len(stages))
    for leaf, box in enumerate(boxes):
        for corner in range(3):
            share = rng.integers(0, 2, count) * 8 if corner else rng.integers(0, 9, count)
            point = [p + Fraction(int(s), 8) * (q - p) for (p, q), s in zip(box, share, strict=True)]
            z, y = exact_values(a, point), exact_values(b, point)
            for i, bounds in enumerate(known):
                d = [z[i][k] - w for k, w in zip(kept[i].tolist(), y[i], strict=True)]
                for pair, exact in ((bounds.z, z[i]), (bounds.y, y[i]), (bounds.d, d)):
                    assert pair is not None
                    inside(pair[0][:, leaf], pair[1][:, leaf], bounds.unit, exact)
            inside(lowest[:, leaf], highest[:, leaf], exponent, [p - q for p, q in zip(z[-1], y[-1], strict=True)])
    for before, after in zip(forms, known, strict=True):
        assert (before.z[0] <= after.z[0]).all()
        assert (after.z[1] <= before.z[1]).all()


def inside(low: np.ndarray, high: np.ndarray, exponent: int, values: list[Fraction]) -> None:
    unit = Fraction(2) ** exponent
    for p, q, v in zip(low.tolist(), high.tolist(), values, strict=True):
        assert int(p) * unit - SLACK <= v <= int(q) * unit + SLACK


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=4)
@given(seed=seeds, symbols=st.sampled_from([10**6, 12, 0]))
def test_exact_values_lie_inside_at_every_step(attacks: ModuleType, kind: str, seed: int, symbols: int) -> None:
    check_containment(attacks, kind, seed, symbols)


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(kind=st.sampled_from(KINDS), seed=seeds, symbols=st.sampled_from([10**6, 12, 3, 0]))
def test_exact_values_lie_inside_on_many_pairs(attacks: ModuleType, kind: str, seed: int, symbols: int) -> None:
    check_containment(attacks, kind, seed, symbols)


def test_false_claims_are_never_accepted(attacks: ModuleType, bases: list) -> None:
    rng = np.random.default_rng(5)
    outcomes = [o for base in bases[8:] for o in attacks.false_claims(base, rng)]
    assert len(outcomes) >= 20
    assert not [o for o in outcomes if o.wrong]


def test_forms_alone_prove_less(attacks: ModuleType, bases: list) -> None:
    """The same claims with the rule "pair_zonotope": at least one of them needs the descent."""
    verdicts = []
    for base in bases[8:]:
        data = json.loads(base.certificate.read_text())
        data["rule"]["name"] = "pair_zonotope"
        path: Path = base.folder / "forms.json"
        path.write_text(attacks.reseal(json.dumps(data)))
        verdicts.append(base.judge(path).verdict)
    assert Verdict.REJECT in verdicts


@pytest.mark.parametrize("kilobytes", [0, 1, 8, 64, 4096])
def test_leaves_that_forms_do_not_prove_are_all_proved_later(
    attacks: ModuleType, bases: list, monkeypatch: pytest.MonkeyPatch, kilobytes: int
) -> None:
    """However many leaves are proved together, the same claims are accepted, and a smaller one is not."""
    base = bases[8]
    data = json.loads(base.certificate.read_text())
    assert data["evidence"][0]["leaves"] >= 4
    monkeypatch.setattr(check, "CHUNK_BYTES", 1000 * kilobytes)
    verdicts = []
    attained, _, _ = attacks.attained(base, np.random.default_rng(0))
    for epsilon in (base.epsilon * (1 + Fraction(1, 10**9)), attained * Fraction(999, 1000)):
        data["claim"]["epsilon"] = attacks.show(epsilon)
        path = base.folder / "later.json"
        path.write_text(attacks.reseal(json.dumps(data)))
        report = base.judge(path)
        verdicts.append(report.verdict)
        assert report.verdict is not Verdict.ACCEPT or report.leaves == data["evidence"][0]["leaves"]
    assert verdicts == [Verdict.ACCEPT, Verdict.REJECT]
