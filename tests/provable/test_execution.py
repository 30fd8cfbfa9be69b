"""A run computes what the network computes, once, and lets go of it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from provable.execution import Run
from verify.network.evaluate import evaluate_values


@settings(max_examples=25, deadline=None)
@given(data=st.data(), batch_size=st.sampled_from([1, 3, 64]))
def test_values_are_those_of_the_network_and_are_dropped_after_use(recipes, data, batch_size: int) -> None:
    network = data.draw(recipes).network()
    x = np.random.default_rng(0).normal(size=(4, *network.input_shape)).astype(np.float32)
    names = [node.name for node in network]
    expected = evaluate_values(network, x, names)
    run = Run(network, torch.from_numpy(x), names, batch_size=batch_size)
    for name in data.draw(st.permutations(names)):
        found = run.take(name).numpy()
        scale = np.abs(expected[name]).max() + 1.0
        np.testing.assert_allclose(
            np.broadcast_to(found, expected[name].shape) / scale, expected[name] / scale, atol=1e-4
        )
    assert run.live() == ()


def test_parameters_of_nodes_not_yet_computed_may_change(sketch) -> None:
    s = sketch((3,), dtype="float32")
    first = s.linear("x", 4)
    second = s.linear(first, 2)
    network = s.network(second)
    run = Run(network, torch.ones(2, 3), [first, second])
    run.take(first)
    run.update(network.with_parameters({f"{second}.weight": np.zeros((2, 4), np.float32)}))
    np.testing.assert_allclose(run.take(second).numpy(), np.tile(network.parameters[f"{second}.bias"], (2, 1)))


def test_a_value_that_was_not_announced_is_a_mistake_of_the_caller(sketch) -> None:
    s = sketch((3,), dtype="float32")
    first = s.linear("x", 4)
    run = Run(s.network(s.linear(first, 2)), torch.ones(2, 3), [first])
    run.take(first)
    with pytest.raises(KeyError):
        run.take(first)
