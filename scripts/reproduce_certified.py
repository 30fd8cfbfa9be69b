"""ACAS Xu: what leaves for nothing on a property's region, and how small a network can still be certified.

    python scripts/reproduce_certified.py [--data FOLDER] [--properties 3 4] [--networks 1_1 ...]
                                          [--deviations 0.001 0.01 0.05] [--timeout 10] [--picture curve.svg]

Per network and property: parameters after exact pruning (neurons that never fire leave, the rest keeps its bits; then
neurons that always fire merge), and after `provable compress --until deviation=E`, with the deviation that the auditor
accepted and the one that an attack found. Calibration: 20,000 uniform samples of the region. One thread per network.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from provable.certify import FLOOR, NOTHING, Certified, certify
from provable.exact.prune import compress_exact
from provable.records import Compression
from provable.smallest import smallest_certified
from verify import Box, read_onnx, read_vnnlib

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "acasxu"
SAMPLES = 20_000


@dataclass(frozen=True)
class Job:
    """One network on one region."""

    network: Path
    domain: Path
    deviations: tuple[str, ...]
    timeout: float

    @property
    def name(self) -> str:
        """Network and property, as in the file names."""
        return f"{self.network.stem.split('run2a_')[1][:3]} phi{self.domain.stem.split('_')[1]}"


@dataclass(frozen=True)
class Point:
    """One compact network: its parameters, the certified deviation (None: no certificate), the attacked one."""

    what: str
    parameters: int
    certified: float | None
    attacked: float


@dataclass(frozen=True)
class Row:
    """Everything about one network on one region."""

    name: str
    parameters: int
    points: tuple[Point, ...]
    seconds: float


def measure(job: Job) -> Row:
    """Prune exactly, then search for every deviation allowed; runs in a process of its own on one thread."""
    import torch

    torch.set_num_threads(1)
    started = time.perf_counter()
    network, boxes = read_onnx(job.network), read_vnnlib(job.domain).boxes
    points = []
    for what, merge in (("bits kept", False), ("merged", True)):
        result = compress_exact(network, boxes, merge=merge)
        points.append(
            _point(what, result, _certified(result, job.network, boxes, job.timeout, FLOOR if merge else NOTHING))
        )
    inputs = boxes[0].sample(np.random.default_rng(0), SAMPLES)
    inputs = inputs.reshape(SAMPLES, *network.input_shape).astype(np.float32)
    for allowed in job.deviations:
        found = smallest_certified(network, inputs, boxes, epsilon=Fraction(allowed), timeout=job.timeout)
        if found is not None:
            points.append(_point(f"<= {allowed}", found.result, found.certified))
    return Row(job.name, result.before.parameters, tuple(points), time.perf_counter() - started)


def _certified(result: Compression, network: Path, boxes: Sequence[Box], timeout: float, floor: float) -> Certified:
    with tempfile.TemporaryDirectory() as temporary:
        folder = result.save(Path(temporary) / "out", original=network)
        return certify(result, folder, boxes, timeout=timeout, floor=floor)


def _point(what: str, result: Compression, said: Certified) -> Point:
    return Point(what, result.after.parameters, None if said.bound is None else float(said.bound), said.lower)


def rows(jobs: Sequence[Job], processes: int) -> Iterator[Row]:
    """Rows in order; each worker has one thread."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(measure, jobs)


def table(found: Sequence[Row], deviations: Sequence[str]) -> Table:
    """One line a row; each cell: share of the parameters that stays, then certified / attacked deviation."""
    drawn = Table(box=None, pad_edge=False)
    headings = ["exact, bits kept", "exact, merged", *(f"deviation <= {d}" for d in deviations)]
    for title in ("network", *headings, "s"):
        drawn.add_column(title, justify="left" if title == "network" else "right")
    for row in found:
        cells = {point.what: _cell(point, row.parameters) for point in row.points}
        wanted = ("bits kept", "merged", *(f"<= {d}" for d in deviations))
        drawn.add_row(row.name, *(cells.get(what, "-") for what in wanted), f"{row.seconds:.0f}")
    return drawn


