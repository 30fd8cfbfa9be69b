"""`verify deviation`: search for a proof, write it down, and have the auditor confirm it before anything is said.

A certificate that the auditor does not accept is never announced as proved.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verify.cli import PROVED, REFUTED, UNKNOWN
from verify.errors import CertificateError, DataError, MismatchError, SpecificationError
from verify.network.graph import Network
from verify.network.load import load_network
from verify.spec.decimal import read_decimal
from verify.spec.deviation import Verdict
from verify.spec.vnnlib import read_vnnlib

if TYPE_CHECKING:
    from verify.formal.deviation import DeviationResult

LARGEST_CHANNELS_FILE = 64 * 2**20


def run_deviation(options: argparse.Namespace) -> int:
    """Answer one question about two network files; returns the exit code."""
    from numpy.random import default_rng

    from verify.formal.deviation import verify_deviation

    refuse_existing(options.certificate, options.force)
    if not options.timeout > 0:
        raise SpecificationError(f"--timeout {options.timeout} is not a positive number of seconds")
    original, compact = load_network(options.original), load_network(options.compact)
    domain = read_vnnlib(options.domain)
    _require_fit(original, compact, domain.inputs)
    with progress_line(options.timeout) as report_progress:
        result = verify_deviation(
            original, compact, domain.boxes,
            epsilon=None if options.epsilon is None else positive_decimal(options.epsilon, "--epsilon"),
            channels=None if options.channels is None else read_channels(options.channels),
            timeout=options.timeout, generator=default_rng(options.seed), progress=report_progress,
        )  # fmt: skip
    print(_table(result))
    if result.verdict is Verdict.REFUTED:
        print(f"REFUTED: the deviation {result.lower:.6g} is attained at an input inside the domain.")
        return REFUTED
    epsilon = _claim(result, options)
    if epsilon is None:
        print(f"UNKNOWN: {_what_is_known(result)}")
        return UNKNOWN
    return _conclude(options, domain.boxes, result, epsilon)


def _conclude(options: argparse.Namespace, boxes: Any, result: "DeviationResult", epsilon: Fraction) -> int:
    """Write the certificate where asked, and let the auditor decide."""
    if options.certificate is None:
        print(f"PROVED by the prover: {_sentence(epsilon)}")
        print("No certificate was written (--certificate OUT.json), so no auditor has confirmed it.")
        return PROVED
    from verify.audit.check import Verdict as AuditVerdict
    from verify.audit.check import audit
    from verify.certificate.emit import emit_certificate

    candidate = options.certificate.with_name(f".{options.certificate.name}.unaudited")
    try:
        emit_certificate(
            candidate, original=options.original, compact=options.compact, boxes=boxes, epsilon=epsilon,
            lift=result.lift, rule=result.rule, parameters=result.parameters, trees=result.trees,
        )  # fmt: skip
        report = audit(candidate, options.original, options.compact)
        if report.verdict is not AuditVerdict.ACCEPT:
            print(f"UNKNOWN: the prover found a bound, but the auditor did not accept its proof: {report.reason}")
            return UNKNOWN
        os.replace(candidate, options.certificate)
    finally:
        candidate.unlink(missing_ok=True)
    print(f"PROVED and audited: {_sentence(epsilon)}")
    print(f"Certificate: {options.certificate} ({report.leaves} sub-boxes re-proved exactly)")
    return PROVED


def _sentence(epsilon: Fraction) -> str:
    return (
        f"for every input of the domain and every output, |original - compact| <= {decimal_up(epsilon)}, "
        "in real arithmetic. Nothing is said about inputs outside the domain or about rounding on a device."
    )


def _claim(result: "DeviationResult", options: argparse.Namespace) -> Fraction | None:
    """The bound to certify: the one asked for, or the proved one rounded up to four digits."""
    if options.epsilon is not None:
        return positive_decimal(options.epsilon, "--epsilon") if result.verdict is Verdict.PROVED else None
    return round_up(Fraction(result.upper)) if result.upper < float("inf") else None


def _what_is_known(result: "DeviationResult") -> str:
    return (
        f"proved bound {result.upper:.6g}, attained deviation {result.lower:.6g}; the question lies between them. "
        "More time (--timeout) or a larger --epsilon may decide it."
    )


def _table(result: "DeviationResult") -> str:
    ratio = result.upper / result.lower if result.lower > 0 else float("inf")
    rows = [
        ("proved bound", f"{result.upper:.6g}"),
        ("attained deviation", f"{result.lower:.6g}"),
        ("ratio", f"{ratio:.3g}"),
        ("rule", result.rule),
        ("sub-boxes", f"{result.leaves:,}"),
        ("seconds", f"{result.seconds:.2f}"),
    ]
    return "\n".join(f"{name:<20}{value}" for name, value in rows)


def _require_fit(original: Network, compact: Network, inputs: int) -> None:
    from math import prod

    for what, first, second in (
        ("inputs", original.input_shape, compact.input_shape),
        ("outputs", original.output_shape, compact.output_shape),
    ):
        if prod(first) != prod(second):
            raise MismatchError(f"the networks have different {what}: {first} and {second}")
    if prod(original.input_shape) != inputs:
        raise MismatchError(f"the domain has {inputs} inputs, the networks have {prod(original.input_shape)}")


def positive_decimal(text: str, what: str) -> Fraction:
    """An exact non-negative number from the command line; raises SpecificationError."""
    value = read_decimal(text, what)
    if value < 0:
        raise SpecificationError(f"{what} {text} is negative")
    return value


def round_up(value: Fraction, digits: int = 4) -> Fraction:
    """The smallest decimal of `digits` significant digits that is not below `value`, plus one unit of reserve."""
    if value <= 0:
        return Fraction(0)
    unit = Fraction(1)
    while value / unit >= 10**digits:
        unit *= 10
    while value / unit < 10 ** (digits - 1):
        unit /= 10
    return (-(-value // unit) + 1) * unit


def decimal_up(value: Fraction) -> str:
    """A decimal not below `value`, for people."""
    text = f"{float(value):.6g}"
    return text if Fraction(text) >= value else f"{float(value) * (1 + 1e-5):.6g}"


def read_channels(path: Path) -> Mapping[str, Any]:
    """The content of channels.json; duplicate keys and non-numbers are refused."""
    try:
        if path.stat().st_size > LARGEST_CHANNELS_FILE:
            raise DataError(f"{path}: larger than {LARGEST_CHANNELS_FILE} bytes")
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a channels file: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object with the key 'values'")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError(f"duplicate key in {keys[:8]}")
    return dict(pairs)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number")


def refuse_existing(path: Path | None, force: bool) -> None:
    """Raise unless `path` may be written: its folder exists, and it does not, or `force` is set."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise CertificateError(f"{path}: the folder {path.parent} does not exist")
    if path.exists() and not force:
        raise CertificateError(f"{path}: exists already; use --force to replace it")


@contextmanager
def progress_line(seconds: float) -> Iterator[Callable[..., None] | None]:
    """A callback that shows the bounds so far on a terminal; None where nobody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("proving"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=seconds)

        def show(elapsed: float, upper: float, lower: float, leaves: int) -> None:
            bar.update(task, completed=elapsed, description=f"{lower:.4g} .. {upper:.4g}  {leaves:,} boxes")

        yield show
