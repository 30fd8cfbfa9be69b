"""Provable filter pruning's published points: the ratio asked for is met closely, and the report holds T, K, |S|, P."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provable.allocation.budget import Budget
from provable.allocation.global_error import allocate
from provable.allocation.widths import allowed
from provable.pipeline import compress
from provable.selection.evidence import Evidence
from provable.sensitivity.record import Sensitivity

RATIO = 0.005  # how far below the budget the published rule may end


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), fraction=st.floats(0.2, 0.95))
def test_wide_layers_end_within_half_a_percent_of_the_ratio(seed: int, fraction: float) -> None:
    random = np.random.default_rng(seed)
    known, widths = [], {}
    for name, size in (("a", 400), ("b", 600), ("c", 300)):
        scores = random.random(size) ** random.uniform(0.5, 3) * 0.99 + 0.005
        group = SimpleNamespace(name=name, slots=(None,) * size)
        known.append(Evidence(group, (), Sensitivity.of(scores[None]), 100))  # type: ignore[arg-type]
        widths[name] = allowed(size)
    found = allocate(known, lambda counts: counts.sum(axis=-1), Budget("flops", fraction), widths)
    assert fraction - RATIO <= sum(found.counts.values()) / 1300 <= fraction


@pytest.mark.parametrize("recipe", ["pfp", "pfp-sampled"])
def test_the_report_holds_total_slack_images_and_coverage(sketch, recipe: str) -> None:
    s = sketch((5,), dtype="float32")
    network = s.network(s.linear(s.add("relu", s.linear(s.add("relu", s.linear("x", 20)), 16)), 3))
    x = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    result = compress(network, x, keep={"channels": 0.6}, recipe=recipe)
    assert len(result.groups) == 2
    for group in result.groups:
        assert group.total_sensitivity is not None
        assert 1 <= group.total_sensitivity <= group.total  # some channel carries every sum
        assert group.sensitivity_images == 300
        if group.kept < group.total:
            assert group.bound is not None
            assert group.bound.confidence <= 1 - group.total / 301  # P(E_1) by exchangeability, K = 1
            assert "300 calibration images" in group.bound.assumption
