"""Laws of channel similarity: closed forms against simulation, trees, and merging without loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from provable.channels import channel_groups
from provable.compensation.uncompensated import reweighted
from provable.errors import CalibrationError
from provable.observe import observe
from provable.pipeline import compress
from provable.reference import load
from provable.selection.by_similarity import clusters
from provable.selection.evidence import Choice
from provable.sensitivity.similarity import clustered, measured, modelled, squared_distances
from provable.surgery import shrink
from verify.network.evaluate import evaluate
from verify.network.graph import Network

DRAWS = 40_000
features = arrays(np.float64, st.tuples(st.integers(2, 9), st.integers(1, 4)), elements=st.floats(-5, 5))


def distances_of(points: np.ndarray) -> np.ndarray:
    return np.square(points[:, None] - points[None]).sum(-1)


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_closed_forms_agree_with_simulation(rectified: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    beta, gamma = random.normal(size=5), np.array([1.0, -0.5, 2.0, 0.1, 0.0])
    x = beta + gamma * random.standard_normal((DRAWS, 5))
    x = np.maximum(x, 0.0) if rectified else x
    squares = np.square(x[:, :, None] - x[:, None, :])
    error = squares.std(0) / DRAWS**0.5
    found = squared_distances(beta, gamma, rectified=rectified)
    off = ~np.eye(5, dtype=bool)
    assert np.all(np.abs(found - squares.mean(0))[off] <= 3.0 * error[off] + 1e-12)
    assert not np.diag(found).any()


def test_correlation_before_the_relu() -> None:
    random = np.random.default_rng(2)
    correlation = np.array([[1.0, 0.8], [0.8, 1.0]])
    beta, gamma = np.array([0.3, -1.0]), np.array([1.5, 0.5])
    x = beta + gamma * random.multivariate_normal([0, 0], correlation, DRAWS)
    squares = np.square(x[:, 0] - x[:, 1])
    found = squared_distances(beta, gamma, rectified=False, correlation=correlation)[0, 1]
    assert abs(found - squares.mean()) <= 3.0 * squares.std() / DRAWS**0.5
    with pytest.raises(CalibrationError, match="measure them"):
        squared_distances(beta, gamma, rectified=True, correlation=correlation)


@settings(max_examples=60, deadline=None)
@given(features)
def test_a_tree_is_monotone_and_its_cuts_are_partitions(points: np.ndarray) -> None:
    scores = np.abs(points[:, 0])
    finding = clustered(distances_of(points), scores)
    heights = finding.tree[:, 2]
    assert np.all(np.diff(heights) >= -1e-12)
    order, prices = finding.removals()
    assert sorted(order) == list(range(len(points)))
    assert np.all(np.diff(prices[:-1]) >= -1e-12)
    for count in range(1, len(points) + 1):
        found = clusters(finding.tree, count)
        assert len(found) == count
        assert sorted(slot for members in found for slot in members) == list(range(len(points)))
        heads = set(order[len(order) - count :])
        for members in found:
            (head,) = heads.intersection(members)
            assert scores[head] == scores[list(members)].max()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 9))
def test_cuts_do_not_depend_on_the_order_of_channels(seed: int, size: int) -> None:
    random = np.random.default_rng(seed)
    points, scores, order = random.normal(size=(size, 3)), random.random(size), random.permutation(size)
    plain, shuffled = clustered(distances_of(points), scores), clustered(distances_of(points[order]), scores[order])
    for count in range(1, size + 1):
        back = {frozenset(int(order[i]) for i in members) for members in clusters(shuffled.tree, count)}
        assert back == {frozenset(members) for members in clusters(plain.tree, count)}


def twice(sketch) -> Network:
    """A convolutional network with every hidden channel (filter and batch norm) doubled."""
    s = sketch((2, 6, 6), seed=4, dtype="float32")
    network = s.network(s.linear(s.flat(s.conv(s.add("relu", s.norm(s.conv("x", 4, 3))), 3, 3)), 3))
    changed = dict(network.parameters)
    for key in changed:
        if key.startswith(("conv_0.", "batch_norm_")):
            changed[key] = np.repeat(changed[key], 2, axis=0)
    changed["conv_3.weight"] = np.repeat(changed["conv_3.weight"], 2, axis=1) / 2
    nodes = tuple(replace(n, shape=(8, *n.shape[1:])) if n.name in wide(network) else n for n in network)
    return replace(network, nodes=nodes, parameters=changed)


def wide(network: Network) -> set[str]:
    return {node.name for node in network if node.shape[0] == 4}


def test_channels_that_are_equal_merge_at_distance_zero_and_without_loss(sketch) -> None:
    double = twice(sketch)
    x = np.random.default_rng(0).normal(size=(30, 2, 6, 6)).astype(np.float32)
    result = compress(double, x, keep={"channels": 0.5}, recipe="similarity-measured", compensation="none")
    hidden = next(report for report in result.groups if report.total == 8)
    assert hidden.kept == 4
    assert hidden.loss <= 1e-6
    assert result.surgery_error <= 1e-6
    group = next(g for g in channel_groups(double) if len(g.slots) == 8)
    squared, _ = measured(double, observe(double, torch.from_numpy(x), (group,)), group)
    assert [squared[2 * i, 2 * i + 1] for i in range(4)] == [0.0] * 4
    assert clustered(squared, np.ones(8)).tree[:4, 2].tolist() == [0.0] * 4
    kept = (0, 2, 4, 6)
    choice = Choice(kept, None, merged=tuple((i + 1, i) for i in kept))
    merged = shrink(reweighted(double, [group], {group.name: choice}), {group.name: kept}).compact
    np.testing.assert_allclose(evaluate(merged, x), evaluate(double, x), atol=1e-6)


def test_the_model_reads_batch_norm_and_says_so_where_there_is_none(sketch) -> None:
    reference = load("cnn")
    x = reference.calibration.images[:64]
    result = compress(reference.module, x, keep={"flops": 0.7}, recipe="similarity")
    assert result.after.flops <= 0.7 * result.before.flops
    s = sketch((5,), dtype="float32")
    network = s.network(s.linear(s.add("relu", s.linear("x", 6)), 3))
    with pytest.raises(CalibrationError, match="similarity-measured"):
        compress(network, np.zeros((4, 5), np.float32), keep={"flops": 0.5}, recipe="similarity")


def test_the_model_sees_the_relu_behind_the_norm(sketch) -> None:
    for rectified in (False, True):
        s = sketch((2, 4, 4), seed=1, dtype="float64")
        y = s.norm(s.conv("x", 5, 3))
        network = s.network(s.linear(s.flat(s.conv(s.add("relu", y) if rectified else y, 2, 3)), 2))
        group = next(g for g in channel_groups(network) if g.norms)
        beta, gamma = (network.parameters[f"batch_norm_1.{role}"] for role in ("bias", "weight"))
        squared, scores = modelled(network, group)
        np.testing.assert_allclose(squared, squared_distances(beta, gamma, rectified=rectified))
        np.testing.assert_allclose(scores, np.abs(gamma))
