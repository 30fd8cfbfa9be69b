"""The judgement: does a certificate prove its claim about these two networks?

Everything is recomputed from the files: hashes, the networks' exact parameters, the boxes of the leaves, and on every
leaf the bounds of all outputs. The certificate supplies the claim, the places of the splits and the hint which values
belong together. ACCEPT is returned on one line of this file; every exception ends in another verdict.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from itertools import groupby, islice
from math import floor, prod
from pathlib import Path

import numpy as np

from verify.audit import rounding
from verify.audit.backward import Backward
from verify.audit.certificate import Box, Certificate, Claim, NetworkClaim, Part, read_certificate, walk
from verify.audit.exact import LARGEST, Array, Index, Mask, Memory, Refuted, Resource, power, self_test
from verify.audit.files import read_file, sha256
from verify.audit.form import CENTRE, Form
from verify.audit.grid import InputGrid
from verify.audit.lift import Stage, stages_alone, stages_of_pair
from verify.audit.onnx_file import read_onnx
from verify.audit.parts import bounds_of_parts
from verify.audit.planes import Inconsistent
from verify.audit.program import Malformed, Program, Unsupported
from verify.audit.rules import Bounds, Symbols, Values, bounds_of, difference, propagate
from verify.audit.structure_file import read_structure
from verify.audit.transposed import Pair

MAX_CERTIFICATE = 2**30
ARITHMETIC = {
    False: "in real arithmetic",
    True: "both executed in float32 (rounded to nearest; sums in any order, with or without fused multiply-add) on any "
    "float32 input of the domain",
}
LIMITS = {
    False: "anything outside the domain, or the rounding of a floating-point execution",
    True: "anything outside the domain, or executions with flush to zero, TF32, bfloat16, Winograd or FFT convolution, "
    "or by a runtime that changes the constants of the networks",
}
CHUNK_BYTES = 2**22  # leaves are proved together while their forms fit the processor's cache


class Verdict(Enum):
    """The outcome of an audit."""

    ACCEPT = "accept"
    REJECT = "reject"
    MALFORMED = "malformed"
    UNSUPPORTED = "unsupported"
    RESOURCE = "resource"


@dataclass(frozen=True)
class AuditReport:
    """What was found.

    Attributes:
        verdict: ACCEPT means: the claim is true. Every other verdict means: nothing was established.
        reason: in words, the first item that failed.
        leaves: parts of the domain on which the claim was proved.
        bound: the largest deviation bound over all leaves and outputs (an upper bound), if every leaf was proved.
        claim_words: what was accepted. limits: what was not established.
        hashes: SHA-256 of the certificate and of every file that was read.
    """

    verdict: Verdict
    reason: str
    leaves: int = 0
    bound: Fraction | None = None
    claim_words: str = ""
    limits: str = ""
    hashes: tuple[tuple[str, str], ...] = ()


def audit(
    certificate: Path | str,
    original: Path | str,
    compact: Path | str,
    *,
    original_weights: Path | str | None = None,
    compact_weights: Path | str | None = None,
) -> AuditReport:
    """Check a certificate against the two networks it names. Never raises for what is in the files.

    Args:
        certificate: the certificate file.
        original, compact: network files: `.onnx`, or a structure `.json` (its weights beside it or given).
    """
    try:
        return _audit(
            Path(certificate), network_files(original, original_weights), network_files(compact, compact_weights)
        )
    except Refuted as error:
        return AuditReport(Verdict.REJECT, str(error))
    except Malformed as error:
        return AuditReport(Verdict.MALFORMED, str(error))
    except Unsupported as error:
        return AuditReport(Verdict.UNSUPPORTED, f"not supported: {error}")
    except (Resource, MemoryError, RecursionError) as error:
        return AuditReport(Verdict.RESOURCE, f"{type(error).__name__}: {error}")
    except Exception as error:
        return AuditReport(Verdict.RESOURCE, f"internal error, please report it: {type(error).__name__}: {error}")


def network_files(network: Path | str, weights: Path | str | None) -> list[Path]:
    """The files of a network: an ONNX file, or a structure `.json` and its weights, by default beside it."""
    path = Path(network)
    if path.suffix.lower() != ".json":
        return [path]
    return [path, Path(weights) if weights is not None else path.with_name("compact.safetensors")]


def _audit(path: Path, original_files: list[Path], compact_files: list[Path]) -> AuditReport:
    data = read_file(path, MAX_CERTIFICATE)
    certificate = read_certificate(data)
    claim = certificate.claim
    original, original_hashes = _network(original_files, claim.original, "original")
    compact, compact_hashes = _network(compact_files, claim.compact, "compact")
    _check_sizes(certificate, original, compact)
    self_test()
    prover = _Prover(certificate, original, compact)
    proved = 0
    for i, (box, tree, count) in enumerate(zip(claim.boxes, certificate.trees, certificate.leaves, strict=True)):
        found = prover.prove(walk(tree, box), box, f"box {i}")
        if found != count:
            raise Refuted(f"box {i}: the certificate states {count} leaves, its tree has {found}")
        proved += found
    if proved != sum(certificate.leaves) or proved < len(claim.boxes):
        raise Refuted("not every leaf was proved")
    words = claim_words(claim, original_files[0].name, compact_files[0].name)
    hashes = ((path.name, sha256(data)), *original_hashes, *compact_hashes)
    return AuditReport(Verdict.ACCEPT, "proved", proved, prover.bound, words, LIMITS[claim.float32], hashes)


def _network(paths: Sequence[Path], claim: NetworkClaim, role: str) -> tuple[Program, tuple[tuple[str, str], ...]]:
    """Read a network; its files and what they compute must be those of the claim."""
    contents = [read_file(path) for path in paths]
    hashes = [sha256(content) for content in contents]
    if hashes != [h for _, h in claim.files]:
        raise Refuted(f"the certificate is for another {role} network: the SHA-256 of {paths[0].name} does not match")
    program = read_network(contents)
    if program.digest != claim.digest:
        raise Refuted(f"the canonical digest of the {role} network does not match the claim")
    return program, tuple((path.name, h) for path, h in zip(paths, hashes, strict=True))


def read_network(contents: Sequence[bytes]) -> Program:
    """The program of a network file: one ONNX file, or a structure and its safetensors."""
    if len(contents) == 1:
        return read_onnx(contents[0])
    return read_structure(*contents)


def _check_sizes(certificate: Certificate, original: Program, compact: Program) -> None:
    for size, name in ((certificate.claim.inputs, "input"), (certificate.claim.outputs, "output")):
        for program, role in ((original, "original"), (compact, "compact")):
            have = program.size_of(program.input if name == "input" else program.output)
            if have != size:
                raise Refuted(f"the {role} network has {have} {name}s, the claim says {size}")


def claim_words(claim: Claim, original: str, compact: str) -> str:
    """The claim in plain words; the networks bear the names of the files that were read."""
    boxes = "the box" if len(claim.boxes) == 1 else f"the {len(claim.boxes)} boxes"
    return (
        f"For every input in {boxes} of the claim ({claim.inputs} coordinates), each of the {claim.outputs} outputs of "
        f"the compact network {compact} differs from that of the original network {original} by at most "
        f"{claim.epsilon_text}, {ARITHMETIC[claim.float32]}."
    )


@dataclass(frozen=True)
class _Enclosure:
    """Lower and upper bounds (outputs, leaves) of original - compact: integers in units of 2^exponent."""

    low: Array
    high: Array
    exponent: int

    def joined(self, other: "_Enclosure") -> "_Enclosure":
        """The sharper of both on either side, in the finer unit (scaling by powers of two is exact)."""
        unit = min(self.exponent, other.exponent)
        a, b = power(self.exponent - unit), power(other.exponent - unit)
        return _Enclosure(np.maximum(self.low * a, other.low * b), np.minimum(self.high * a, other.high * b), unit)

    def within(self, epsilon: Fraction) -> Mask:
        """Where -epsilon <= low and high <= epsilon, exactly: an integer is at most x iff it is at most floor(x)."""
        limit = floor(epsilon / Fraction(2) ** self.exponent)
        whole = float(limit) if limit <= LARGEST else np.inf
        within: Mask = (self.low >= -whole) & (self.high <= whole)
        return within

    def some(self, leaves: Index) -> "_Enclosure":
        """The bounds on some leaves."""
        return _Enclosure(self.low[:, leaves], self.high[:, leaves], self.exponent)

    @property
    def largest(self) -> Fraction:
        reach = max(float(np.max(self.high, initial=0.0)), -float(np.min(self.low, initial=0.0)))
        return int(reach) * Fraction(2) ** self.exponent


# What holds on a box: the networks, the input, the deviation of the outputs, bounds of all values.
_Whole = tuple[Pair, Form, _Enclosure, list[Bounds]]


class _Prover:
    """Proves the claim leaf by leaf; `bound` grows to the largest deviation bound."""

    def __init__(self, certificate: Certificate, original: Program, compact: Program) -> None:
        self.epsilon = certificate.claim.epsilon
        self.symbols = certificate.symbols
        self.float32 = certificate.claim.float32
        for program in (original, compact) if self.float32 else ():
            rounding.check_program(program)
        self.bound = Fraction(0)
        self.ends = position(original), position(compact)
        self.inputs = certificate.claim.inputs
        self.widest = max(prod(step.shape) for step in original.steps)
        self.pair: list[Stage] | None = None
        if certificate.rule != "separate":
            self.pair = stages_of_pair(original, compact, certificate.lift)
        self.backward: Pair | None = None
        if certificate.rule == "pair_backward":
            self.backward = Pair(self.pair or [], certificate.claim.inputs, self.float32)
        self.alone = [] if self.pair is not None else [stages_alone(original), stages_alone(compact)]

    def prove(self, leaves: Iterator[Part], root: Box, place: str) -> int:
        """Prove the claim on every leaf; the number of leaves.

        Raises:
            Refuted: some leaf has a bound above epsilon.
        """
        grid, done = InputGrid(root), 0
        hard: list[tuple[int, Part]] = []
        together = max(1, min(128, CHUNK_BYTES // (8 * self.widest * (self.widest + len(root)))))
        for box, parts in groupby(leaves, key=lambda part: part.box if part.decisions else None):
            whole = None if box is None else self._whole(box, grid, place, done)
            while chunk := list(enumerate(islice(parts, together), start=done)):
                if whole is None:
                    hard += self._prove_some(chunk, grid, place, max(1, together // 2))
                else:
                    self._prove_parts(chunk, whole, place)
                done += len(chunk)
            while len(hard) >= together:
                self._prove_hard(hard[:together], grid, place)
                hard = hard[together:]
        self._prove_hard(hard, grid, place)
        return done

    def _prove_hard(self, leaves: list[tuple[int, Part]], grid: InputGrid, place: str) -> None:
        """Prove all of these numbered leaves."""
        for number, _ in self._prove_some(leaves, grid, place, 0):
            raise Refuted(f"{place}, leaf {number}: not proved")

    def _prove_some(
        self, leaves: list[tuple[int, Part]], grid: InputGrid, place: str, wait: int
    ) -> list[tuple[int, Part]]:
        """Prove some numbered leaves together, or in two halves where that needs too much memory.

        Returns the leaves that are not proved yet: those that forms do not prove, if they are fewer than `wait`.
        """
        if not leaves:
            return []
        try:
            x, known = grid.form([part.box for _, part in leaves]), list[Bounds]()
            enclosure = self._enclosure(x, known)
            hard = self._hard(enclosure)
            if len(hard) >= wait:
                enclosure, hard = self._sharpened(x, enclosure, known, hard)[0], hard[:0]
        except Memory:
            if len(leaves) == 1:
                raise
            half = len(leaves) // 2
            first, second = leaves[:half], leaves[half:]
            return self._prove_some(first, grid, place, wait) + self._prove_some(second, grid, place, wait)
        proved = np.delete(np.arange(len(leaves)), hard)
        self._compare(enclosure.some(proved), [leaves[i][0] for i in proved], place)
        return [leaves[i] for i in hard]

    def _whole(self, box: Box, grid: InputGrid, place: str, first: int) -> _Whole:
        """What holds on a box on which decisions are made."""
        if self.backward is None:
            raise Refuted(f"{place}, leaf {first}: the rule does not know decisions")
        x, known = grid.form([box]), list[Bounds]()
        enclosure = self._enclosure(x, known)
        if not self._output_is_paired(np.arange(len(enclosure.low))):
            raise Refuted(f"{place}, leaf {first}: decisions need outputs that belong together")
        return self.backward, x, *self._sharpened(x, enclosure, known, self._hard(enclosure))

    def _prove_parts(self, parts: list[tuple[int, Part]], whole: _Whole, place: str) -> None:
        """Prove numbered parts of one box."""
        backward, x, enclosure, known = whole
        low, high, exponent = bounds_of_parts(backward, x, known, [part for _, part in parts], self.ends[0])
        everywhere = enclosure.some(np.zeros(len(parts), dtype=np.int64))
        self._compare(everywhere.joined(_Enclosure(low, high, exponent)), [number for number, _ in parts], place)

    def _compare(self, enclosure: _Enclosure, leaves: Sequence[int], place: str) -> None:
        """Every output of every leaf, on both sides."""
        proved = enclosure.within(self.epsilon)
        if not proved.all():
            leaf, output = (int(i) for i in np.argwhere(~proved.T)[0])
            low, high = (float(a[output, leaf]) * 2.0**enclosure.exponent for a in (enclosure.low, enclosure.high))
            raise Refuted(
                f"{place}, leaf {leaves[leaf]}: output {output} deviates by a value in [{low:.6g}, {high:.6g}] for all "
                f"this proof shows, which is not within epsilon = {float(self.epsilon):.6g}"
            )
        self.bound = max(self.bound, enclosure.largest)

    def _hard(self, enclosure: _Enclosure) -> Index:
        """The leaves that forms do not prove and bounds from the output backward may."""
        if self.backward is None or not self._output_is_paired(np.arange(len(enclosure.low))):
            return np.zeros(0, dtype=np.int64)
        return np.flatnonzero(~enclosure.within(self.epsilon).all(axis=0))

    def _sharpened(
        self, x: Form, enclosure: _Enclosure, known: list[Bounds], hard: Index
    ) -> tuple[_Enclosure, list[Bounds]]:
        """Bounds from the output backward as well on hard leaves, and what they rest on."""
        if self.backward is None or not len(hard):
            return enclosure, known
        some = Form(x.exponent, x.blocks, x.body[:, :, hard], x.rem[:, hard])
        known = [b.some(hard) for b in known]
        low, high, exponent = Backward(self.backward, some, known).differences(self.ends[0])
        lows, highs = np.full_like(enclosure.low, -np.inf), np.full_like(enclosure.high, np.inf)
        lows[:, hard], highs[:, hard] = low, high
        return enclosure.joined(_Enclosure(lows, highs, exponent)), known

    def _note(self, known: list[Bounds]) -> Callable[[Values], None]:
        """What to do with every value: nothing, or keep its bounds for the descents."""
        if self.backward is None:
            return lambda value: None
        return lambda value: known.append(bounds_of(value, self._kept(len(known))))

    def _kept(self, position: int) -> Index | None:
        return np.arange(self.inputs) if position == 0 else (self.pair or [])[position - 1].kept

    def _enclosure(self, x: Form, known: list[Bounds]) -> _Enclosure:
        """Bounds of original - compact on the boxes of x: by its own form, and by all forms together.

        For the rule "pair_backward" the bounds of all values are added to `known`.
        """
        left = float(self.symbols) - x.body[:, 1:].any(axis=0).sum(axis=0)
        if self.pair is not None:
            zero = Form(0, CENTRE, np.zeros(x.rem.shape)[:, None], np.zeros(x.rem.shape))
            seen = self._note(known)
            z, y = propagate(self.pair, Values(x, x, zero), Symbols(2, left, self.float32), self.ends, seen)
        else:
            (z,) = propagate(self.alone[0], Values(x), Symbols(2, left.copy(), self.float32), self.ends[:1])
            (other,) = propagate(self.alone[1], Values(x), Symbols(2**40, left, self.float32), self.ends[1:])
            y = Values(z.z, other.z)
        outputs = np.arange(len(z.z.rem), dtype=np.int64)
        d = z.d if self._output_is_paired(outputs) else None
        if y.y is None:
            raise Inconsistent("the compact network has no output")
        d = difference(z.z, y.y) if d is None else d
        joint = bounds_of(Values(z.z, y.y, d), outputs)
        if joint.d is None:
            raise Inconsistent("the difference of the outputs has no bounds")
        return _Enclosure(*d.bounds(d.exponent), d.exponent).joined(_Enclosure(*joint.d, joint.unit))

    def _output_is_paired(self, outputs: Index) -> bool:
        """Whether D at the output is original - compact, output by output."""
        if self.pair is None or self.ends[0] != self.ends[1]:
            return False
        kept = outputs if self.ends[0] == 0 else self.pair[self.ends[0] - 1].kept
        return kept is not None and np.array_equal(kept, outputs)


def position(program: Program) -> int:
    """The output's place in the list of values."""
    return [program.input, *(step.name for step in program.steps)].index(program.output)
