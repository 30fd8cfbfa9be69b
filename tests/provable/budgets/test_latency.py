"""Latency budgets: met by measured time, honest about what is out of reach, clear where the runtime is missing."""

import sys

import numpy as np
import pytest

from provable.allocation.budget import Budget, budget_of
from provable.allocation.widths import allowed_widths
from provable.budgets import BUDGETS
from provable.budgets.latency import Latency, measured
from provable.budgets.problem import Problem
from provable.cost import count_flops
from provable.errors import BudgetError
from provable.pipeline import compress
from verify.network.graph import Network


def chain(sketch) -> Network:
    s = sketch((3, 12, 12), seed=2, dtype="float32")
    x = "x"
    for width in (24, 24):
        x = s.add("relu", s.norm(s.conv(x, width, 3)))
    return s.network(s.linear(s.add("mean", x, axes=(1, 2), keepdims=False), 4))


def by_flops(networks, batch) -> list[float]:
    """A machine whose time is 0.2 ms plus the multiply-adds."""
    return [2e-4 + 1e-9 * batch * count_flops(network) for network in networks]


def problem(network: Network, fraction: float, **more) -> Problem:
    made: list[Problem] = []

    class Spy:
        def meet(self, problem: Problem):
            made.append(problem)
            return BUDGETS["channels"].meet(problem)

    patch = pytest.MonkeyPatch()
    patch.setattr("provable.pipeline.BUDGETS", {"latency": Spy()})
    try:
        compress(network, np.zeros((4, 3, 12, 12), np.float32), keep={"latency": fraction}, **more)
    finally:
        patch.undo()
    return made[0]


@pytest.mark.parametrize("fraction", [0.45, 0.6, 0.8, 1.0])
def test_the_largest_network_within_the_time_is_found(sketch, fraction: float) -> None:
    network = chain(sketch)
    given = problem(network, fraction)
    found = Latency(by_flops).meet(given)
    (dense,) = by_flops([network], 1)
    assert 1e-3 * found.knob <= fraction * dense
    assert 1e-3 * found.knob > fraction * dense - dense / 20  # one step of the grid and one channel
    if fraction == 1.0:
        assert all(count == len(g.slots) for g, count in zip(given.groups, found.counts.values(), strict=True))


def test_out_of_reach_names_the_smallest_share(sketch) -> None:
    network = chain(sketch)
    given = problem(network, 0.1)
    with pytest.raises(BudgetError, match=r"latency=0\.1 cannot be met.*0\.\d{4} of the original's .* ms per call"):
        Latency(by_flops).meet(given)


def test_floors_and_rounding_hold_there_too(sketch) -> None:
    given = problem(chain(sketch), 0.8, floor=9, round_to=8)
    assert all(count % 8 == 0 and count >= 9 for count in Latency(by_flops).meet(given).counts.values())


def test_a_real_measurement_sees_the_smaller_network(sketch) -> None:
    pytest.importorskip("onnxruntime")
    s = sketch((8, 32, 32), dtype="float32")
    large = s.network(s.conv(s.conv("x", 64, 3), 64, 3))
    t = sketch((8, 32, 32), dtype="float32")
    small = t.network(t.conv(t.conv("x", 4, 3), 64, 3))
    slow, fast = measured([large, small], 2)
    assert slow > fast > 0.0


def test_without_onnx_runtime_the_extra_is_named(sketch, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BudgetError, match=r"provable-pruning\[run\]"):
        compress(chain(sketch), np.zeros((4, 3, 12, 12), np.float32), keep={"latency": 0.5})


def test_params_is_short_for_parameters() -> None:
    assert budget_of({"params": 0.5}) == Budget("parameters", 0.5)


def test_every_kind_has_an_entry() -> None:
    from provable.allocation.budget import KINDS

    assert set(BUDGETS) == set(KINDS)
    assert allowed_widths({}, 1, 1) == {}
