"""The global-error rule: monotone, budget met, spread sensitivity keeps more."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provable.allocation.budget import Budget
from provable.allocation.global_error import allocate
from provable.allocation.widths import allowed
from provable.errors import BudgetError, CalibrationError
from provable.selection.evidence import Evidence
from provable.sensitivity.record import Sensitivity


def evidence(name: str, scores: list[float] | None, sums: int = 100) -> Evidence:
    group = SimpleNamespace(name=name, slots=(None,) * (len(scores) if scores else 3))
    sensitivity = None if scores is None else Sensitivity.of(np.array([scores]))
    return Evidence(group, (), sensitivity, sums)  # type: ignore[arg-type]


def total(counts: np.ndarray) -> np.ndarray:
    return counts.sum(axis=-1)


scores = st.lists(st.floats(0.01, 1.0), min_size=2, max_size=12)


@settings(max_examples=40, deadline=None)
@given(layers=st.lists(scores, min_size=1, max_size=4), fraction=st.floats(0.55, 1.0))
def test_budget_is_met_and_more_budget_keeps_no_less(layers: list[list[float]], fraction: float) -> None:
    known = [evidence(str(i), s) for i, s in enumerate(layers)]
    widths = {str(i): allowed(len(s)) for i, s in enumerate(layers)}
    found = allocate(known, total, Budget("flops", fraction), widths)
    assert sum(found.counts.values()) <= fraction * sum(map(len, layers))
    more = allocate(known, total, Budget("flops", min(1.0, fraction + 0.2)), widths)
    assert more.knob <= found.knob
    assert all(more.counts[name] >= count for name, count in found.counts.items())


def test_a_layer_with_spread_sensitivity_keeps_more() -> None:
    known = [evidence("spread", [0.5] * 20), evidence("peaked", [1.0] + [0.01] * 19)]
    found = allocate(known, total, Budget("flops", 0.5), {"spread": allowed(20), "peaked": allowed(20)})
    assert found.counts["spread"] > found.counts["peaked"]


def test_out_of_reach_and_unmeasured() -> None:
    with pytest.raises(BudgetError, match=r"0\.5000 of the original"):
        allocate([evidence("a", [0.5] * 4)], total, Budget("flops", 0.3), {"a": allowed(4, 2)})
    with pytest.raises(CalibrationError, match="no measured sensitivity"):
        allocate([evidence("a", None)], total, Budget("flops", 0.7), {"a": allowed(3)})
