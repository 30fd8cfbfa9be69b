"""The main job on the embedded reference networks: compress, verify, certify, audit; a table and a page.

    python scripts/demo.py [--output demo-output] [...]

Writes to the output folder
    report.html       what is established and what is not; open it in a browser
    mlp/, cnn/        the networks, before and after, and everything `provable compress` writes
      certificates/   one deviation certificate per box (perceptron)
      statistical.json
"""

import hashlib
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from reproduce_digits import POPULATION, TITLES, Outcome, Settings, options, run, settings_of, table, terminal

from provable.records import GroupReport
from verify.report import Layer, NetworkReport, Report, ShippedFile, Size, StatisticalResult, words, write_report
from verify.statistical.claims import Claim

ABOUT = {
    "mlp": "Two hidden layers with ReLU, trained on 1297 digits of 8x8 pixels; channels removed without retraining.",
    "cnn": "Three residual blocks with batch normalisation, trained on the same digits; blocks lose inner channels.",
}
QUANTITIES = {"disagreement": "different answers", "quantile": "deviation of 98 % of inputs"}


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    arguments = parser.parse_args()
    settings, output = settings_of(arguments), arguments.output
    console, began = terminal(), time.monotonic()
    if blocked := obstacle(output):
        console.print(f"error: {blocked}")
        return 3
    output.mkdir(exist_ok=True)
    outcomes = run(settings, output, lambda line: console.print(f"== {line}"))
    write_report(output / "report.html", report(outcomes, settings))
    console.print()
    console.print(table(outcomes))
    console.print()
    for line in closing_words(outcomes, output, time.monotonic() - began):
        console.print(line, soft_wrap=True)
    return 0


def obstacle(output: Path) -> str:
    """Why the output folder cannot be used; nothing if it can."""
    if not output.parent.is_dir():
        return f"{output.parent} is no folder; create it first"
    ours = output.is_dir() and ((output / "report.html").exists() or not any(output.iterdir()))
    if output.exists() and not ours:
        return f"{output} exists and is not an earlier output of the demo; choose another folder with --output"
    return ""


def report(outcomes: list[Outcome], settings: Settings) -> Report:
    """The page's content."""
    made = [(name, version(name)) for name in ("provable-pruning", "torch", "numpy")]
    made += [("Python", platform.python_version()), ("recipe", settings.recipe), ("seed", str(settings.seed))]
    title = f"Two small networks with {words.percent(settings.keep)} of their multiply-adds"
    return Report(title, tuple(_part(outcome, settings) for outcome in outcomes), tuple(made))


def _part(outcome: Outcome, settings: Settings) -> NetworkReport:
    before, after = outcome.compression.before, outcome.compression.after
    correct = " and ".join(words.percent(share) for share in outcome.correct)
    return NetworkReport(
        name=TITLES[outcome.name].capitalize(),
        description=f"{ABOUT[outcome.name]} Held-out images read correctly before and after: {correct}.",
        sizes=(
            Size("multiply-adds", before.flops, after.flops),
            Size("parameters", before.parameters, after.parameters),
        ),
        layers=tuple(_layer(group) for group in outcome.compression.groups),
        layer_notes=_notes(outcome.compression.groups),
        domain=settings.domain if outcome.boxes else "",
        boxes=outcome.boxes,
        statistical=tuple(_statistical(claim) for claim in outcome.statistical.claims),
        not_established=tuple(f"{text[0].upper()}{text[1:]}." for text in outcome.statistical.not_claimed[1:]),
        files=tuple(_file(path, outcome.folder.parent) for path in _shipped(outcome.folder)),
    )


def _notes(groups: Sequence[GroupReport]) -> tuple[str, ...]:
    """What the a-priori bounds are about and assume, each once, and what the losses are."""
    bounds = [group.bound for group in groups if group.bound is not None]
    about = dict.fromkeys(f"{b.name}: {b.quantity}; assumes: {b.assumption}." for b in bounds)
    loss = "Calibration loss: squared error of what the next layers read, over its variance."
    return (loss, *(f"A-priori bound, {text}" for text in about))


def _layer(group: GroupReport) -> Layer:
    bound = group.bound.value if group.bound is not None else None
    return Layer(group.group, group.total, group.kept, group.total_sensitivity, bound, group.loss)


def _statistical(claim: Claim) -> StatisticalResult:
    return StatisticalResult(
        quantity=QUANTITIES[claim.question.kind],
        measured=claim.measured,
        bound_upper=float(claim.bound),
        confidence=0.99,
        samples=claim.samples,
        statement=f"With 99 % confidence, for {POPULATION}: {claim.statement}.",
        share=claim.question.kind == "disagreement",
    )


def _shipped(folder: Path) -> list[Path]:
    first = (folder / name for name in ("original.onnx", "compact.onnx", "statistical.json"))
    return [*first, *sorted((folder / "certificates").glob("*.json"))]


def _file(path: Path, root: Path) -> ShippedFile:
    return ShippedFile(str(path.relative_to(root)), hashlib.sha256(path.read_bytes()).hexdigest())


def closing_words(outcomes: list[Outcome], output: Path, seconds: float) -> list[str]:
    """What was established, and what to look at next."""
    lines = []
    for outcome in outcomes:
        accepted = sum(box.audited == "accept" for box in outcome.boxes)
        if accepted:
            lines.append(
                f"For every input in {accepted} of {len(outcome.boxes)} boxes the deviation is proved, and the "
                "auditor, which shares no code with the prover, accepts the proof. Check one yourself:"
            )
            folder = os.path.relpath(outcome.folder)
            python = os.path.relpath(sys.executable)
            lines.append(
                f"  {python} -m verify.audit {folder}/certificates/image_000.json "
                f"--original {folder}/original.onnx --compact {folder}/compact.onnx"
            )
    return [*lines, f"Report: {output / 'report.html'}  ({seconds:.0f} s)"]


if __name__ == "__main__":
    raise SystemExit(main())
