"""The content of a deviation certificate as a record, and its text (SPEC.md, version 0)."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from verify.errors import CertificateError
from verify.spec.box import Box
from verify.spec.deviation import Leaf, Multiplier, Split, Tree, count_leaves, preorder

FORMAT, VERSION = "provable-pruning deviation certificate", 0
NOT_ESTABLISHED = {
    "real": (
        "anything about inputs outside the domain",
        "the rounding of a floating-point execution of either network: the claim is about real arithmetic",
        "the quality or correctness of the original network itself",
    ),
    "float32": (
        "anything about inputs outside the domain, or that are not float32 numbers",
        "executions with flush to zero, TF32, bfloat16, Winograd or FFT convolution, or by a runtime that changes the "
        "constants of the networks",
        "the quality or correctness of the original network itself",
    ),
}
ARITHMETIC = {
    "real": "in real arithmetic",
    "float32": "both executed in float32, sums in any order, with or without fused multiply-add",
}


@dataclass(frozen=True)
class NetworkIdentity:
    """Files (name, SHA-256) of a network, and the canonical digest of what they compute."""

    files: tuple[tuple[str, str], ...]
    digest: str


@dataclass(frozen=True)
class Correspondence:
    """The compact value keeps the positions `kept` along `axis` of the original's value (batch axis not counted)."""

    original: str
    compact: str
    axis: int
    kept: tuple[int, ...]


@dataclass(frozen=True)
class DeviationRecord:
    """Everything a deviation certificate states.

    Attributes:
        original, compact: identities of the networks.
        inputs, outputs: numbers of coordinates.
        boxes: the domain, a union of boxes. epsilon: the bound, exact.
        lift: correspondences of the values that shrank; None for the rule "separate".
        rule, parameters: name of the bound rule and its parameters.
        trees: one tree of splits and decisions per box.
        positions: name of a value of the original -> its number, 0 for the input; of all that trees decide.
        arithmetic: "real", or "float32" for float32 executions on float32 inputs.
        prover: who made it, free text, never trusted.
    """

    original: NetworkIdentity
    compact: NetworkIdentity
    inputs: int
    outputs: int
    boxes: tuple[Box, ...]
    epsilon: Fraction
    lift: tuple[Correspondence, ...] | None
    rule: str
    parameters: Mapping[str, int]
    trees: tuple[Tree, ...]
    arithmetic: str = "real"
    prover: Mapping[str, str] | None = None
    positions: Mapping[str, int] = field(default_factory=dict)

    @property
    def not_established(self) -> tuple[str, ...]:
        """Sentences."""
        return NOT_ESTABLISHED[self.arithmetic]

    def summary(self) -> str:
        """The claim in one sentence."""
        boxes = "the box" if len(self.boxes) == 1 else f"the {len(self.boxes)} boxes"
        return (
            f"For every input in {boxes} of the domain, no output of {self.compact.files[0][0]} differs from that of "
            f"{self.original.files[0][0]} by more than {show(self.epsilon)}, "
            f"{ARITHMETIC[self.arithmetic]}."
        )


def show(value: Fraction) -> str:
    """An exact number as text: a decimal where it has a short one, else ``MpE`` if it is dyadic, else ``p/q``."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    places = max(twos, fives)
    if rest == 1 and places > 20 and not fives:
        return dyadic(value)
    if rest != 1 or places > 120:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    whole, decimals = (digits[:-places], digits[-places:]) if places else (digits, "")
    return ("-" if value < 0 else "") + whole + ("." + decimals if decimals else "")


def dyadic(value: Fraction) -> str:
    """``MpE`` for the number M times 2 to the E, with M odd; 0 is ``0p0``.

    Raises:
        CertificateError: the number is not dyadic.
    """
    mantissa, exponent = value.numerator, 1 - value.denominator.bit_length()
    if value.denominator & (value.denominator - 1):
        raise CertificateError(f"split at {value}: only dyadic numbers M * 2^E can be written to a certificate")
    while mantissa and mantissa % 2 == 0:
        mantissa, exponent = mantissa // 2, exponent + 1
    return f"{mantissa}p{exponent if mantissa else 0}"


def tree_text(tree: Tree, positions: Mapping[str, int] | None = None) -> str:
    """A tree in preorder, its items set apart by blanks: see section 5 of SPEC.md.

    Raises:
        CertificateError: a decision about a value without a number.
    """
    return " ".join(_item(node, positions or {}) for node in preorder(tree))


def _item(node: Tree, positions: Mapping[str, int]) -> str:
    if isinstance(node, Leaf):
        return "." + ";".join(_multiplier(m) for m in node.multipliers)
    if isinstance(node, Split):
        return f"{node.dimension}:{dyadic(node.at)}"
    if node.value not in positions:
        raise CertificateError(f"a decision about value {node.value!r}, which the auditor's reading does not have")
    return f"{'y' if node.compact else 'z'}{positions[node.value]}/{node.element}"


def _multiplier(m: Multiplier) -> str:
    return f"{'-' if m.negative else '+'}{m.output}@{m.decision}={dyadic(m.value)}"


def encode(record: DeviationRecord) -> Iterator[str]:
    """The certificate's text up to the seal, in pieces, so that large trees are not held twice."""
    head = {
        "format": FORMAT,
        "version": VERSION,
        "claim": _claim(record),
        "lift": None if record.lift is None else [_correspondence(c) for c in record.lift],
        "rule": {"name": record.rule, "parameters": dict(record.parameters)},
        "not_established": list(record.not_established),
        "prover": dict(record.prover or {}),
    }
    text = json.dumps(head, indent=1, ensure_ascii=True, allow_nan=False)
    yield text[:-2] + ',\n "evidence": [\n'
    for i, tree in enumerate(record.trees):
        separator = ",\n" if i + 1 < len(record.trees) else "\n"
        yield f'  {{"leaves": {count_leaves(tree)}, "tree": "{tree_text(tree, record.positions)}"}}{separator}'
    yield " ],\n"


def sealed(pieces: Iterable[str]) -> Iterator[str]:
    """The text of a JSON object up to the comma behind its last entry, closed by the seal: the SHA-256 of that text.

    The seal shows accidental damage; whoever changes a certificate on purpose can seal it anew.
    """
    state = hashlib.sha256()
    for piece in pieces:
        state.update(piece.encode())
        yield piece
    yield f' "seal": "{state.hexdigest()}"\n}}\n'


def _claim(record: DeviationRecord) -> dict[str, Any]:
    return {
        "original": _identity(record.original),
        "compact": _identity(record.compact),
        "inputs": record.inputs,
        "outputs": record.outputs,
        "domain": [{"lower": _numbers(b.lower), "upper": _numbers(b.upper)} for b in record.boxes],
        "norm": "max",
        "epsilon": show(record.epsilon),
        "arithmetic": record.arithmetic,
    }


def _identity(network: NetworkIdentity) -> dict[str, Any]:
    return {"files": [{"name": n, "sha256": h} for n, h in network.files], "digest": network.digest}


def _numbers(values: Sequence[Fraction]) -> list[str]:
    return [show(v) for v in values]


def _correspondence(entry: Correspondence) -> dict[str, Any]:
    return {"original": entry.original, "compact": entry.compact, "axis": entry.axis, "kept": list(entry.kept)}


__all__ = [
    "Correspondence",
    "DeviationRecord",
    "NetworkIdentity",
    "Split",
    "dyadic",
    "encode",
    "sealed",
    "show",
    "tree_text",
]
