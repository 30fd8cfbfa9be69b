"""The benchmarks measure what they say: the right network, equal sizes, honest words about bounds."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.scripts.loading import load_script
from verify.network.read_export import trace


def test_the_large_network_has_the_shape_of_resnet50() -> None:
    module = load_script("bench_scale")
    with torch.device("meta"):
        model = module.resnet(64, module.BLOCKS)
    assert sum(p.numel() for p in model.parameters()) == 25_557_032


def test_a_small_case_is_measured() -> None:
    module = load_script("bench_scale")
    found = module.measure(module.Case(width=2, blocks=(1, 1), images=4, size=32, keep=0.7, threads=1))
    assert found.kept <= 0.7
    assert found.processor_seconds > 0.0
    assert found.peak_gigabytes > 0.0


def test_designs_are_compared_at_equal_size_on_held_out_images(monkeypatch) -> None:
    module = load_script("bench_sampling")
    torch.manual_seed(0)
    layers = [layer for width in (6, 6, 6) for layer in (nn.Conv2d(6, width, 3, 1, 1), nn.ReLU())]
    model = nn.Sequential(nn.Conv2d(2, 6, 3, 1, 1), nn.ReLU(), *layers, nn.Flatten(), nn.Linear(96, 3)).eval()
    images = torch.randn(24, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(module, "LAYERS", (1,))
    found = module.rows(trace(model, images[:1]), images, 0.5, 4)
    assert [row.design for row in found] == list(module.ORDER)
    by_design = {row.design: row for row in found}
    for design in ("pivotal", "volume", "greedy"):
        assert by_design[design].kept == 3
    for row in found:
        assert row.refitted < row.as_drawn
        assert math.isfinite(row.bound)
    assert by_design["pivotal"].quantity == "relative error e"
    assert by_design["volume"].quantity == "loss"
    assert module.shown(found).row_count == len(found)


def test_latencies_are_those_of_the_widths_in_the_row(monkeypatch) -> None:
    for name in ("onnxruntime", "torch_pruning"):
        pytest.importorskip(name)
    module = load_script("bench_latency")
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 12, 3, 1, 1), nn.ReLU(), nn.Conv2d(12, 12, 3, 1, 1), nn.ReLU(), nn.Conv2d(12, 2, 3, 1, 1)]
    network = trace(nn.Sequential(*layers).eval(), torch.zeros(1, 2, 6, 6))
    groups = module.prunable(network, "inner")
    curves = {group.name: np.linspace(1.0, 0.0, 13) for group in groups}
    counts = module.counts_by(network, groups, curves, module.Budget("flops", 0.5), 4)
    assert all(count % 4 == 0 for count in counts.values())
    seen = []
    monkeypatch.setattr(module, "measured", lambda networks, batch: seen.append(networks) or [3.0, 2.0])
    row = module.row("four", network, groups, curves, counts, 2)
    assert row.faster == {1: 1.5, 32: 1.5}
    assert row.kept <= 0.5
    assert row.loss == pytest.approx(sum(1 - count / 12 for count in counts.values()))
    assert all(original is network for original, _ in seen)
    assert module.profiled(network)["Conv"] > 0


def test_mixing_replaces_what_can_be_mixed_and_meets_the_budget() -> None:
    pytest.importorskip("torch_pruning")
    peers = load_script("compression_peers")
    torch.manual_seed(0)
    module = peers.resnet.ResNet56(1).eval()
    inputs = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1)).numpy()
    full = peers.resnet.multiply_adds(module)
    for keep in (1.0, 0.6, 0.3):
        assert peers.resnet.multiply_adds(peers.mixed(module, keep, inputs)) <= keep * full
    block = module.layer1[0]  # every channel twice, once at half the size: one can go
    block.conv1.weight.data = block.conv1.weight[torch.arange(16) % 8]
    block.bn1.weight.data[8:], block.bn1.bias.data[8:] = block.bn1.weight[:8] / 2, block.bn1.bias[:8] / 2
    mixed = peers.mixed(module, peers._multiply_adds(module, 0.95) / full, inputs)
    assert [b.conv1.out_channels for b in peers._blocks(mixed)] == [15, 30, 60]
    with torch.no_grad():
        before, after = (m.layer1(torch.relu(m.conv1(torch.from_numpy(inputs)))) for m in (module, mixed))
    assert float((before - after).norm() / before.norm()) < 1e-2
