"""Targets, refits and the layer-by-layer pass, on networks where the right answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from provable.compensation.sequential import compensate, sites
from provable.compensation.target import target_of
from provable.pipeline import prunable
from verify.network.evaluate import evaluate, evaluate_values
from verify.network.graph import Network


def inputs_of(network: Network, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, *network.input_shape)).astype(np.float32)


def keep_first(count: int):
    return lambda group, views: tuple(range(min(count, len(group.slots))))


def block(sketch, operation: str = "add", bias: bool = False) -> Network:
    """relu(conv) -> conv -> norm, combined with the block's input."""
    s = sketch((4, 5, 5), seed=3, dtype="float32")
    x = s.add("relu", s.conv("x", 4, 3))
    y = s.norm(s.conv(s.add("relu", s.conv(x, 6, 3)), 4, 3, bias=bias))
    return s.network(s.linear(s.flat(s.add("relu", s.add(operation, y, x))), 3))


def test_target_of_a_residual_branch_is_the_sum(sketch) -> None:
    network = block(sketch)
    group = next(g for g in prunable(network, "inner") if len(g.slots) == 6)
    target = target_of(network, group.consumers[0].node)
    assert [network.node(name).op for name in target.chain] == ["batch_norm"]
    assert target.sum is not None
    assert network.node(target.value).op == "add"
    x = inputs_of(network, 3)
    values = evaluate_values(network, x, [target.consumer, target.end])
    shape = (-1, 1, 1)
    expected = values[target.consumer] * target.gain.reshape(shape) + target.offset.reshape(shape)
    np.testing.assert_allclose(values[target.end], expected, rtol=1e-6)


@pytest.mark.parametrize("flip", [False, True])
def test_target_of_a_difference_has_the_right_sign(sketch, flip: bool) -> None:
    s = sketch((4,), seed=3, dtype="float32")
    stream = s.add("relu", s.linear("x", 5))
    y = s.linear(s.add("relu", s.linear(stream, 6)), 5)
    out = s.add("subtract", *((stream, y) if flip else (y, stream)))
    network = s.network(s.linear(s.add("relu", out), 2))
    target = target_of(network, y)
    assert target.sum is not None
    assert (target.sum.sign, target.sum.other_sign) == ((-1.0, 1.0) if flip else (1.0, -1.0))
    assert target.sum.other == stream


def test_target_stops_where_a_value_has_two_readers(sketch) -> None:
    s = sketch((4,), dtype="float32")
    y = s.linear(s.add("relu", s.linear("x", 6)), 5)
    out = s.add("add", s.constant("scale", y, 5), s.add("tanh", y))
    target = target_of(s.network(s.linear(out, 2)), y)
    assert (target.chain, target.sum) == ((), None)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_keeping_every_slot_changes_nothing(recipes, data) -> None:
    """The refit of a layer whose input is untouched is the layer itself."""
    network = data.draw(recipes).network()
    x = inputs_of(network, 6)
    groups = prunable(network, "all")
    everything = {g.name: tuple(range(len(g.slots))) for g in groups}
    result = compensate(network, torch.from_numpy(x), groups, fixed=everything, choose=keep_first(0))
    assert all(layer.loss <= 1e-9 * (layer.variance + 1.0) for layer in result.layers)
    before, after = evaluate(network, x), evaluate(result.network, x)
    np.testing.assert_allclose(after, before, atol=1e-3 * (np.abs(before).max() + 1.0))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("operation", ["add", "subtract"])
def test_reported_loss_is_the_error_of_the_stream(sketch, operation: str, bias: bool) -> None:
    """Loss and refitted parameters agree: the stream's empirical error is the record's loss."""
    network = block(sketch, operation, bias)
    x = inputs_of(network, 40)
    groups = [g for g in prunable(network, "inner") if len(g.slots) == 6]
    result = compensate(network, torch.from_numpy(x), groups, fixed={}, choose=keep_first(3))
    (layer,) = result.layers
    value = target_of(network, layer.node).value
    before, after = (evaluate_values(n, x, [value])[value] for n in (network, result.network))
    error = ((before - after) ** 2).sum(axis=1).mean()
    assert layer.loss == pytest.approx(error, rel=1e-4)
    assert layer.variance == pytest.approx(before.transpose(1, 0, 2, 3).reshape(4, -1).var(axis=1).sum(), rel=1e-5)
    assert set(result.network.parameters) == set(network.parameters)  # the norm takes the intercept


def test_an_intercept_without_a_place_becomes_a_bias(sketch) -> None:
    s = sketch((5,), seed=1, dtype="float32")
    out = s.linear(s.add("relu", s.linear("x", 8)), 3, bias=False)
    network = s.network(out)
    x = inputs_of(network, 200)
    result = compensate(network, torch.from_numpy(x), prunable(network, "inner"), fixed={}, choose=keep_first(4))
    added = set(result.network.parameters) - set(network.parameters)
    assert added == {f"{out}.bias"}
    error = evaluate(network, x) - evaluate(result.network, x)
    np.testing.assert_allclose(error.mean(axis=0), 0.0, atol=1e-5)
    assert (error**2).sum(axis=1).mean() == pytest.approx(result.layers[0].loss, rel=1e-4)


