"""Enumeration, linear relaxation and mixed-integer program of small pairs: they bound, attain, and agree."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.complete.enumeration import enumerate_regions
from verify.complete.milp import milp_deviation
from verify.complete.polytope import box_polytope, cut
from verify.complete.relaxation import LinearProgram, proved_ranges, relaxed_upper
from verify.complete.system import dot, relu_system
from verify.errors import MismatchError, SpecificationError, UnsupportedOperation
from verify.formal.deviation import verify_deviation
from verify.network.evaluate import evaluate
from verify.network.graph import build
from verify.spec.box import Box
from verify.spec.deviation import Verdict
from verify.testing.networks import networks
from verify.testing.twins import compact_twins

OPS = ("linear", "relu", "leaky_relu", "clip", "hardsigmoid", "add", "shift", "scale")
SMALL = {"ops": OPS, "max_blocks": 4, "outputs": 2}
random_networks = st.sampled_from([(1,), (2,), (3,)]).flatmap(
    lambda shape: networks("dense", input_shape=shape, **SMALL)
)


@st.composite
def small_pairs(draw):
    """A small network, a twin, a box (some coordinates of no width), and the pair's system; few units."""
    network = draw(random_networks)
    twin = draw(compact_twins(network)).compact
    low = [Fraction(draw(st.integers(-20, 10)), 7) for _ in range(network.input_shape[0])]
    width = [Fraction(draw(st.sampled_from([0, 3, 8, 20])), 7) for _ in low]
    return network, twin, Box(tuple(low), tuple(a + w for a, w in zip(low, width, strict=True)))


def tiny(system, most=14):
    return len(system.units) <= most


@settings(deadline=None, max_examples=25)
@given(small_pairs(), st.integers(0, 2**16))
def test_the_system_is_the_difference_of_the_networks(pair, seed):
    original, compact, box = pair
    x = box.sample(np.random.default_rng(seed), 3)
    expected = evaluate(original, x) - evaluate(compact, x)
    system = relu_system(original, compact)
    scale = 1 + np.abs(evaluate(original, x)).max()
    for point, values in zip(x, expected, strict=True):
        exact = [float(v) for v in system.values([Fraction(v) for v in point.tolist()])]
        assert exact == pytest.approx(list(values), rel=1e-9, abs=1e-12 * scale)


@settings(deadline=None, max_examples=25)
@given(small_pairs(), st.integers(0, 2**16))
def test_the_enumerated_range_holds_and_is_attained(pair, seed):
    original, compact, box = pair
    system = relu_system(original, compact)
    if not tiny(system):
        return
    found = enumerate_regions(system, box)
    for output in range(2):
        assert system.values(found.lower_at[output])[output] == found.lower[output]
        assert system.values(found.upper_at[output])[output] == found.upper[output]
        assert box.contains(found.lower_at[output])
    corner = [box.nearest([1e9 if b else -1e9 for b in bits]) for bits in np.ndindex(*(2,) * box.dimension)]
    inside = [box.nearest(p) for p in box.sample(np.random.default_rng(seed), 20)]
    for point in (*corner, *inside):
        values = system.values(point)
        assert all(a <= v <= b for a, v, b in zip(found.lower, values, found.upper, strict=True))


@settings(deadline=None, max_examples=12)
@given(small_pairs())
def test_the_relaxation_is_above_and_the_program_agrees(pair):
    original, compact, box = pair
    system = relu_system(original, compact)
    if not tiny(system, 10):
        return
    exact = enumerate_regions(system, box).per_output()
    for tighten in (False, True):
        assert all(a <= b for a, b in zip(exact, relaxed_upper(system, box, tighten=tighten), strict=True))
    program = milp_deviation(system, box)
    for value, attained, claimed, proved in zip(exact, program.attained, program.claimed, program.proved, strict=True):
        tolerance = 1e-6 * max(1.0, float(value))
        assert attained <= value <= proved
        assert float(value) - float(attained) <= tolerance
        assert abs(claimed - float(value)) <= tolerance


