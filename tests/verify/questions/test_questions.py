"""Every question against exact enumeration or replay: what is proved holds, what is refuted fails at its witness."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.complete.enumeration import enumerate_regions
from verify.complete.system import relu_system
from verify.errors import MismatchError, SpecificationError
from verify.network.graph import build
from verify.questions.arg_max import same_arg_max
from verify.questions.outputs import Ranges, with_rows
from verify.questions.per_output import per_output
from verify.questions.relative import output_range, relative
from verify.questions.search import answer
from verify.questions.unsafe import prove_property, unsafe
from verify.spec.box import Box
from verify.spec.deviation import Verdict
from verify.spec.vnnlib import Inequality, parse_vnnlib

SECONDS = 60.0


def dense(seed, inputs=2, outputs=3, units=5):
    """A ReLU network with one hidden layer."""
    rng = np.random.default_rng(seed)
    parameters = {
        "w": rng.normal(size=(units, inputs)), "b": 0.3 * rng.normal(size=units),
        "v": rng.normal(size=(outputs, units)) / 2, "c": 0.3 * rng.normal(size=outputs),
    }  # fmt: skip
    steps = [
        ("a", "linear", ["x"], {"weight": "w", "bias": "b"}, {}),
        ("h", "relu", ["a"], {}, {}),
        ("y", "linear", ["h"], {"weight": "v", "bias": "c"}, {}),
    ]
    return build("x", (inputs,), steps, "y", parameters)


def rounded(network, bits=6):
    """A twin with coarse weights."""
    return network.with_parameters({k: np.round(2.0**bits * v) / 2.0**bits for k, v in network.parameters.items()})


def square(radius=1, inputs=2):
    return Box((Fraction(-radius),) * inputs, (Fraction(radius),) * inputs)


def exact_outputs(network, point):
    return relu_system(network).values(point)


@pytest.mark.parametrize("seed", range(3))
def test_limits_per_output_are_decided_around_the_exact_deviation(seed):
    original, compact, box = dense(seed), rounded(dense(seed)), square()
    exact = enumerate_regions(relu_system(original, compact), box).per_output()
    proved = answer(per_output(original, compact, [e * Fraction(21, 20) for e in exact]), [box], seconds=SECONDS)
    assert proved.verdict is Verdict.PROVED
    assert (proved.open, proved.share, proved.witness) == (0, 1.0, None)
    for output in range(3):
        limits = [e * Fraction(11 if i != output else 9, 10) for i, e in enumerate(exact)]
        refuted = answer(per_output(original, compact, limits), [box], seconds=SECONDS)
        assert refuted.verdict is Verdict.REFUTED
        assert box.contains(refuted.witness)
        pairs = zip(exact_outputs(original, refuted.witness), exact_outputs(compact, refuted.witness), strict=True)
        assert any(abs(a - b) > limit for (a, b), limit in zip(pairs, limits, strict=True))


def arg_max_fails(original, compact, margin, point):
    """Exactly: some output leads by more than the margin and is not the compact network's single largest."""
    f, g = exact_outputs(original, point), exact_outputs(compact, point)
    j = max(range(len(f)), key=f.__getitem__)
    others = [k for k in range(len(f)) if k != j]
    return all(f[j] - f[k] > margin for k in others) and any(g[k] >= g[j] for k in others)


@pytest.mark.parametrize(("seed", "bits"), [(0, 2), (1, 5), (2, 2)])
def test_the_same_arg_max_beyond_a_margin(seed, bits):
    original, box = dense(seed), square()
    compact = rounded(original, bits)
    exact = enumerate_regions(relu_system(original, compact), box).deviation()
    safe = answer(same_arg_max(original, compact, 2 * exact * Fraction(21, 20)), [box], seconds=SECONDS)
    assert safe.verdict is Verdict.PROVED  # a lead of twice the deviation cannot be lost
    tight = answer(same_arg_max(original, compact, exact / 50), [box], seconds=0.7)
    if tight.verdict is Verdict.REFUTED:
        assert box.contains(tight.witness)
        assert arg_max_fails(original, compact, exact / 50, tight.witness)
    elif tight.verdict is Verdict.PROVED:
        for point in box.sample(np.random.default_rng(seed), 300):
            assert not arg_max_fails(original, compact, exact / 50, box.nearest(point))


