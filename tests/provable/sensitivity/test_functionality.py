"""Laws of functionality-oriented pruning: activation maximisation, redundant twins, contributions."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from provable.channels import channel_groups
from provable.errors import CalibrationError
from provable.pipeline import compress
from provable.reference import accuracy, load
from provable.sensitivity.functionality import (
    activations,
    contributions,
    feature,
    groups_left,
    maximisers,
    noise,
    ordered,
)
from verify.network.graph import Network
from verify.network.module import NetworkModule
from verify.network.read_export import trace


@pytest.fixture(scope="module")
def trained() -> tuple[Network, torch.Tensor, np.ndarray]:
    reference = load("cnn")
    x = torch.from_numpy(reference.calibration.images[:200])
    return trace(reference.module, x[:1]), x, reference.calibration.labels[:200]


def inner(network: Network) -> list:
    return [g for g in channel_groups(network) if g.removable and g.inner]


def test_the_climb_beats_nine_images_in_ten_and_is_reproducible(trained) -> None:
    network, x, _ = trained
    start = noise(x, np.random.default_rng(0))
    shares = []
    for group in inner(network):
        value = feature(group)
        found = maximisers(network, group, value, x, start)
        assert torch.equal(found, maximisers(network, group, value, x, start))
        assert bool((found >= x.amin(0)).all() and (found <= x.amax(0)).all())
        module, where = NetworkModule(network), [slot.positions[value] for slot in group.slots]
        with torch.no_grad():
            seen = activations(module.values(x, [value])[value], where, group.axes[value])
            reached = activations(module.values(found, [value])[value], where, group.axes[value]).diagonal()
        shares += (reached > seen).float().mean(0).tolist()
    assert np.mean(np.array(shares) >= 0.9) >= 0.9
    assert np.mean(shares) >= 0.95


def doubled(network: Network, group, slots: list[int]) -> Network:
    """Some of an inner group's filters twice (with their batch norm), their readers' weights halved."""
    order = np.r_[np.arange(len(group.slots)), slots]
    share = np.where(np.isin(order, slots), 0.5, 1.0)
    changed = dict(network.parameters)
    for name in (*group.producers, *group.norms):
        for key in network.node(name).parameters.values():
            changed[key] = changed[key][order]
    for consumer in group.consumers:
        key = network.node(consumer.node).parameters["weight"]
        changed[key] = (changed[key][:, order].swapaxes(1, -1) * share).swapaxes(1, -1).astype(np.float32)
    nodes = tuple(replace(n, shape=(len(order), *n.shape[1:])) if n.name in group.axes else n for n in network)
    return replace(network, nodes=nodes, parameters=changed)


def test_twins_share_a_cluster_and_one_of_each_pair_leaves_before_any_unique_filter(trained) -> None:
    network, x, y = trained
    group = inner(network)[0]
    twins = [1, 4, 7]
    wide = doubled(network, group, twins)
    np.testing.assert_allclose(NetworkModule(wide)(x[:4]).detach(), NetworkModule(network)(x[:4]).detach(), atol=1e-4)
    again = next(g for g in inner(wide) if g.name == group.name)
    size = len(group.slots)
    images = maximisers(wide, again, feature(again), x, noise(x, np.random.default_rng(0))).flatten(1).double().numpy()
    for i, slot in enumerate(twins):
        np.testing.assert_allclose(images[slot], images[size + i], atol=1e-4)
    scores = contributions(wide, [again], x[:64], y[:64])[again.name]
    order, _ = ordered(scores, images).removals()
    left = list(order[: len(twins)])
    assert all(len({slot, size + i} & set(left)) == 1 for i, slot in enumerate(twins))


def test_contributions_are_mean_absolute_slopes(sketch) -> None:
    s = sketch((4,), seed=1, dtype="float32")
    network = s.network(s.linear(s.add("relu", s.linear("x", 3)), 2))
    group = inner(network)[0]
    x, y = torch.from_numpy(s.normal(6, 4).astype(np.float32)), np.array([0, 1, 0, 1, 1, 0])
    found = contributions(network, [group], x, y)[group.name]
    weights = [torch.from_numpy(network.parameters[k].copy()) for k in network.parameters]
    hidden = (x @ weights[0].T + weights[1]).requires_grad_(True)
    probability = (hidden.relu() @ weights[2].T + weights[3]).softmax(1).gather(1, torch.from_numpy(y)[:, None]).sum()
    (slope,) = torch.autograd.grad(probability, hidden)
    np.testing.assert_allclose(found, slope.abs().mean(0), rtol=1e-5)


def test_only_filters_that_look_for_the_same_thing_are_redundant() -> None:
    assert groups_left(np.array([0.0, 0.0, 5.0, 5.5])) == 3
    assert groups_left(np.array([5.0, 5.5, 6.0])) == 4
    assert groups_left(np.zeros(3)) == 1
    finding = ordered(np.array([3.0, 1.0, 2.0, 0.5]), np.array([[0.0], [0.0], [9.0], [20.0]]))
    assert finding.removals()[0] == (1, 3, 2, 0)


def test_it_needs_labels(trained) -> None:
    network, x, _ = trained
    with pytest.raises(CalibrationError, match="functionality"):
        compress(network, x, keep={"flops": 0.7}, recipe="functionality")


def test_without_compensation_it_beats_chance(trained) -> None:
    """Three seeds; the l1 norm is reported beside it by scripts/reproduce_scores.py."""
    network, x, y = trained
    held_out = load("cnn").held_out

    def reached(recipe: str, seed: int) -> float:
        result = compress(
            network, x, keep={"flops": 0.75}, recipe=recipe, labels=y, compensation="none", generator=seed
        )
        return accuracy(result.module(), held_out)

    ours, chance = ([reached(recipe, seed) for seed in range(3)] for recipe in ("functionality", "random"))
    assert np.mean(ours) > np.mean(chance)
