"""Fixed-sequence testing: the probability of a false guarantee, enumerated exactly, never exceeds delta."""

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.errors import DataError, SpecificationError
from verify.statistical.binomial import binomial_tail
from verify.statistical.learn_then_test import Count, FixedSequence

LIMIT, CONFIDENCE = Fraction(3, 10), Fraction(8, 10)
DELTA = 1 - CONFIDENCE


def compositions(total: int, parts: int):
    """All ways to split `total` samples into `parts` kinds."""
    for cuts in itertools.combinations(range(total + parts - 1), parts - 1):
        edges = (-1, *cuts, total + parts - 1)
        yield tuple(b - a - 1 for a, b in itertools.pairwise(edges))


def accepted(counts: list[tuple[int, int]], limit: Fraction = LIMIT, confidence: Fraction = CONFIDENCE) -> int:
    """How many candidates are accepted, given (violations, samples) of each."""
    sequence = FixedSequence(limit, confidence)
    for count in counts:
        if not sequence.test([Count(*count)]).accepted:
            break
    return sum(decision.accepted for decision in sequence.decisions)


weights = st.lists(st.integers(0, 20), min_size=8, max_size=8).filter(any)


@settings(max_examples=12, deadline=None)
@given(weight=weights, samples=st.integers(2, 6))
def test_false_guarantees_are_rarer_than_delta_for_any_joint_distribution(weight: list[int], samples: int) -> None:
    """Three candidates on the same samples: every pattern of violations has its own probability."""
    patterns = list(itertools.product((0, 1), repeat=3))
    law = [Fraction(w, sum(weight)) for w in weight]
    rates = [sum(p for p, pattern in zip(law, patterns, strict=True) if pattern[j]) for j in range(3)]
    bad = [rate > LIMIT for rate in rates]
    false = total = Fraction(0)
    for split in compositions(samples, len(patterns)):
        mass = math.factorial(samples) * math.prod(
            p**count / math.factorial(count) for p, count in zip(law, split, strict=True)
        )
        total += mass
        violations = [sum(c for c, pattern in zip(split, patterns, strict=True) if pattern[j]) for j in range(3)]
        if mass and any(bad[: accepted([(v, samples) for v in violations])]):
            false += mass
    assert total == 1
    assert false <= DELTA


@pytest.mark.parametrize("samples", [12, 30])
def test_the_level_is_used_up_and_looking_at_all_candidates_would_break_it(samples: int) -> None:
    """Independent candidates, each a hair above the limit: ours errs with at most delta, the naive choice far more."""
    rate = LIMIT + Fraction(1, 10**6)
    last = max(k for k in range(samples) if binomial_tail(samples, k, LIMIT) <= DELTA)
    one = binomial_tail(samples, last, rate)  # a single bad candidate passes
    assert accepted([(last, samples), (last + 1, samples), (0, samples)]) == 1
    assert DELTA / 4 < one <= DELTA
    assert 1 - (1 - one) ** 10 > 2 * DELTA  # smallest of ten that pass


@settings(max_examples=30, deadline=None)
@given(strata=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=3))
def test_the_worst_stratum_decides(strata: list[tuple[int, int]]) -> None:
    counts = [Count(min(k, n), n) for k, n in strata]
    together = FixedSequence(LIMIT, CONFIDENCE).test(counts)
    alone = [FixedSequence(LIMIT, CONFIDENCE).test([count]) for count in counts]
    assert together.accepted == all(decision.accepted for decision in alone)
    assert together.p_value_upper == max(decision.p_value_upper for decision in alone)


def test_without_samples_nothing_is_accepted() -> None:
    assert not FixedSequence(LIMIT, CONFIDENCE).test([Count(0, 0)]).accepted


def test_nothing_may_be_tested_after_a_refusal() -> None:
    sequence = FixedSequence(LIMIT, CONFIDENCE)
    assert not sequence.test([Count(9, 9)]).accepted
    assert sequence.ended
    with pytest.raises(DataError, match="has ended"):
        sequence.test([Count(0, 100)])


@pytest.mark.parametrize(("limit", "confidence"), [(0, 0.9), (1, 0.9), (0.1, 1), (0.1, 0)])
def test_senseless_levels_are_refused(limit, confidence) -> None:
    with pytest.raises(SpecificationError):
        FixedSequence(limit, confidence)


def test_no_stratum_is_refused() -> None:
    with pytest.raises(DataError, match="at least one stratum"):
        FixedSequence(LIMIT, CONFIDENCE).test([])
