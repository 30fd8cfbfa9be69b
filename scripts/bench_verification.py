"""Bounds of the deviation, method by method: in one pass, after a search, and how fast; one box, one thread.

    python scripts/bench_verification.py [--tables pass search throughput ...] [--instances mnist acas conv]

Twins of real networks: "float16" rounds every weight; "removed" takes 20 % of the channels of every layer away by
greedy elimination with least squares on uniform samples of the box; "inactive first" removes channels proved to be
zero on the whole box before that.

pass: deviation found by attack, then upper bounds for every input of the box, without splitting. Rigorous, but slopes
    that were optimised have no auditor.
search: `--seconds` of branch and bound for the tightest bound; "audited" is what the auditor proved of it.
throughput: sub-boxes bounded per second, and the share of matrix products in that time.

isomorphic, float16, compressed: what a family of questions decides (bench_search.py, which can be continued; hours).
layers: where a bound is loose (bench_layers.py).
completeness: agreement with exact methods (bench_completeness.py).
soundness: random pairs against every kind of bound (bench_soundness.py).
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from provable import ChannelGroup, channel_groups, compress, shrink
from provable.channels import Slot
from verify import Box, Network, read_onnx, read_vnnlib, verify_deviation, write_onnx
from verify.certificate.issue import issue_certificate
from verify.empirical.attack import attack_deviation
from verify.errors import UnsupportedOperation
from verify.formal.backward.bound import backward_bounds
from verify.formal.backward.inactive import inactive_elements
from verify.formal.lift import align
from verify.formal.program import EVERY_SYMBOL, compile_pair

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SAMPLES = 3000
MNIST = [(f"mnistfc/mnist-net_{n}.onnx", "mnistfc/prop_0_0.03.vnnlib") for n in ("256x2", "256x4")]
ACAS = [
    (f"acasxu/ACASXU_run2a_{net}_batch_2000.onnx", f"acasxu/prop_{prop}.vnnlib")
    for net, prop in (("1_1", 1), ("1_1", 2), ("1_1", 3), ("1_3", 3), ("1_1", 4))
]
CONV = [
    ("convnets/cifar_base_kw.onnx", "convnets/cifar_base_kw-img1697-eps0.0014379084967320263.vnnlib"),
    ("convnets/resnet_2b.onnx", "convnets/prop_24_eps_0.008.vnnlib"),
]
INSTANCES = {"mnist": MNIST, "acas": ACAS, "conv": CONV}
TABLES = ("pass", "search", "throughput")
OF_OTHER_SCRIPTS = {
    "isomorphic": ("bench_search.py", "--tables", "isomorphic"),
    "float16": ("bench_search.py", "--tables", "float16"),
    "compressed": ("bench_search.py", "--tables", "compressed"),
    "layers": ("bench_layers.py",),
    "completeness": ("bench_completeness.py",),
    "soundness": ("bench_soundness.py",),
}
BATCH, CHUNK, REPEATS = 1000, 128, 5
WIDTHS = (1 / 16, 1 / 64)
PRODUCTS = ("aten::mm", "aten::bmm", "aten::addmm", "aten::addmm_", "aten::baddbmm", "aten::matmul", "aten::mv")
COLUMNS = ("zonotope", "separate", "separate_optimised", "pair", "pair_optimised")


@dataclass(frozen=True)
class Twin:
    """A compact network and the channels it kept."""

    name: str
    network: Network
    channels: Mapping[str, Any] | None


def float16(network: Network) -> Twin:
    """Every parameter rounded to half precision."""
    rounded = {k: v.astype(np.float16).astype(v.dtype) for k, v in network.parameters.items()}
    return Twin("float16", network.with_parameters(rounded), None)


def removed(network: Network, box: Box, keep: float) -> Twin:
    """Greedy elimination with least squares."""
    found = compress(network, _samples(network, box), keep={"channels": keep}, recipe="greedy")
    return Twin(f"{100 * (1 - keep):.0f} % removed", found.compact, found.channels)


def inactive_first(network: Network, box: Box, keep: float) -> Twin:
    """Channels proved to be zero on the box leave first, exactly; greedy elimination takes the rest."""
    name = f"{100 * (1 - keep):.0f} % removed, inactive first"
    proved = inactive_elements(network, box)
    kept: dict[str, list[int]] = {}
    fractions = []
    for group in channel_groups(network):
        if not group.removable or not group.inner:
            continue
        dead = [i for i, slot in enumerate(group.slots) if _is_zero(group, slot, proved)]
        wanted = round((1 - keep) * len(group.slots))
        leaving = set(dead[: min(wanted, len(group.slots) - 1)])
        kept[group.name] = [i for i in range(len(group.slots)) if i not in leaving]
        fractions.append((len(group.slots) - wanted) / len(kept[group.name]))
    surgery = shrink(network, kept)
    if min(fractions) >= 1.0:
        return Twin(name, surgery.compact, surgery.channels)
    rest = compress(surgery.compact, _samples(network, box), keep={"channels": min(fractions)}, recipe="greedy")
    return Twin(name, rest.compact, _composed(surgery.channels, rest.channels))


def _is_zero(group: ChannelGroup, slot: Slot, proved: Mapping[str, np.ndarray]) -> bool:
    return any(
        name in proved and bool(proved[name].take(slot.positions[name], axis=group.axes[name]).all())
        for name in slot.positions
    )


def _composed(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(first["values"])
    for name, entry in second["values"].items():
        before = values.get(name)
        kept = entry["kept"] if before is None else [before["kept"][k] for k in entry["kept"]]
        values[name] = {"axis": entry["axis"], "kept": kept}
    return {"version": 1, "values": values}


def _samples(network: Network, box: Box) -> np.ndarray:
    points = box.sample(np.random.default_rng(0), SAMPLES)
    return points.reshape(SAMPLES, *network.input_shape).astype(np.float32)


def rows(network: Network, box: Box, keep: float, seconds: float) -> Iterator[list[str]]:
    """One row per twin."""
    for make in (
        lambda: float16(network),
        lambda: removed(network, box, keep),
        lambda: inactive_first(network, box, keep),
    ):
        twin = make()
        attack = attack_deviation(
            network, twin.network, box, generator=np.random.default_rng(0), seconds=0.1 * seconds
        ).deviation
        low, high = (torch.from_numpy(v)[None] for v in box.outward())
        started = time.perf_counter()
        try:
            found = backward_bounds(
                network, twin.network, align(network, twin.network, twin.channels), low, high, seconds=seconds
            )
        except UnsupportedOperation as error:
            yield [twin.name, f"{attack:.2e}", str(error)]
            continue
        taken = time.perf_counter() - started
        cells = [f"{float(found.by_method[c]):.3g}" if c in found.by_method else "-" for c in COLUMNS]
        best = float(found.deviation())
        yield [twin.name, f"{attack:.2e}", *cells, f"{best / attack:.3g}" if attack else "-", f"{taken:.1f}"]


def searched(network: Network, model: Path, box: Box, keep: float, seconds: float, folder: Path) -> Iterator[list[str]]:
    """One row per twin: what a search of some seconds makes of the first bound, and the auditor's bound for it."""
    for twin in (float16(network), removed(network, box, keep), inactive_first(network, box, keep)):
        write_onnx(twin.network, folder / "compact.onnx")
        compact = read_onnx(folder / "compact.onnx")
        first: list[float] = []
        result = verify_deviation(
            network, compact, [box], channels=twin.channels, timeout=seconds, ratio=1.01,
            progress=lambda _s, upper, _lower, _leaves, first=first: first.append(upper),
        )  # fmt: skip
        began = time.perf_counter()
        found = issue_certificate(
            folder / "c.json", result, original=model, compact=folder / "compact.onnx", boxes=[box]
        )
        audited = f"{float(found[0]):.3g}" if isinstance(found, tuple) else "none"
        start = first[0] if first else result.upper
        ratios = [f"{u / result.lower:.3g}" if result.lower else "-" for u in (start, result.upper)]
        yield [
            twin.name, f"{result.lower:.2e}", f"{start:.3g}", f"{result.upper:.3g}", *ratios, f"{result.leaves:,}",
            audited, f"{time.perf_counter() - began:.1f}",
        ]  # fmt: skip


