"""The command ``provable``.

    provable compress MODEL --calibration X.npy --keep flops=0.5 --recipe greedy --seed 0 --out DIR
    provable compress MODEL --calibration X.npy --until deviation=0.01 --domain D.vnnlib --out DIR
    provable compress MODEL --calibration X.npy --until accuracy=0.9 --labels Y.npy --out DIR
    provable compress MODEL --calibration X.npy --until accuracy-drop=0.02 --held-out H.npy \\
        --held-out-labels L.npy --out DIR
    provable exact MODEL --domain D.vnnlib --out DIR
    provable methods [NAME]

A run keeps what is finished in .DIR.unfinished beside DIR, a search what it found out about its candidates; after an
interruption the same command continues there and gives the identical result.

Exit codes: 0 done, 2 done or not but without the certificate that was asked for, 3 bad input (one line on stderr says
what was wrong), 130 interrupted. DIR appears only when it is complete.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from provable.errors import InputError

if TYPE_CHECKING:
    from provable.journal import Journal

UNKNOWN, BAD_INPUT, INTERRUPTED = 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = _parser().parse_args(arguments)
    from verify.errors import InputError as VerifyInputError

    try:
        return int(options.run(options))
    except (InputError, VerifyInputError) as error:
        print(f"provable: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("provable: interrupted; nothing was written but what the same command continues from", file=sys.stderr)
        return INTERRUPTED


class _Parser(argparse.ArgumentParser):
    """Wrong usage is bad input, too: exit code 3."""

    def error(self, message: str) -> Any:
        self.print_usage(sys.stderr)
        self.exit(BAD_INPUT, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="provable", description="Make a neural network smaller without retraining.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    add = commands.add_parser("compress", help="remove channels, refit what reads them, write the compact network")
    put = add.add_argument
    put("model", help="net.onnx, net.pt2, or package.module:factory with --weights")
    put("--weights", type=Path, help="safetensors file for package.module:factory")
    put(
        "--calibration",
        type=Path,
        required=True,
        help=".npy or .npz: (samples, *input shape), the network's input format",
    )
    put("--key", help="array of a .npz file with several")
    put("--labels", type=Path, help="classes of the calibration inputs, for recipes that need them (.npy or .npz)")
    put("--labels-key", help="array of a .npz file with several")
    size = add.add_mutually_exclusive_group(required=True)
    size.add_argument(
        "--keep",
        type=_pair,
        metavar="KIND=FRACTION",
        help="fraction KEPT: flops=, parameters=, bytes=, latency=, channels=; weights= for sipp, corenet",
    )
    size.add_argument(
        "--until",
        type=_until,
        metavar="KIND=X",
        help="the smallest network: deviation=E proved on --domain; disagreement=X, accuracy-drop=X or "
        "class-accuracy-drop=X on --held-out inputs, with confidence; accuracy=A or agreement=A: pruning with "
        "compensation down to this share, on the last fifth of the calibration inputs",
    )
    put("--domain", type=Path, help="VNN-LIB file with the inputs that --until deviation speaks about")
    put("--held-out", type=Path, help=".npy: fresh inputs for the other limits of --until, used for nothing else")
    put("--held-out-labels", type=Path, help=".npy: class indices of the --held-out inputs")
    put("--confidence", default="0.99", metavar="C", help="of the statement about the network found (0.99)")
    put("--timeout", type=float, default=30.0, metavar="S", help="seconds for each proof of --until (30)")
    put("--recipe", default="greedy", help="greedy (default), or a name of `provable methods`")
    put(
        "--compensation",
        default="least_squares",
        help="least_squares (default), two_sided, two_sweeps, refine, refine_network, near, bounded, signs, norm, "
        "minimax, batch_norm, none",
    )
    put("--scope", default="inner", help="inner (default): ordinary hidden layers; all: residual streams, too")
    put(
        "--floor",
        type=_floor,
        action="append",
        metavar="[GROUP=]N",
        help="channels, or a share, every group keeps at least (1)",
    )
    put("--round-to", type=int, default=1, metavar="N", help="kept widths are multiples of N, such as 8 (1)")
    put("--batch-size", type=int, default=1, metavar="N", help="inputs per call where latency is measured (1)")
    put("--seed", type=int, default=0, help="for recipes that draw (default 0)")
    put("--out", type=Path, required=True, help="directory to create")
    put("--force", action="store_true", help="replace an earlier output directory")
    put(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="continue an interrupted run with the same inputs and settings (default)",
    )
    add.set_defaults(run=_compress)
    _add_exact(commands)
    listing = commands.add_parser("methods", help="every method: what it removes, needs, promises and costs")
    listing.add_argument("name", nargs="?", help="everything on record about one of them")
    listing.add_argument("--markdown", action="store_true", help="the list as a document")
    listing.set_defaults(run=_methods)
    return parser


def _add_exact(commands: Any) -> None:
    add = commands.add_parser("exact", help="remove what changes nothing on a domain, and prove it")
    put = add.add_argument
    put("model", type=Path, help="net.onnx, net.pt2 or structure.json")
    put("--domain", type=Path, required=True, help="VNN-LIB file; its input boxes are the domain")
    put("--keep-bits", action="store_true", help="only neurons that never fire: weights that stay keep their bits")
    put("--timeout", type=float, default=60.0, metavar="S", help="seconds for the proof (60)")
    put("--out", type=Path, required=True, help="directory to create")
    put("--force", action="store_true", help="replace an earlier output directory")
    add.set_defaults(run=_exact)


class Until(NamedTuple):
    """What --until asks for: "deviation", "accuracy" or "agreement", and the number."""

    kind: str
    value: Fraction


def _until(text: str) -> Until:
    kind, _, number = text.partition("=")
    try:
        found = Fraction(number)
    except (ValueError, ZeroDivisionError):
        found = Fraction(-1)
    kinds = ("deviation", "accuracy", "agreement", "disagreement", "accuracy-drop", "class-accuracy-drop")
    if kind not in kinds or found < 0 or (kind in ("accuracy", "agreement") and found > 1):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected deviation=E, disagreement=X, accuracy-drop=X or class-accuracy-drop=X with a number "
            ">= 0 such as deviation=0.01, or accuracy=A or agreement=A with a share A such as 0.9"
        )
    return Until(kind, found)


def _pair(text: str) -> tuple[str, float]:
    kind, _, number = text.partition("=")
    try:
        return kind, float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected KIND=FRACTION such as flops=0.5") from None


def _floor(text: str) -> tuple[str, int | float]:
    group, _, number = text.rpartition("=")
    try:
        return group, float(number) if "." in number else int(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected N, a share such as 0.1, or GROUP=N") from None


def _floors(given: Sequence[tuple[str, int | float]] | None) -> Any:
    """One floor for all groups, or one per group."""
    named = dict(given or [("", 1)])
    if "" in named and len(named) > 1:
        raise InputError("--floor: either one number for all groups, or GROUP=N for each that is meant")
    return named.get("", named)


def _compress(options: argparse.Namespace) -> int:
    from provable.artifacts import check_folder
    from provable.calibration import read_calibration
    from provable.pipeline import compress
    from provable.terminal import ProgressBars

    started = time.perf_counter()
    check_folder(options.out.absolute(), force=options.force)
    calibration = read_calibration(options.calibration, options.key)
    if options.until is not None:
        try:
            return _searched(options, calibration)
        except InputError:
            journal_of(options).discard()
            raise
    labels = None if options.labels is None else read_calibration(options.labels, options.labels_key)
    journal = journal_of(options)
    try:
        with ProgressBars() as bars:
            result = compress(
                _model(options.model, options.weights), calibration, keep=dict([options.keep]), progress=bars,
                labels=labels, journal=journal.folder, **_method(options),
            )  # fmt: skip
    except InputError:
        journal.discard()
        raise
    path = Path(options.model)
    result.save(options.out, original=path if path.suffix == ".onnx" else None, force=options.force)
    journal.discard()
    print(result.table(), end="")
    print(f"{options.out}: written in {time.perf_counter() - started:.1f} s")
    return 0


def _methods(options: argparse.Namespace) -> int:
    from provable.catalogue import details, document, method, methods, overview

    if options.name is not None:
        print(details(method(options.name)), end="")
    else:
        print((document if options.markdown else overview)(methods()), end="")
    return 0


def _method(options: argparse.Namespace) -> dict[str, Any]:
    """The options that say how to compress."""
    return {
        "recipe": options.recipe, "compensation": options.compensation, "scope": options.scope,
        "floor": _floors(options.floor), "round_to": options.round_to, "batch": options.batch_size,
        "generator": options.seed,
    }  # fmt: skip


def _searched(options: argparse.Namespace, calibration: Any) -> int:
    if options.until.kind == "deviation":
        from provable.certified_command import run_until

        return run_until(options, calibration)
    if options.until.kind in ("accuracy", "agreement"):
        from provable.structural_command import run_search

        return run_search(options, _model(options.model, options.weights), calibration)
    from provable.held_out_command import run_held_out

    return run_held_out(options, _model(options.model, options.weights), calibration, _method(options))


def journal_of(options: argparse.Namespace) -> "Journal":
    """Where the run keeps what is finished: beside the output; emptied unless it is to be continued."""
    from provable.journal import Journal

    out = options.out.absolute()
    journal = Journal(out.parent / f".{out.name}.unfinished")
    if not options.resume:
        journal.discard()
    return journal


def tell_continued(console: Any, earlier: int) -> None:
    """On stderr: how many candidates of a search an interrupted run had settled."""
    if earlier:
        console.print(f"continued an interrupted search: {earlier} candidates were settled", highlight=False)


def _exact(options: argparse.Namespace) -> int:
    from provable.artifacts import check_folder
    from provable.certified_command import run_exact

    check_folder(options.out.absolute(), force=options.force)
    return run_exact(options)


def _model(source: str, weights: Path | None) -> Any:
    """A Network for a file, a torch module for package.module:factory."""
    from verify.errors import ModelError
    from verify.network.load import load_module, load_network

    if Path(source).suffix in (".onnx", ".pt2") or ":" not in source or Path(source).exists():
        return load_network(source, weights=weights)
    if weights is None:
        raise ModelError(f"{source}: a module needs its weights; pass --weights W.safetensors")
    return load_module(source, weights)