def dense_pair(seed, radius=1):
    """A dense 3-5-4-2 ReLU network, one rounded to eighths, and a box around 0."""
    rng = np.random.default_rng(seed)
    parameters, steps, last = {}, [], "x"
    for i, (n_in, n_out) in enumerate(((3, 5), (5, 4), (4, 2))):
        parameters |= {f"w{i}": rng.normal(size=(n_out, n_in)) / np.sqrt(n_in), f"b{i}": 0.3 * rng.normal(size=n_out)}
        steps.append((f"a{i}", "linear", [last], {"weight": f"w{i}", "bias": f"b{i}"}, {}))
        last = f"a{i}" if i == 2 else f"h{i}"
        steps += [] if i == 2 else [(last, "relu", [f"a{i}"], {}, {})]
    original = build("x", (3,), steps, last, parameters)
    compact = original.with_parameters({k: np.round(8 * v) / 8 for k, v in parameters.items()})
    return original, compact, Box((Fraction(-radius),) * 3, (Fraction(radius),) * 3)


def test_wrong_multipliers_give_a_bound_all_the_same(monkeypatch):
    original, compact, box = dense_pair(4)
    system = relu_system(original, compact)
    exact = enumerate_regions(system, box)
    ranges = proved_ranges(system, box, tighten=False)
    program = LinearProgram.of(system, ranges.columns, ranges.units)
    rng = np.random.default_rng(0)
    for _ in range(10):
        wrong = [Fraction(v) for v in (rng.random(len(program.matrix)) * 3).tolist()]
        monkeypatch.setattr(LinearProgram, "_multipliers", lambda self, row, wrong=wrong: wrong)
        assert program.upper(system.outputs[0]) >= exact.upper[0]


def test_the_branch_and_bound_agrees():
    original, compact, box = dense_pair(3, Fraction(1, 4))
    exact = enumerate_regions(relu_system(original, compact), box).deviation()
    result = verify_deviation(original, compact, [box], timeout=30, ratio=1.05)
    assert result.verdict is Verdict.PROVED
    assert Fraction(result.lower) <= exact <= Fraction(result.upper)
    assert result.upper <= 1.05 * float(exact) * (1 + 1e-9)


def test_a_cut_keeps_the_volume_of_a_square():
    polytope, bits = box_polytope(Box((Fraction(0),) * 2, (Fraction(1),) * 2))
    row = np.array([Fraction(-1, 2), Fraction(1), Fraction(1, 3)], dtype=object)
    heights = [dot(row, np.array(v.point, dtype=object)) for v in polytope]
    above, below = cut(polytope, heights, bits)
    assert len(above) == len(below) == 4

    def area(part):
        points = sorted(v.point[1:] for v in part)
        middle = [sum(p[i] for p in points) / len(points) for i in (0, 1)]
        points.sort(key=lambda p: np.arctan2(float(p[1] - middle[1]), float(p[0] - middle[0])))
        return abs(sum(a[0] * b[1] - a[1] * b[0] for a, b in zip(points, points[1:] + points[:1], strict=True))) / 2

    assert area(above) + area(below) == 1


def test_what_is_refused():
    original, compact, box = dense_pair(0)
    system = relu_system(original, compact)
    assert enumerate_regions(system, box, most_regions=1) is None
    with pytest.raises(MismatchError, match="4 coordinates"):
        enumerate_regions(system, Box((Fraction(0),) * 4, (Fraction(1),) * 4))
    with pytest.raises(MismatchError, match="4 coordinates"):
        proved_ranges(system, Box((Fraction(0),) * 4, (Fraction(1),) * 4))
    with pytest.raises(SpecificationError, match="seconds"):
        milp_deviation(system, box, seconds=0.0)
    smooth = build("x", (3,), [("y", "tanh", ["x"], {}, {})], "y", {})
    with pytest.raises(UnsupportedOperation, match="piecewise linear"):
        relu_system(smooth, smooth)
    with pytest.raises(MismatchError, match="compared"):
        relu_system(original, build("x", (2,), [("y", "relu", ["x"], {}, {})], "y", {}))


def test_without_time_the_program_claims_nothing():
    original, compact, box = dense_pair(0)
    found = milp_deviation(relu_system(original, compact), box, seconds=1e-9)
    assert not found.solved
    assert all(claimed == float("inf") for claimed in found.claimed)
    assert all(a <= p for a, p in zip(found.attained, found.proved, strict=True))
