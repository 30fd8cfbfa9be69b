"""MNIST networks made smaller without any change on a box around an image: what provably never fires leaves.

    python scripts/reproduce_exact.py [--data FOLDER] [--networks 256x2 256x4] [--radii 0.03 0.05] [--images 0 1 2 3 4]

Weights that stay keep their bits; the certificate states what the auditor proved for every input of the box, on one
sub-box or more. One thread.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from provable.certify import NOTHING, certify
from provable.cost import count_parameters
from provable.exact.prune import compress_exact
from verify import read_onnx, read_vnnlib

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnistfc"


@dataclass(frozen=True)
class Row:
    """One network and one box; `bound` None: no certificate was accepted."""

    parameters: tuple[int, int]
    bound: float | None
    seconds: tuple[float, float]


def measure(model: Path, domain: Path, timeout: float) -> Row:
    network, boxes = read_onnx(model), read_vnnlib(domain).boxes
    started = time.perf_counter()
    result = compress_exact(network, boxes, merge=False)
    pruned = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result.save(folder / "out")
        said = certify(result, folder / "out", boxes, timeout=timeout, floor=NOTHING)
    sizes = count_parameters(network), count_parameters(result.compact)
    bound = None if said.bound is None else float(said.bound)
    return Row(sizes, bound, (pruned - started, time.perf_counter() - pruned))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--networks", nargs="+", default=["256x2", "256x4"])
    parser.add_argument("--radii", nargs="+", default=["0.03", "0.05"])
    parser.add_argument("--images", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for every proof")
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"no folder {options.data}; give it with --data")
    torch.set_num_threads(1)
    cases = [(n, r, i) for n in options.networks for r in options.radii for i in options.images]
    table = Table(box=None, pad_edge=False)
    for title in ("network", "radius", "parameters", "kept, median", "from", "to", "certified exactly 0",
                  "largest bound", "seconds, median: prune", "prove and audit"):  # fmt: skip
        table.add_column(title, justify="left" if title == "network" else "right")
    groups: dict[tuple[str, str], list[Row]] = {}
    for network, radius, image in track(cases, "pruning, proving, auditing", console=Console(stderr=True)):
        model, domain = (
            options.data / f"{stem}" for stem in (f"mnist-net_{network}.onnx", f"prop_{image}_{radius}.vnnlib")
        )
        groups.setdefault((network, radius), []).append(measure(model, domain, options.timeout))
    for (network, radius), rows in groups.items():
        times = [statistics.median(r.seconds[i] for r in rows) for i in (0, 1)]
        shares = [100 * r.parameters[1] / r.parameters[0] for r in rows]
        bounds = [r.bound for r in rows if r.bound is not None]
        table.add_row(
            network, radius, f"{rows[0].parameters[0]:,}", f"{statistics.median(shares):.1f} %", f"{min(shares):.1f} %",
            f"{max(shares):.1f} %", f"{sum(b == 0 for b in bounds)} of {len(rows)}",
            f"{max(bounds):.3g}" if len(bounds) == len(rows) else "none",
            f"{times[0]:.1f}", f"{times[1]:.1f}",
        )  # fmt: skip
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