def test_identical_networks_choose_alike_everywhere_and_opposite_ones_nowhere():
    network, box = dense(0), square()
    assert answer(same_arg_max(network, network, "1e-200"), [box], seconds=SECONDS).verdict is Verdict.PROVED
    opposite = with_rows(network, -np.eye(3))
    found = answer(same_arg_max(network, opposite), [box], seconds=SECONDS)
    assert found.verdict is Verdict.REFUTED
    assert arg_max_fails(network, opposite, 0, found.witness)


TEXT = """(declare-const X_0 Real) (declare-const X_1 Real) (declare-const Y_0 Real) (declare-const Y_1 Real)
(declare-const Y_2 Real)
(assert (>= X_0 -1)) (assert (<= X_0 1)) (assert (>= X_1 -1)) (assert (<= X_1 1))
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_property_is_decided_around_the_exact_extreme(seed):
    network, box = dense(seed), square()
    row = np.array([[0.5, -0.25, 1.0]])
    extreme = enumerate_regions(relu_system(with_rows(network, row)), box).upper[0]
    for sign, verdict in ((1, Verdict.PROVED), (-1, Verdict.REFUTED)):
        bound = float(extreme) + sign * 0.01
        text = TEXT + f"(assert (or (and (>= (+ (* 0.5 Y_0) (* -0.25 Y_1) Y_2) {bound:.9f})) (and (> Y_0 1e6))))"
        found = prove_property(network, parse_vnnlib(text), seconds=SECONDS)
        assert found.verdict is verdict
        if verdict is Verdict.REFUTED:
            y = exact_outputs(network, found.witness)
            assert y[0] / 2 - y[1] / 4 + y[2] >= Fraction(f"{bound:.9f}")


def test_several_boxes_of_a_property_are_all_decided():
    network = dense(1)
    halves = "(assert (or (and (<= X_0 0) (>= Y_0 1e6)) (and (>= X_0 0) (>= Y_1 1e6)) (and (>= X_0 0) (<= Y_1 -1e6))))"
    found = prove_property(network, parse_vnnlib(TEXT + halves), seconds=SECONDS)
    assert (found.verdict, found.leaves) == (Verdict.PROVED, 2)
    unsafe_half = halves.replace("(>= Y_1 1e6)", "(>= Y_1 -1e6)")
    found = prove_property(network, parse_vnnlib(TEXT + unsafe_half), seconds=SECONDS)
    assert found.verdict is Verdict.REFUTED
    assert found.witness[0] >= 0
    without_condition = prove_property(network, parse_vnnlib(TEXT), seconds=SECONDS)
    assert without_condition.verdict is Verdict.REFUTED


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("bound", ["0.5", "0.1", "-0.3"])
def test_strict_and_other_inequalities_differ_exactly_at_the_bound(strict, bound):
    """Ranges that are single floats around the bound: the verdict follows exact comparison."""
    limit = Fraction(bound)
    question = unsafe(dense(0), ((Inequality(((0, Fraction(1)),), limit, strict),),))
    near = float(limit)
    for value in (near, math.nextafter(near, -math.inf), math.nextafter(near, math.inf)):
        point = torch.tensor([[value]], dtype=torch.float64)
        ranges = Ranges((point,), (point,), (), None)
        holds = Fraction(value) < limit if strict else Fraction(value) <= limit
        assert question.violated(ranges) is holds
        assert bool(question.judge(ranges).proved[0]) is not holds


def test_rational_coefficients_are_scaled_exactly():
    way = (Inequality(((0, Fraction(1, 3)), (2, Fraction(-1, 10))), Fraction(1, 7), True),)
    question = unsafe(dense(0), (way,))
    network = question.outputs.networks[0]
    weight = network.parameters[network.node(network.output).parameters["weight"]]
    assert weight.tolist() == [[10.0, 0.0, -3.0]]
    assert float(question.fails_from[0]) >= Fraction(30, 7) > float(question.holds_to[0])
    with pytest.raises(SpecificationError, match="2\\^53"):
        unsafe(dense(0), ((Inequality(((0, Fraction(1, 3**40)), (1, Fraction(1))), Fraction(0), False),),))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**16), st.integers(1, 3))
def test_ranges_enclose_rows_of_both_networks_and_their_difference(seed, inputs):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(2, 3))
    original, compact = dense(seed, inputs), rounded(dense(seed, inputs), 4)
    question = per_output(with_rows(original, rows), with_rows(compact, rows), [1])
    box = square(Fraction(int(rng.integers(1, 9)), 4), inputs)
    low, high = (torch.from_numpy(v)[None] for v in box.outward())
    ranges = question.outputs.ranges(low, high)
    for point in (box.nearest(p) for p in box.sample(rng, 10)):
        f, g = (relu_system(n).values(point) for n in question.outputs.networks)
        for values, lower, upper in zip(
            (f, g, [a - b for a, b in zip(f, g, strict=True)]), ranges.lower, ranges.upper, strict=True
        ):
            for value, least, most in zip(values, lower[0].tolist(), upper[0].tolist(), strict=True):
                assert least <= value <= most


@pytest.mark.parametrize("seed", range(2))
def test_relative_limits_lie_between_inner_and_outer_range(seed):
    original, box = dense(seed), square()
    compact = rounded(original)
    exact = enumerate_regions(relu_system(original), box)
    found = output_range(original, [box], seconds=1.0)
    for i, (low, high) in enumerate(zip(exact.lower, exact.upper, strict=True)):
        assert found.outer_lower[i] <= low <= found.inner_lower[i]
        assert found.inner_upper[i] <= high <= found.outer_upper[i]
        assert found.outer()[i] <= Fraction(105, 100) * (high - low)
    deviation = enumerate_regions(relu_system(original, compact), box).per_output()
    needed = max(d / (b - a) for d, a, b in zip(deviation, exact.lower, exact.upper, strict=True))
    for factor, verdict in ((Fraction(6, 5), Verdict.PROVED), (Fraction(4, 5), Verdict.REFUTED)):
        question, _ = relative(original, compact, needed * factor, [box], seconds=1.0)
        assert answer(question, [box], seconds=SECONDS).verdict is verdict


def test_no_time_and_no_memory_are_unknown_with_what_is_proved():
    original, box = dense(0, units=9), square(3)
    question = same_arg_max(original, rounded(original, 3), Fraction(1, 10**6))
    late = answer(question, [box], seconds=1e-9)
    assert late.verdict is Verdict.UNKNOWN
    assert "time" in late.reason
    narrow = answer(question, [box], seconds=SECONDS, memory_limit=1)
    assert narrow.verdict in (Verdict.UNKNOWN, Verdict.REFUTED)
    impossible = answer(per_output(original, rounded(original, 3), [10**9]), [box], seconds=SECONDS, memory_limit=1)
    assert impossible.verdict is Verdict.UNKNOWN
    assert "memory" in impossible.reason
    assert impossible.share == 0.0


def test_overflow_is_never_proved():
    huge = dense(0).with_parameters({"w": np.full((5, 2), 1e300), "v": np.full((3, 5), 1e300)})
    found = answer(per_output(huge, huge, ["1e300"]), [square()], seconds=1.0)
    assert found.verdict is Verdict.UNKNOWN


def test_a_point_and_several_boxes():
    original, compact = dense(2), rounded(dense(2))
    point = Box((Fraction(1, 3),) * 2, (Fraction(1, 3),) * 2)
    assert answer(per_output(original, compact, ["0.5"]), [point, square()], seconds=SECONDS).verdict is Verdict.PROVED
    found = answer(per_output(original, compact, ["0"]), [point], seconds=SECONDS)
    assert (found.verdict, found.witness) == (Verdict.REFUTED, point.lower)


def test_what_is_refused():
    network, box = dense(0), square()
    with pytest.raises(SpecificationError, match="2 limits for 3"):
        per_output(network, network, ["1", "2"])
    with pytest.raises(SpecificationError, match="negative"):
        per_output(network, network, ["-1"])
    with pytest.raises(SpecificationError, match="finite"):
        per_output(network, network, [math.nan])
    with pytest.raises(SpecificationError, match="margin"):
        same_arg_max(network, network, -1)
    with pytest.raises(SpecificationError, match="2 to"):
        same_arg_max(dense(0, outputs=1), dense(0, outputs=1))
    with pytest.raises(MismatchError, match="compared"):
        same_arg_max(network, dense(0, outputs=2))
    with pytest.raises(MismatchError, match="coordinates"):
        answer(per_output(network, network, ["1"]), [square(1, 3)])
    with pytest.raises(SpecificationError, match="box"):
        answer(per_output(network, network, ["1"]), [])
    with pytest.raises(SpecificationError, match="share"):
        relative(network, network, -1, [box])
    with pytest.raises(MismatchError, match="property has"):
        prove_property(dense(0, inputs=3), parse_vnnlib(TEXT + "(assert (<= Y_0 0))"))
