"""One-pass bounds of the deviation, method by method: no splitting, one box, one thread.

    python scripts/bench_verification.py [--data FOLDER] [--instances mnist acas conv] [--seconds 60] [--keep 0.8]

Twins of real networks: "float16" rounds every weight; "removed" takes 20 % of the channels of every layer away by
greedy elimination with least squares on uniform samples of the box; "inactive first" removes channels proved to be
zero on the whole box before that. Columns: deviation found by attack, then upper bounds for every input of the box.
The bounds are rigorous, but only the forward zonotope has an auditor.
"""

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from provable import ChannelGroup, channel_groups, compress, shrink
from provable.channels import Slot
from verify import Box, Network, read_onnx, read_vnnlib
from verify.empirical.attack import attack_deviation
from verify.errors import UnsupportedOperation
from verify.formal.backward.bound import backward_bounds
from verify.formal.backward.inactive import inactive_elements
from verify.formal.lift import align

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--instances", nargs="+", default=list(INSTANCES), choices=list(INSTANCES))
    parser.add_argument("--keep", type=float, default=0.8)
    parser.add_argument("--seconds", type=float, default=60.0, help="after which nothing further is optimised, per row")
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"no folder {options.data}; give it with --data")
    torch.set_num_threads(1)
    table = Table(box=None, pad_edge=False)
    for title in ("network, box", "twin", "attack", "zonotope", "CROWN", "alpha-CROWN", "pair", "pair optimised",
                  "ratio", "s"):  # fmt: skip
        table.add_column(title, justify="left" if title in ("network, box", "twin") else "right")
    console = Console(width=160)
    for model, domain in [pair for name in options.instances for pair in INSTANCES[name]]:
        network, (box,) = read_onnx(options.data / model), read_vnnlib(options.data / domain).boxes[:1]
        for row in rows(network, box, options.keep, options.seconds):
            console.print(f"{Path(model).stem} {Path(domain).stem}: {' '.join(row)}", style="dim")
            table.add_row(f"{Path(model).stem} {Path(domain).stem}"[:40], *row)
    console.print(table)


if __name__ == "__main__":
    main()
