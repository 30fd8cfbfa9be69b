"""The search: verdicts, witnesses, evidence that certifies the claim, limits, bad input."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from tests.verify.evidence import check_evidence
from verify.errors import MismatchError, SpecificationError, UnsupportedOperation
from verify.formal.deviation import verify_deviation
from verify.formal.lift import align
from verify.formal.program import compile_pair
from verify.formal.search import RESERVE
from verify.formal.symbols import MemoryLimit, TimeLimit
from verify.network.evaluate import evaluate
from verify.network.graph import build
from verify.spec.box import Box
from verify.spec.deviation import Verdict

SECONDS = 20.0


def unit_box(n, radius=1):
    return Box((Fraction(-radius),) * n, (Fraction(radius),) * n)


def check_witness(original, compact, boxes, result):
    assert any(box.contains(list(result.witness)) for box in boxes)
    x = np.array([[float(v) for v in result.witness]])
    difference = evaluate(original, x)[0] - evaluate(compact, x)[0]
    assert abs(difference[result.output]) == pytest.approx(result.lower, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_tightest_bound_is_close_to_an_attained_deviation(twins, seed):
    original, compact, channels = twins("dense", seed)
    boxes = [unit_box(3)]
    result = verify_deviation(original, compact, boxes, channels=channels, timeout=SECONDS, ratio=1.3)
    assert result.verdict is Verdict.PROVED
    assert result.lower <= result.upper <= 1.3 * result.lower
    assert max(result.per_output_upper) == result.upper
    check_evidence(original, compact, boxes, result)
    check_witness(original, compact, boxes, result)
    x = boxes[0].sample(np.random.default_rng(seed), 2000)
    assert np.abs(evaluate(original, x) - evaluate(compact, x)).max() <= result.upper
    assert str(f"{result.upper:.6g}") in result.words


def test_epsilon_is_decided_both_ways(twins):
    original, compact, channels = twins("dense", 1)
    boxes = [unit_box(3)]
    tight = verify_deviation(original, compact, boxes, channels=channels, timeout=SECONDS, ratio=1.1)
    above = Fraction(tight.upper) * Fraction(11, 10)
    proved = verify_deviation(original, compact, boxes, epsilon=above, channels=channels, timeout=SECONDS)
    assert proved.verdict is Verdict.PROVED
    assert Fraction(proved.upper) <= above
    check_evidence(original, compact, boxes, proved)
    below = Fraction(tight.lower) * Fraction(9, 10)
    refuted = verify_deviation(original, compact, boxes, epsilon=below, channels=channels, timeout=SECONDS)
    assert refuted.verdict is Verdict.REFUTED
    assert Fraction(refuted.lower) > below
    check_witness(original, compact, boxes, refuted)


@pytest.mark.parametrize("seed", range(3))
def test_an_epsilon_is_proved_with_room_for_an_auditor(twins, seed):
    """Where that is cheap; a margin of roundings alone was lost by one certificate in ten."""
    original, compact, channels = twins("dense", seed)
    boxes = [unit_box(3)]
    loose = verify_deviation(original, compact, boxes, channels=channels, timeout=SECONDS, ratio=1e9)
    for share in (0.99, 0.9, 0.8):
        epsilon = Fraction(share * loose.upper)
        result = verify_deviation(original, compact, boxes, epsilon=epsilon, channels=channels, timeout=SECONDS)
        if result.verdict is Verdict.PROVED and epsilon >= 1.5 * Fraction(result.lower):
            assert result.upper <= (1 - RESERVE) * float(epsilon)


def test_room_for_an_auditor_is_not_sought_for_ever(twins):
    original, compact, channels = twins("dense", 1)
    boxes = [unit_box(3)]
    tight = verify_deviation(original, compact, boxes, channels=channels, timeout=SECONDS, ratio=1.02)
    assert tight.upper <= 1.02 * tight.lower  # so that a bound of 0.98 epsilon or less cannot be proved
    result = verify_deviation(
        original, compact, boxes, epsilon=Fraction(tight.upper), channels=channels, timeout=10 * SECONDS
    )
    assert result.verdict is Verdict.PROVED
    assert result.seconds <= 2.0 * tight.seconds + SECONDS


def test_several_boxes_and_a_point(twins):
    original, compact, channels = twins("dense", 2)
    point = Box((Fraction(1, 3),) * 3, (Fraction(1, 3),) * 3)
    boxes = [unit_box(3, Fraction(1, 4)), point, Box((Fraction(1),) * 3, (Fraction(3, 2),) * 3)]
    result = verify_deviation(original, compact, boxes, channels=channels, timeout=SECONDS, ratio=1.5)
    assert len(result.trees) == 3
    check_evidence(original, compact, boxes, result)
    check_witness(original, compact, boxes, result)
    alone = verify_deviation(original, compact, [point], channels=channels, timeout=SECONDS)
    assert alone.leaves == 1
    assert alone.upper == pytest.approx(alone.lower, rel=1e-6, abs=1e-9)


def test_a_search_that_runs_out_of_time_keeps_what_it_proved(twins):
    original, compact, channels = twins("deep", 0)
    boxes = [unit_box(2, 4)]
    reports = []
    result = verify_deviation(
        original, compact, boxes, epsilon=Fraction(1, 10**9), channels=channels, timeout=0.3, attack=None,
        progress=lambda *state: reports.append(state),
    )  # fmt: skip
    assert result.verdict in (Verdict.UNKNOWN, Verdict.REFUTED)
    assert math.isfinite(result.upper)
    check_evidence(original, compact, boxes, result)
    uppers = [upper for _, upper, _, _ in reports]
    assert uppers == sorted(uppers, reverse=True)


def test_identical_networks_are_proved_at_once(twins):
    original, _, _ = twins("deep", 1)
    result = verify_deviation(original, original, [unit_box(2, 100)], epsilon=Fraction(1, 10**100), timeout=SECONDS)
    assert result.verdict is Verdict.PROVED
    assert result.leaves == 1


def test_networks_that_do_not_align_are_bounded_separately(twins):
    original, _, _ = twins("dense", 0)
    other, _, _ = twins("leaky_relu", 0)
    boxes = [unit_box(3, Fraction(1, 2))]
    result = verify_deviation(original, other, boxes, timeout=SECONDS, ratio=1.5)
    assert result.rule == "separate"
    assert result.lift is None
    assert "on its own" in result.words
    check_evidence(original, other, boxes, result)
    check_witness(original, other, boxes, result)


def test_too_little_memory_falls_back_to_intervals(twins):
    original, compact, channels = twins("dense", 0)
    boxes = [unit_box(3)]
    result = verify_deviation(original, compact, boxes, channels=channels, timeout=0.5, memory_limit=100)
    assert result.parameters == {"symbols": 0}
    assert math.isfinite(result.upper)
    assert "intervals only" in result.words
    check_evidence(original, compact, boxes, result)


def test_interval_mode_is_sound_and_refines(twins):
    original, compact, channels = twins("dense", 0)
    boxes = [unit_box(3)]
    first = compile_pair(original, compact, align(original, compact, channels)).bounds(
        *(torch.from_numpy(a)[None] for a in boxes[0].outward()), symbols=0
    )
    result = verify_deviation(original, compact, boxes, channels=channels, timeout=1.0, symbols=0)
    assert result.upper < float(first.deviation())
    assert result.upper >= result.lower
    check_evidence(original, compact, boxes, result)


def test_overflow_is_unknown_not_proved(twins):
    original, compact, channels = twins("dense", 0)
    huge = original.with_parameters({k: v.astype(np.float64) * 1e200 for k, v in original.parameters.items()})
    result = verify_deviation(huge, compact, [unit_box(3)], channels=channels, timeout=1.0, attack=None)
    assert result.verdict is Verdict.UNKNOWN
    assert result.upper == math.inf


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"boxes": []}, SpecificationError, "no box"),
        ({"boxes": [unit_box(2)]}, MismatchError, "2 coordinates"),
        ({"epsilon": -1}, SpecificationError, "negative"),
        ({"epsilon": math.nan}, SpecificationError, "finite"),
        ({"timeout": 0}, SpecificationError, "timeout"),
        ({"ratio": 0.5}, SpecificationError, "ratio"),
        ({"channels": {"version": 1}}, MismatchError, "channels"),
    ],
)
def test_bad_questions_are_refused(twins, change, error, message):
    original, compact, channels = twins("dense", 0)
    arguments = {"boxes": [unit_box(3)], "channels": channels, "timeout": 1.0, **change}
    with pytest.raises(error, match=message):
        verify_deviation(original, compact, **arguments)


def test_networks_of_other_sizes_are_refused(twins):
    original, _, _ = twins("dense", 0)
    other, _, _ = twins("deep", 0)
    with pytest.raises(MismatchError, match="input shapes"):
        verify_deviation(original, other, [unit_box(3)])


def test_an_operation_without_a_rule_is_named():
    network = build("x", (2, 3), [("s", "softmax", ["x"], {}, {"axis": 1})], "s", {})
    with pytest.raises(UnsupportedOperation, match="softmax"):
        verify_deviation(network, network, [unit_box(6)])


def test_a_pass_that_takes_too_long_falls_back_to_intervals(twins):
    original, compact, channels = twins("convolutional", 0)
    boxes = [unit_box(60, Fraction(1, 8)), unit_box(60, Fraction(1, 16))]
    result = verify_deviation(original, compact, boxes, channels=channels, timeout=1e-6, attack=None)
    assert result.parameters == {"symbols": 0}
    assert math.isfinite(result.upper)
    assert result.leaves == 2
    check_evidence(original, compact, boxes, result)


def test_not_even_intervals_fit(twins):
    original, compact, channels = twins("dense", 0)
    program = compile_pair(original, compact, align(original, compact, channels))
    with pytest.raises(MemoryLimit):
        program.bounds(torch.zeros(1, 3).double(), torch.ones(1, 3).double(), bytes_limit=100)
    program.bounds(torch.zeros(1, 3).double(), torch.ones(1, 3).double(), symbols=0, bytes_limit=0)


def test_a_deadline_stops_a_pass(twins):
    original, compact, channels = twins("dense", 0)
    program = compile_pair(original, compact, align(original, compact, channels))
    with pytest.raises(TimeLimit):
        program.bounds(torch.zeros(1, 3).double(), torch.ones(1, 3).double(), deadline=0.0)
