"""Refinement of the whole network: never worse on held-out images, deterministic, and a killed one goes on the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from provable import pipeline
from provable.compensation import network_refinement
from provable.compensation.network_refinement import (
    Descent,
    NetworkRefined,
    NetworkSchedule,
    refine_network,
    streams_of,
)
from provable.errors import GroupingError
from provable.pipeline import compress, prunable
from provable.surgery import shrink
from verify.network.evaluate import evaluate_values
from verify.network.graph import Network

SHORT = NetworkSchedule(steps=24, batch=16, rate=1e-2, held_out=0.25, checks=4)


def inputs_of(network: Network, count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, *network.input_shape)).astype(np.float32))


def residual(sketch, seed: int = 5) -> Network:
    s = sketch((3, 6, 6), seed, "float32")
    x = s.basic_block(s.basic_block(s.add("relu", s.conv("x", 6, 3))), 8)
    return s.network(s.linear(s.add("mean", x, axes=(1, 2), keepdims=False), 3))


def refined(
    network: Network, *, schedule: NetworkSchedule = SHORT, scope: str = "inner", seed: int = 0, checkpoints=None
) -> NetworkRefined:
    groups = prunable(network, scope)
    surgery = shrink(network, {g.name: range(max(1, len(g.slots) - 2)) for g in groups})
    return refine_network(
        network, surgery.compact, surgery.values, streams_of(network, groups), inputs_of(network, 64), schedule,
        torch.Generator().manual_seed(seed), checkpoints,
    )  # fmt: skip


def test_it_gains_and_says_what_is_true_of_the_network_it_returns(sketch) -> None:
    """The objective reported is that of the returned network's streams on the judged images."""
    network = residual(sketch)
    assert (found := refined(network)).after < found.before
    found = refined(network, schedule=replace(SHORT, held_out=48 / 64))
    x = inputs_of(network, 64)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0)).numpy()
    shown, rest = order[:48], order[48:]
    original, compact = (evaluate_values(n, x.numpy(), found.streams) for n in (network, found.network))
    errors = [
        np.mean((compact[name][shown] - original[name][shown]) ** 2) / original[name][rest].var(0).mean()
        for name in found.streams
    ]
    assert found.after == pytest.approx(np.mean(errors), rel=1e-3)  # the variances are of rounded values


def test_streams_are_what_the_next_layers_read(sketch) -> None:
    network = residual(sketch)
    streams = streams_of(network, prunable(network, "inner"))
    assert [network.node(name).op for name in streams] == ["relu", "relu"]
    assert [network.node(network.node(name).inputs[0]).op for name in streams] == ["add", "add"]


@pytest.mark.parametrize("rate", [1e-3, 1e3])
def test_never_worse_on_held_out_images(sketch, rate: float) -> None:
    network = residual(sketch)
    found = refined(network, schedule=replace(SHORT, rate=rate))
    assert found.after <= found.before
    if rate == 1e3:
        groups = prunable(network, "inner")
        start = shrink(network, {g.name: range(max(1, len(g.slots) - 2)) for g in groups}).compact
        assert found.after == found.before
        assert found.network.digest() == start.digest()


def test_same_seed_same_bits(sketch) -> None:
    network = residual(sketch)
    first, again, other = (refined(network, seed=seed).network.digest() for seed in (1, 1, 2))
    assert first == again
    assert first != other


class Kept:
    """Checkpoints in memory, as a file would keep them."""

    def __init__(self) -> None:
        self.all: list[Descent] = []
        self.given: Descent | None = None

    def descent(self) -> Descent | None:
        return self.given

    def keep_descent(self, descent: Descent) -> None:
        copies = {key: tensor.contiguous().clone() for key, tensor in descent.tensors.items()}
        self.all.append(replace(descent, tensors=copies))


def test_taken_up_at_any_check_it_ends_the_same(sketch) -> None:
    network, whole = residual(sketch), Kept()
    end = refined(network, checkpoints=whole)
    assert [d.step for d in whole.all] == [6, 12, 18, 24]
    for checkpoint in whole.all:
        again = Kept()
        again.given = checkpoint
        resumed = refined(network, checkpoints=again)
        assert resumed.network.digest() == end.network.digest()
        assert (resumed.before, resumed.after) == (end.before, end.after)


@pytest.mark.parametrize("scope", ["inner", "all"])
def test_any_network(recipes, scope: str) -> None:
    @settings(max_examples=8, deadline=None, phases=[Phase.explicit, Phase.generate])
    @given(data=st.data())
    def law(data) -> None:
        network = data.draw(recipes.filter(lambda r: _has(r.network(), scope))).network()
        found = refined(network, schedule=replace(SHORT, steps=4), scope=scope)
        assert found.after <= found.before

    law()


def _has(network: Network, scope: str) -> bool:
    try:
        return bool(prunable(network, scope))
    except GroupingError:
        return False


def test_streams_that_would_take_too_much_memory_are_thinned_out_evenly(sketch, monkeypatch) -> None:
    s = sketch((3, 6, 6), 1, "float32")
    x = s.add("relu", s.conv("x", 6, 3))
    for _ in range(5):
        x = s.basic_block(x)
    network = s.network(s.linear(s.add("mean", x, axes=(1, 2), keepdims=False), 3))
    streams = streams_of(network, prunable(network, "inner"))
    size = 2 * 2 * 48 * 6 * 36  # two bytes, two orientations, three quarters of 64 images
    for room, wanted in ((5, streams), (4, streams[0::2]), (2, streams[1::3]), (0, streams[-1:])):
        monkeypatch.setattr(network_refinement, "HELD", room * size)
        assert refined(network, schedule=replace(SHORT, steps=1)).streams == wanted


def test_the_command_line_reports_it(sketch, monkeypatch) -> None:
    monkeypatch.setattr(pipeline, "NetworkSchedule", lambda: SHORT)
    network, notes = residual(sketch), []
    for keep in (0.6, 1.0):
        result = compress(network, inputs_of(network, 48), keep={"flops": keep}, compensation="refine_network")
        notes.append(" ".join(result.notes))
    assert "the whole network was refined towards 2 values of the original" in notes[0]
    assert "refined" not in notes[1]  # nothing was removed, nothing moves
    assert result.compact.digest() == network.digest()


def test_the_start_looks_at_the_first_inputs_and_the_record_names_all(sketch, monkeypatch) -> None:
    monkeypatch.setattr(pipeline, "NetworkSchedule", lambda: SHORT)
    network = residual(sketch)
    inputs = inputs_of(network, 260)
    found = compress(network, inputs, keep={"flops": 0.6}, compensation="refine_network")
    start = compress(network, inputs[:256], keep={"flops": 0.6}, compensation="two_sided")
    assert found.kept == start.kept
    assert [layer.loss for layer in found.layers] == [layer.loss for layer in start.layers]
    assert (found.samples, len(found.calibration_rows)) == (260, 260)
    assert found.calibration_rows[:256] == start.calibration_rows
    assert found.calibration_digest != start.calibration_digest
    assert any("from the first 256 inputs" in note for note in found.notes)
