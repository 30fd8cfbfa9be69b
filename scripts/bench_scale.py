"""How far compression scales: a ResNet-50-shaped network with random weights, and a cost model of time and memory.

    python scripts/bench_scale.py [--size 224] [--images 64] [--keep 0.5] [--threads 2] [--model] [--json FILE]

The network has the shape of ResNet-50 (25.6 M parameters, 1000 classes); weights are random, inputs are random low
frequency pictures, so accuracy means nothing here: time and memory do not depend on what the weights say. Seconds are
wall clock and processor time of the whole process; peak is its resident memory, libraries included.

With --model the same network is compressed at several widths, image counts, resolutions and depths, and the growth of
processor time and peak memory is printed as an exponent between neighbours of each row.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from provable.pipeline import compress

BLOCKS = (3, 4, 6, 3)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 convolutions with batch norms, and a sum."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(channels_in, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        same = channels_in == out and stride == 1
        self.shortcut: nn.Module = nn.Identity() if same else _projection(channels_in, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(images, channels_in, h, w) -> (images, 4 width, h / stride, w / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


def _projection(channels_in: int, out: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels_in, out, 1, stride, bias=False), nn.BatchNorm2d(out))


def resnet(width: int, blocks: tuple[int, ...]) -> nn.Module:
    """The shape of ResNet-50 for width 64 and blocks (3, 4, 6, 3)."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
    ]  # fmt: skip
    channels = width
    for stage, count in enumerate(blocks):
        for block in range(count):
            inner = width * 2**stage
            layers.append(Bottleneck(channels, inner, 2 if block == 0 and stage > 0 else 1))
            channels = 4 * inner
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000)).eval()


def pictures(count: int, size: int, generator: torch.Generator) -> Tensor:
    """(count, 3, size, size) random pictures, neighbouring pixels alike."""
    coarse = torch.randn(count, 3, max(2, size // 8), max(2, size // 8), generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return smooth + 0.1 * torch.randn(count, 3, size, size, generator=generator)


@dataclass(frozen=True)
class Case:
    """What to compress: base width, blocks per stage, images, their size, share of multiply-adds that stays."""

    width: int = 64
    blocks: tuple[int, ...] = BLOCKS
    images: int = 64
    size: int = 224
    keep: float = 0.5
    threads: int = 2
    compensation: str = "least_squares"


@dataclass(frozen=True)
class Measured:
    """What it took."""

    parameters: int
    kept: float
    seconds: float
    processor_seconds: float
    peak_gigabytes: float
    stages: dict[str, float]


def measure(case: Case) -> Measured:
    """Compress one network in this process."""
    torch.set_num_threads(case.threads)
    torch.manual_seed(0)
    model = resnet(case.width, case.blocks)
    inputs = pictures(case.images, case.size, torch.Generator().manual_seed(1))
    wall, processor = time.perf_counter(), time.process_time()
    result = compress(model, inputs, keep={"flops": case.keep}, compensation=case.compensation)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    kept = result.after.flops / result.before.flops
    return Measured(result.before.parameters, kept, wall, processor, peak, dict(result.seconds))


def in_its_own_process(case: Case) -> Measured:
    """Measured with fresh memory and the threads that the case asks for."""
    threads = {name: str(case.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    words = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
    done = subprocess.run(words, env={**os.environ, **threads}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def cost_model(console: Console, threads: int) -> list[dict[str, object]]:
    """Rows in which one quantity grows; prints them with the exponent of growth between neighbours."""
    base = Case(width=8, images=64, size=64, threads=threads)
    rows = {
        "images": [replace(base, images=n) for n in (64, 256, 1024)],
        "pixels (side)": [replace(base, size=s) for s in (64, 128, 256)],
        "layers (blocks)": [replace(base, blocks=b) for b in ((1, 2, 3, 1), BLOCKS, (6, 8, 12, 6))],
        "channels (base width)": [replace(base, width=w) for w in (8, 16, 32)],
    }
    table = Table(
        title="cost model: processor seconds and peak memory when one quantity grows, all else as in the base"
    )
    for name in ("quantity", "value", "processor s", "growth", "peak GB", "growth"):
        table.add_column(name, justify="right")
    found, known = list[dict[str, object]](), dict[Case, Measured]()
    for quantity, cases in rows.items():
        before: tuple[float, Measured] | None = None
        for case in cases:
            value = {"c": case.width, "i": case.images, "p": case.size, "l": sum(case.blocks)}[quantity[0]]
            now = known[case] = known.get(case) or in_its_own_process(case)
            so_far = f"{now.processor_seconds:.1f} s, {now.peak_gigabytes:.2f} GB"
            print(f"{quantity} {value}: {so_far}", file=sys.stderr, flush=True)
            time_growth = memory_growth = ""
            if before is not None:
                ratio = math.log(value / before[0])
                time_growth = f"n^{math.log(now.processor_seconds / before[1].processor_seconds) / ratio:.2f}"
                memory_growth = f"n^{math.log(now.peak_gigabytes / before[1].peak_gigabytes) / ratio:.2f}"
            table.add_row(
                quantity, str(value), f"{now.processor_seconds:.1f}", time_growth, f"{now.peak_gigabytes:.2f}",
                memory_growth,
            )  # fmt: skip
            found.append({"quantity": quantity, "value": value, **asdict(now)})
            before = (value, now)
    console.print(table)
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time and memory of compressing a ResNet-50-shaped network.")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", action="store_true", help="the cost model instead of the one large run")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        known = json.loads(options.case)
        print(json.dumps(asdict(measure(Case(**{**known, "blocks": tuple(known["blocks"])})))))
        return
    console = Console(width=118)
    if options.model:
        record: object = cost_model(console, options.threads)
    else:
        case = Case(images=options.images, size=options.size, keep=options.keep, threads=options.threads)
        found = in_its_own_process(case)
        console.print(
            f"{found.parameters:,} parameters, {case.images} images {case.size} x {case.size}, {case.threads} threads: "
            f"{found.kept:.1%} of the multiply-adds kept in {found.seconds:.0f} s "
            f"({found.processor_seconds:.0f} s processor), peak {found.peak_gigabytes:.2f} GB"
        )
        for stage, seconds in found.stages.items():
            console.print(f"  {stage:<24} {seconds:8.1f} s")
        record = {"case": asdict(case), **asdict(found)}
    if options.json is not None:
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
