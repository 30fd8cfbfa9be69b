"""`verify deviation`: search for a proof, write it down, and have the auditor confirm it before anything is said.

A certificate that the auditor does not accept is never announced as proved.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verify.cli import PROVED, REFUTED, UNKNOWN
from verify.errors import CertificateError, DataError, MismatchError, SpecificationError
from verify.network.files import read_bytes, write_bytes
from verify.network.graph import Network
from verify.network.load import load_network
from verify.spec.box import Box
from verify.spec.decimal import read_decimal
from verify.spec.deviation import Verdict
from verify.spec.vnnlib import read_vnnlib

if TYPE_CHECKING:
    from verify.formal.deviation import DeviationResult
    from verify.parallel.workers import Workers

LARGEST_CHANNELS_FILE = 64 * 2**20
MEBIBYTE = 2**20
SHOWN = 12  # coordinates of an input
NEGLIGIBLE = 1e-9  # without --epsilon, a proved bound this small ends the search


def run_deviation(options: argparse.Namespace) -> int:
    """Answer one question about two network files; returns the exit code."""
    from numpy.random import default_rng

    from verify.formal.deviation import verify_deviation

    refuse_existing(options.certificate, options.force)
    refuse_existing(options.witness, options.force)
    if options.arithmetic == "float32" and options.certificate is None:
        raise SpecificationError("--arithmetic float32 needs --certificate: the auditor adds the rounding to the proof")
    if not options.timeout > 0:
        raise SpecificationError(f"--timeout {options.timeout} is not a positive number of seconds")
    if not options.memory > 0:
        raise SpecificationError(f"--memory {options.memory} is not a positive number of MiB")
    original, compact = load_network(options.original), load_network(options.compact)
    domain = read_vnnlib(options.domain)
    _require_fit(original, compact, domain.inputs)
    epsilon = None if options.epsilon is None else positive_decimal(options.epsilon, "--epsilon")
    channels = None if options.channels is None else read_channels(options.channels)
    if in_pieces(options):
        result = _in_pieces(options, original, compact, domain.boxes, epsilon, channels)
    else:
        with progress_line(options.timeout) as report_progress:
            result = verify_deviation(
                original, compact, domain.boxes, epsilon=epsilon, channels=channels, timeout=options.timeout,
                floor=NEGLIGIBLE, generator=default_rng(options.seed), progress=report_progress,
                memory_limit=options.memory * MEBIBYTE,
            )  # fmt: skip
    print(_table(result))
    if options.witness is not None and result.witness is not None:
        _write_witness(options.witness, original, compact, result.witness)
    if result.backward_upper is not None and result.backward_upper < result.upper:
        print(
            f"A backward pass over both networks proves at most {result.backward_upper:.6g} for every input of the "
            "domain; the auditor does not know this rule, so it is in no certificate."
        )
    if result.verdict is Verdict.REFUTED:
        where = "" if result.witness is None else f" at {shown_point(result.witness)}, replayed with rigorous rounding"
        print(f"REFUTED: the deviation {result.lower:.6g} is attained inside the domain{where}.")
        return REFUTED
    if result.verdict is Verdict.UNKNOWN or not result.upper < float("inf"):
        print(f"UNKNOWN: {_what_is_known(result)}")
        return UNKNOWN
    if options.certificate is None:
        epsilon = result.epsilon if result.epsilon is not None else Fraction(result.upper)
        print(f"PROVED by the prover: {_sentence(epsilon)}")
        print("No certificate was written (--certificate OUT.json), so no auditor has confirmed it.")
        return PROVED
    return _certify(options, domain.boxes, result)


def in_pieces(options: argparse.Namespace) -> bool:
    """Whether the search runs on several workers or keeps a checkpoint."""
    return any(v is not None for v in (options.workers, options.cluster, options.resume))


def _in_pieces(
    options: argparse.Namespace, original: Network, compact: Network, boxes: Sequence[Box],
    epsilon: Fraction | None, channels: Mapping[str, Any] | None,
) -> "DeviationResult":  # fmt: skip
    from verify.parallel.pieces import verify_in_pieces

    with chosen_workers(options) as workers:
        return verify_in_pieces(
            original, compact, boxes, epsilon=epsilon, channels=channels, timeout=options.timeout, floor=NEGLIGIBLE,
            workers=workers, checkpoint=options.resume, seed=options.seed, memory_limit=options.memory * MEBIBYTE,
        )  # fmt: skip


@contextmanager
def chosen_workers(options: argparse.Namespace) -> Iterator["Workers"]:
    """The workers that --workers or --cluster name; this process without either."""
    from verify.parallel.workers import Cluster, Here, Processes

    if options.cluster is not None:
        with Cluster(options.cluster) as cluster:
            yield cluster
    elif options.workers is not None:
        with Processes(options.workers) as processes:
            yield processes
    else:
        yield Here()


def _certify(options: argparse.Namespace, boxes: Sequence[Box], result: "DeviationResult") -> int:
    """Write the certificate where asked, if the auditor accepts it."""
    from verify.audit.check import AuditReport
    from verify.certificate.issue import issue_certificate
    from verify.parallel.pieces import SEVERAL

    if result.rule == SEVERAL:
        print(f"UNKNOWN: the prover found the bound {result.upper:.6g}, but by different rules in different pieces, "
              "which no certificate can say; a longer --timeout lets one rule show it")  # fmt: skip
        return UNKNOWN
    issued = issue_certificate(
        options.certificate, result, original=options.original, compact=options.compact, boxes=boxes,
        arithmetic=options.arithmetic,
    )  # fmt: skip
    if issued is None or isinstance(issued, AuditReport):
        reason = "there is nothing to certify" if issued is None else issued.reason
        print(f"UNKNOWN: the prover found a bound, but the auditor did not accept its proof: {reason}")
        return UNKNOWN
    epsilon, report = issued
    print(f"PROVED and audited: {_sentence(epsilon, options.arithmetic)}")
    print(
        f"It follows that both choose the same largest output wherever that of the original leads by more than "
        f"{decimal_up(2 * epsilon)}."
    )
    print(f"Certificate: {options.certificate} ({report.leaves:,} parts re-proved exactly)")
    return PROVED


def _write_witness(path: Path, original: Network, compact: Network, witness: Sequence[Fraction]) -> None:
    """The input as a float64 array of the network's shape, and what float64 arithmetic makes of it."""
    import io

    import numpy as np

    from verify.network.evaluate import evaluate

    x = np.array([[float(v) for v in witness]]).reshape(1, *original.input_shape)
    apart = evaluate(original, x).ravel() - evaluate(compact, x.reshape(1, *compact.input_shape)).ravel()
    stream = io.BytesIO()
    np.save(stream, x[0])
    write_bytes(path, stream.getvalue())
    print(f"Input of the largest deviation found: {path} (float64 evaluation: {np.abs(apart).max():.6g})")


