"""Zeros leave exactly, and those that structure can use do leave."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from provable.channels import channel_groups
from provable.errors import TrainingError
from provable.surgery import masked
from provable.training import fix_zeros, release_zeros, remove_idle
from provable.training.idle import zero_by_weights
from verify.network.evaluate import evaluate, evaluate_values

FEW = settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FEW
@given(data=st.data(), share=st.sampled_from([0.3, 0.8]), seed=st.integers(0, 99))
def test_idle_channels_leave_and_nothing_changes(recipes, data, share: float, seed: int) -> None:
    network, generator = data.draw(recipes).network(), np.random.default_rng(seed)
    sparse = {
        k: np.where(generator.random(v.shape) < share, 0.0, v) for k, v in network.parameters.items() if v.ndim > 1
    }
    network = network.with_parameters(sparse)
    result = remove_idle(network)
    x = generator.normal(size=(4, *network.input_shape))
    expected = evaluate(network, x)
    assert np.abs(evaluate(result.compact, x) - expected).max() <= 1e-9 * (1 + np.abs(expected).max())


@FEW
@given(data=st.data())
def test_channels_that_nobody_reads_leave(recipes, data) -> None:
    network = data.draw(recipes).network()
    groups = [g for g in channel_groups(network) if g.removable and g.consumers]
    kept = {g.name: (0,) for g in groups}
    result = remove_idle(masked(network, kept))
    assert all(len(slots) == 1 for slots in result.kept.values())


@FEW
@given(data=st.data(), share=st.sampled_from([0.5, 0.9]))
def test_what_is_called_zero_is_zero(recipes, data, share: float) -> None:
    network, generator = data.draw(recipes).network(), np.random.default_rng(1)
    network = network.with_parameters(
        {
            k: np.where(generator.random(v.shape) < share, 0.0, v)
            for k, v in network.parameters.items()
            if "var" not in k and "divide" not in k
        }
    )
    names = [node.name for node in network]
    values = evaluate_values(network, generator.normal(size=(3, *network.input_shape)), names)
    zeros = zero_by_weights(network)
    assert all((values[name][:, zeros[name]] == 0).all() for name in names)


def test_a_chain_of_idle_neurons_leaves() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[4].weight[:, 2:] = 0  # nobody reads neurons 2, 3 of the second layer ...
        model[2].weight[:2, 1:] = 0  # ... which alone read neurons 1 to 3 of the first
    result = remove_idle(model, torch.zeros(1, 3))
    assert sorted(map(len, result.kept.values())) == [1, 2]
    with pytest.raises(TrainingError, match="example"):
        remove_idle(model)


def test_masked_retraining_never_revives_a_weight() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight[1] = 0
        model[2].weight[0, 2] = 0
    before = model[0].weight.detach().clone()
    fix_zeros(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.ones(2, 3)).pow(2).sum().backward()
        optimizer.step()
    release_zeros(model)
    assert (model[0].weight[1] == 0).all()
    assert model[2].weight[0, 2] == 0
    assert not torch.equal(model[0].weight, before)
