"""Command line of the judge: `verify deviation`, `verify audit`, `verify statistical`.

Exit codes: 0 proved or accepted, 1 refuted or rejected, 2 unknown, 3 bad input.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verify.errors import InputError

PROVED, REFUTED, UNKNOWN, BAD_INPUT = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted: nothing was established; only a --resume file keeps what was searched", file=sys.stderr)
        return UNKNOWN
    except MemoryError:
        print("unknown: out of memory; nothing was established", file=sys.stderr)
        return UNKNOWN


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        """Refuse with exit code 3: argparse's own 2 would read as "unknown"."""
        self.print_usage(sys.stderr)
        self.exit(BAD_INPUT, f"{self.prog}: error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_deviation(commands)
    _add_question(commands)
    _add_audit(commands)
    _add_statistical(commands)
    _add_attest(commands)
    commands.add_parser("methods", help="the survey's 18 verification algorithms").set_defaults(run=_run_methods)
    return parser


def _networks(command: argparse.ArgumentParser) -> None:
    command.add_argument("original", type=Path, metavar="ORIGINAL", help="network file: .onnx or structure.json")
    command.add_argument("compact", type=Path, metavar="COMPACT", help="network file of the compact network")


def _add_deviation(commands: Any) -> None:
    command = commands.add_parser(
        "deviation", help="how far apart two networks can be, for every input of a domain",
        description="Bounds |original(x) - compact(x)| for every x of a VNN-LIB domain, in real arithmetic.",
    )  # fmt: skip
    _networks(command)
    command.add_argument("--domain", type=Path, required=True, help="VNN-LIB file; its input boxes are the domain")
    command.add_argument("--channels", type=Path, help="channels.json: which channels of the original were kept")
    question = command.add_mutually_exclusive_group()
    question.add_argument("--epsilon", help="decide whether the deviation is at most this decimal number")
    question.add_argument("--tightest", action="store_true", help="find the smallest provable bound (default)")
    command.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds for the search (60)")
    command.add_argument(
        "--memory", type=int, default=2048, metavar="MIB",
        help="what the symbols of one step may hold; beyond it fewer sub-boxes at once, then intervals (2048)",
    )  # fmt: skip
    command.add_argument(
        "--arithmetic", choices=("real", "float32"), default="real",
        help="float32: the certificate covers float32 executions, sums in any order (default: real numbers)",
    )  # fmt: skip
    command.add_argument("--certificate", type=Path, metavar="OUT.json", help="write the proof here")
    command.add_argument(
        "--witness", type=Path, metavar="OUT.npy", help="write the input of the largest deviation found"
    )
    command.add_argument("--force", action="store_true", help="replace an existing certificate or witness file")
    command.add_argument("--seed", type=int, default=0, help="seed of the attack (0)")
    _add_workers(command)
    command.add_argument(
        "--resume",
        type=Path,
        metavar="STATE.json",
        help="keep the search's state here and continue from it if it exists",
    )
    command.set_defaults(run=_run_deviation)


def _add_workers(command: Any) -> None:
    where = command.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, metavar="N", help="search on N processes; a lost one is replaced")
    where.add_argument("--cluster", metavar="ADDRESS", help="search on the Dask cluster of this scheduler")


def _run_deviation(options: argparse.Namespace) -> int:
    from verify.deviation_command import run_deviation

    return run_deviation(options)


def _add_question(commands: Any) -> None:
    from verify.question_parser import add_question

    add_question(commands, _add_workers)


def _add_audit(commands: Any) -> None:
    command = commands.add_parser(
        "audit", help="check a certificate without trusting the prover",
        description="Re-proves every step of a deviation certificate in exact arithmetic (same as python -m "
        "verify.audit); counts again what a statistical certificate states.",
    )  # fmt: skip
    command.add_argument("certificate", type=Path, metavar="CERTIFICATE")
    command.add_argument("--original", type=Path, required=True)
    command.add_argument("--compact", type=Path, required=True)
    command.add_argument("--data", type=Path, help="for a statistical certificate: the .npy or .npz it was made from")
    command.add_argument("--key", help="array name in an .npz file")
    command.add_argument(
        "--calibration-rows", type=Path, metavar="ROWS.json", help="for a statistical certificate: as it was made"
    )
    command.set_defaults(run=_run_audit)


def _run_audit(options: argparse.Namespace) -> int:
    from verify.audit_command import run_audit

    return run_audit(options)


def _add_attest(commands: Any) -> None:
    command = commands.add_parser(
        "attest", help="state the auditor's verdict as an in-toto statement, or check one",
        description="Audits a certificate, writes the verdict as an in-toto statement, in a DSSE envelope if --key.",
    )  # fmt: skip
    command.add_argument("certificate", type=Path, metavar="CERTIFICATE")
    command.add_argument("--original", type=Path, required=True)
    command.add_argument("--compact", type=Path, required=True)
    command.add_argument("--out", type=Path, metavar="STATEMENT.json", help="write the statement here")
    command.add_argument("--key", type=Path, metavar="KEY.pem", help="sign with this Ed25519 private key")
    command.add_argument("--check", type=Path, metavar="STATEMENT.json", help="check this statement instead")
    command.add_argument("--public-key", type=Path, metavar="KEY.pem", help="with --check: who must have signed")
    command.add_argument("--force", action="store_true", help="replace an existing statement")
    command.set_defaults(run=_run_attest)


def _run_attest(options: argparse.Namespace) -> int:
    from verify.attest_command import run_attest

    return run_attest(options)


def _add_statistical(commands: Any) -> None:
    command = commands.add_parser(
        "statistical", help="how often two networks differ on fresh data, with confidence",
        description="Finite-sample bounds from inputs that were not used for calibration.",
    )  # fmt: skip
    _networks(command)
    command.add_argument("--data", type=Path, required=True, help=".npy or .npz with fresh inputs, one per row")
    command.add_argument("--key", help="array name in an .npz file")
    command.add_argument(
        "--calibration-rows", type=Path, metavar="ROWS.json", help="calibration_rows.json written by provable compress"
    )
    command.add_argument("--epsilon", help="also bound how often the deviation exceeds this number")
    command.add_argument("--confidence", type=float, default=0.999, help="joint confidence of all claims (0.999)")
    command.add_argument("--certificate", type=Path, metavar="OUT.json", help="write the certificate here")
    command.add_argument("--force", action="store_true", help="replace an existing certificate file")
    command.set_defaults(run=_run_statistical)


def _run_statistical(options: argparse.Namespace) -> int:
    from verify.statistical_command import run_statistical

    return run_statistical(options)


def _run_methods(options: argparse.Namespace) -> int:
    from verify.methods_command import run_methods

    return run_methods(options)


if __name__ == "__main__":
    sys.exit(main())
