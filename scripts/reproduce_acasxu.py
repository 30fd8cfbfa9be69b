"""Compressed ACAS Xu networks, certified on whole property regions and audited.

    python scripts/reproduce_acasxu.py [--data FOLDER] [--keep 0.8] [--properties 3 4] [--networks 1_1] [--out FOLDER]

For every network and property: neurons are removed (the same share in every layer, greedy elimination with least
squares on 20,000 uniform samples of the region), then the deviation from the original is bounded for every
input of the region on one thread, and the certificate is audited. A row reaches the goal when the
certified bound is at most max(1.5 x the deviation found by attack, 0.001) within the time limit and accepted.
With --out, networks and certificates stay in FOLDER/NETWORK_PROPERTY, to be audited by hand.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from provable import compress
from verify import Box, Network, evaluate, read_onnx, read_vnnlib, verify_deviation
from verify.audit.check import AuditReport
from verify.certificate.issue import issue_certificate

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "acasxu"
SAMPLES = 20_000
FACTOR, FLOOR = 1.5, 1e-3


@dataclass(frozen=True)
class Job:
    """One network on one region."""

    network: Path
    domain: Path
    keep: float
    timeout: float
    seed: int
    arithmetic: str = "real"
    out: Path | None = None

    @property
    def name(self) -> str:
        """Network and property, as in the file names."""
        return f"{self.network.stem.split('run2a_')[1][:3]} phi{self.domain.stem.split('_')[1]}"


@dataclass(frozen=True)
class Row:
    """What was measured; `certified` is None where no certificate was accepted."""

    name: str
    output_range: float
    attack: float
    certified: float | None
    leaves: int
    compress_seconds: float
    prove_seconds: float
    audit_seconds: float
    audit: str

    @property
    def reached(self) -> bool:
        """Whether the row meets the goal named in the head of this file."""
        return self.certified is not None and self.certified <= max(FACTOR * self.attack, FLOOR)


def measure(job: Job) -> Row:
    """Compress, prove, certify and audit one pair; runs in a process of its own on one thread."""
    import torch

    torch.set_num_threads(1)
    (box,) = read_vnnlib(job.domain).boxes
    original = read_onnx(job.network)
    inputs = _inputs(original, box, np.random.default_rng([job.seed, 0]))
    started = time.perf_counter()
    compression = compress(original, inputs, keep={"channels": job.keep}, recipe="greedy", generator=job.seed)
    compressed = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) / "out" if job.out is None else job.out / job.name.replace(" ", "_")
        place.parent.mkdir(parents=True, exist_ok=True)
        folder = compression.save(place, original=job.network, force=True)
        paths = {"original": folder / "original.onnx", "compact": folder / "compact.onnx"}
        prove_started = time.perf_counter()
        found = verify_deviation(
            read_onnx(paths["original"]), read_onnx(paths["compact"]), [box], channels=compression.channels,
            timeout=job.timeout, ratio=FACTOR * 0.98, floor=FLOOR * 0.98, generator=np.random.default_rng(job.seed),
        )  # fmt: skip
        proved = time.perf_counter()
        issued = issue_certificate(folder / "certificate.json", found, boxes=[box], arithmetic=job.arithmetic, **paths)
        audited = time.perf_counter()
    values = evaluate(original, _inputs(original, box, np.random.default_rng([job.seed, 1])))
    report = issued if issued is None or isinstance(issued, AuditReport) else issued[1]
    return Row(
        job.name,
        float((values.max(axis=0) - values.min(axis=0)).max()),
        found.lower,
        float(issued[0]) if isinstance(issued, tuple) else None,
        found.leaves,
        compressed - started,
        proved - prove_started,
        audited - proved,
        "-" if report is None else report.verdict.value,
    )


def _inputs(network: Network, box: Box, generator: np.random.Generator) -> np.ndarray:
    samples = box.sample(generator, SAMPLES)
    return samples.reshape(SAMPLES, *network.input_shape).astype(np.float32)


def rows(jobs: Sequence[Job], processes: int) -> Iterator[Row]:
    """Rows in order; each worker has one thread."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(measure, jobs)


def table(found: Sequence[Row]) -> Table:
    """One line a row."""
    drawn = Table(box=None, pad_edge=False)
    for title in ("network", "range", "attack", "certified", "of range", "ratio", "boxes",
                  "compress s", "prove s", "certify + audit s", "auditor", "goal"):  # fmt: skip
        drawn.add_column(title, justify="left" if title in ("network", "auditor", "goal") else "right")
    for row in found:
        certified = row.certified
        drawn.add_row(
            row.name, f"{row.output_range:.3g}", f"{row.attack:.2e}",
            "-" if certified is None else f"{certified:.2e}",
            "-" if certified is None else f"{100 * certified / row.output_range:.2g} %",
            "-" if certified is None or row.attack == 0 else f"{certified / row.attack:.3g}",
            f"{row.leaves:,}", f"{row.compress_seconds:.1f}", f"{row.prove_seconds:.1f}", f"{row.audit_seconds:.1f}",
            row.audit, "yes" if row.reached else "no",
        )  # fmt: skip
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--keep", type=float, default=0.8, help="share of the neurons kept in every layer")
    parser.add_argument("--properties", type=int, nargs="+", default=[3, 4])
    parser.add_argument("--networks", nargs="+", help="such as 1_1; default: all in the folder")
    parser.add_argument("--timeout", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--arithmetic", choices=("real", "float32"), default="real",
        help="float32: certify executions in float32, sums in any order",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="keep networks and certificates here")
    options = parser.parse_args()
    networks = sorted(options.data.glob("ACASXU_run2a_*.onnx"))
    if options.networks:
        networks = [path for path in networks if any(f"_{name}_batch" in path.name for name in options.networks)]
    if not networks:
        parser.error(f"no ACAS Xu network found in {options.data}; give the folder with --data")
    jobs = [
        Job(
            path,
            options.data / f"prop_{number}.vnnlib",
            options.keep,
            options.timeout,
            options.seed,
            options.arithmetic,
            options.out,
        )
        for number in options.properties
        for path in networks
    ]
    console = Console(width=140)
    found = list(track(rows(jobs, options.processes), total=len(jobs), console=Console(stderr=True)))
    console.print(table(found))
    accepted = sum(row.certified is not None for row in found)
    proving, auditing = sum(row.prove_seconds for row in found), sum(row.audit_seconds for row in found)
    console.print(
        f"goal reached in {sum(row.reached for row in found)} of {len(found)}; certificates accepted: {accepted}; "
        f"proving {proving:.0f} s, certifying and auditing {auditing:.0f} s"
    )


if __name__ == "__main__":
    main()
