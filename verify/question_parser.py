"""Options of `verify question KIND`; exit codes as for every command: 0 proved, 1 refuted, 2 unknown, 3 bad input."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_question(commands: Any, add_workers: Callable[[Any], None]) -> None:
    """Add the command and its kinds to the parser."""
    command = commands.add_parser(
        "question", help="other questions: same arg max, limits per output, a VNN-LIB property, a sample of boxes",
        description="Decides a claim about every input of a domain, in real arithmetic: PROVED, REFUTED or UNKNOWN.",
    )  # fmt: skip
    kinds = command.add_subparsers(dest="kind", required=True, metavar="KIND")
    _arg_max(kinds)
    _per_output(kinds)
    _relative(kinds)
    _property(kinds)
    _complete(kinds)
    add_workers(_sample(kinds))


def _kind(kinds: Any, name: str, words: str, *, pair: bool = True) -> Any:
    command = kinds.add_parser(name, help=words, description=words)
    if pair:
        command.add_argument("original", type=Path, metavar="ORIGINAL", help="network file: .onnx or structure.json")
    command.add_argument("compact", type=Path, metavar="COMPACT", help="network file of the compact network")
    if pair:
        command.add_argument("--channels", type=Path, help="channels.json: which channels of the original were kept")
    command.add_argument("--seed", type=int, default=0, help="seed of the search for counterexamples (0)")
    command.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds (60); per box for sample")
    command.set_defaults(run=_run)
    return command


def _domain(command: Any) -> None:
    command.add_argument("--domain", type=Path, required=True, help="VNN-LIB file; its input boxes are the domain")


def _arg_max(kinds: Any) -> None:
    command = _kind(
        kinds, "arg-max", "both choose the same largest output wherever the original's leads by more than M"
    )
    _domain(command)
    command.add_argument("--margin", default="0", metavar="M", help="decimal number (0)")


def _per_output(kinds: Any) -> None:
    command = _kind(kinds, "per-output", "|original - compact| <= E_i for every output i")
    _domain(command)
    command.add_argument("--epsilon", required=True, metavar="E0,E1,...", help="one decimal per output, or one for all")


def _relative(kinds: Any) -> None:
    command = _kind(
        kinds, "relative", "|original - compact| <= S times the range of the original's output on the domain"
    )
    _domain(command)
    command.add_argument("--share", required=True, metavar="S", help="decimal number, for example 0.01")


def _property(kinds: Any) -> None:
    command = _kind(
        kinds, "property", "the compact network satisfies a VNN-LIB property: no input is unsafe", pair=False
    )
    command.add_argument("--property", type=Path, required=True, help="VNN-LIB file; it describes the unsafe points")


def _complete(kinds: Any) -> None:
    command = _kind(kinds, "complete", "the largest deviation of small ReLU networks, by a complete method")
    _domain(command)
    command.add_argument(
        "--method", default="regions", choices=("regions", "milp", "relaxation"),
        help="every activation region, exactly (default); a mixed-integer program; a linear program",
    )  # fmt: skip
    command.add_argument("--epsilon", metavar="E", help="decide whether the deviation is at most this decimal number")


def _sample(kinds: Any) -> Any:
    command = _kind(kinds, "sample", "how many boxes around declared centers have |original - compact| <= E")
    command.add_argument("--data", type=Path, required=True, help=".npy or .npz with the centers, one per row")
    command.add_argument("--key", help="array name in an .npz file")
    command.add_argument("--radius", required=True, metavar="R", help="of every box, in the max norm")
    command.add_argument("--minimum", help="inputs are cut to at least this number")
    command.add_argument("--maximum", help="inputs are cut to at most this number")
    command.add_argument("--epsilon", required=True, metavar="E")
    command.add_argument("--confidence", default="0.999", help="of the bound for a fresh box (0.999)")
    command.add_argument(
        "--at-least", metavar="SHARE", help="exit code 0 only if this share of the boxes is certified (1)"
    )
    return command


def _run(options: argparse.Namespace) -> int:
    from verify.question_command import run_question

    return run_question(options)
