"""Laws of dynamic probabilistic pruning: exactly k of n, always."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from provable.errors import ScheduleError, TargetError
from provable.training import DPP, remove_idle
from provable.training.dpp import GONE, ProbabilisticMask, diversity


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5)
        )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(["weight", "kernel", "filter"]), st.integers(1, 3), st.booleans(), st.booleans(), st.integers(0, 99)
)
def test_every_row_has_exactly_k_ones(granularity: str, k: int, training: bool, tied: bool, seed: int) -> None:
    made = ProbabilisticMask(torch.ones(4, 3, 3, 3), granularity, k, generator(seed)).train(training)
    if tied:
        made.logits.data.zero_()
        made.noise = 0.0
    mask = made.mask()
    assert torch.equal(mask.round().sum(-1), torch.full((len(mask),), float(k)))
    assert ((mask - mask.round()).abs() < 1e-5).all()
    weight = made(torch.ones(4, 3, 3, 3))
    groups = {"weight": 12 * k, "kernel": 36 * k, "filter": 36 * k}[granularity]
    assert int((weight.abs() > 0.5).sum()) == groups


def test_a_fresh_mask_in_training_and_always_the_same_in_evaluation() -> None:
    made = ProbabilisticMask(torch.ones(6, 20), "weight", 5, generator())
    assert not torch.equal(made.mask(), made.mask())
    assert torch.equal(made.eval().mask(), made.mask())


def test_the_logits_get_a_finite_gradient_that_is_not_zero() -> None:
    model = network()
    pruner = DPP(model, 0.5, "weight", 4, generator=generator())
    model(torch.randn(3, 2, 6, 6, generator=generator())).pow(2).sum().backward()
    for mask in pruner.masks.values():
        assert mask.logits.grad is not None
        assert torch.isfinite(mask.logits.grad).all()
        assert (mask.logits.grad != 0).any()


@pytest.mark.parametrize("temperature", [5.0, 0.5, 0.01])
@pytest.mark.parametrize("k", [1, 4, 9])
def test_the_relaxed_mask_is_a_sum_of_k_softmax_rows(temperature: float, k: int) -> None:
    made = ProbabilisticMask(torch.ones(5, 9).double(), "weight", k, generator())
    made.temperature, noise = temperature, torch.randn(5, 9, generator=generator(1)).double()
    scores = made.logits + noise
    taken, total = torch.zeros(5, 9).double(), torch.zeros(5, 9).double()
    for choice in scores.detach().topk(k, dim=-1).indices.unbind(-1):
        total = total + torch.softmax((scores + torch.log(1.0 - taken + GONE)) / temperature, dim=-1)
        taken = taken.scatter(-1, choice[:, None], 1.0)
    weights = torch.randn(5, 9, generator=generator(2)).double()
    found = made.relaxed(noise)
    assert torch.allclose(found, total, atol=1e-12)
    gradients = [torch.autograd.grad((value * weights).sum(), made.logits)[0] for value in (found, total)]
    assert torch.allclose(*gradients, atol=1e-9)


def test_without_noise_soft_rows_tend_to_the_hard_ones() -> None:
    made = ProbabilisticMask(torch.ones(5, 9), "weight", 3, generator())
    made.temperature = 1e-4
    assert torch.allclose(made.relaxed(torch.zeros(5, 9)), made.eval().mask(), atol=1e-4)


def test_diversity_is_zero_for_equal_rows_and_one_for_disjoint_masks() -> None:
    assert diversity(torch.tensor([[0.5, 0.5, 0, 0]]).repeat(3, 1).double()) == pytest.approx(0, abs=1e-12)
    assert diversity(torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]).double()) == pytest.approx(1)


def test_training_makes_choices_firm_and_finds_the_inputs_that_matter() -> None:
    model = nn.Sequential(nn.Linear(8, 1))
    pruner = DPP(model, 2, "weight", 300, generator=generator())
    before = pruner.confidence()["0"]
    optimizer, noise = torch.optim.Adam(model.parameters(), lr=0.05), generator(1)
    for _ in range(300):
        x = torch.randn(32, 8, generator=noise)
        optimizer.zero_grad()
        loss = (model(x)[:, 0] - 2 * x[:, 3] + 2 * x[:, 6]).pow(2).mean()
        (loss + pruner.regulariser()).backward()
        optimizer.step()
        pruner.step()
    assert pruner.confidence()["0"] > before
    pruner.finish()
    assert torch.nonzero(model[0].weight[0]).flatten().tolist() == [3, 6]


def test_chosen_feature_maps_make_the_network_smaller() -> None:
    model = network()
    pruner = DPP(model, 2, "filter", 1, generator=generator(), layers=["2", "5"])
    pruner.step()
    result = remove_idle(pruner.finish().eval(), torch.zeros(1, 2, 6, 6))
    assert result.after.parameters < result.before.parameters
    assert len(result.kept[next(iter(result.kept))]) == 2


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(TargetError, match="cannot keep 5"):
        DPP(network(), 5, "filter", 3, generator=generator())
    for keep in (0, 1.5, float("nan"), -0.5):
        with pytest.raises(TargetError, match=rf"cannot keep {keep} of them: give a number from 1 to 9, or a share"):
            DPP(network(), keep, "weight", 3, generator=generator())
    with pytest.raises(TargetError, match="no granularity 'kernel'"):
        DPP(network(), 1, "kernel", 3, generator=generator())
    with pytest.raises(ScheduleError, match="at least 1 step"):
        DPP(network(), 1, "weight", 0, generator=generator())
    pruner = DPP(network(), 1, "weight", 2, generator=generator())
    with pytest.raises(ScheduleError, match="step 0 of 2"):
        pruner.finish()
    pruner.load_state_dict({"time": 2})
    assert pruner.state_dict() == {"time": 2}
    pruner.finish()
