"""The state of a search in pieces, in a file: which pieces there are and what is known of each.

    {"version": 1, "question": sha256, "roots": n, "splits": {piece: cut}, "results": {piece: {...}}}

A piece is named by its root and its halves: "0", "0l", "0lh". A cut is [dimension, at], or [value, compact, element]
where a sign is decided. Floats are written in hexadecimal, exact numbers as fractions, trees in preorder. A checkpoint
is written atomically and belongs to one question: networks, channels, boxes and epsilon are in the hash. Not claimed:
protection against a forged file; a checkpoint is the prover's own memory, and only the auditor's verdict on a
certificate does not depend on it.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

from verify.errors import DataError
from verify.network.files import read_bytes, write_bytes
from verify.network.graph import Network
from verify.spec.box import Box
from verify.spec.deviation import Decision, Leaf, Multiplier, Sign, Split, Tree, preorder

LARGEST_FILE = 1 << 30
_EXACT = re.compile(r"-?[0-9]{1,2000}(/[0-9]{1,2000})?")
Witness = tuple[Fraction, ...]


@dataclass(frozen=True)
class PieceResult:
    """What a search on one piece established; every leaf of `tree` shows `upper` by `rule`."""

    upper: float
    lower: float
    witness: Witness | None
    output: int | None
    per_output_upper: tuple[float, ...]
    tree: Tree
    bounded: int
    rule: str
    symbols: int
    seconds: float


@dataclass
class Pieces:
    """Pieces of a domain: those with a split have two halves, the others may have a result.

    Attributes:
        question: hash of what is searched.
        boxes: the roots.
        splits: piece -> how it is cut.
        results: piece -> the best that is known of it, pieces that were cut later included.
    """

    question: str
    boxes: tuple[Box, ...]
    splits: dict[str, Split | Decision] = field(default_factory=dict)
    results: dict[str, PieceResult] = field(default_factory=dict)

    def leaves(self) -> list[str]:
        """Pieces that are not cut, in order."""
        found, pending = [], [str(i) for i in range(len(self.boxes))][::-1]
        while pending:
            piece = pending.pop()
            if piece in self.splits:
                pending += [piece + "h", piece + "l"]
            else:
                found.append(piece)
        return found

    def box(self, piece: str) -> Box:
        """The sub-box of a piece."""
        root = piece.rstrip("lh")
        box = self.boxes[int(root)]
        for end in range(len(root), len(piece)):
            cut = self.splits[piece[:end]]
            if isinstance(cut, Split):
                low, high = list(box.lower), list(box.upper)
                (high if piece[end] == "l" else low)[cut.dimension] = cut.at
                box = Box(tuple(low), tuple(high))
        return box

    def part(self, piece: str) -> tuple[Sign, ...]:
        """The signs that are decided in a piece."""
        root = len(piece.rstrip("lh"))
        cuts = ((self.splits[piece[:end]], piece[end] == "h") for end in range(root, len(piece)))
        return tuple(Sign(c.value, c.compact, c.element, high) for c, high in cuts if isinstance(c, Decision))

    def upper(self, piece: str) -> float:
        """The bound that a piece and its ancestors support."""
        root = len(piece.rstrip("lh"))
        own = (self.results.get(piece[:end]) for end in range(root, len(piece) + 1))
        return min((r.upper for r in own if r is not None), default=math.inf)


def question_hash(original: Network, compact: Network, boxes: Sequence[Box], *rest: object) -> str:
    """What a checkpoint is about."""
    state = hashlib.sha256(f"{original.digest()} {compact.digest()}".encode())
    for box in boxes:
        state.update(" ".join(map(str, (*box.lower, *box.upper))).encode() + b"\n")
    state.update(json.dumps([_canonical(part) for part in rest], sort_keys=True, default=str).encode())
    return state.hexdigest()


def _canonical(part: object) -> object:
    return {k: _canonical(v) for k, v in part.items()} if isinstance(part, Mapping) else part


def save(path: Path, pieces: Pieces) -> None:
    """Write the state in one step.

    Raises:
        InputError: the folder is missing or cannot be written.
    """
    content = {
        "version": 1,
        "question": pieces.question,
        "roots": len(pieces.boxes),
        "splits": {name: encoded_node(cut) for name, cut in pieces.splits.items()},
        "results": {name: _encoded(result) for name, result in pieces.results.items()},
    }
    write_bytes(path, json.dumps(content).encode())


def load(path: Path, question: str, boxes: Sequence[Box]) -> Pieces:
    """The state in a file.

    Raises:
        DataError: the file is no checkpoint, is damaged, or is about another question.
    """
    raw = read_bytes(path, "a checkpoint", LARGEST_FILE)
    try:
        content = json.loads(raw)
        if content["version"] != 1 or content["roots"] != len(boxes) or content["question"] != question:
            raise DataError(f"{path}: this checkpoint is about other networks, boxes, channels or another epsilon")
        splits = {str(n): _inner(cut, Leaf(), Leaf()) for n, cut in content["splits"].items()}
        results = {str(n): _decoded(r) for n, r in content["results"].items()}
        pieces = Pieces(question, tuple(boxes), splits, results)
        _check(pieces)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, ZeroDivisionError) as error:
        raise DataError(f"{path}: not a checkpoint of a search: {error}") from error
    return pieces


def _check(pieces: Pieces) -> None:
    """Raise ValueError unless all names are pieces, cuts lie inside them, and witnesses too."""
    for name in sorted(pieces.splits, key=len):
        _check_tree(pieces.splits[name], pieces.box(name), pieces.part(name))
    unknown = {*pieces.results, *pieces.splits} - {*pieces.leaves(), *pieces.splits}
    if unknown:
        raise ValueError(f"unknown pieces {sorted(unknown)[:4]}")
    for name, result in pieces.results.items():
        box = pieces.box(name)
        if any(map(math.isnan, (result.upper, result.lower, *result.per_output_upper))):
            raise ValueError("a bound is NaN")
        if result.witness is not None and not box.contains(result.witness):
            raise ValueError("a witness lies outside its piece")
        _check_tree(result.tree, box, pieces.part(name))


def _check_tree(tree: Tree, box: Box, part: Sequence[Sign]) -> None:
    """Raise ValueError unless every split lies strictly inside its sub-box, and none under a decision."""
    pending = [(tree, dict[int, tuple[Fraction, Fraction]]())]  # intervals that differ from the box's
    while pending:
        node, changed = pending.pop()
        if isinstance(node, Leaf):
            continue
        if part or isinstance(node, Decision):
            if any(isinstance(n, Split) for n in preorder(node)):
                raise ValueError("a cut under a decision")
            continue
        if not 0 <= node.dimension < box.dimension:
            raise ValueError(f"a cut along input {node.dimension}")
        low, high = changed.get(node.dimension, (box.lower[node.dimension], box.upper[node.dimension]))
        if not low < node.at < high:
            raise ValueError(f"a cut at {node.at} outside its sub-box")
        pending.append((node.low, {**changed, node.dimension: (low, node.at)}))
        pending.append((node.high, {**changed, node.dimension: (node.at, high)}))


def _encoded(result: PieceResult) -> dict[str, Any]:
    return {
        "upper": result.upper.hex(),
        "lower": result.lower.hex(),
        "witness": None if result.witness is None else [str(v) for v in result.witness],
        "output": result.output,
        "per_output_upper": [v.hex() for v in result.per_output_upper],
        "tree": [encoded_node(node) for node in preorder(result.tree)],
        "bounded": result.bounded,
        "rule": result.rule,
        "symbols": result.symbols,
        "seconds": result.seconds,
    }


def encoded_node(node: Tree) -> list[Any] | dict[str, Any] | None:
    """A node of a tree without its halves, for JSON."""
    if isinstance(node, Split):
        return [node.dimension, str(node.at)]
    if isinstance(node, Decision):
        return [node.value, node.compact, node.element]
    if not node.multipliers:
        return None
    return {"multipliers": [[m.output, m.negative, m.decision, str(m.value)] for m in node.multipliers]}


def _decoded(entry: Mapping[str, Any]) -> PieceResult:
    if set(entry) != {f.name for f in fields(PieceResult)}:
        raise ValueError(f"a result has the keys {sorted(entry)}")
    witness, output = entry["witness"], entry["output"]
    return PieceResult(
        float.fromhex(entry["upper"]),
        float.fromhex(entry["lower"]),
        None if witness is None else tuple(_fraction(v) for v in witness),
        None if output is None else int(output),
        tuple(float.fromhex(v) for v in entry["per_output_upper"]),
        tree_of(entry["tree"]),
        int(entry["bounded"]),
        str(entry["rule"]),
        int(entry["symbols"]),
        float(entry["seconds"]),
    )


def tree_of(nodes: Sequence[Any]) -> Tree:
    """The tree of a preorder list, without recursion; raises ValueError if the list is none."""
    done: list[Tree] = []
    for node in reversed(nodes):  # halves come before the whole
        if node is None:
            done.append(Leaf())
        elif isinstance(node, Mapping):
            done.append(Leaf(tuple(_multiplier(*entry) for entry in node["multipliers"])))
        else:
            done.append(_inner(node, done.pop(), done.pop()))
    if len(done) != 1:
        raise ValueError("a tree is incomplete")
    return done[0]


def _fraction(text: str) -> Fraction:
    """An exact number as `str` writes it; exponents, which could be endless to expand, are none."""
    if not _EXACT.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not an exact number")
    return Fraction(text)


def _multiplier(output: int, negative: bool, decision: int, value: str) -> Multiplier:
    return Multiplier(int(output), bool(negative), int(decision), _fraction(value))


def _inner(node: Sequence[Any], low: Tree, high: Tree) -> Split | Decision:
    if len(node) == 2:
        return Split(int(node[0]), _fraction(node[1]), low, high)
    name, compact, element = node
    return Decision(str(name), bool(compact), int(element), low, high)