def _cell(point: Point, parameters: int) -> str:
    certified = "-" if point.certified is None else f"{point.certified:.1e}" if point.certified else "0"
    return f"{100 * point.parameters / parameters:.1f} %  {certified} / {point.attacked:.0e}"


def picture(found: Sequence[Row]) -> str:
    """An SVG: certified deviation against the share of parameters that stays, a line per network and region."""
    width, height, margin = 720, 420, 60
    points = [[(p.parameters / r.parameters, p.certified) for p in r.points if p.certified] for r in found]
    every = [p for line in points for p in line]
    most = max((share for share, _ in every), default=1.0)
    low, high = (np.log10(f([d for _, d in every] or [1.0])) for f in (min, max))

    def place(share: float, deviation: float) -> str:
        x = margin + (width - 2 * margin) * share / most
        y = height - margin - (height - 2 * margin) * (np.log10(deviation) - low) / max(high - low, 1e-9)
        return f"{x:.1f},{y:.1f}"

    lines = [
        f'<polyline fill="none" stroke="#2563eb" stroke-opacity="0.55" points="{" ".join(place(*p) for p in line)}"/>'
        for line in points
    ]
    dots = [f'<circle r="2.5" fill="#1e3a8a" cx="{x}" cy="{y}"/>' for x, y in (place(*p).split(",") for p in every)]
    words = [
        f'<text x="{width / 2}" y="{height - 15}" text-anchor="middle">share of the parameters that stays</text>',
        f'<text x="14" y="{height / 2}" transform="rotate(-90 14 {height / 2})" text-anchor="middle">'
        "certified deviation</text>",
        f'<text x="{width / 2}" y="25" text-anchor="middle">ACAS Xu: size against certified deviation</text>',
    ]
    frame = f'<path d="M{margin},{margin} V{height - margin} H{width - margin}" fill="none" stroke="#64748b"/>'
    for share in np.arange(0.0, most, 0.05):
        x, _ = place(share, 10**low).split(",")
        words.append(f'<text x="{x}" y="{height - margin + 18}" text-anchor="middle">{100 * share:.0f} %</text>')
    for decade in range(int(np.ceil(low)), int(np.floor(high)) + 1):
        _, y = place(0.0, 10.0**decade).split(",")
        words.append(f'<text x="{margin - 6}" y="{float(y) + 4}" text-anchor="end">1e{decade}</text>')
        frame += f'<path d="M{margin},{y} H{width - margin}" stroke="#e2e8f0"/>'
    body = "\n".join([frame, *lines, *dots, *words])
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
    return f'{head}font-size="13">\n<rect width="{width}" height="{height}" fill="white"/>\n{body}\n</svg>\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--properties", type=int, nargs="+", default=[3, 4])
    parser.add_argument("--networks", nargs="+", help="such as 1_1; default: all in the folder")
    parser.add_argument("--deviations", nargs="*", default=["0.001", "0.01", "0.05"])
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for each proof")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--picture", type=Path, help="write the curves there, as SVG")
    options = parser.parse_args()
    networks = sorted(options.data.glob("ACASXU_run2a_*.onnx"))
    if options.networks:
        networks = [path for path in networks if any(f"_{name}_batch" in path.name for name in options.networks)]
    if not networks:
        parser.error(f"no ACAS Xu network found in {options.data}; give the folder with --data")
    jobs = [
        Job(path, options.data / f"prop_{number}.vnnlib", tuple(options.deviations), options.timeout)
        for number in options.properties
        for path in networks
    ]
    console = Console(width=150)
    found = list(track(rows(jobs, options.processes), total=len(jobs), console=Console(stderr=True)))
    console.print(table(found, options.deviations))
    console.print("cells: share of the parameters that stays, certified deviation / deviation found by attack")
    for what in ("bits kept", "merged", *(f"<= {d}" for d in options.deviations)):
        shares = [
            p.parameters / r.parameters for r in found for p in r.points if p.what == what and p.certified is not None
        ]
        console.print(
            f"{what:>10}: certified {len(shares)} of {len(found)}, median {100 * np.median(shares or [1]):.1f} %"
        )
    if options.picture is not None:
        options.picture.write_text(picture(found))


if __name__ == "__main__":
    main()
