"""Refinement: never worse on held-out images, deterministic, and what it changes is what runs afterwards."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from provable import pipeline
from provable.compensation.adam import Adam
from provable.compensation.refinement import Refiner, Schedule
from provable.compensation.segment import is_closed, segment_between, trainable
from provable.compensation.sequential import Compensated, compensate
from provable.compensation.target import target_of
from provable.errors import GroupingError
from provable.pipeline import prunable
from verify.network.evaluate import evaluate_values
from verify.network.graph import Network

SHORT = Schedule(steps=16, batch=16, rate=5e-3)


def inputs_of(network: Network, count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, *network.input_shape)).astype(np.float32))


def producers(groups) -> tuple[str, ...]:
    return tuple(name for group in groups for name in group.producers)


def run(
    network: Network,
    x: torch.Tensor,
    count: int,
    *,
    schedule: Schedule | None = SHORT,
    both: bool = True,
    seed: int = 0,
) -> tuple[Compensated, Refiner | None]:
    groups = prunable(network, "inner")
    polish = Refiner(network, groups, schedule, torch.Generator().manual_seed(seed)) if schedule else None
    result = compensate(
        network, x, groups, fixed={}, choose=lambda group, views: tuple(range(min(count, len(group.slots)))),
        extra=producers(groups) if both else (), polish=polish,
    )  # fmt: skip
    return result, polish


def two_blocks(sketch, seed: int = 5) -> Network:
    s = sketch((3, 6, 6), seed, "float32")
    x = s.basic_block(s.basic_block(s.add("relu", s.conv("x", 6, 3))), 8)
    return s.network(s.linear(s.add("mean", x, axes=(1, 2), keepdims=False), 3))


@pytest.mark.parametrize(("seed", "count"), [(0, 1), (1, 3), (17, 5)])
def test_never_worse_on_held_out_images(sketch, seed: int, count: int) -> None:
    network = two_blocks(sketch, seed)
    _, refiner = run(network, inputs_of(network, 48, seed), count)
    assert len(refiner.outcomes) == 2
    assert all(after <= before for before, after in refiner.outcomes.values())


def test_gains_where_least_squares_is_not_the_end(sketch) -> None:
    network = two_blocks(sketch)
    x = inputs_of(network, 96)
    _, refiner = run(network, x, 3, schedule=replace(SHORT, steps=80))
    assert all(after < before for before, after in refiner.outcomes.values())


def test_a_rate_too_high_keeps_least_squares(sketch) -> None:
    network = two_blocks(sketch)
    x = inputs_of(network, 48)
    plain, _ = run(network, x, 3, schedule=None)
    wild, refiner = run(network, x, 3, schedule=replace(SHORT, rate=1e3))
    assert all(after == before for before, after in refiner.outcomes.values())
    for key, array in plain.network.parameters.items():
        np.testing.assert_array_equal(wild.network.parameters[key], array)


def test_same_seed_same_bits(sketch, monkeypatch) -> None:
    monkeypatch.setattr(pipeline, "Schedule", lambda: SHORT)
    network = two_blocks(sketch)
    x = inputs_of(network, 40).numpy()
    first, again = (
        pipeline.compress(network, x, keep={"flops": 0.6}, compensation="refine", generator=seed) for seed in (1, 1)
    )
    assert first.compact.digest() == again.compact.digest()
    told = [layer.refined for layer in first.layers if layer.refined is not None]
    assert told
    assert all(after <= before for before, after in told)


def test_reported_loss_is_that_of_the_refined_network(sketch) -> None:
    """With every image judged, the outcome is the error of the block's activated stream in the network returned."""
    network = two_blocks(sketch)
    x = inputs_of(network, 40)
    result, refiner = run(network, x, 3, schedule=replace(SHORT, held_out=39 / 40))
    last = list(refiner.outcomes)[-1]
    value = target_of(network, last).value
    reader = network.consumers()[value][0].name
    before, after = (evaluate_values(n, x.numpy(), [reader])[reader] for n in (network, result.network))
    error = ((before - after) ** 2).reshape(len(x), -1).sum(1)
    judged = 40 * refiner.outcomes[last][1] / 39  # one image was not judged
    assert judged == pytest.approx(error.mean() * 40 / 39, abs=error.max() / 39 * 1.1)


