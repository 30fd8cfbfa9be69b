"""Five families of architectures end to end: pruned where their channels couple, exported, reloaded, the same numbers.

Small widths and random weights: what is checked is the machinery, not accuracy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from provable.channels import channel_groups
from provable.pipeline import compress
from verify.network.evaluate import evaluate
from verify.network.load import load_network
from verify.network.read_onnx import read_onnx
from verify.network.structure import read_structure


class Inverted(nn.Module):
    """MobileNet's block: widen, depthwise, project, add."""

    def __init__(self, width: int, factor: int = 2) -> None:
        super().__init__()
        inner = factor * width
        self.widen = nn.Sequential(nn.Conv2d(width, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6())
        self.depthwise = nn.Sequential(
            nn.Conv2d(inner, inner, 3, 1, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()
        )
        self.project = nn.Sequential(nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(self.depthwise(self.widen(x)))


class Dense(nn.Module):
    """DenseNet's layer: its output is appended to its input."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(channels), nn.Conv2d(channels, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(torch.relu(self.norm(x)))], 1)


class Attention(nn.Module):
    """Multi-head self-attention and an MLP, both with pre-norm and a sum."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.depth = heads, width // heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        q, k, v = (f(y).reshape(*y.shape[:2], self.heads, self.depth).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        x = x + self.out(mixed.reshape(*y.shape))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Patches, position, two blocks, mean over tokens."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(2, width, 4, 4)
        self.position = nn.Parameter(0.1 * torch.randn(4, width))
        self.blocks = nn.Sequential(Attention(width, 4), Attention(width, 4))
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.blocks(tokens).mean(1))


def mobile() -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(2, 6, 3, 1, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU6())
    return nn.Sequential(stem, Inverted(6), Inverted(6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))


def dense() -> nn.Module:
    layers = [Dense(6 + 4 * i, 4) for i in range(3)]
    tail = [nn.Conv2d(18, 8, 1), nn.AvgPool2d(2), Dense(8, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)]
    return nn.Sequential(nn.Conv2d(2, 6, 3, 1, 1), *layers, *tail)


def vgg() -> nn.Module:
    block = [nn.Conv2d(2, 6, 3, 1, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*block, nn.Flatten(), nn.Linear(128, 12), nn.ReLU(), nn.Linear(12, 5))


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(128, 16), nn.ReLU(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 5)
    )  # fmt: skip


@dataclass(frozen=True)
class Family:
    """An architecture and the op whose coupling its pruning has to get right."""

    make: Callable[[], nn.Module]
    coupling: str


FAMILIES = {
    "mobilenet": Family(mobile, "conv"),
    "densenet": Family(dense, "concat"),
    "vgg": Family(vgg, "reshape"),
    "mlp": Family(perceptron, "linear"),
    "vit": Family(Transformer, "attention"),
}


def model_of(name: str) -> nn.Module:
    """Random weights, and running statistics that are not those of a fresh batch norm."""
    torch.manual_seed(0)
    model = FAMILIES[name].make()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.3)
            nn.init.normal_(module.running_mean, 0.0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def pictures(count: int = 60) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 2, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("compensation", ["least_squares", pytest.param("two_sided", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_compressed_exported_reloaded_checked(name: str, compensation: str, tmp_path: Path) -> None:
    x, model = pictures(), model_of(name)
    result = compress(model, x, keep={"parameters": 0.6}, scope="all", compensation=compensation)
    added = sum(a.size for key, a in result.compact.parameters.items() if key not in result.original.parameters)
    assert result.after.parameters - added <= 0.6 * result.before.parameters
    assert result.surgery_error <= 1e-5
    narrower = {n.op for n in result.compact if n.shape != result.original.shape_of(n.name)}
    assert FAMILIES[name].coupling in narrower

    folder = result.save(tmp_path / "out")
    compact = read_onnx(folder / "compact.onnx")
    loaded = read_structure(folder / "structure.json", folder / "compact.safetensors")
    assert compact.digest() == loaded.digest() == result.compact.digest() == load_network(folder).digest()
    np.testing.assert_allclose(evaluate(compact, x), evaluate(result.compact, x), rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        before = model(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(result.module()(torch.from_numpy(x)).numpy(), evaluate(compact, x), atol=1e-4)
    np.testing.assert_allclose(evaluate(result.original, x), before, rtol=1e-3, atol=1e-4)  # traced as it is
    _runs_in_onnx_runtime(folder / "compact.onnx", x, evaluate(compact, x))
    spread = np.square(before - before.mean(0)).mean()
    assert np.square(evaluate(compact, x) - before).mean() < 0.5 * spread  # far better than a constant


def _runs_in_onnx_runtime(path: Path, x: np.ndarray, expected: np.ndarray) -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_whole_heads_and_hidden_units_of_the_transformer_leave() -> None:
    result = compress(model_of("vit"), pictures(), keep={"parameters": 0.6}, scope="all")
    attention = [n for n in result.compact if n.op == "attention"]
    heads = [node.shape[0] for node in attention]
    assert min(heads) < 4
    assert all(heads)
    groups = {g.name: g for g in channel_groups(result.original)}
    hidden = [name for name, kept in result.kept.items() if len(kept) < len(groups[name].slots) == 32]
    assert hidden, "no hidden unit of an MLP left"
