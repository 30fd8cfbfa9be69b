"""The record of a certificate is read as SPEC.md says: every value, every limit on both sides, no other form."""

import copy
import hashlib
import json
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest

from verify.audit import certificate
from verify.audit.certificate import (
    Certificate,
    Claim,
    Decision,
    Multiplier,
    NetworkClaim,
    Part,
    read_certificate,
    walk,
)
from verify.audit.lift import Correspondence
from verify.audit.program import Malformed, Unsupported

A, B, C, D, E = ("0123456789abcdef" * 4, *(letter * 64 for letter in "abcd"))
RECORD: dict[str, Any] = {
    "format": "provable-pruning deviation certificate",
    "version": 0,
    "claim": {
        "original": {"files": [{"name": "f.onnx", "sha256": A}], "digest": B},
        "compact": {"files": [{"name": "g.json", "sha256": C}, {"name": "g.bin", "sha256": D}], "digest": E},
        "inputs": 2, "outputs": 3, "norm": "max", "epsilon": "1/3", "arithmetic": "real",
        "domain": [{"lower": ["0", "-1e1"], "upper": ["1p-2", "2.5"]}, {"lower": ["7", "8"], "upper": ["7", "9"]}],
    },
    "lift": [{"original": "h", "compact": "k", "axis": 1, "kept": [4, 0]}],
    "rule": {"name": "pair_zonotope", "parameters": {"symbols": 40}},
    "evidence": [{"leaves": 2, "tree": "0:1p-3 . ."}, {"leaves": 1, "tree": "."}],
    "not_established": ["this", "that"],
    "prover": {"name": "someone"},
}  # fmt: skip


def sealed(record: dict[str, Any]) -> bytes:
    text = json.dumps(record)[:-1] + ",\n"
    return f'{text} "seal": "{hashlib.sha256(text.encode()).hexdigest()}"\n}}\n'.encode()


def record(*changes: tuple[str, Any]) -> dict[str, Any]:
    """RECORD with other values at these places, such as claim/domain/0/lower."""
    found = copy.deepcopy(RECORD)
    for place, value in changes:
        *path, last = (int(key) if key.isdigit() else key for key in place.split("/"))
        holder: Any = found
        for key in path:
            holder = holder[key]
        holder[last] = value
    return found


def read(*changes: tuple[str, Any]) -> Certificate:
    return read_certificate(sealed(record(*changes)))


def test_every_value_is_read() -> None:
    original = NetworkClaim((("f.onnx", A),), B)
    compact = NetworkClaim((("g.json", C), ("g.bin", D)), E)
    boxes = (
        ((Fraction(0), Fraction(1, 4)), (Fraction(-10), Fraction(5, 2))),
        ((Fraction(7), Fraction(7)), (Fraction(8), Fraction(9))),
    )
    claim = Claim(original, compact, 2, 3, boxes, Fraction(1, 3), "1/3", False)
    lift = (Correspondence("h", "k", 1, (4, 0)),)
    assert read() == Certificate(claim, lift, "pair_zonotope", 40, ("0:1p-3 . .", "."), (2, 1))
    assert read(("claim/arithmetic", "float32")).claim.float32
    assert read(("claim/epsilon", "0")).claim.epsilon == 0
    assert read(("lift", None), ("rule/name", "separate")).lift == ()
    assert read(("lift", None), ("rule/name", "pair_backward")).rule == "pair_backward"
    one = read(
        ("claim/inputs", 1), ("claim/domain", [{"lower": ["3"], "upper": ["3"]}]), ("evidence", RECORD["evidence"][1:])
    )
    assert (one.claim.inputs, one.claim.boxes) == (1, (((Fraction(3), Fraction(3)),),))


class Long(list):  # type: ignore[type-arg]
    """A list that says it has so many items."""

    said: int

    def __len__(self) -> int:
        return self.said


class LongText(str):
    """A text that says it has so many characters."""

    said: int

    def __len__(self) -> int:
        return self.said


def long(value: Any, said: int) -> Any:
    found = Long(value) if isinstance(value, list) else LongText(value)
    found.said = said
    return found


@pytest.mark.parametrize(
    ("place", "low", "high"),
    [
        ("claim/outputs", 1, 2**20), ("rule/parameters/symbols", 0, 2**31), ("evidence/0/leaves", 1, 2**40),
        ("lift/0/axis", 0, 16), ("lift/0/kept/0", 0, 2**31),
    ],
)  # fmt: skip
def test_whole_numbers_have_their_limits(place: str, low: int, high: int) -> None:
    for value in (low, high):
        read((place, value))
    for value in (low - 1, high + 1, str(low), True, None):
        with pytest.raises(Malformed):
            read((place, value))


