# ruff: noqa: E402  (thread counts must be set before numpy is loaded)
"""ResNet-56 on CIFAR-10 at half its multiply-adds, without retraining: ours beside Torch-Pruning in the same run.

    python scripts/reproduce_resnet56.py [--data ../shared/data] [--images 256] [--keep 0.5] [--seed 0] [--out DIR]

Calibration: unlabelled training images. Accuracy, agreement with the dense network and the statistical certificate:
the 1017 test images, which nothing else looks at. Pruned in every row: the inner channels of each residual block. One
thread.
"""

import argparse
import copy
import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import torch
import torch_pruning
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from provable.cost import count_flops
from provable.pipeline import compress
from provable.records import Compression
from verify.network.graph import Network
from verify.network.module import NetworkModule
from verify.network.read_onnx import read_onnx
from verify.statistical.certificate import StatisticalCertificate, certify_sample
from verify.statistical.certificate_file import write_certificate

ROOT = Path(__file__).resolve().parents[1]
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COVERAGE, CONFIDENCE, MARGIN = "0.95", "0.99", "1e-4"
POPULATION = "CIFAR-10's test images"
WIDTH, STEPS = 118, 400


class Block(nn.Module):
    """``relu(norm(conv(relu(norm(conv(x))))) + shortcut(x))``; a widening shortcut subsamples and pads with zeros."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.stride = 2 if channels_out > channels_in else 1
        self.padding = (channels_out - channels_in) // 2
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.padding:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return functional.relu(y + x)


class ResNet56(nn.Module):
    """Three stages of nine blocks (or fewer: five make ResNet-32), 16, 32 and 64 channels wide."""

    def __init__(self, blocks: int = 9) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(*(Block(a if i == 0 else b, b) for i in range(blocks)))
            for a, b in ((16, 16), (16, 32), (32, 64))
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        out: Tensor = self.linear(x.mean(dim=(2, 3)))
        return out


@dataclass(frozen=True)
class Data:
    """Inputs in the network's format, (n, 3, 32, 32) float32."""

    calibration: NDArray[np.float32]
    test: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: of the method.
        kept: multiply-adds over the dense network's.
        correct, agreement: shares of the test images.
        seconds: wall clock; `processor`: seconds of one thread, which other programs on the machine do not lengthen.
    """

    name: str
    kept: float
    correct: float
    agreement: float
    seconds: float
    processor: float


def read_data(folder: Path, images: int | None, seed: int) -> Data:
    """`images` (or all) training images drawn without labels, and all test images."""
    with np.load(folder / "cifar10" / "cifar10_subset.npz", allow_pickle=False) as archive:
        train, test, labels = (archive[name] for name in ("train_images", "test_images", "test_labels"))
    chosen = np.random.default_rng(seed).permutation(len(train))[:images]
    return Data(_normalised(train[chosen]), _normalised(test), labels.astype(np.int64))


def _normalised(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    scaled = (pixels.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(DEVIATION)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def dense_module(folder: Path, layers: int = 56) -> ResNet56:
    """The trained network with its batch norms; `layers`: 56 or 32."""
    module = ResNet56((layers - 2) // 6)
    module.load_state_dict(load_file(folder / "resnet" / f"resnet{layers}_cifar10.safetensors"), strict=False)
    return module.eval().requires_grad_(False)


@torch.inference_mode()
def logits(module: nn.Module, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Outputs in batches of 128."""
    parts = [module(torch.from_numpy(inputs[i : i + 128])) for i in range(0, len(inputs), 128)]
    return torch.cat(parts).numpy()


def torch_pruning_l2(module: ResNet56, keep: float, everywhere: bool) -> ResNet56:
    """Torch-Pruning's L2 magnitude; see `pruned_by`."""
    return pruned_by(torch_pruning.importance.MagnitudeImportance(p=2), module, keep, everywhere)


def pruned_by(importance: object, module: ResNet56, keep: float, everywhere: bool) -> ResNet56:
    """Torch-Pruning on the first convolution of every block, in small steps down to the budget.

    Args:
        importance: of `torch_pruning.importance`.
        module: the dense network.
        keep: fraction of the multiply-adds to keep.
        everywhere: rank the channels of all layers together; else the same share in every layer.
    """
    pruned, example = copy.deepcopy(module).requires_grad_(True), torch.zeros(1, 3, 32, 32)
    inner = {block.conv1 for block in pruned.modules() if isinstance(block, Block)}
    fixed = [m for m in pruned.modules() if isinstance(m, nn.Conv2d | nn.Linear) and m not in inner]
    pruner = torch_pruning.pruner.MagnitudePruner(
        pruned, example, importance=importance, global_pruning=everywhere,
        pruning_ratio=0.98, iterative_steps=STEPS, ignored_layers=fixed,
    )  # fmt: skip
    limit = keep * multiply_adds(module)
    for _ in range(STEPS):
        if multiply_adds(pruned) <= limit:
            break
        pruner.step()
    return pruned.eval().requires_grad_(False)


def multiply_adds(module: ResNet56) -> int:
    """Of convolutions and the classifier, by the channels that are left."""
    first = 3 * module.conv1.out_channels * 9 * 32 * 32
    sizes = ((module.layer1, 32), (module.layer2, 16), (module.layer3, 8))
    blocks = sum(
        (block.conv1.weight.numel() + block.conv2.weight.numel()) * side**2 for layer, side in sizes for block in layer
    )
    return first + blocks + module.linear.weight.numel()


