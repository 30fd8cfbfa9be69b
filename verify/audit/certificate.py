"""The certificate as a record: a strict reading of the JSON described in verify/certificate/SPEC.md, version 0."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from verify.audit.files import array, fields, number, read_json, sha256, text, whole
from verify.audit.lift import Correspondence
from verify.audit.program import require, supported

FORMAT = "provable-pruning deviation certificate"
MAX_DEPTH = 10_000
MAX_INPUTS = 2**20
_SEAL = re.compile(rb' "seal": "([0-9a-f]{64})"\n}\n\Z')
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
MAX_DECISIONS = 256
_SPLIT = re.compile(r"(0|[1-9]\d{0,6}):(-?[1-9]\d{0,40}|0)p(-?[1-9]\d{0,3}|0)", re.ASCII)

_DECISION = re.compile(r"([zy])([1-9]\d{0,5})/(0|[1-9]\d{0,8})", re.ASCII)
_MULTIPLIER = re.compile(r"([+-])(0|[1-9]\d{0,6})@(0|[1-9]\d{0,2})=([1-9]\d{0,10})p(-?[1-9]\d{0,3}|0)", re.ASCII)

Box = tuple[tuple[Fraction, Fraction], ...]


@dataclass(frozen=True)
class Decision:
    """The sign of one element of a value: at most 0, or at least 0 where `positive`.

    Attributes:
        compact: whether the value is the compact network's. position: number of the value, 0 is the input.
    """

    compact: bool
    position: int
    element: int
    positive: bool


@dataclass(frozen=True)
class Multiplier:
    """mantissa 2^exponent times a decided value, in the bound of an output (of compact - original where `negative`)."""

    negative: bool
    output: int
    decision: int
    mantissa: int
    exponent: int


@dataclass(frozen=True)
class Part:
    """A leaf: the inputs of a box for which all decisions hold."""

    box: Box
    decisions: tuple[Decision, ...] = ()
    multipliers: tuple[Multiplier, ...] = ()


@dataclass(frozen=True)
class NetworkClaim:
    """The identity of a network: file names and hashes, and the canonical digest of what they compute."""

    files: tuple[tuple[str, str], ...]
    digest: str


@dataclass(frozen=True)
class Claim:
    """For every x in the boxes and every output: |original(x) - compact(x)| <= epsilon.

    `float32`: for float32 inputs x and executions in float32; otherwise in real arithmetic.
    """

    original: NetworkClaim
    compact: NetworkClaim
    inputs: int
    outputs: int
    boxes: tuple[Box, ...]
    epsilon: Fraction
    epsilon_text: str
    float32: bool


@dataclass(frozen=True)
class Certificate:
    """A claim and the evidence for it."""

    claim: Claim
    lift: tuple[Correspondence, ...]
    rule: str
    symbols: int
    trees: tuple[str, ...]
    leaves: tuple[int, ...]


def read_certificate(data: bytes) -> Certificate:
    """Parse a certificate.

    Raises:
        Malformed: it breaks the rules of the format. Unsupported: another version, or a rule that is not known.
    """
    seal = _SEAL.search(data[-90:])
    require(seal is not None, "not a certificate, or cut short: it does not end with its seal")
    end = len(data) - len(seal.group())  # type: ignore[union-attr]
    require(sha256(data[:end]).encode() == seal.group(1), "the seal does not match: the file was changed")  # type: ignore[union-attr]
    top = read_json(data)
    require(isinstance(top, dict) and top.get("format") == FORMAT, f"not a {FORMAT}")
    supported(top.get("version") == 0 and not isinstance(top.get("version"), bool), f"version {top.get('version')}")
    names = "format version claim lift rule evidence not_established prover seal"
    _, _, claim, lift, rule, evidence, limits, prover, _ = fields(top, names, "the certificate")
    for i, sentence in enumerate(array(limits, "not_established", 100)):
        text(sentence, f"not_established[{i}]")
    require(isinstance(prover, dict) and len(prover) <= 100, "prover is not an object of at most 100 entries")
    for key, value in prover.items():
        text(value, f"prover.{key[:40]}")
    rule_name, parameters = fields(rule, "name parameters", "rule")
    supported(rule_name in ("pair_zonotope", "pair_backward", "separate"), f"rule {str(rule_name)[:40]!r}")
    (symbols,) = fields(parameters, "symbols", "rule.parameters")
    read = _claim(claim)
    require(rule_name != "separate" or lift is None, "the rule 'separate' takes no lift")
    trees, leaves = _evidence(evidence)
    require(len(trees) == len(read.boxes), f"{len(trees)} trees for {len(read.boxes)} boxes")
    return Certificate(read, _lift(lift), rule_name, whole(symbols, "rule.parameters.symbols", 0, 2**31), trees, leaves)


def _claim(value: Any) -> Claim:
    names = "original compact inputs outputs domain norm epsilon arithmetic"
    original, compact, inputs, outputs, domain, norm, epsilon, arithmetic = fields(value, names, "claim")
    supported(norm == "max", f"norm {str(norm)[:40]!r}")
    supported(arithmetic in ("real", "float32"), f"arithmetic {str(arithmetic)[:40]!r}")
    count = whole(inputs, "claim.inputs", 1, MAX_INPUTS)
    boxes = tuple(_box(b, count, f"claim.domain[{i}]") for i, b in enumerate(array(domain, "claim.domain")))
    require(len(boxes) >= 1, "the domain has no box")
    bound = number(epsilon, "claim.epsilon")
    require(bound >= 0, "epsilon is negative")
    networks = _network(original, "claim.original"), _network(compact, "claim.compact")
    outputs = whole(outputs, "claim.outputs", 1, MAX_INPUTS)
    return Claim(*networks, count, outputs, boxes, bound, epsilon, arithmetic == "float32")


def _network(value: Any, place: str) -> NetworkClaim:
    files, digest = fields(value, "files digest", place)
    entries = []
    for i, entry in enumerate(array(files, f"{place}.files", 2)):
        name, digest_of_file = fields(entry, "name sha256", f"{place}.files[{i}]")
        entries.append((text(name, f"{place}.files[{i}].name"), _hash(digest_of_file, f"{place}.files[{i}].sha256")))
    require(len(entries) >= 1, f"{place}.files is empty")
    return NetworkClaim(tuple(entries), _hash(digest, f"{place}.digest"))


def _hash(value: Any, place: str) -> str:
    require(_HASH.fullmatch(text(value, place)) is not None, f"{place} is not a SHA-256 in lower-case hexadecimal")
    return str(value)


def _box(value: Any, count: int, place: str) -> tuple[tuple[Fraction, Fraction], ...]:
    lower, upper = (array(v, place, MAX_INPUTS) for v in fields(value, "lower upper", place))
    require(len(lower) == len(upper) == count, f"{place} does not have {count} lower and upper bounds")
    pairs = [(number(a, place), number(b, place)) for a, b in zip(lower, upper, strict=True)]
    for i, (a, b) in enumerate(pairs):
        require(a <= b, f"{place} is empty: coordinate {i}")
    return tuple(pairs)


def _lift(value: Any) -> tuple[Correspondence, ...]:
    entries = []
    for i, entry in enumerate(array(value if value is not None else [], "lift", 2**20)):
        original, compact, axis, kept = fields(entry, "original compact axis kept", f"lift[{i}]")
        positions = tuple(whole(k, f"lift[{i}].kept", 0, 2**31) for k in array(kept, f"lift[{i}].kept"))
        names = text(original, f"lift[{i}].original"), text(compact, f"lift[{i}].compact")
        entries.append(Correspondence(*names, whole(axis, f"lift[{i}].axis", 0, 16), positions))
    return tuple(entries)


def _evidence(value: Any) -> tuple[tuple[str, ...], tuple[int, ...]]:
    trees, leaves = [], []
    for i, entry in enumerate(array(value, "evidence")):
        count, tree = fields(entry, "leaves tree", f"evidence[{i}]")
        trees.append(text(tree, f"evidence[{i}].tree", 2**30))
        leaves.append(whole(count, f"evidence[{i}].leaves", 1, 2**40))
    return tuple(trees), tuple(leaves)


def walk(tree: str, box: Box) -> Iterator[Part]:
    """The leaves of a tree in preorder.

    A tree is a sequence of items set apart by one blank. `.` is a leaf. `DpE...` a split, written dimension:MpE, at
    M 2^E strictly inside the box it cuts (M odd, or 0p0), followed by its low and its high half, both closed. `zN/I` or
    `yN/I` decides the sign of element I of value N of the original or the compact network, and is followed by the part
    where it is at most 0 and the part where it is at least 0. So the leaves together cover `box`. Under a decision
    there is no split, and a leaf may have multipliers.

    Raises:
        Malformed: another item, a split outside its box, or too few or too many items.
    """
    pending = [Part(box)]
    for item in tree.split(" "):
        require(bool(pending), "a tree goes on behind its end")
        here = pending.pop()
        if item.startswith("."):
            yield here if item == "." else replace(here, multipliers=_multipliers(item[1:], len(here.decisions)))
            continue
        require(len(pending) < MAX_DEPTH, f"a tree is deeper than {MAX_DEPTH}")
        if item[:1] in ("z", "y"):
            pending += reversed(_decided(item, here))
        else:
            require(not here.decisions, f"tree item {item[:60]!r} under a decision")
            low, high = _halves(item, here.box)
            pending += [Part(high), Part(low)]
    require(not pending, "a tree ends too early: part of the domain is not covered")


def _halves(item: str, box: Box) -> tuple[Box, Box]:
    """The low and the high half of a box."""
    split = _SPLIT.fullmatch(item)
    require(split is not None, f"tree item {item[:60]!r}")
    dimension, mantissa, exponent = (int(g) for g in split.groups())  # type: ignore[union-attr]
    require(mantissa % 2 == 1 or (mantissa, exponent) == (0, 0), f"tree item {item!r} is not in lowest terms")
    require(dimension < len(box), f"tree item {item!r}: there are {len(box)} coordinates")
    at, (low, high) = mantissa * Fraction(2) ** exponent, box[dimension]
    require(low < at < high, f"tree item {item!r} does not cut its box strictly inside")
    before, after = box[:dimension], box[dimension + 1 :]
    return (*before, (low, at), *after), (*before, (at, high), *after)


def _decided(item: str, here: Part) -> list[Part]:
    """The parts where a value is at most 0 and where it is at least 0."""
    decision = _DECISION.fullmatch(item)
    require(decision is not None, f"tree item {item[:60]!r}")
    network, position, element = decision.groups()  # type: ignore[union-attr]
    require(len(here.decisions) < MAX_DECISIONS, f"more than {MAX_DECISIONS} decisions above a leaf")
    return [
        Part(here.box, (*here.decisions, Decision(network == "y", int(position), int(element), positive)))
        for positive in (False, True)
    ]


def _multipliers(text: str, decisions: int) -> tuple[Multiplier, ...]:
    """The multipliers of a leaf under some decisions."""
    found = []
    for entry in text.split(";"):
        match = _MULTIPLIER.fullmatch(entry)
        require(match is not None, f"multiplier {entry[:60]!r}")
        sign, *numbers = match.groups()  # type: ignore[union-attr]
        one = Multiplier(sign == "-", *(int(n) for n in numbers))
        require(one.decision < decisions, f"multiplier {entry!r}: there are {decisions} decisions above the leaf")
        found.append(one)
    require(len({(m.negative, m.output, m.decision) for m in found}) == len(found), "a multiplier is given twice")
    return tuple(found)
