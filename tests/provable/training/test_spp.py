"""Laws of structured probabilistic pruning."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from provable.errors import ScheduleError, TargetError
from provable.training import SPP
from provable.training.spp import ProbabilisticGroups, increments


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(10, 12), nn.ReLU(), nn.Linear(12, 3))


@settings(deadline=None, max_examples=50)
@given(remaining=st.integers(1, 200), step=st.floats(0.01, 0.5), knee=st.floats(0.05, 0.45))
def test_increments_fall_are_symmetric_and_vanish_at_the_target(remaining: int, step: float, knee: float) -> None:
    assert abs(increments(np.array([remaining]), remaining, step, knee)[0]) <= 1e-12
    values = increments(np.arange(2 * remaining), remaining, step, knee)
    assert (np.diff(values) <= 0).all()
    assert (values[:remaining] > 0).all()
    centre = -math.log(knee) * remaining / (math.log(2) - math.log(knee))
    around = np.linspace(0, min(centre, 5), 4)
    both = [increments(centre + sign * around, remaining, step, knee) for sign in (-1, 1)]
    assert np.abs(both[0] + both[1] - 2 * knee * step).max() <= 1e-12


def test_increments_of_the_notes_example() -> None:
    found = increments(np.array([0, 33, 50, 60, 99]), 50)
    assert found == pytest.approx([0.05, 0.0127, 0.0, -0.0129, -0.167], abs=6e-4)


def test_a_group_whose_norm_regrows_recovers_and_one_that_is_gone_stays_gone() -> None:
    groups = ProbabilisticGroups((4, 6), "column", 0.5)
    weight = torch.arange(1.0, 7).repeat(4, 1)
    for _ in range(8):
        groups.update(weight, 0.05, 0.25)
    high = float(groups.probability[0])
    assert high > 0.3
    weight[:, 0] = 100.0
    groups.update(weight, 0.05, 0.25)
    assert float(groups.probability[0]) < high
    groups.probability[1] = 1.0
    weight[:, 1] = 1000.0
    for _ in range(100):
        groups.update(weight, 0.05, 0.25)
        assert ((groups.probability >= 0) & (groups.probability <= 1)).all()
    assert groups.probability[1] == 1
    assert groups.remaining == 0
    assert sorted(groups.probability.tolist()) == [0, 0, 0, 1, 1, 1]


def test_mask_rates_match_the_probabilities() -> None:
    groups, noise = ProbabilisticGroups((4, 6), "column", 0.5), generator()
    groups.probability.copy_(torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0, 0.3]))
    draws = torch.zeros(6)
    for _ in range(2000):
        groups.draw(noise)
        draws += groups.drawn
    error = 5 * (groups.probability * (1 - groups.probability) / 2000).sqrt()
    assert ((1 - draws / 2000 - groups.probability).abs() <= error + 1e-12).all()


def test_gradients_are_those_of_the_masked_model_and_reach_groups_that_may_return() -> None:
    groups, weight = ProbabilisticGroups((2, 4), "column", 0.5), torch.ones(2, 4, requires_grad=True)
    groups.probability.copy_(torch.tensor([1.0, 0.5, 0.0, 0.0]))
    groups.drawn.copy_(torch.tensor([0.0, 0.0, 1.0, 1.0]))
    masked = groups(weight)
    assert masked[0].tolist() == [0, 0, 1, 1]
    (masked.sum() ** 2).backward()
    assert weight.grad[0].tolist() == [0, 8, 8, 8]


@pytest.mark.parametrize(("kind", "counts"), [("column", (5, 6)), ("row", (6, 2)), ("channel", (5, 6))])
def test_training_ends_with_exactly_the_groups_asked_for(kind: str, counts: tuple[int, int]) -> None:
    model, noise = network(), generator(3)
    pruner = SPP(model, 0.5, 600, period=3, step=0.1, generator=generator(), kind=kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(600):
        x = torch.randn(16, 10, generator=noise)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
        optimizer.step()
        pruner.step()
        if pruner.done:
            break
    model = pruner.finish()
    axis = 1 if kind == "row" else 0
    assert tuple(int((model[i].weight == 0).all(axis).sum()) for i in (0, 2)) == counts


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(ScheduleError, match="never bring a probability to 1"):
        SPP(network(), 0.5, 3000, generator=generator())
    for options in ({"ratio": float("nan")}, {"ratio": 1.0}, {"ratio": 0.5, "period": 0}, {"ratio": 0.5, "knee": 1.0}):
        with pytest.raises(TargetError, match=r"need 0 < ratio < 1.* got ratio"):
            SPP(network(), steps=10000, generator=generator(), **options)
    with pytest.raises(TargetError, match="is 0"):
        SPP(network(), 0.01, 10000, generator=generator())
    with pytest.raises(TargetError, match="kind is one of"):
        SPP(network(), 0.5, 10000, generator=generator(), kind="block")
    pruner = SPP(network(), 0.5, 10000, generator=generator())
    with pytest.raises(ScheduleError, match="layer '0' still has 5 groups"):
        pruner.finish()