def test_removed_channels_stay_removed_and_later_segments_see_refined_values(sketch) -> None:
    network = two_blocks(sketch)
    x = inputs_of(network, 60)
    result, _ = run(network, x, 3)
    for group in prunable(network, "inner"):
        for consumer in group.consumers:
            weight = result.network.parameters[network.node(consumer.node).parameters["weight"]]
            gone = [p for slot in range(3, len(group.slots)) for p in consumer.positions[slot]]
            assert (weight[:, gone] == 0.0).all()


def test_segment_of_a_residual_block(sketch) -> None:
    network = two_blocks(sketch)
    group = prunable(network, "inner")[0]
    target = target_of(network, group.consumers[0].node)
    segment = segment_between(network, (*group.producers, target.consumer), target.value)
    assert [network.node(name).op for name in segment.nodes] == [
        "conv",
        "batch_norm",
        "relu",
        "conv",
        "batch_norm",
        "add",
    ]
    assert segment.sources == (network.node(segment.nodes[0]).inputs[0],)
    assert is_closed(network, segment)
    assert segment.activation is not None
    roles = {key.rsplit(".", 1)[1] for key in trainable(network, segment)}
    assert roles == {"weight", "bias"}  # never the norms' statistics


def test_shared_parameters_and_values_read_outside_are_left_alone(sketch) -> None:
    s = sketch((4,), seed=2, dtype="float32")
    hidden = s.add("relu", s.linear("x", 6))
    out = s.add("add", s.linear(hidden, 5), s.linear(hidden, 5))
    network = s.network(s.linear(s.add("tanh", out), 2))
    first, second = (n.name for n in network if n.inputs == (hidden,))
    whole = segment_between(network, (network.nodes[0].name, first), first)
    assert not is_closed(network, whole)  # `second` reads the hidden value, too
    alone = segment_between(network, (first,), first)
    assert is_closed(network, alone)
    assert {key.split(".")[0] for key in trainable(network, alone)} == {first}
    tied = replace(
        network,
        nodes=tuple(replace(n, parameters=network.node(first).parameters) if n.name == second else n for n in network),
    )
    assert trainable(tied, alone) == ()


@pytest.mark.parametrize("scope", ["inner", "all"])
def test_any_network(recipes, scope: str) -> None:
    @settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.generate])
    @given(data=st.data())
    def law(data) -> None:
        network = data.draw(recipes.filter(lambda r: _has(r.network(), scope))).network()
        groups = prunable(network, scope)
        fixed = {g.name: tuple(range(max(1, len(g.slots) - 1))) for g in groups}
        refiner = Refiner(network, groups, replace(SHORT, steps=4), torch.Generator().manual_seed(0))
        compensate(network, inputs_of(network, 9), groups, fixed=fixed, choose=lambda *_: (), polish=refiner)
        assert all(after <= before for before, after in refiner.outcomes.values())

    law()


def _has(network: Network, scope: str) -> bool:
    try:
        return bool(prunable(network, scope))
    except GroupingError:
        return False


def test_two_sided_is_no_worse_on_the_calibration_images(sketch) -> None:
    """Same channels; the first block: the producer's refit on an untouched input changes nothing, later ones gain."""
    network = two_blocks(sketch)
    x = inputs_of(network, 80)
    plain, _ = run(network, x, 3, schedule=None, both=False)
    both, _ = run(network, x, 3, schedule=None, both=True)
    consumers = {layer.node for layer in plain.layers}
    losses = [sum(layer.loss for layer in r.layers if layer.node in consumers) for r in (plain, both)]
    assert losses[1] <= losses[0] * (1 + 1e-6)


@pytest.mark.slow
def test_adam_is_the_librarys() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(5, generator=generator).requires_grad_(True)
    theirs = ours.detach().clone().requires_grad_(True)
    goal, descent, library = torch.arange(5.0), Adam.at([ours]), torch.optim.Adam([theirs])
    for step in range(20):
        rate = 0.1 / (1 + step)
        library.param_groups[0]["lr"] = rate
        descent.step(torch.autograd.grad(((ours - goal) ** 4).sum(), [ours]), rate)
        library.zero_grad()
        ((theirs - goal) ** 4).sum().backward()
        library.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