def throughput(network: Network, box: Box, share: float) -> tuple[float, float]:
    """Sub-boxes per second on one core at a batch of 1,000, and the share of that time in matrix products.

    Args:
        share: width of a sub-box over that of the box, in every coordinate.
    """
    twin = float16(network).network
    program = compile_pair(network, twin, align(network, twin, None))
    rng = np.random.default_rng(0)
    low, high = (a[None] for a in box.outward())
    centre = low + rng.random((BATCH, box.dimension)) * (high - low)
    reach = 0.5 * share * (high - low)
    lower, upper = (torch.from_numpy(np.clip(centre + sign * reach, low, high)) for sign in (-1.0, 1.0))

    def once() -> None:
        for part in torch.split(torch.arange(BATCH), CHUNK):
            program.bounds(lower[part], upper[part], symbols=EVERY_SYMBOL)

    once()
    began = time.process_time()
    for _ in range(REPEATS):
        once()
    rate = REPEATS * BATCH / (time.process_time() - began)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        once()
    events = profile.key_averages()
    products = sum(e.self_cpu_time_total for e in events if e.key in PRODUCTS)
    return rate, products / sum(e.self_cpu_time_total for e in events)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=(*TABLES, *OF_OTHER_SCRIPTS))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--instances", nargs="+", default=list(INSTANCES), choices=list(INSTANCES))
    parser.add_argument("--keep", type=float, default=0.8)
    parser.add_argument("--seconds", type=float, default=60.0, help="after which nothing further is optimised, per row")
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"no folder {options.data}; give it with --data")
    torch.set_num_threads(1)
    console = Console(width=160)
    pairs = [(options.data / model, options.data / domain) for n in options.instances for model, domain in INSTANCES[n]]
    if "pass" in options.tables:
        titles = ("attack", "zonotope", "CROWN", "alpha-CROWN", "pair", "pair optimised", "ratio", "s")
        _table(console, titles, pairs, lambda model, box: rows(read_onnx(model), box, options.keep, options.seconds))
    if "search" in options.tables:
        titles = ("attack", "first", "proved", "ratio at first", "at last", "leaves", "audited", "s of audit")
        with tempfile.TemporaryDirectory() as folder:
            _table(
                console, titles, pairs,
                lambda model, box: searched(read_onnx(model), model, box, options.keep, options.seconds, Path(folder)),
            )  # fmt: skip
    if "throughput" in options.tables:
        for model, domain in INSTANCES["acas"][:3]:
            box = read_vnnlib(options.data / domain).boxes[0]
            for width in WIDTHS:
                rate, share = throughput(read_onnx(options.data / model), box, width)
                pair = f"{Path(model).stem}, {Path(domain).stem}, 1/{1 / width:.0f} of the width"
                console.print(f"{pair}: {rate:,.0f} sub-boxes/s, {share:.0%} in products")
    for table in OF_OTHER_SCRIPTS:
        if table in options.tables:
            script, *arguments = OF_OTHER_SCRIPTS[table]
            subprocess.run([sys.executable, str(Path(__file__).with_name(script)), *arguments], check=True)


def _table(
    console: Console,
    titles: Sequence[str],
    pairs: Sequence[tuple[Path, Path]],
    make: Callable[[Path, Box], Iterator[list[str]]],
) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("network, box", "twin", *titles):
        table.add_column(title, justify="left" if title in ("network, box", "twin") else "right")
    for model, domain in pairs:
        for row in make(model, read_vnnlib(domain).boxes[0]):
            console.print(f"{model.stem} {domain.stem}: {' '.join(row)}", style="dim")
            table.add_row(f"{model.stem} {domain.stem}"[:40], *row)
    console.print(table)


if __name__ == "__main__":
    main()
