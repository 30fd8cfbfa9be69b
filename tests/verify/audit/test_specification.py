"""What SPEC.md states in words holds in the auditor: limits, operators, the bytes of the digest."""

import hashlib
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from verify.audit import certificate, check, files, onnx_file, onnx_operators, program, structure_file
from verify.network.graph import build
from verify.network.write_onnx import write_onnx

SPEC = (Path(__file__).parents[3] / "verify" / "certificate" / "SPEC.md").read_text(encoding="utf-8")


def stated(pattern: str) -> int:
    """The one number at this place of SPEC.md."""
    (found,) = re.findall(pattern, " ".join(SPEC.split()))
    return int(eval(found.replace(",", "").replace("^", "**")))


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        (r"at most (2\^\d+) bytes", check.MAX_CERTIFICATE),
        (r"nested at most (\d+) deep", files.MAX_DEPTH),
        (r"string of at most (\d+) characters", files.MAX_DIGITS),
        (r"At most ([\d,]+) splits lie above a leaf", certificate.MAX_DEPTH),
        (r"and at most (\d+) decisions", certificate.MAX_DECISIONS),
        (r"`outputs` \| 1 to (2\^\d+)", certificate.MAX_INPUTS),
        (r"tensors of more than (2\^\d+) elements", program.LARGEST_TENSOR),
        (r"JSON header \((2\^\d+) or less\)", structure_file.MAX_HEADER),
        (r"opsets (\d+) to \d+", onnx_file.OPSETS[0]),
        (r"opsets \d+ to (\d+)", onnx_file.OPSETS[-1]),
    ],
)
def test_the_limits_are_those_of_the_specification(pattern: str, value: int) -> None:
    assert stated(pattern) == value


def words(first: str, last: str, column: int) -> set[str]:
    """The words in one column of the table between two headings of SPEC.md."""
    rows = [line for line in SPEC[SPEC.index(first) : SPEC.index(last)].splitlines() if line.startswith("|")]
    return set(re.findall(r"\w+", re.sub(r"\(.*?\)", "", " ".join(row.split("|")[column] for row in rows[2:]))))


def test_the_specification_names_every_operator() -> None:
    named = words("### 3.1", "### 3.2", 2)
    assert set(onnx_operators.OPERATORS) <= named
    assert not {w for w in named if w[0].isupper()} - set(onnx_operators.OPERATORS)
    assert words("### 3.2", "### 3.3", 1) == set(structure_file._REWRITES)


def test_the_digest_is_the_one_of_the_specification(tmp_path: Path) -> None:
    """Written down here once more from section 3.3, for relu(x / 2 + 1 / 4)."""
    steps = [("h", "linear", ("x",), {"weight": "w", "bias": "b"}, {}), ("y", "relu", ("h",), {}, {})]
    parameters = {"w": np.array([[0.5]], np.float32), "b": np.array([0.25], np.float32)}
    write_onnx(build("x", (1,), steps, "y", parameters), tmp_path / "net.onnx")
    found = check.read_network([(tmp_path / "net.onnx").read_bytes()])

    def numbers(mantissa: float, exponent: int) -> list[bytes]:
        return [struct.pack("<d", mantissa), struct.pack("<q", exponent), struct.pack("<d", 0.0)]

    records = [
        json.dumps(["x", [1, 1], True, "y"]).encode(),
        json.dumps(["h", "affine", ["x"], [1, 1], []]).encode(), struct.pack("<q", 0), b"",
        *numbers(2.0**52, -53), *numbers(2.0**52, -54),
        json.dumps(["y", "relu", ["h"], [1, 1], []]).encode(), *[b""] * 8,
    ]  # fmt: skip
    text = b"".join(len(record).to_bytes(8, "little") + record for record in records)
    assert found.digest == hashlib.sha256(b"provable-pruning program 0\n" + text).hexdigest()
