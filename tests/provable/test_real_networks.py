"""Compression of public networks; skipped where the data folder is absent."""

from pathlib import Path

import numpy as np
import pytest
import torch

from provable.pipeline import compress
from verify.network.evaluate import evaluate
from verify.network.module import NetworkModule
from verify.network.read_onnx import read_onnx

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the real networks in {DATA}, which are not there"),
]


@pytest.mark.parametrize(("keep", "limit"), [(0.8, 1e-3), (0.5, 0.1)])
def test_acasxu_keeps_its_outputs(keep: float, limit: float) -> None:
    """Deviation relative to the output range, on fresh points of the same region; a second or two."""
    network = read_onnx(DATA / "acasxu" / "ACASXU_run2a_1_1_batch_2000.onnx")
    low = np.array([-0.3035, -0.0095, 0.4934, 0.3, 0.3])  # property 3
    high = np.array([-0.2986, 0.0095, 0.5, 0.5, 0.5])
    generator = np.random.default_rng(0)
    x = generator.uniform(low, high, (22_000, 5)).reshape(-1, *network.input_shape)
    result = compress(network, x[:20_000], keep={"channels": keep})
    before, after = evaluate(network, x[20_000:]), evaluate(result.compact, x[20_000:])
    assert all(report.kept == round(keep * 50) for report in result.groups)
    assert np.abs(after - before).max() <= limit * np.ptp(before)


@pytest.mark.slow
def test_resnet56_at_half_its_multiply_adds() -> None:
    with np.load(DATA / "cifar10" / "cifar10_subset.npz", allow_pickle=False) as archive:
        train, test, labels = (archive[name] for name in ("train_images", "test_images", "test_labels"))
    mean, deviation = np.float32((0.485, 0.456, 0.406)), np.float32((0.229, 0.224, 0.225))

    def normalised(pixels: np.ndarray) -> np.ndarray:
        return ((pixels.astype(np.float32) / 255 - mean) / deviation).transpose(0, 3, 1, 2)

    network = read_onnx(DATA / "resnet" / "resnet56_cifar10.onnx")
    chosen = np.random.default_rng(0).permutation(len(train))[:256]
    result = compress(network, normalised(train[chosen]), keep={"flops": 0.5})
    assert result.after.flops <= 0.5 * result.before.flops
    module = NetworkModule(result.compact)
    with torch.inference_mode():
        parts = [module(torch.from_numpy(np.ascontiguousarray(p))) for p in np.array_split(normalised(test), 8)]
    assert (torch.cat(parts).argmax(1).numpy() == labels).mean() >= 0.905
