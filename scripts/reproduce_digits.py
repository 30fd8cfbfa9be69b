"""The digits table: both reference networks at half their multiply-adds, verified on held-out images.

    python scripts/reproduce_digits.py [--networks mlp cnn] [--boxes 50] [--radius 0.01] [--keep 0.5] [--seed 0]

Perceptron: a formal bound on the box of the given radius around each of the first held-out images, its certificate
judged by the auditor. Both networks: statistical bounds from all 500 held-out images, which neither training nor
compression has seen. About half a minute on two cores.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from provable import reference
from provable.pipeline import compress
from provable.records import Compression
from verify.audit.check import AuditReport
from verify.certificate.issue import issue_certificate
from verify.empirical.attack import attack_deviation
from verify.empirical.measure import compare
from verify.formal.deviation import verify_deviation
from verify.network.graph import Network
from verify.network.read_onnx import read_onnx
from verify.report import BoxResult, words
from verify.spec.box import Box
from verify.statistical.certificate import StatisticalCertificate, certify_sample
from verify.statistical.certificate_file import write_certificate

TITLES = {"mlp": "perceptron 64-100-100-10", "cnn": "residual network"}
FORMAL = ("mlp",)
CALIBRATION = {"mlp": 1297, "cnn": 512}  # unlabelled training images that compression may look at
POPULATION = "8x8 digits as the data set's 13 writers draw them"
CONFIDENCE, COVERAGE = "0.99", "0.98"
MARGIN = "1e-4"  # rounding of float32 runs
SYMBOLS = 4096
WIDTH = 110


@dataclass(frozen=True)
class Settings:
    """What to run."""

    networks: tuple[str, ...] = ("mlp", "cnn")
    boxes: int = 50
    radius: str = "0.01"
    keep: float = 0.5
    recipe: str = "greedy"
    seed: int = 0
    seconds_per_box: float = 10.0
    processes: int = 2

    @property
    def domain(self) -> str:
        return f"radius {self.radius} around {self.boxes} held-out images, within [0, 1]"


@dataclass(frozen=True)
class Outcome:
    """One network, compressed and verified.

    Attributes:
        folder: what `provable compress` writes, and the certificates.
        correct: share of held-out images that the original and the compact network get right.
        agreement: share of held-out images on which both have the same arg max.
        boxes: formal results; empty if no formal verification was asked for.
        seconds: compression, then verification.
    """

    name: str
    folder: Path
    compression: Compression
    correct: tuple[float, float]
    agreement: float
    boxes: tuple[BoxResult, ...]
    statistical: StatisticalCertificate
    seconds: tuple[float, float]


@dataclass(frozen=True)
class BoxJob:
    """One box to verify and audit: everything a worker process needs."""

    folder: Path
    image: int
    center: tuple[float, ...]
    settings: Settings

    @property
    def certificate(self) -> Path:
        return self.folder / "certificates" / f"image_{self.image:03d}.json"

    @property
    def executed(self) -> Path:
        return self.folder / "certificates" / f"image_{self.image:03d}_float32.json"


def run(settings: Settings, output: Path, told: Callable[[str], None] = lambda line: None) -> list[Outcome]:
    """Compress and verify every network of the settings; one folder each in `output`."""
    return [_network(name, settings, output, told) for name in settings.networks]


def _network(name: str, settings: Settings, output: Path, told: Callable[[str], None]) -> Outcome:
    trained, began = reference.load(name), time.monotonic()
    told(f"{TITLES[name]}: compressing to {words.percent(settings.keep)} of the multiply-adds")
    calibration = trained.calibration.images[: CALIBRATION[name]]
    compression = compress(
        trained.module, calibration, keep={"flops": settings.keep}, recipe=settings.recipe, generator=settings.seed
    )
    folder = compression.save(output / name, force=True)
    compressed = time.monotonic()
    told(f"{TITLES[name]}: verifying on {len(trained.held_out)} held-out images")
    original, compact = read_onnx(folder / "original.onnx"), read_onnx(folder / "compact.onnx")
    statistical = _statistical(original, compact, trained.held_out, compression, folder)
    boxes: tuple[BoxResult, ...] = ()
    if name in FORMAL:
        told(f"{TITLES[name]}: proving and auditing the deviation on {settings.boxes} boxes")
        boxes = tuple(formal(folder, trained.held_out.images[: settings.boxes], settings))
    both = compare(original, compact, trained.held_out.images)
    correct = tuple(float((y.argmax(1) == trained.held_out.labels).mean()) for y in (both.original, both.compact))
    seconds = (compressed - began, time.monotonic() - compressed)
    return Outcome(name, folder, compression, (correct[0], correct[1]), both.agreement, boxes, statistical, seconds)


def _statistical(
    original: Network, compact: Network, data: reference.Images, compression: Compression, folder: Path
) -> StatisticalCertificate:
    certificate = certify_sample(
        original,
        compact,
        data.images,
        calibration_rows=compression.calibration_rows,
        coverage=COVERAGE,
        confidence=CONFIDENCE,
        margin=MARGIN,
        population=POPULATION,
    )
    write_certificate(certificate, folder / "statistical.json")
    return certificate


def formal(folder: Path, images: np.ndarray[Any, Any], settings: Settings) -> Iterator[BoxResult]:
    """A proof, a certificate and an audit for the box around each image; results in the images' order."""
    (folder / "certificates").mkdir(exist_ok=True)
    rows = images.reshape(len(images), -1).tolist()
    jobs = [BoxJob(folder, i, tuple(row), settings) for i, row in enumerate(rows)]
    if settings.processes == 1:
        yield from map(judge_box, jobs)
        return
    with ProcessPoolExecutor(
        settings.processes, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        yield from pool.map(judge_box, jobs)


def judge_box(job: BoxJob) -> BoxResult:
    """Prove the tightest bound on one box, write its certificate, and have it audited."""
    files = {role: job.folder / f"{role}.onnx" for role in ("original", "compact")}
    box = Box.around(job.center, job.settings.radius, 0, 1)
    found = verify_deviation(
        read_onnx(files["original"]),
        read_onnx(files["compact"]),
        [box],
        channels=json.loads((job.folder / "channels.json").read_text(encoding="utf-8")),
        timeout=job.settings.seconds_per_box,
        attack=partial(attack_deviation, restarts=2, hops=2),
        symbols=SYMBOLS,
        generator=np.random.default_rng([job.settings.seed, job.image]),
    )
    name = f"held-out image {job.image}"
    issued = issue_certificate(job.certificate, found, boxes=[box], **files)
    if issued is None:
        return BoxResult(name, found.verdict.value, None, found.lower)
    if isinstance(issued, AuditReport):
        return BoxResult(name, "proved", found.upper, found.lower, issued.verdict.value)
    executed = issue_certificate(job.executed, found, boxes=[box], **files, arithmetic="float32")
    upper = float(executed[0]) if isinstance(executed, tuple) else None
    return BoxResult(name, "proved", float(issued[0]), found.lower, issued[1].verdict.value, upper)


def table(outcomes: Sequence[Outcome]) -> Table:
    """One column per network."""
    drawn = Table(box=None, pad_edge=False)
    drawn.add_column("")
    for outcome in outcomes:
        drawn.add_column(TITLES[outcome.name], justify="right")
    for label, cell in ROWS:
        drawn.add_row(label, *(cell(outcome) for outcome in outcomes))
    return drawn


def _sizes(outcome: Outcome, what: str) -> str:
    before, after = getattr(outcome.compression.before, what), getattr(outcome.compression.after, what)
    return f"{before:,} → {after:,} ({words.percent(after / before)})"


def _bound(outcome: Outcome, kind: str) -> str:
    claim = next(claim for claim in outcome.statistical.claims if claim.question.kind == kind)
    return words.percent_up(float(claim.bound)) if kind == "disagreement" else words.rounded_up(float(claim.bound))


def _certified(outcome: Outcome) -> str:
    accepted = sum(box.proved and box.audited == "accept" for box in outcome.boxes)
    return f"{accepted} of {len(outcome.boxes)}" if outcome.boxes else words.UNKNOWN


def _ratio(outcome: Outcome) -> str:
    ratios = [box.ratio for box in outcome.boxes if box.proved]
    return words.rounded_up(float(np.median(ratios))) if ratios else words.UNKNOWN


def _largest(outcome: Outcome) -> str:
    proved = [box for box in outcome.boxes if box.certified_upper is not None]
    if not proved:
        return words.UNKNOWN
    worst = max(proved, key=lambda box: box.certified_upper or 0.0)
    return f"{words.rounded_up(worst.certified_upper)} ({words.rounded_down(worst.attacked_lower)} found)"


_PERCENT = words.percent
ROWS: list[tuple[str, Callable[[Outcome], str]]] = [
    ("multiply-adds", lambda o: _sizes(o, "flops")),
    ("parameters", lambda o: _sizes(o, "parameters")),
    ("correct on 500 held-out images", lambda o: f"{_PERCENT(o.correct[0])} → {_PERCENT(o.correct[1])}"),
    ("same answer on them", lambda o: _PERCENT(o.agreement)),
    ("different answers (99 % confidence)", lambda o: f"at most {_bound(o, 'disagreement')}"),
    ("deviation of 98 % of inputs (99 % conf.)", lambda o: f"at most {_bound(o, 'quantile')}"),
    ("boxes proved and accepted by the auditor", _certified),
    ("largest deviation proved", _largest),
    ("proved / found, median over the boxes", _ratio),
    ("seconds: compress, verify", lambda o: f"{o.seconds[0]:.1f}, {o.seconds[1]:.1f}"),
]


def options(description: str) -> argparse.ArgumentParser:
    """The arguments that make up `Settings`."""
    plain = Settings()
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=plain.networks, default=plain.networks)
    parser.add_argument("--boxes", type=int, default=plain.boxes, help="held-out images with a box around them")
    parser.add_argument("--radius", default=plain.radius, help="of the boxes, an exact decimal")
    parser.add_argument("--keep", type=float, default=plain.keep, help="share of the multiply-adds to keep")
    parser.add_argument("--recipe", default=plain.recipe)
    parser.add_argument("--seed", type=int, default=plain.seed)
    parser.add_argument("--processes", type=int, default=plain.processes, help="worker processes for the boxes")
    return parser


def settings_of(arguments: argparse.Namespace) -> Settings:
    return Settings(
        tuple(arguments.networks),
        arguments.boxes,
        arguments.radius,
        arguments.keep,
        arguments.recipe,
        arguments.seed,
        processes=arguments.processes,
    )


def terminal() -> Console:
    """Standard output, never so narrow that the table breaks."""
    console = Console(highlight=False)
    return console if console.width >= WIDTH else Console(highlight=False, width=WIDTH)


def main() -> None:
    settings, console = settings_of(options(__doc__).parse_args()), terminal()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = run(settings, Path(folder), lambda line: console.print(f"== {line}", style="dim"))
        console.print(table(outcomes))
    console.print(f"boxes: {settings.domain}; {settings.recipe}, seed {settings.seed}", style="dim")


if __name__ == "__main__":
    main()
