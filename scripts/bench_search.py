"""How much of the ACAS Xu family a search decides: isomorphic, float16 and compressed twins on whole property regions.

    python scripts/bench_search.py [--tables isomorphic float16 compressed] [--networks 1_1] [--results rows.jsonl]

isomorphic: every weight and bias plus N(0, 0.001), two seeds, region of property 1, deviation <= 0.05.
float16: weights rounded to half precision, deviation <= 0.05 and <= 0.01.
compressed: 20 % and 50 % of the neurons of every layer removed (greedy elimination, least squares on samples of the
region): certified bound at most max(1.2 x attack, 1 % of the output range).
The last two on the regions of properties 3, 4, and 1 (that of property 2 is the same). One thread and `--seconds` per
row (100; compressed: 60). With --audit every proved row is certified and audited as well. With --results rows are kept
in a file as they are found, and a second run goes on where the first one stopped.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from provable import compress
from verify import Box, Network, Verdict, evaluate, read_onnx, read_vnnlib, verify_deviation, write_onnx
from verify.certificate.issue import issue_certificate

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "acasxu"
SAMPLES = 20_000
NOISE = 1e-3
FACTOR, SHARE = 1.2, 0.01
TABLES = ("isomorphic", "float16", "compressed")
SECONDS = {"isomorphic": 100.0, "float16": 100.0, "compressed": 60.0}


@dataclass(frozen=True)
class Job:
    """One pair and one question; `epsilon` None asks for the tightest bound; `detail` is a seed or a share kept."""

    table: str
    network: str
    property: int
    detail: float
    epsilon: float | None
    seconds: float
    audit: bool

    @property
    def key(self) -> str:
        return f"{self.table} {self.network} {self.property} {self.detail} {self.epsilon}"


@dataclass(frozen=True)
class Row:
    """What was found; `certified` is the auditor's bound, None where none was asked for or accepted."""

    key: str
    table: str
    property: int
    detail: float
    epsilon: float | None
    verdict: str
    rule: str
    upper: float
    lower: float
    output_range: float
    leaves: int
    boxes: int
    seconds: float
    certified: float | None
    audit_seconds: float

    @property
    def decided(self) -> bool:
        """The question is answered; without epsilon: the bound is as close to the attack as asked."""
        if self.epsilon is not None:
            return self.verdict in ("proved", "refuted")
        return self.upper <= max(FACTOR * self.lower, SHARE * self.output_range) * (1 + 1e-9)


def jobs(tables: list[str], networks: list[str], seconds: float | None, audit: bool) -> Iterator[Job]:
    """All rows of the tables."""
    for table in tables:
        limit = seconds or SECONDS[table]
        for network in networks:
            if table == "isomorphic":
                yield from (Job(table, network, 1, seed, 0.05, limit, audit) for seed in (0, 1))
            elif table == "float16":
                yield from (Job(table, network, p, 16, e, limit, audit) for p in (3, 4, 1) for e in (0.05, 0.01))
            else:
                yield from (Job(table, network, p, k, None, limit, audit) for p in (3, 4, 1) for k in (0.8, 0.5))


def twin(network: Network, box: Box, job: Job) -> tuple[Network, Mapping[str, Any] | None]:
    """The compact network and the channels it kept."""
    if job.table == "compressed":
        found = compress(network, points(network, box), keep={"channels": job.detail}, recipe="greedy")
        return found.compact, found.channels
    rng = np.random.default_rng(int(job.detail))
    changed = {
        name: (
            value.astype(np.float16)
            if job.table == "float16"
            else value + rng.normal(0.0, NOISE, value.shape)
        ).astype(value.dtype)
        for name, value in network.parameters.items()
    }  # fmt: skip
    return network.with_parameters(changed), None


def points(network: Network, box: Box) -> np.ndarray:
    return box.sample(np.random.default_rng(0), SAMPLES).reshape(SAMPLES, *network.input_shape).astype(np.float32)


