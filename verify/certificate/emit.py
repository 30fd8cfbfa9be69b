"""Writing a deviation certificate: identities and digests are taken from the files, the rest is what the prover found.

The networks are identified by the auditor's own reader, so that prover and auditor speak about the same program.
Not claimed: that the certificate will be accepted; `verify.audit` decides that.
"""

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from verify.audit.check import network_files, read_network
from verify.audit.exact import Resource
from verify.audit.files import MAX_DIGITS, read_file, sha256
from verify.audit.program import Malformed, Program, Unsupported
from verify.certificate.record import Correspondence, DeviationRecord, NetworkIdentity, encode, sealed, show
from verify.errors import CertificateError, ModelError
from verify.spec.box import Box
from verify.spec.deviation import Tree


class Entry(Protocol):
    """One correspondence of a lift, as `verify.formal.lift` has it."""

    @property
    def original(self) -> str: ...
    @property
    def compact(self) -> str: ...
    @property
    def axis(self) -> int: ...
    @property
    def kept(self) -> Sequence[int]: ...


def emit_certificate(
    path: Path | str,
    *,
    original: Path | str,
    compact: Path | str,
    boxes: Sequence[Box],
    epsilon: Fraction,
    lift: Iterable[Entry] | None,
    rule: str,
    parameters: Mapping[str, int],
    trees: Sequence[Tree],
    arithmetic: str = "real",
    prover: Mapping[str, str] | None = None,
    original_weights: Path | str | None = None,
    compact_weights: Path | str | None = None,
) -> DeviationRecord:
    """Write a certificate atomically; the file appears only when it is complete.

    Args:
        original, compact: network files, `.onnx` or structure `.json`.
        boxes: the domain; one tree of `trees` per box.
        epsilon: the claimed bound, exact.
        lift: correspondences of all values, or of those that shrank; None for the rule "separate".
        rule, parameters: "pair_zonotope", "pair_backward" or "separate", with {"symbols": budget}.
        arithmetic: "real", or "float32" for float32 executions on float32 inputs.
        prover: who made it; free text.

    Returns:
        What was written.

    Raises:
        ModelError: a network file cannot be read by the auditor.
        CertificateError: the parts do not fit together, or the file cannot be written.
    """
    if len(boxes) != len(trees) or not boxes:
        raise CertificateError(f"{len(trees)} trees of splits for {len(boxes)} boxes; expected one per box")
    if len(show(epsilon)) > MAX_DIGITS:
        raise CertificateError(f"epsilon has {len(show(epsilon))} characters as a number; the limit is {MAX_DIGITS}")
    first, identity = _identify(original, original_weights)
    second, other = _identify(compact, compact_weights)
    record = DeviationRecord(
        identity,
        other,
        _size(first, second, "input"),
        _size(first, second, "output"),
        tuple(boxes),
        epsilon,
        None if lift is None else _shrunk(first, lift),
        rule,
        parameters,
        tuple(trees),
        arithmetic,
        prover,
        {step.name: number for number, step in enumerate(first.steps, start=1)},
    )
    write_atomically(Path(path), sealed(encode(record)))
    return record


def _identify(network: Path | str, weights: Path | str | None) -> tuple[Program, NetworkIdentity]:
    """The auditor's reading of a network, and what names it."""
    files = network_files(network, weights)
    try:
        contents = [read_file(file) for file in files]
        program = read_network(contents)
    except (Malformed, Unsupported, Resource) as error:
        raise ModelError(f"{network}: the auditor cannot read this network: {error}") from error
    hashes = tuple((file.name, sha256(content)) for file, content in zip(files, contents, strict=True))
    return program, NetworkIdentity(hashes, program.digest)


def _size(original: Program, compact: Program, end: str) -> int:
    sizes = {p.size_of(p.input if end == "input" else p.output) for p in (original, compact)}
    if len(sizes) != 1:
        raise CertificateError(f"the networks have different numbers of {end}s: {sorted(sizes)}")
    return sizes.pop()


def _shrunk(original: Program, lift: Iterable[Entry]) -> tuple[Correspondence, ...]:
    """The entries that say something: those that drop or reorder positions."""
    entries = [Correspondence(e.original, e.compact, e.axis, tuple(int(k) for k in e.kept)) for e in lift]
    return tuple(e for e in entries if not _says_nothing(original, e))


def _says_nothing(original: Program, entry: Correspondence) -> bool:
    shape = original.sample_shape(entry.original)
    return not shape or (entry.axis < len(shape) and entry.kept == tuple(range(shape[entry.axis])))


def write_atomically(path: Path, pieces: Iterable[str]) -> None:
    """Write text to a temporary file in the same folder, flush it to disk, then rename it."""
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise CertificateError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
