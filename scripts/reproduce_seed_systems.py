# ruff: noqa: E402  (thread counts must be set before numpy is loaded)
"""The seed systems on small real tasks: one row per system, its headline idea measured, and what `verify` says.

    python scripts/reproduce_seed_systems.py [--quick] [--only NAME ...] [--jobs 2] [--data ../shared/data] [--validate]

MNIST, with networks trained at the start (`seed_tasks.py`), and ResNet-32 with a part of CIFAR-10 for CaP; --quick, or
no data folder: the digits that ship with the package, fewer training steps. Every compression ends in the package's
surgery; measures and representations, which compress nothing, have a table of their own. Settings were chosen with
--validate, which judges on training images that are left out of training. Rows: `seed_training.py`,
`seed_selection.py`, `seed_measures.py`. Fixed seeds; one thread for each of the rows that are computed at once.
"""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import seed_selection
import seed_training
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from seed_measures import MEASURES, Finding, found_out
from seed_outcomes import SYSTEMS, Outcome
from seed_tasks import DEVICE, Task, accuracy, digits, mnist

from provable.cost import count_flops, count_parameters
from provable.errors import ScheduleError
from verify.formal.deviation import verify_deviation
from verify.report import words
from verify.spec.box import Box
from verify.statistical.certificate import certify_sample
from verify.statistical.disjoint import row_hashes

ROOT = Path(__file__).resolve().parents[1]
ROWS = (seed_training, seed_selection)  # importing them registers their systems
CONFIDENCE, MARGIN = "0.99", "1e-4"
RADIUS, SECONDS = 0.01, 4.0  # of the box on which a perceptron's deviation is bounded, and for its proof
NEGLIGIBLE = 1e-12  # proved bounds below it are printed as it
FEW = 0.06  # of the training steps, in the quick form


@dataclass(frozen=True)
class Asked:
    """What the command line asks for, apart from names."""

    quick: bool
    validate: bool
    data: Path

    @property
    def folder(self) -> Path | None:
        """Where the real data is; None if it is not asked for, or not there."""
        return self.data if not self.quick and (self.data / "mnist").exists() else None


@dataclass(frozen=True)
class Row:
    """One line of the table of compressions: the cells behind the system's name."""

    system: str
    cells: tuple[str, ...]
    claim: str
    seconds: float


@cache
def task_of(asked: Asked) -> Task:
    """What is run; made once per process."""
    if asked.folder is None:
        return digits(FEW if asked.quick else 1.0)
    return mnist(asked.folder, validate=asked.validate)


def judged(name: str, task: Task) -> Row:
    """Run one system and ask `verify` about the result; the training of the starting network is not its time."""
    began, before = time.process_time(), task.preparing
    found = SYSTEMS[name](task)
    seconds = time.process_time() - began - (task.preparing - before) if found.seconds is None else found.seconds
    return Row(name, cells(found, seconds, task), found.claim, seconds)


def cells(found: Outcome, seconds: float, task: Task) -> tuple[str, ...]:
    """What the table says of an outcome."""
    networks, data = (found.start.network, found.compact), found.start.held_out
    return (
        " → ".join(f"{count_parameters(network):,}" for network in networks),
        " → ".join(f"{count_flops(network):,}" for network in networks),
        " → ".join(f"{accuracy(network, data):.2%}" for network in networks),
        f"{seconds:.0f}", found.data, found.retraining, _statistical(found, task),
        _formal(found) if len(networks[0].input_shape) == 1 else "-", found.claim, "yes" if found.holds else "no",
    )  # fmt: skip


def _statistical(outcome: Outcome, task: Task) -> str:
    certificate = certify_sample(
        outcome.start.network, outcome.compact, outcome.start.held_out.images, metrics=["argmax"], engine="torch",
        calibration_rows=row_hashes(outcome.start.train.images), confidence=CONFIDENCE, margin=MARGIN,
        population=task.population,
    )  # fmt: skip
    return f"<= {words.percent_up(float(certificate.claims[0].bound))}"


def _formal(outcome: Outcome) -> str:
    centre = tuple(outcome.start.held_out.images[0].reshape(-1).tolist())
    found = verify_deviation(outcome.full, outcome.compact, [Box.around(centre, RADIUS, 0, 1)],
                             channels=outcome.channels or None, timeout=SECONDS,
                             generator=np.random.default_rng(0))  # fmt: skip
    return f"<= {words.rounded_up(max(found.upper, NEGLIGIBLE))}" if np.isfinite(found.upper) else found.verdict.value


