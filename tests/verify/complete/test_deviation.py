"""One question to every complete method: bounds enclose the exact deviation, verdicts rest on them alone."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.verify.complete.test_complete import dense_pair, small_pairs, tiny
from verify.complete.deviation import METHODS, complete_deviation
from verify.complete.system import relu_system
from verify.errors import MismatchError, SpecificationError
from verify.network.graph import build
from verify.spec.box import Box
from verify.spec.deviation import Verdict


@settings(deadline=None, max_examples=10)
@given(small_pairs().filter(lambda pair: tiny(relu_system(*pair[:2]), 8)), st.sampled_from(sorted(METHODS)))
def test_every_method_encloses_the_exact_deviation(pair, method):
    original, compact, box = pair
    exact = complete_deviation(original, compact, [box])
    found = complete_deviation(original, compact, [box], method=method)
    assert exact.lower == exact.upper
    assert found.lower <= exact.lower <= found.upper
    assert float(exact.lower) <= found.claimed + 1e-6 * (1 + found.claimed)
    values = relu_system(original, compact).values(found.witness)
    assert box.contains(list(found.witness))
    assert max(map(abs, values)) == found.lower


@pytest.mark.parametrize("method", sorted(METHODS))
def test_verdicts_around_the_bounds(method):
    original, compact, box = dense_pair(1, Fraction(1, 8))
    found = complete_deviation(original, compact, [box], method=method)
    for epsilon, verdict in (
        (found.upper, Verdict.PROVED),
        (found.lower - Fraction(1, 10**9), Verdict.REFUTED),
        ((found.lower + found.upper) / 2, Verdict.PROVED if found.lower == found.upper else Verdict.UNKNOWN),
    ):
        again = complete_deviation(original, compact, [box], method=method, epsilon=epsilon)
        assert again.verdict is verdict


def test_several_boxes_show_their_worst():
    original, compact, box = dense_pair(2, Fraction(1, 8))
    point = Box(box.lower, box.lower)
    apart = [complete_deviation(original, compact, [b]).lower for b in (point, box)]
    both = complete_deviation(original, compact, [point, box])
    assert both.lower == both.upper == max(apart)


def test_what_is_refused_and_what_is_unknown():
    original, compact, box = dense_pair(0)
    late = complete_deviation(original, compact, [box], seconds=1e-9)
    assert (late.verdict, late.upper) == (Verdict.UNKNOWN, math.inf)
    with pytest.raises(SpecificationError, match="unknown method 'simplex'"):
        complete_deviation(original, compact, [box], method="simplex")
    for boxes, seconds in (([], 1.0), ([box], 0.0)):
        with pytest.raises(SpecificationError, match="need a box"):
            complete_deviation(original, compact, boxes, seconds=seconds)
    large = build("x", (126,), [("y", "relu", ["x"], {}, {})], "y", {})
    with pytest.raises(SpecificationError, match="252 nonlinear elements"):
        complete_deviation(large, large, [Box((Fraction(0),) * 126, (Fraction(1),) * 126)])
    with pytest.raises(MismatchError):
        complete_deviation(original, compact, [Box((Fraction(0),), (Fraction(1),))])
