# ruff: noqa: E402  (thread counts must be set before numpy is loaded)
"""What fewer multiply-adds buy in time: widths of ResNet-56 under every way to round them, and where the time goes.

    python scripts/bench_latency.py [--data ../shared/data] [--images 256] [--keep 0.5] [--repeats 5] [--json FILE]

Widths come from the greedy recipe's allocation on unlabelled training images; times depend on widths, not on weights,
so networks are cut without compensation. Time: ONNX Runtime, one thread, batch norm folded; original and candidate in
turns, fastest call of each, median of the ratios over the repeats. "loss": sum over layers of the relative loss after
compensation that the allocation pays. The last row keeps one channel in every block: all that inner widths can save.
"""

import argparse
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import onnxruntime
import reproduce_resnet56 as resnet
import torch
from rich.console import Console
from rich.table import Table

from provable.allocation.budget import Budget
from provable.allocation.marginal_loss import allocate, outlasting
from provable.allocation.widths import allowed_widths
from provable.budgets import BUDGETS
from provable.budgets.latency import measured
from provable.budgets.problem import Problem
from provable.channels import ChannelGroup
from provable.compensation.moments import Matrix
from provable.cost import count_flops
from provable.observe import observe
from provable.pipeline import prunable
from provable.selection.by_loss import greedy_curve
from provable.selection.evidence import evidence_of
from provable.surgery import shrink
from verify.network.graph import Network
from verify.network.read_onnx import read_onnx
from verify.network.write_onnx import onnx_bytes, single_precision

BATCHES = (1, 32)
CALLS = 60


@dataclass(frozen=True)
class Row:
    """One set of widths.

    Attributes:
        name: how they were found.
        kept: share of the multiply-adds.
        loss: sum over layers, relative to the variance of their streams.
        faster: batch -> original's time over this one's.
    """

    name: str
    kept: float
    loss: float
    faster: Mapping[int, float]


def curves_of(network: Network, groups: Sequence[ChannelGroup], folder: Path, images: int) -> dict[str, Matrix]:
    """Group -> loss after compensation for every number of channels."""
    inputs = torch.from_numpy(resnet.read_data(folder, images, 0).calibration)
    statistics = observe(network, inputs, groups, sensitivity_images=0)
    return {group.name: greedy_curve(evidence_of(network, statistics, group)) for group in groups}


def counts_by(
    network: Network, groups: Sequence[ChannelGroup], curves: Mapping[str, Matrix], budget: Budget, multiple: int,
    batch: int = 1, fixed: Mapping[str, int] | None = None,
) -> dict[str, int]:  # fmt: skip
    """Group -> channels that stay within a budget; those of `fixed` groups are given."""
    widths = dict(allowed_widths({group.name: len(group.slots) for group in groups}, 1, multiple))
    widths.update({name: (count,) for name, count in (fixed or {}).items()})
    own = outlasting({name: curves[name] for name in widths})
    problem = Problem(network, groups, budget, widths, lambda cost, b: allocate(own, cost, b, widths), batch)
    return dict(BUDGETS[budget.kind].meet(problem).counts)


def row(
    name: str, network: Network, groups: Sequence[ChannelGroup], curves: Mapping[str, Matrix],
    counts: Mapping[str, int], repeats: int,
) -> Row:  # fmt: skip
    """Cut and measure."""
    compact = cut(network, groups, counts)
    times = {batch: [measured([network, compact], batch) for _ in range(repeats)] for batch in BATCHES}
    faster = {batch: float(np.median([a / b for a, b in pairs])) for batch, pairs in times.items()}
    loss = sum(float(curves[group][count]) for group, count in counts.items())
    return Row(name, count_flops(compact) / count_flops(network), loss, faster)


def cut(network: Network, groups: Sequence[ChannelGroup], counts: Mapping[str, int]) -> Network:
    """The network with the first channels of every group."""
    return shrink(network, {name: range(count) for name, count in counts.items()}, groups=groups).compact


def profiled(network: Network) -> Counter[str]:
    """Microseconds of one call at batch 1 per kind of kernel, by the runtime's own profile (its overhead included)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_profiling = True
    data = onnx_bytes(single_precision(network))
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(size=(1, *network.input_shape)).astype(np.float32)
    for _ in range(CALLS):
        session.run(None, {session.get_inputs()[0].name: x})
    path = Path(session.end_profiling())
    events = json.loads(path.read_text())
    path.unlink()
    seen: dict[tuple[str, str], list[int]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            seen.setdefault((event["args"]["op_name"], event["name"]), []).append(event["dur"])
    total = Counter[str]()
    for (kind, _), durations in seen.items():
        total[kind] += int(np.median(durations))
    return total


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=resnet.ROOT / "../shared/data")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = read_onnx(options.data / "resnet" / "resnet56_cifar10.onnx")
    groups, everywhere = prunable(network, "inner"), prunable(network, "all")
    curves = curves_of(network, everywhere, options.data, options.images)
    flops = Budget("flops", options.keep)
    found = {f"--round-to {m}": counts_by(network, groups, curves, flops, m) for m in (1, 8, 16)}
    for batch in BATCHES:
        name = f"--keep latency=0.667 --round-to 16 --batch-size {batch}"
        found[name] = counts_by(network, groups, curves, Budget("latency", 1 / 1.5), 16, batch)
    found["one channel everywhere"] = {group.name: 1 for group in groups}
    rows = [row(name, network, groups, curves, counts, options.repeats) for name, counts in found.items()]
    halved = {group.name: len(group.slots) // 2 for group in everywhere if not group.inner and len(group.slots) >= 32}
    for name, fixed in {"--scope all --round-to 16": {}, "the same, streams of 32 and more halved": halved}.items():
        counts = counts_by(network, everywhere, curves, flops, 16, fixed=fixed)
        rows.append(row(name, network, everywhere, curves, counts, options.repeats))
    console = Console(width=118)
    table = Table(
        title=f"ResNet-56: times faster than the original (ONNX Runtime, one thread), {flops.fraction:g} kept"
    )
    for heading in ("widths", "multiply-adds kept", "loss", *(f"batch {batch}" for batch in BATCHES)):
        table.add_column(heading, justify="left" if heading == "widths" else "right")
    for r in rows:
        table.add_row(r.name, f"{r.kept:.1%}", f"{r.loss:.3g}", *(f"{r.faster[b]:.2f}" for b in BATCHES))
    console.print(table)
    for name in ("--round-to 16", "one channel everywhere"):
        before, after = profiled(network), profiled(cut(network, groups, found[name]))
        kinds = ", ".join(f"{kind} {before[kind]} -> {after[kind]}" for kind, _ in after.most_common(5))
        console.print(f"microseconds per call at batch 1, {name}: {kinds}", highlight=False)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
