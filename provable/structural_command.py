"""`provable compress --until accuracy=A` and `--until agreement=A`: the structural search from the command line.

The first 80 % of the calibration inputs give the statistics, the rest the score; the two never mix.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from provable.answers import Answers
from provable.calibration import as_batches, calibration_inputs, calibration_labels, read_calibration
from provable.cli import journal_of, tell_continued
from provable.errors import InputError
from provable.journal import run_key
from provable.pipeline import traced
from provable.structural_search import Searched, accuracy_of, agreement_with, split, structural_search
from verify.network.files import write_bytes


def run_search(options: argparse.Namespace, model: Any, calibration: "np.ndarray[Any, Any]") -> int:
    """Search, write the directory; exit code 0."""
    started = time.perf_counter()
    network = traced(model, as_batches(calibration))
    inputs = calibration_inputs(network, as_batches(calibration))
    first, rest = split(inputs.numpy())
    told_labels = list[np.ndarray[Any, Any]]()
    if options.until.kind == "accuracy":
        if options.labels is None:
            raise InputError("--until accuracy=A needs --labels; without any, take --until agreement=A")
        labels = calibration_labels(read_calibration(options.labels, options.labels_key), len(inputs))
        score, told_labels = accuracy_of(inputs[rest], labels[rest]), [labels]
    else:
        score = agreement_with(network, inputs[rest])
    console, lowest = Console(stderr=True), float(options.until.value)
    asked = {"until": options.until.kind, "lowest": lowest, "scope": options.scope}
    key = run_key(network.digest(), [inputs.numpy(), *told_labels], asked, np.random.default_rng(0))
    journal = journal_of(options)
    answers = Answers.at(journal.folder, key)
    tell_continued(console, answers.earlier)
    found = structural_search(
        model, inputs[first], score, lowest=lowest, scope=options.scope, progress=lambda row: _tell(console, row),
        answers=answers,
    )  # fmt: skip
    path, text = Path(options.model), json.dumps(found.as_json(), indent=1, allow_nan=False) + "\n"
    found.result.save(
        options.out, original=path if path.suffix == ".onnx" else None, force=options.force,
        complete=lambda folder: write_bytes(folder / "search.json", text.encode()),
    )  # fmt: skip
    journal.discard()
    print(found.result.table(), end="")
    trials = sum(row.trials for row in found.rows)
    print(
        f"{options.until.kind} {found.start:.4f} -> {found.end:.4f} on {len(inputs[rest])} inputs that gave no "
        f"statistics ({trials} networks scored; choosing by the score makes it slightly optimistic)"
    )
    print(f"{options.out}: written in {time.perf_counter() - started:.1f} s")
    return 0


def _tell(console: Console, row: Searched) -> None:
    console.print(
        f"{row.group}: {row.kept}/{row.total} kept, {row.explained:.2%} explained, score {row.score:.4f} "
        f"(at least {row.threshold:.4f}; {row.trials} trials, {row.seconds:.1f} s)",
        highlight=False,
    )