def answer(name: str, asked: Asked) -> Row | tuple[Finding, float] | str:
    """A row, a finding with its processor seconds, or why there is none; in a process of its own, or in this one."""
    torch.set_num_threads(1)
    try:
        return found_out(name, asked.folder) if name in MEASURES else judged(name, task_of(asked))
    except ScheduleError as error:
        return f"{name}: no result, {error}"


def answers(names: Sequence[str], asked: Asked, jobs: int) -> Iterator[tuple[str, Row | tuple[Finding, float] | str]]:
    """Name and answer, as they come."""
    if jobs == 1:
        yield from ((name, answer(name, asked)) for name in names)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(answer, name, asked): name for name in names}
        yield from ((waiting[done], done.result()) for done in as_completed(waiting))


def table(rows: Sequence[Row], title: str) -> Table:
    """One line per system."""
    drawn = Table(title=f"Seed systems on {title}", show_lines=True)
    for head in ("system", "parameters", "multiply-adds", "accuracy", "CPU s", "data", "retraining",
                 "differ from start", "deviation (box)", "headline", "seen"):  # fmt: skip
        drawn.add_column(head, overflow="fold")
    for row in rows:
        drawn.add_row(row.system, *row.cells)
    return drawn


def measures(found: dict[str, tuple[Finding, float]]) -> Table:
    """One line per measure or representation."""
    drawn = Table(title="Measures and representations", show_lines=True)
    for head in ("system", "networks", "data", "CPU s", "headline", "seen"):
        drawn.add_column(head, overflow="fold")
    for name, (one, seconds) in found.items():
        drawn.add_row(name, one.networks, one.data, f"{seconds:.0f}", one.claim, "yes" if one.holds else "no")
    return drawn


def main() -> int:
    """Print the tables."""
    known = [*SYSTEMS, *MEASURES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the bundled digits, a part of the training steps")
    parser.add_argument("--validate", action="store_true", help="judge on training images left out of training")
    parser.add_argument("--only", nargs="+", choices=known, default=known)
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="rows at once")
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    options = parser.parse_args()
    asked = Asked(options.quick, options.validate, options.data)
    told, screen, found = Console(stderr=True, highlight=False), Console(width=200), dict[str, object]()
    if not asked.quick and asked.folder is None:
        told.print(f"no MNIST in {asked.data}: the digits that ship with the package instead")
    for name, one in track(answers(options.only, asked, options.jobs), "systems", len(options.only), console=told):
        found[name] = one
        told.print(one if isinstance(one, str) else f"{name}: {_said(one)}", soft_wrap=True)
    found = {name: found[name] for name in options.only}
    rows = [one for one in found.values() if isinstance(one, Row)]
    if rows:
        screen.print(table(rows, "8x8 digits" if asked.folder is None else "MNIST"))
    findings = {name: one for name, one in found.items() if isinstance(one, tuple)}
    if findings:
        screen.print(measures(findings))
    screen.print(legend(asked), highlight=False)
    failed = [one for one in found.values() if isinstance(one, str)]
    for line in failed:
        screen.print(line)
    return 1 if failed else 0


def _said(one: object) -> str:
    claim, seconds = (one.claim, one.seconds) if isinstance(one, Row) else (one[0].claim, one[1])
    return f"{claim}; {seconds:.0f} s"


def legend(asked: Asked) -> str:
    """What the columns mean, and what the run took."""
    spent = os.times()
    quick = f"; --quick: {FEW:.0%} of the training steps, so that many headlines are not seen" * asked.quick
    return (
        "differ from start: share of the population whose class differs from the starting network's, with 99 % "
        "confidence;\n"
        f"deviation (box): proved bound between the trained network and what is left of it, radius {RADIUS} around one "
        "held-out image, not audited;\n"
        "CPU s: without the training of the starting network; seen: whether the headline held in this run; no loss: at "
        f"most one standard error of the starting accuracy{quick}.\n"
        f"{spent.user + spent.system + spent.children_user + spent.children_system:.0f} processor seconds, on {DEVICE}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