@pytest.mark.parametrize(
    ("place", "limit"),
    [
        ("lift", 2**20), ("not_established", 100), ("claim/original/files", 2), ("evidence/0/tree", 2**30),
        ("claim/original/files/0/name", 4096), ("not_established/0", 4096), ("prover/name", 4096),
        ("lift/0/original", 4096), ("lift/0/compact", 4096),
    ],
)  # fmt: skip
def test_lists_and_texts_have_their_limits(monkeypatch: pytest.MonkeyPatch, place: str, limit: int) -> None:
    value: Any = RECORD
    for key in place.split("/"):
        value = value[int(key) if key.isdigit() else key]

    def reading(said: int) -> Certificate:
        data = {**record((place, long(value, said))), "seal": ""}
        monkeypatch.setattr(certificate, "read_json", lambda _: data)
        return read_certificate(sealed(RECORD))

    assert reading(limit) == read()
    with pytest.raises(Malformed):
        reading(limit + 1)


def test_the_prover_has_at_most_100_texts() -> None:
    assert read(("prover", {str(i): "" for i in range(100)})) == read(("prover", {})) == read()
    with pytest.raises(Malformed):
        read(("prover", {str(i): "" for i in range(101)}))


NAMES = [f"{place}{key}" for place, keys in {
    "": "claim lift rule evidence not_established prover", "rule/": "name parameters", "rule/parameters/": "symbols",
    "claim/": "original compact inputs outputs domain norm epsilon arithmetic", "claim/original/": "files digest",
    "claim/original/files/0/": "name sha256", "claim/domain/0/": "lower upper", "evidence/1/": "leaves tree",
    "lift/0/": "original compact axis kept",
}.items() for key in keys.split()]  # fmt: skip


@pytest.mark.parametrize("place", NAMES)
def test_keys_are_those_of_the_specification(place: str) -> None:
    *path, last = place.split("/")
    for change in ("left out", "renamed", "one more"):
        data = record()
        holder: Any = data
        for key in path:
            holder = holder[int(key) if key.isdigit() else key]
        value = holder[last]
        if change != "one more":
            del holder[last]
        if change != "left out":
            holder[last + "_"] = value
        with pytest.raises(Malformed):
            read_certificate(sealed(data))


@pytest.mark.parametrize(
    "changes",
    [
        [("format", "provable-pruning structure")], [("not_established", "this")], [("not_established/0", 1)],
        [("prover", [])], [("prover", ["name"])], [("prover/name", 1)], [("rule/name", "separate")],
        [("rule/name", "separate"), ("lift", [])], [("claim/inputs", 3)], [("claim/inputs", "2")],
        [("claim/domain", []), ("evidence", [])], [("evidence", RECORD["evidence"][:1])],
        [("evidence", RECORD["evidence"] * 2)], [("claim/epsilon", "-1/2")], [("claim/epsilon", "-1e-400")],
        [("claim/epsilon", 1)], [("claim/original/files", [])], [("claim/original/digest", B[:-1])],
        [("claim/original/digest", B.upper())], [("claim/original/digest", B + "a")],
        [("claim/compact/files/1/sha256", "g" * 64)], [("claim/domain/0/lower", ["0"])],
        [("claim/domain/0/upper", ["1"])], [("claim/domain/0/lower", ["0"]), ("claim/domain/0/upper", ["1"])],
        [("claim/domain/0/lower", ["0"] * 3)], [("claim/domain/1/upper", ["7", f"{2**53 * 8 - 1}/{2**53}"])],
        [("claim/inputs", 0), ("claim/domain", [{"lower": [], "upper": []}] * 2)],
    ],
)  # fmt: skip
def test_other_records_are_malformed(changes: list[tuple[str, Any]]) -> None:
    with pytest.raises(Malformed):
        read(*changes)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("version", 1), ("version", -1), ("version", False), ("version", "0"), ("rule/name", "zonotope"),
        ("rule/name", None), ("claim/norm", "sum"), ("claim/arithmetic", "float64"),
    ],
)  # fmt: skip
def test_what_another_version_may_mean_is_unsupported(place: str, value: Any) -> None:
    with pytest.raises(Unsupported):
        read((place, value))


