"""``python -m verify.audit CERTIFICATE --original FILE --compact FILE``: accept a certificate, or say why not.

Exit codes: 0 accepted, 1 rejected, 2 unknown (not supported, or out of resources), 3 bad input.
"""

import argparse
import sys
from collections.abc import Sequence
from fractions import Fraction
from importlib.resources import files
from math import ceil, floor
from pathlib import Path
from typing import NoReturn

from verify.audit.check import AuditReport, Verdict, audit
from verify.audit.files import sha256

EXIT_CODES = {
    Verdict.ACCEPT: 0,
    Verdict.REJECT: 1,
    Verdict.UNSUPPORTED: 2,
    Verdict.RESOURCE: 2,
    Verdict.MALFORMED: 3,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit one certificate, print the verdict, return the exit code."""
    parser = _Parser(prog="python -m verify.audit", description="Re-prove a deviation certificate exactly.")
    parser.add_argument("certificate", type=Path)
    parser.add_argument("--original", type=Path, required=True, help=".onnx, or structure .json")
    parser.add_argument("--compact", type=Path, required=True, help=".onnx, or structure .json")
    parser.add_argument(
        "--original-weights", type=Path, help="safetensors of a structure (default: compact.safetensors)"
    )
    parser.add_argument(
        "--compact-weights", type=Path, help="safetensors of a structure (default: compact.safetensors)"
    )
    options = parser.parse_args(arguments)
    report = audit(
        options.certificate,
        options.original,
        options.compact,
        original_weights=options.original_weights,
        compact_weights=options.compact_weights,
    )
    print(describe(report))
    return EXIT_CODES[report.verdict]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:  # argparse exits with 2, which means unknown here
        self.exit(3, f"{self.prog}: error: {message}\n")


def describe(report: AuditReport) -> str:
    """The report in plain words."""
    lines = [f"{report.verdict.name}: {report.reason}"]
    if report.verdict is Verdict.ACCEPT:
        lines = [f"ACCEPT: {report.claim_words}"]
        lines.append(f"Proved exactly on {report.leaves} parts that cover the domain.")
        lines.append(f"Largest deviation bound found: {upward(report.bound or Fraction(0))}.")
        lines.append(f"Not established: {report.limits}.")
        lines += [f"  sha256 {digest}  {name}" for name, digest in report.hashes]
    else:
        lines.append("Nothing was established.")
    count, digest = own_sources()
    lines.append(f"Auditor: {count} lines of source, sha256 {digest}")
    return "\n".join(lines)


def upward(bound: Fraction) -> str:
    """A non-negative bound as a decimal of six digits that is not below it."""
    if bound == 0:
        return "0"
    exponent = len(str(floor(bound))) - 1 if bound >= 1 else -len(str(floor(1 / bound)))
    digits = str(ceil(bound / Fraction(10) ** (exponent - 5)))
    return f"{digits[:-5]}.{digits[-5:]}e{exponent}"


def own_sources() -> tuple[int, str]:
    """Number of lines of the auditor's own sources, and the SHA-256 over all of them in order of their names."""
    sources = [file for file in files("verify.audit").iterdir() if file.name.endswith(".py")]  # also inside an archive
    parts = [file.read_bytes() for file in sorted(sources, key=lambda file: file.name)]
    return sum(part.count(b"\n") for part in parts), sha256(b"".join(parts))


if __name__ == "__main__":
    sys.exit(main())