def test_a_shared_norm_is_not_changed_for_its_other_reader(sketch) -> None:
    s = sketch((4, 5, 5), seed=3, dtype="float32")
    x = s.add("relu", s.conv("x", 4, 3))
    branches = [s.conv(s.add("relu", s.conv(x, 6, 3)), 4, 3, bias=False) for _ in range(2)]
    norms = [s.norm(branch) for branch in branches]
    network = s.network(s.linear(s.flat(s.add("relu", s.add("add", *norms))), 3))
    nodes = tuple(
        replace(n, parameters={**n.parameters, "bias": f"{norms[0]}.bias"}) if n.name == norms[1] else n
        for n in network
    )
    tied = replace(network, nodes=nodes)
    data = inputs_of(tied, 40)
    groups = [g for g in prunable(tied, "inner") if g.consumers[0].node == branches[1]]
    result = compensate(tied, torch.from_numpy(data), groups, fixed={}, choose=keep_first(3))
    np.testing.assert_array_equal(result.network.parameters[f"{norms[0]}.bias"], tied.parameters[f"{norms[0]}.bias"])
    assert result.network.node(norms[1]).parameters["bias"] != f"{norms[0]}.bias"
    value = target_of(tied, branches[1]).value
    before, after = (evaluate_values(n, data, [value])[value] for n in (tied, result.network))
    assert result.layers[0].loss == pytest.approx(((before - after) ** 2).sum(axis=1).mean(), rel=1e-4)


def test_sequential_targets_repair_upstream_errors(sketch) -> None:
    """Two blocks: the second's target is the stream, so the final error is below that of repairing each alone."""
    s = sketch((4, 6, 6), seed=5, dtype="float32")
    x = s.basic_block(s.basic_block(s.add("relu", s.conv("x", 8, 3))))
    network = s.network(s.linear(s.flat(x), 3))
    data = inputs_of(network, 60)
    groups = prunable(network, "inner")
    result = compensate(network, torch.from_numpy(data), groups, fixed={}, choose=keep_first(4))
    target = target_of(network, result.layers[-1].node)
    assert target.sum is not None
    values = [evaluate_values(n, data, [target.value, target.sum.other]) for n in (network, result.network)]
    after = ((values[0][target.value] - values[1][target.value]) ** 2).sum(axis=1).mean()
    branch = [v[target.value] - v[target.sum.other] for v in values]
    alone = ((branch[0] - branch[1]) ** 2).sum(axis=1).mean()
    assert result.layers[-1].loss == pytest.approx(after, rel=1e-4)
    assert after != pytest.approx(alone, rel=1e-2)  # the branch itself is not what is fitted


def test_two_branches_into_one_sum_the_last_one_repairs(sketch) -> None:
    s = sketch((4,), seed=2, dtype="float32")
    left = s.linear(s.add("relu", s.linear("x", 6)), 5)
    right = s.linear(s.add("relu", s.linear("x", 6)), 5)
    network = s.network(s.linear(s.add("relu", s.add("add", left, right)), 2))
    work = sites(network, prunable(network, "inner"), (), ())
    assert [(site.target.consumer, site.target.sum is not None) for site in work] == [(left, False), (right, True)]


@pytest.mark.parametrize("seed", range(4))
def test_a_second_sweep_lowers_the_error_of_a_sum_whose_operands_were_fitted_in_turn(sketch, seed: int) -> None:
    s = sketch((4,), seed=seed, dtype="float32")
    left = s.linear(s.add("relu", s.linear("x", 6)), 5)
    right = s.linear(s.add("relu", s.linear("x", 6)), 5)
    end = s.add("add", left, right)
    network = s.network(s.linear(s.add("relu", end), 2))
    data, groups = inputs_of(network, 200), prunable(network, "inner")
    first = compensate(network, torch.from_numpy(data), groups, fixed={}, choose=keep_first(2))
    second = compensate(
        network, torch.from_numpy(data), groups, fixed=first.kept, choose=keep_first(2), start=first.network,
        settled=True,
    )  # fmt: skip
    wanted, one, two = (evaluate_values(n, data, [end])[end] for n in (network, first.network, second.network))
    assert second.kept == first.kept
    assert ((two - wanted) ** 2).mean() < ((one - wanted) ** 2).mean()


def test_dead_channels_leave_without_a_trace(sketch) -> None:
    s = sketch((4,), seed=2, dtype="float32")
    first = s.linear("x", 8)
    network = s.network(s.linear(s.add("relu", first), 3))
    weight, bias = (network.parameters[f"{first}.{role}"].copy() for role in ("weight", "bias"))
    weight[4:], bias[4:] = 0.0, -1.0
    network = network.with_parameters({f"{first}.weight": weight, f"{first}.bias": bias})
    x = inputs_of(network, 50)
    result = compensate(network, torch.from_numpy(x), prunable(network, "inner"), fixed={}, choose=keep_first(4))
    for key, array in network.parameters.items():
        kept = result.network.parameters[key]
        np.testing.assert_array_equal(kept[:, :4] if kept.shape == (3, 8) else kept,
                                      array[:, :4] if kept.shape == (3, 8) else array)  # fmt: skip
    np.testing.assert_array_equal(evaluate(result.network, x), evaluate(network, x))
    assert result.layers[0].ridge is None


def test_rows_that_a_norm_kills_keep_their_weights(sketch) -> None:
    network = block(sketch)
    gamma = next(k for k in network.parameters if k.startswith("batch_norm") and k.endswith("weight"))
    network = network.with_parameters({gamma: np.array([1.0, 0.0, -2.0, 0.5], np.float32)})
    groups = [g for g in prunable(network, "inner") if len(g.slots) == 6]
    consumer = groups[0].consumers[0].node
    x = torch.from_numpy(inputs_of(network, 30))
    result = compensate(network, x, groups, fixed={}, choose=keep_first(3))
    key = network.node(consumer).parameters["weight"]
    np.testing.assert_array_equal(result.network.parameters[key][1, :3], network.parameters[key][1, :3])
    assert (result.network.parameters[key][:, 3:] == 0.0).all()
