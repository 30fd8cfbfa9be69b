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
from verify.audit.exact import FORM_BITS, LARGEST, Array, Index, Mask, Memory, Refuted, Resource, power, self_test
from verify.audit.files import read_file, sha256
from verify.audit.form import CENTRE, Form, check_memory
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

    @property
    def largest(self) -> Fraction:
        reach = max(float(np.max(self.high)), -float(np.min(self.low)), 0.0)
        return int(reach) * Fraction(2) ** self.exponent


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
        together = max(1, min(128, CHUNK_BYTES // (8 * self.widest * (self.widest + len(root)))))
        for shared, parts in groupby(leaves, key=lambda part: part.box if part.decisions else None):
            prove_some = self._prove_some if shared is None else self._parts_of_box(grid)
            while chunk := list(islice(parts, together)):
                prove_some(chunk, grid, place, done)
                done += len(chunk)
        return done

    def _prove_some(self, leaves: list[Part], grid: "InputGrid", place: str, first: int) -> None:
        """Prove some leaves together, or in two halves where that needs too much memory."""
        try:
            enclosure, _ = self._bounded(grid.form([leaf.box for leaf in leaves]))
        except Memory:
            if len(leaves) == 1:
                raise
            half = len(leaves) // 2
            self._prove_some(leaves[:half], grid, place, first)
            self._prove_some(leaves[half:], grid, place, first + half)
            return
        self._compare(enclosure, place, first)

    def _bounded(self, x: Form) -> tuple[_Enclosure, list[Bounds]]:
        """The deviation on the boxes of x, and what is known of every value on those that were hard."""
        known: list[Bounds] = []
        enclosure = self._enclosure(x, known)
        return (enclosure, known) if self.backward is None else self._sharpened(x, enclosure, known)

    def _parts_of_box(self, grid: "InputGrid") -> Callable[[list[Part], "InputGrid", str, int], None]:
        """How to prove the parts of one box, on which decisions are made."""
        of_box: list[tuple[Form, _Enclosure, list[Bounds]]] = []  # once there is a part

        def prove_parts(parts: list[Part], grid: InputGrid, place: str, first: int) -> None:
            if self.backward is None:
                raise Refuted(f"{place}, leaf {first}: the rule does not know decisions")
            if not of_box:
                x = grid.form([parts[0].box])
                of_box.append((x, *self._bounded(x)))
            x, enclosure, known = of_box[0]
            if not self._output_is_paired(np.arange(len(enclosure.low))):
                raise Refuted(f"{place}, leaf {first}: decisions need outputs that belong together")
            low, high, exponent = bounds_of_parts(self.backward, x, known, parts, self.ends[0])
            one = np.ones(len(parts))
            whole = _Enclosure(enclosure.low * one, enclosure.high * one, enclosure.exponent)
            self._compare(whole.joined(_Enclosure(low, high, exponent)), place, first)

        return prove_parts

    def _compare(self, enclosure: _Enclosure, place: str, first: int) -> None:
        """Every output of every leaf, on both sides."""
        proved = enclosure.within(self.epsilon)
        if not proved.all():
            leaf, output = (int(i) for i in np.argwhere(~proved.T)[0])
            low, high = (float(a[output, leaf]) * 2.0**enclosure.exponent for a in (enclosure.low, enclosure.high))
            raise Refuted(
                f"{place}, leaf {first + leaf}: output {output} deviates by a value in [{low:.6g}, {high:.6g}] for all "
                f"this proof shows, which is not within epsilon = {float(self.epsilon):.6g}"
            )
        self.bound = max(self.bound, enclosure.largest)

    def _sharpened(self, x: Form, enclosure: _Enclosure, known: list[Bounds]) -> tuple[_Enclosure, list[Bounds]]:
        """Where forms do not prove the claim: bounds from the output backward as well, and what they rest on."""
        open_leaves = np.flatnonzero(~enclosure.within(self.epsilon).all(axis=0))
        if self.backward is None or not len(open_leaves) or not self._output_is_paired(np.arange(len(enclosure.low))):
            return enclosure, known
        some = Form(x.exponent, x.blocks, x.body[:, :, open_leaves], x.rem[:, open_leaves])
        known = [b.some(open_leaves) for b in known]
        low, high, exponent = Backward(self.backward, some, known).differences(self.ends[0])
        unit = min(exponent, enclosure.exponent)
        lows, highs = (a * power(enclosure.exponent - unit) for a in (enclosure.low, enclosure.high))
        lows[:, open_leaves] = np.maximum(lows[:, open_leaves], low * power(exponent - unit))
        highs[:, open_leaves] = np.minimum(highs[:, open_leaves], high * power(exponent - unit))
        return _Enclosure(lows, highs, unit), known

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
        left = np.full(x.rem.shape[1], float(self.symbols - (x.body.shape[1] - 1)))
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


def scaled_floor(value: Fraction, exponent: int) -> int:
    """The largest integer not above value / 2^exponent."""
    return (value.numerator << max(-exponent, 0)) // (value.denominator << max(exponent, 0))


def position(program: Program) -> int:
    """The output's place in the list of values."""
    return [program.input, *(step.name for step in program.steps)].index(program.output)


class InputGrid:
    """Boxes as forms of the input, in one unit for all leaves of a root box, each interval rounded outward."""

    def __init__(self, root: Box) -> None:
        reach = max(max(abs(low), abs(high)) for low, high in root)
        top = reach.numerator.bit_length() - reach.denominator.bit_length() + 1 if reach else 0
        self.exponent = top - (FORM_BITS - 2)
        self.known: dict[int, tuple[tuple[Fraction, Fraction], int, int]] = {}  # by identity, kept alive here

    def interval(self, pair: tuple[Fraction, Fraction]) -> tuple[int, int]:
        """Centre and radius, in units, of an interval that contains the given one."""
        if id(pair) not in self.known:
            low, high = scaled_floor(pair[0], self.exponent), -scaled_floor(-pair[1], self.exponent)
            centre = (low + high) // 2
            self.known[id(pair)] = pair, centre, max(high - centre, centre - low)
        return self.known[id(pair)][1:]

    def form(self, boxes: Sequence[Box]) -> Form:
        """The input on these boxes: one symbol per coordinate that is not constant on all of them."""
        numbers = np.array([[self.interval(pair) for pair in box] for box in boxes], dtype=np.float64)
        centre, radius = numbers[:, :, 0].T, numbers[:, :, 1].T  # (n, leaves)
        moving = np.flatnonzero(radius.any(axis=1))
        blocks = (*CENTRE, (1, len(moving)))
        check_memory(len(centre), len(boxes), blocks)
        body = np.zeros((len(centre), 1 + len(moving), len(boxes)))
        body[:, 0] = centre
        body[moving, 1 + np.arange(len(moving))] = radius[moving]
        return Form(self.exponent, blocks, body, np.zeros(centre.shape))
