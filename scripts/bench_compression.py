"""Compression without retraining: every figure of the table, each row in its own process, one thread.

    python scripts/bench_compression.py [--quick] [--rows refine-50 closed-70 ...] [--data ../shared/data] [--json FILE]

Calibration: unlabelled training images, drawn by a seed. Options are the defaults of the methods; the
schedule of the refinement was chosen on other training images, with ResNet-56 at 70 %.
Accuracy and agreement with the dense network: the 1017 test images, which nothing else looks at. Seconds: processor
time of one thread, with wall-clock time beside it (they differ on a busy machine). Peak: the process's resident memory,
libraries included (about 0.35 GB). Pruned in every row: the inner channels of each residual block.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import compression_peers as peers
import reproduce_resnet56 as resnet
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from provable.cost import count_flops
from provable.pipeline import compress
from verify.network.module import NetworkModule
from verify.network.read_onnx import read_onnx

Made = TypeVar("Made")
SEED = 0
PEERS = ("plain", "l2", "bn", "mix")
QUICK = ("peer-l2-50", "peer-bn-50", "small-50", "small-70")


@dataclass(frozen=True)
class Case:
    """One row to measure.

    Attributes:
        method: one of our compensations, or one of the peers (compression_peers.py).
        depth: of the ResNet.
        images: unlabelled calibration images.
        keep: fraction of the multiply-adds.
        goal: accuracy to reach in per cent, or None.
        limit: seconds to stay within, or None.
    """

    method: str
    depth: int
    images: int
    keep: float
    goal: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Measured:
    """What came out."""

    kept: float
    dense: float
    accuracy: float
    agreement: float
    processor_seconds: float
    seconds: float
    peak_megabytes: float


CASES = {
    **{f"peer-{m}-{round(100 - 100 * keep)}": Case(m, 56, 256, keep) for m in PEERS for keep in (0.7, 0.5, 0.3)},
    "small-50": Case("least_squares", 56, 256, 0.5, 91.7, 18),
    "small-70": Case("least_squares", 56, 256, 0.3, 87.0, 18),
    "closed-50": Case("least_squares", 56, 1024, 0.5, 92.3, 60),
    "closed-70": Case("least_squares", 56, 1024, 0.3, 88.0, 60),
    "sides-50": Case("two_sided", 56, 1024, 0.5, 92.3),
    "sides-70": Case("two_sided", 56, 1024, 0.3, 88.0),
    "refine-30": Case("refine_network", 56, 1024, 0.7, 93.0, 150),
    "refine-50": Case("refine_network", 56, 1024, 0.5, 92.8, 150),
    "refine-61": Case("refine_network", 56, 1024, 0.39, 91.8, 150),
    "refine-70": Case("refine_network", 56, 1024, 0.3, 90.5, 150),
    "refine32-50": Case("refine_network", 32, 1024, 0.5, 91.8, 100),
    "refine32-70": Case("refine_network", 32, 1024, 0.3, 87.0, 100),
    "blocks-50": Case("refine", 56, 1024, 0.5, 92.8, 150),
    "blocks-70": Case("refine", 56, 1024, 0.3, 90.5, 150),
}
METHODS = {
    "plain": "Torch-Pruning, best of ten settings",
    "l2": "Torch-Pruning, L2, same share per layer",
    "bn": "the same + batch-norm re-estimation",
    "mix": "L2, same share + ridge channel mixing",
    "least_squares": "provable, closed form",
    "two_sided": "provable, closed form, producers, too",
    "refine_network": "provable, refined",
    "refine": "provable, refined block by block",
}


def measure(case: Case, folder: Path) -> Measured:
    """Run one case in this process."""
    torch.set_num_threads(1)
    data = resnet.read_data(folder, case.images, SEED)
    run = _peer if case.method in PEERS else _ours
    model, dense, kept, wall, processor = run(case, folder, data)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found, before = (resnet.logits(m, data.test).argmax(1) for m in (model, dense))
    accuracy, full = ((classes == data.labels).mean() for classes in (found, before))
    return Measured(kept, float(full), float(accuracy), float((found == before).mean()), processor, wall, peak)


def _ours(case: Case, folder: Path, data: resnet.Data) -> tuple[nn.Module, nn.Module, float, float, float]:
    network = read_onnx(folder / "resnet" / f"resnet{case.depth}_cifar10.onnx")
    compression, wall, processor = _timed(
        partial(
            compress, network, data.calibration,
            keep={"flops": case.keep}, compensation=case.method, recipe="greedy", generator=SEED,
        )
    )  # fmt: skip
    kept = count_flops(compression.compact) / count_flops(network)
    return NetworkModule(compression.compact), NetworkModule(network), kept, wall, processor


def _peer(case: Case, folder: Path, data: resnet.Data) -> tuple[nn.Module, nn.Module, float, float, float]:
    dense = resnet.dense_module(folder)

    def make() -> resnet.ResNet56:
        if case.method == "plain":  # the one that does best on the test images, which is in its favour
            return max(peers.plain(dense, case.keep), key=lambda made: _accuracy(made[1], data))[1]
        if case.method == "mix":
            return peers.mixed(dense, case.keep, data.calibration)
        pruned = resnet.torch_pruning_l2(dense, case.keep, everywhere=False)
        return resnet.reestimated(pruned, data.calibration) if case.method == "bn" else pruned

    pruned, wall, processor = _timed(make)
    return pruned, dense, resnet.multiply_adds(pruned) / resnet.multiply_adds(dense), wall, processor


def _accuracy(module: nn.Module, data: resnet.Data) -> float:
    return float((resnet.logits(module, data.test).argmax(1) == data.labels).mean())


def _timed(make: Callable[[], Made]) -> tuple[Made, float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    made = make()
    return made, time.perf_counter() - wall, time.process_time() - processor


def in_own_process(name: str, folder: Path) -> Measured:
    """Measure a case in a fresh interpreter, so that its peak memory is its own."""
    environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")}
    command = [sys.executable, __file__, "--one", name, "--data", str(folder)]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return Measured(**json.loads(out.splitlines()[-1]))


def table(rows: dict[str, Measured]) -> Table:
    """All rows; goals beside what was reached."""
    shown = Table(title="ResNets on CIFAR-10, unlabelled calibration images, no retraining")
    for heading in ("row", "network", "images", "method"):
        shown.add_column(heading)
    for heading in ("removed", "accuracy", "goal", "dense", "agrees", "cpu s", "limit", "wall s", "peak MB"):
        shown.add_column(heading, justify="right")
    for name, row in rows.items():
        case = CASES[name]
        shown.add_row(
            name, f"ResNet-{case.depth}", str(case.images), METHODS[case.method], f"{1 - row.kept:.1%}",
            f"{row.accuracy:.2%}", _or_blank(case.goal), f"{row.dense:.2%}", f"{row.agreement:.2%}",
            f"{row.processor_seconds:.0f}", _or_blank(case.limit), f"{row.seconds:.0f}", f"{row.peak_megabytes:.0f}",
        )  # fmt: skip
    return shown


def _or_blank(number: float | None) -> str:
    return "" if number is None else f"{number:g}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=resnet.ROOT / "../shared/data")
    parser.add_argument("--rows", nargs="+", choices=list(CASES), help="default: all")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--json", type=Path, help="write the rows there, too")
    parser.add_argument("--one", choices=list(CASES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(asdict(measure(CASES[options.one], options.data))))
        return
    rows: dict[str, Measured] = {}
    for name in options.rows or (QUICK if options.quick else CASES):
        rows[name] = in_own_process(name, options.data)
        print(f"{name}: {rows[name].accuracy:.2%} in {rows[name].processor_seconds:.0f} s", file=sys.stderr, flush=True)
        if options.json:
            options.json.write_text(json.dumps({n: asdict(r) for n, r in rows.items()}, indent=1))
    Console(width=160).print(table(rows))


if __name__ == "__main__":
    main()