def shown_point(point: Sequence[Fraction]) -> str:
    """The first coordinates of an input, for people."""
    more = ", ..." if len(point) > SHOWN else ""
    return f"({', '.join(repr(float(v)) for v in point[:SHOWN])}{more})"


def _sentence(epsilon: Fraction, arithmetic: str = "real") -> str:
    claim = f"for every input of the domain and every output, |original - compact| <= {decimal_up(epsilon)}, "
    if arithmetic == "float32":
        return (
            f"{claim}both executed in float32 with sums in any order, with or without fused multiply-add, on float32 "
            "inputs. Nothing is said about inputs outside the domain, flush to zero, TF32, bfloat16 or Winograd."
        )
    return f"{claim}in real arithmetic. Nothing is said about inputs outside the domain or about rounding on a device."


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
        ("parts of the domain", f"{result.leaves:,}"),
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


def decimal_up(value: Fraction) -> str:
    """A decimal not below `value`, for people."""
    text = f"{float(value):.6g}"
    return text if Fraction(text) >= value else f"{float(value) * (1 + 1e-5):.6g}"


def read_channels(path: Path) -> Mapping[str, Any]:
    """The content of channels.json; duplicate keys and non-numbers are refused."""
    raw = read_bytes(path, "a channels file", LARGEST_CHANNELS_FILE)
    try:
        content = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
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
