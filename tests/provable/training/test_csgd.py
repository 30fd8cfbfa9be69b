"""Laws of centripetal SGD: clusters contract at the stated rate, stay collapsed, and trimming them changes nothing."""

import copy
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from provable.channels import channel_groups
from provable.errors import CollapseError, ScheduleError, TargetError, TrainingError
from provable.training import CSGD, CollapsePlan, cluster_spread, collapse_plan, collapse_steps, plan_of, trim
from verify.network.evaluate import evaluate
from verify.network.graph import Network
from verify.network.read_export import trace

FEW = settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Residual(nn.Module):
    """A stage with followers, batch norm everywhere, and a linear layer on flattened pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.inner, self.inner_norm = nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.outer, self.outer_norm = nn.Conv2d(5, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.head = nn.Linear(6 * 16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        y = torch.relu(self.inner_norm(self.inner(x)))
        return self.head(torch.relu(x + self.outer_norm(self.outer(y))).flatten(1))


EXAMPLE = torch.zeros(1, 1, 4, 4)


def residual(seed: int = 0) -> Residual:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Residual()


@cache
def plan_for(keep: float = 0.5) -> CollapsePlan:
    network = trace(residual(), EXAMPLE)
    groups = [g for g in channel_groups(network) if g.removable]
    return collapse_plan(network, groups, keep, generator=np.random.default_rng(0))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x, y = torch.randn(16, 1, 4, 4, generator=generator), torch.randint(3, (16,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x.to(next(model.parameters()).dtype)), y).backward()
        optimizer.step()


def collapsed(network: Network, plan: CollapsePlan) -> Network:
    """Every row replaced by the first of its cluster."""
    changed = {}
    for key, collapse in plan.collapses.items():
        leaders = [collapse.labels.index(label) for label in collapse.labels]
        changed[key] = network.parameters[key].take(leaders, collapse.axis)
    return network.with_parameters(changed)


@FEW
@given(data=st.data(), keep=st.sampled_from([0.3, 0.6]), even=st.booleans())
def test_trimming_collapsed_clusters_changes_nothing(recipes, data, keep: float, even: bool) -> None:
    recipe = data.draw(recipes)
    network = recipe.network()
    groups = [g for g in channel_groups(network) if g.removable]
    plan = collapse_plan(network, groups, keep, generator=np.random.default_rng(recipe.seed), even=even)
    network = collapsed(network, plan)
    result = trim(network, plan)
    x = np.random.default_rng(1).normal(size=(5, *network.input_shape))
    expected = evaluate(network, x)
    assert np.abs(evaluate(result.compact, x) - expected).max() <= 1e-9 * (1 + np.abs(expected).max())
    merged = any(len(c) > 1 for clusters in plan.clusters.values() for c in clusters)
    assert (result.after.parameters < result.before.parameters) == merged


@pytest.mark.parametrize("keep", [0.4, 0.7])
def test_every_cluster_has_a_member_and_every_slot_a_cluster(keep: float) -> None:
    network = trace(residual(), EXAMPLE)
    groups = [g for g in channel_groups(network) if g.removable]
    plan = collapse_plan(network, groups, keep, generator=np.random.default_rng(0))
    for group in groups:
        clusters = plan.clusters[group.name]
        assert len(clusters) == int(np.ceil(keep * len(group.slots)))
        assert sorted(s for c in clusters for s in c) == list(range(len(group.slots)))


def test_followers_share_the_pacesetters_clusters() -> None:
    plan = plan_for()
    assert plan.collapses["stem.weight"].labels == plan.collapses["outer.weight"].labels
    assert plan.collapses["norm.running_mean"].labels == plan.collapses["outer_norm.bias"].labels
    assert not plan.collapses["norm.running_mean"].trained


@FEW
@given(rate=st.floats(0.01, 0.3), strength=st.floats(0.1, 3.0), decay=st.sampled_from([0.0, 1e-2]))
def test_deviation_contracts_at_exactly_the_stated_rate(rate: float, strength: float, decay: float) -> None:
    model, steps = residual().double(), 6
    plan = plan_for()
    labels = torch.tensor(plan.collapses["inner.weight"].labels)

    def deviation() -> torch.Tensor:
        w = model.inner.weight.detach()
        return torch.stack([row - w[labels == labels[i]].mean(0) for i, row in enumerate(w)])

    before = deviation()
    options = {"lr": rate, "strength": strength, "momentum": 0.0, "weight_decay": decay}
    train(model, CSGD(model.named_parameters(), plan, **options), steps)
    expected = before * (1 - rate * (decay + strength)) ** steps
    assert (deviation() - expected).abs().max() <= 1e-6 * expected.abs().max() + 1e-14


def test_identical_filters_stay_identical_to_the_bit() -> None:
    model = residual()
    plan = plan_for()
    state = {k: torch.from_numpy(v.copy()) for k, v in collapsed(trace(model, EXAMPLE), plan).parameters.items()}
    model.load_state_dict({**model.state_dict(), **state})
    train(model, CSGD(model.named_parameters(), plan, lr=0.05, strength=0.1), 5)
    assert cluster_spread(trace(model, EXAMPLE), plan).deviation == 0.0


def test_training_collapses_then_trims_without_loss_where_plain_sgd_does_not() -> None:
    model, plain = residual(), residual()
    plan = plan_for()
    rate, strength = 0.05, 2.0
    steps = collapse_steps(lr=rate, strength=strength, momentum=0.8, to=1e-9) + 20
    train(model, CSGD(model.named_parameters(), plan, lr=rate, strength=strength, momentum=0.8), steps)
    train(plain, torch.optim.SGD(plain.parameters(), lr=rate, momentum=0.8), steps)
    result = trim(model.eval(), plan, EXAMPLE)
    x = np.random.default_rng(1).normal(size=(8, 1, 4, 4))
    expected = evaluate(result.original, x)
    assert np.abs(evaluate(result.compact, x) - expected).max() <= 1e-5 * np.abs(expected).max()
    assert result.state_dict is not None
    assert result.state_dict["stem.weight"].shape[0] == 3
    with pytest.raises(CollapseError, match="have not collapsed: within group"):
        trim(plain.eval(), plan, EXAMPLE)


def test_resuming_from_state_dicts_gives_the_same_bits() -> None:
    straight = residual()
    plan = plan_for()
    resumed = copy.deepcopy(straight)
    options = {"lr": 0.05, "strength": 0.5}
    first = CSGD(straight.named_parameters(), plan, **options)
    train(straight, first, 3)
    half = CSGD(resumed.named_parameters(), plan, **options)
    train(resumed, half, 3)
    again = residual(9)
    again.load_state_dict(resumed.state_dict())
    second = CSGD(again.named_parameters(), plan, **options)
    second.load_state_dict(half.state_dict())
    train(straight, first, 3, seed=1)
    train(again, second, 3, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), again.parameters(), strict=True))


def test_a_state_of_other_clusters_is_refused() -> None:
    model = residual()
    one, other = plan_for(0.5), plan_for(0.8)
    saved = CSGD(model.named_parameters(), one, lr=0.1, strength=0.1).state_dict()
    with pytest.raises(TrainingError, match="other clusters"):
        CSGD(model.named_parameters(), other, lr=0.1, strength=0.1).load_state_dict(saved)


def test_what_cannot_be_served_is_refused() -> None:
    model = residual()
    plan = plan_for()
    with pytest.raises(TrainingError, match="named_parameters"):
        CSGD(model.parameters(), plan, lr=0.1, strength=0.1)
    with pytest.raises(TrainingError, match="no parameter group holds"):
        CSGD(model.head.named_parameters(), plan, lr=0.1, strength=0.1)
    with pytest.raises(TrainingError, match="strength"):
        CSGD(model.named_parameters(), plan, lr=0.1, strength=-1.0)
    with pytest.raises(TrainingError, match=r"rows for 'stem\.weight'"):
        CSGD([("stem.weight", nn.Parameter(torch.zeros(2, 1, 3, 3)))], plan, lr=0.1, strength=0.1)
    for options in ({"lr": 0.1, "strength": 0.0, "weight_decay": 0.0}, {"lr": 0.0, "strength": 0.1}):
        with pytest.raises(ScheduleError, match="the distance within a cluster is multiplied by 1 per step"):
            CSGD(model.named_parameters(), plan, **options)
    optimizer = CSGD(model.named_parameters(), plan, lr=0.1, strength=0.1)
    with pytest.raises(TrainingError, match="closure"):
        optimizer.step(lambda: 0.0)
    model.head.weight.grad = torch.full_like(model.head.weight, float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        optimizer.step()


def test_targets_and_schedules_that_cannot_be_met() -> None:
    network = trace(residual(), EXAMPLE)
    groups = [g for g in channel_groups(network) if g.removable]
    generator = np.random.default_rng(0)
    with pytest.raises(TargetError, match=r"share in \(0, 1\]"):
        collapse_plan(network, groups, 0.0, generator=generator)
    with pytest.raises(TargetError, match="cannot end in 9 clusters"):
        collapse_plan(network, groups, {groups[0].name: 9}, generator=generator)
    with pytest.raises(TargetError, match="each of its"):
        plan_of(network, groups, {groups[0].name: ((0, 1),)})
    with pytest.raises(ScheduleError, match="never vanishes"):
        collapse_steps(lr=0.1, strength=0.0, weight_decay=0.0)
    assert collapse_steps(lr=0.1, strength=1.0, weight_decay=0.0) == int(np.ceil(np.log(1e-6) / np.log(0.9)))
