"""`provable exact` and `provable compress --until`: compressions that come with a certificate."""

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from provable.certify import FLOOR, NOTHING, Certified, certify
from provable.cli import UNKNOWN, journal_of, tell_continued
from provable.errors import InputError
from provable.exact.prune import compress_exact
from provable.smallest import Probe, Smallest, smallest_certified
from verify.network.files import write_bytes
from verify.network.graph import Network
from verify.network.load import load_network
from verify.spec.box import Box
from verify.spec.vnnlib import read_vnnlib


def run_exact(options: argparse.Namespace) -> int:
    """Prune exactly, prove it, write the directory; exit code 0 with a certificate, 2 without."""
    started = time.perf_counter()
    network, boxes = load_network(options.model), _domain(options)
    result = compress_exact(network, boxes, merge=not options.keep_bits)
    said: list[Certified] = []
    floor = NOTHING if options.keep_bits else FLOOR
    _save(options, result, lambda f: said.append(certify(result, f, boxes, timeout=options.timeout, floor=floor)))
    print(result.table(), end="")
    print(said[0].sentence)
    if said[0].bound is None or said[0].bound > FLOOR:
        rounding = "" if options.keep_bits else " up to the rounding of the merged weights"
        print(
            f"The bounds by which neurons left show that nothing changes on the domain{rounding}, in real arithmetic; "
            "where the auditor confirms less, the certificate says less."
        )
    print(f"{options.out}: written in {time.perf_counter() - started:.1f} s")
    return 0 if said[0].bound is not None else UNKNOWN


def run_until(options: argparse.Namespace, calibration: Any) -> int:
    """Search, write the smallest certified network; exit code 2 and nothing written if there is none."""
    started = time.perf_counter()
    if options.domain is None:
        raise InputError("--until needs --domain: a deviation is proved for the inputs of a domain")
    network, boxes = load_network(options.model, weights=options.weights), _domain(options)
    console, journal = Console(stderr=True), journal_of(options)
    found = smallest_certified(
        network, calibration, boxes, epsilon=options.until.value, timeout=options.timeout, generator=options.seed,
        progress=partial(_tell, console, network), journal=journal.folder,
    )  # fmt: skip
    if found is None:
        journal.discard()
        most = float(options.until.value)
        print(f"UNKNOWN: no network was certified to deviate by at most {most:g}; nothing was written")
        return UNKNOWN
    tell_continued(console, found.earlier)
    _save(options, found.result, partial(_add_certificate, found, options, boxes))
    journal.discard()
    print(found.result.table(), end="")
    print(found.certified.sentence)
    print(f"{options.out}: written in {time.perf_counter() - started:.1f} s; {len(found.probes)} sizes were tried")
    return 0


def _domain(options: argparse.Namespace) -> Sequence[Box]:
    return read_vnnlib(options.domain).boxes


def _save(options: argparse.Namespace, result: Any, complete: Any) -> None:
    path = Path(options.model)
    result.save(options.out, original=path if path.suffix == ".onnx" else None, force=options.force, complete=complete)


def _tell(console: Console, network: Network, probe: Probe) -> None:
    said = probe.certified
    answer = "certified" if said.bound is not None else f"not certified, {said.lower:.3g} .. {said.upper:.3g}"
    console.print(f"{probe.cost.flops:>12,} multiply-adds: {answer} ({probe.seconds:.1f} s)", highlight=False)


def _add_certificate(found: Smallest, options: argparse.Namespace, boxes: Sequence[Box], folder: Path) -> None:
    again = certify(found.result, folder, boxes, epsilon=options.until.value, timeout=2 * options.timeout)
    if again.bound is None:
        raise InputError(f"the certificate could not be made again ({again.reason}); allow more with --timeout")
    tried = {"version": 1, "deviation": str(options.until.value), "probes": [probe.as_json() for probe in found.probes]}
    write_bytes(folder / "search.json", (json.dumps(tried, indent=1, allow_nan=False) + "\n").encode())