def test_the_seal_is_the_end_of_the_file_and_its_hash() -> None:
    data = sealed(RECORD)
    for changed in (
        data[:-1], data + b"\n", data[:-3] + b"}\n", data.replace(b'"max"', b'"max" '), data.upper(), b"",
        data.replace(b' "seal": "', b' "seal":"'), data[:-20] + bytes([data[-20] ^ 1]) + data[-19:],
    ):  # fmt: skip
        with pytest.raises(Malformed):
            read_certificate(changed)


# trees

UNIT = ((Fraction(0), Fraction(1)), (Fraction(-2), Fraction(3)), (Fraction(-1), Fraction(0)))


def boxes(parts: Iterator[Part]) -> list[list[list[Fraction]]]:
    return [[list(pair) for pair in part.box] for part in parts]


def test_leaves_are_the_halves_in_preorder() -> None:
    u, v, w = map(list, UNIT)
    half = Fraction(1, 2)
    assert boxes(walk("0:1p-1 1:0p0 . 2:-1p-1 . . 1:3p-1 . .", UNIT)) == [
        [[0, half], [-2, 0], w], [[0, half], [0, 3], [-1, -half]], [[0, half], [0, 3], [-half, 0]],
        [[half, 1], [-2, 3 * half], w], [[half, 1], [3 * half, 3], w],
    ]  # fmt: skip
    assert boxes(walk(".", UNIT)) == [[u, v, w]]
    assert boxes(walk("1:1p1 . .", UNIT)) == [[u, [-2, 2], w], [u, [2, 3], w]]


@pytest.mark.parametrize(
    "tree",
    [
        "", ". .", "0:1p-1 .", "0:1p-1 . . .", "0:1p-1  . .", " .", "..", "x", "0:2p-2 . .", "0:0p1 . .", "0:0p-1 . .",
        "0:1p0 . .", "2:0p0 . .", "1:1p2 . .", "1:-1p1 . .", "3:1p-1 . .", "4:1p-1 . .", "-1:1p-1 . .", "00:1p-1 . .",
        "0:01p-1 . .", "0:1p-01 . .", "0:+1p-1 . .", "1:1p+1 . .", "0:1p-1", "z1/0 0:1p-1 . . .", "z1/0 .", "z0/0 . .",
        "y0/0 . .", "x1/0 . .", "z1/00 . .", "z01/0 . .", "z1/-1 . .", "z1 . .", "z1/0 .+0@0=1p0;+0@0=2p0 .",
        "z1/0 .+0@1=1p0 .", ".+0@0=1p0", "z1/0 .+0@0=0p0 .", "z1/0 .+0@0=1p0; .", "z1/0 .+0@0=-1p0 .",
        "z1/0 .0@0=1p0 .", "z1/0 .+0@0=1 .", "z1/0 .+0@0=100000000000p0 .",
    ],
)  # fmt: skip
def test_other_trees_are_malformed(tree: str) -> None:
    with pytest.raises(Malformed):
        list(walk(tree, UNIT))


def test_decisions_and_multipliers_are_read() -> None:
    first, second, third = walk("z2/3 . y41/0 . .+1@0=3p-4;-0@1=5p9;+1@1=1p0", UNIT)
    low, high = Decision(False, 2, 3, False), Decision(False, 2, 3, True)
    assert first == Part(UNIT, (low,))
    assert second == Part(UNIT, (high, Decision(True, 41, 0, False)))
    multipliers = Multiplier(False, 1, 0, 3, -4), Multiplier(True, 0, 1, 5, 9), Multiplier(False, 1, 1, 1, 0)
    assert third == Part(UNIT, (high, Decision(True, 41, 0, True)), multipliers)


@pytest.mark.parametrize(("item", "limit"), [("0:1p-{}", "MAX_DEPTH"), ("z1/{}", "MAX_DECISIONS")])
def test_trees_are_as_deep_as_stated_and_no_deeper(monkeypatch: pytest.MonkeyPatch, item: str, limit: str) -> None:
    monkeypatch.setattr(certificate, limit, 3)
    chains = [" ".join(item.format(i) for i in range(1, n + 1)) + " ." * (n + 1) for n in (3, 4)]
    assert len(list(walk(chains[0], UNIT))) == 4
    with pytest.raises(Malformed):
        list(walk(chains[1], UNIT))
