"""`provable compress --until accuracy-drop=X`: the smallest network within a limit on held-out data."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from provable.calibration import read_calibration
from provable.cli import UNKNOWN, journal_of, tell_continued
from provable.errors import InputError
from provable.held_out import Trial, smallest_within
from verify.network.files import write_bytes


def run_held_out(options: argparse.Namespace, model: Any, calibration: Any, settings: dict[str, Any]) -> int:
    """Search, write the smallest accepted network; exit code 2 and nothing written if there is none."""
    started = time.perf_counter()
    if options.held_out is None:
        raise InputError(f"--until {options.until[0]} needs --held-out: inputs that were used for nothing else")
    held_out = read_calibration(options.held_out)
    labels = None if options.held_out_labels is None else read_calibration(options.held_out_labels)
    console, journal = Console(stderr=True), journal_of(options)

    def tell(trial: Trial) -> None:
        answer = "accepted" if trial.decision.accepted else "not accepted"
        wrong = "+".join(f"{c.violations}/{c.samples}" for c in trial.decision.counts)
        console.print(f"{trial.cost.flops:>12,} multiply-adds: {wrong} violations, {answer}", highlight=False)

    found = smallest_within(
        model, calibration, held_out, labels, limit=options.until, confidence=options.confidence, progress=tell,
        options=settings, journal=journal.folder,
    )  # fmt: skip
    tell_continued(console, found.earlier)
    if found.result is None:
        journal.discard()
        print(f"{found.sentence}; nothing was written")
        return UNKNOWN
    path = Path(options.model)
    text = (json.dumps(found.as_json(), indent=1, allow_nan=False) + "\n").encode()
    found.result.save(
        options.out, original=path if path.suffix == ".onnx" else None, force=options.force,
        complete=lambda folder: write_bytes(folder / "search.json", text),
    )  # fmt: skip
    journal.discard()
    print(found.result.table(), end="")
    print(found.sentence)
    print(f"{options.out}: written in {time.perf_counter() - started:.1f} s; {len(found.trials)} sizes were tested")
    return 0