def measure(job: Job, data: Path) -> Row:
    """Search, and audit if asked, on one thread."""
    torch.set_num_threads(1)
    path = data / f"ACASXU_run2a_{job.network}_batch_2000.onnx"
    original, boxes = read_onnx(path), read_vnnlib(data / f"prop_{job.property}.vnnlib").boxes
    compact, channels = twin(original, boxes[0], job)
    outputs = evaluate(original, points(original, boxes[0])).reshape(SAMPLES, -1)
    spread = float((outputs.max(0) - outputs.min(0)).max())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "compact.onnx"
        write_onnx(compact, file)
        goal: dict[str, Any] = {"epsilon": job.epsilon} if job.epsilon else {"ratio": FACTOR, "floor": SHARE * spread}
        found = verify_deviation(original, read_onnx(file), boxes, timeout=job.seconds, channels=channels, **goal)
        started, certified = time.perf_counter(), None
        if job.audit and found.verdict is Verdict.PROVED:
            issued = issue_certificate(Path(folder) / "c.json", found, original=path, compact=file, boxes=boxes)
            certified = float(issued[0]) if isinstance(issued, tuple) else None
        audited = time.perf_counter() - started if job.audit else 0.0
    return Row(
        job.key, job.table, job.property, job.detail, job.epsilon, found.verdict.value, found.rule, found.upper,
        found.lower, spread, found.leaves, found.boxes_bounded, found.seconds, certified, audited,
    )  # fmt: skip


def remembered(results: Path | None) -> dict[str, Row]:
    if results is None or not results.exists():
        return {}
    rows = (Row(**json.loads(line)) for line in results.read_text().splitlines())
    return {row.key: row for row in rows}


def summary(rows: list[Row]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("table", "property", "detail", "epsilon", "decided", "of", "proved backward", "median s", "most s",
                  "median proved / found", "audited"):  # fmt: skip
        table.add_column(title, justify="left" if title == "table" else "right")
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        detail = row.detail if row.table == "compressed" else ""
        groups.setdefault((row.table, row.property, detail, row.epsilon), []).append(row)
    for (name, number, detail, epsilon), group in groups.items():
        ratios = [r.upper / r.lower for r in group if r.lower > 0 and r.epsilon is None]
        table.add_row(
            name, str(number), str(detail), "" if epsilon is None else str(epsilon),
            str(sum(r.decided for r in group)), str(len(group)),
            str(sum(r.decided and r.rule == "pair_backward" for r in group)),
            f"{statistics.median(r.seconds for r in group):.1f}", f"{max(r.seconds for r in group):.1f}",
            f"{statistics.median(ratios):.3g}" if ratios else "",
            str(sum(r.certified is not None for r in group)),
        )  # fmt: skip
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=TABLES)
    parser.add_argument("--networks", nargs="+", help="all in the folder by default")
    parser.add_argument("--seconds", type=float, help="per row")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--audit", action="store_true")
    parser.add_argument("--results", type=Path, help="a file of rows, continued where it exists")
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"no folder {options.data}; give it with --data")
    known = sorted(p.name.split("run2a_")[1][:3] for p in options.data.glob("ACASXU_run2a_*_batch_2000.onnx"))
    wanted = list(jobs(options.tables, options.networks or known, options.seconds, options.audit))
    rows = remembered(options.results)
    todo = [job for job in wanted if job.key not in rows]
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool, Progress() as bar:
        task = bar.add_task("searching", total=len(todo))
        for row in pool.map(measure, todo, [options.data] * len(todo)):
            rows[row.key] = row
            if options.results is not None:
                with options.results.open("a") as file:
                    file.write(json.dumps(asdict(row)) + "\n")
            bar.update(task, advance=1, description=row.key)
    Console(width=160).print(summary([rows[job.key] for job in wanted]))


if __name__ == "__main__":
    main()