@torch.no_grad()
def reestimated(module: ResNet56, inputs: NDArray[np.float32]) -> ResNet56:
    """Batch-norm statistics measured again on the calibration images (cumulative average)."""
    module = copy.deepcopy(module)
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None
    module.train()
    for i in range(0, len(inputs), 128):
        module(torch.from_numpy(inputs[i : i + 128]))
    return module.eval()


class Stopwatch:
    """Wall clock and processor seconds since it was made."""

    def __init__(self) -> None:
        self._began = (time.perf_counter(), time.process_time())

    def read(self) -> tuple[float, float]:
        """(wall clock, processor) seconds."""
        return time.perf_counter() - self._began[0], time.process_time() - self._began[1]


class Bench:
    """Measures every method on the same images."""

    def __init__(self, data: Data, dense: ResNet56) -> None:
        self.data, self.full = data, multiply_adds(dense)
        self.dense = logits(dense, data.test)
        self.rows: list[Row] = [self._row("dense", self.dense, 1.0, (0.0, 0.0))]

    def torch(self, name: str, make: Callable[[], ResNet56], before: Row | None = None) -> ResNet56:
        """A torch method; `before` is the row of what it starts from."""
        watch = Stopwatch()
        module = make()
        wall, processor = watch.read()
        seconds = (wall + before.seconds, processor + before.processor) if before else (wall, processor)
        self.rows.append(self._row(name, logits(module, self.data.test), multiply_adds(module) / self.full, seconds))
        return module

    def ours(self, name: str, model: nn.Module | Network, keep: float, recipe: str, seed: int) -> Compression:
        """One of our recipes, everything included: tracing, statistics, reports, checks."""
        watch = Stopwatch()
        result = compress(model, self.data.calibration, keep={"flops": keep}, recipe=recipe, generator=seed)
        seconds = watch.read()
        outputs = logits(NetworkModule(result.compact), self.data.test)
        self.rows.append(self._row(name, outputs, count_flops(result.compact) / self.full, seconds))
        return result

    def _row(self, name: str, outputs: NDArray[np.float32], kept: float, seconds: tuple[float, float]) -> Row:
        best = outputs.argmax(1)
        correct, agreement = (best == self.data.labels).mean(), (best == self.dense.argmax(1)).mean()
        return Row(name, kept, float(correct), float(agreement), *seconds)


def measure(folder: Path, data: Data, keep: float, recipes: list[str], seed: int) -> tuple[list[Row], Compression]:
    """All rows, and the compression of the ONNX file by the first recipe."""
    module = dense_module(folder)
    bench = Bench(data, module)
    for everywhere, words in ((False, "same share per layer"), (True, "all layers ranked together")):
        name = f"Torch-Pruning L2, {words}"
        pruned = bench.torch(name, partial(torch_pruning_l2, module, keep, everywhere))
        bench.torch("    + batch norm re-estimated", partial(reestimated, pruned, data.calibration), bench.rows[-1])
    network = read_onnx(folder / "resnet" / "resnet56_cifar10.onnx")
    results = [bench.ours(f"provable {recipe}, ONNX file", network, keep, recipe, seed) for recipe in recipes]
    bench.ours(f"provable {recipes[0]}, torch module with batch norm", module, keep, recipes[0], seed)
    return bench.rows, results[0]


def certify(result: Compression, folder: Path, data: Data) -> StatisticalCertificate:
    """What the test images establish about the files in `folder`."""
    original, compact = read_onnx(folder / "original.onnx"), read_onnx(folder / "compact.onnx")
    certificate = certify_sample(
        original, compact, data.test, calibration_rows=result.calibration_rows, coverage=COVERAGE,
        confidence=CONFIDENCE, margin=MARGIN, population=POPULATION, engine="torch",
    )  # fmt: skip
    write_certificate(certificate, folder / "statistical.json")
    return certificate


def table(rows: list[Row], images: int) -> Table:
    """The rows; "kept" is the share of multiply-adds."""
    shown = Table(title=f"ResNet-56, CIFAR-10, {images} unlabelled calibration images, no retraining")
    shown.add_column("method")
    for heading in ("kept", "accuracy", "agrees with dense", "seconds", "processor s"):
        shown.add_column(heading, justify="right")
    for row in rows:
        shown.add_row(
            row.name,
            f"{row.kept:.1%}",
            f"{row.correct:.2%}",
            f"{row.agreement:.2%}",
            f"{row.seconds:.1f}",
            f"{row.processor:.1f}",
        )
    return shown


def main() -> None:
    """Print the table and the certificate's words."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--recipes", nargs="+", default=["greedy"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="keep the compact network and its certificate there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = read_data(options.data, options.images, options.seed)
    rows, result = measure(options.data, data, options.keep, options.recipes, options.seed)
    console = Console(width=WIDTH)
    console.print(table(rows, options.images))
    with tempfile.TemporaryDirectory() as scratch:
        folder = result.save(options.out or Path(scratch) / "out", force=True)
        print(certify(result, folder, data).statement)
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
