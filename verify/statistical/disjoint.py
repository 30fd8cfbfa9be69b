"""Proof by hash that test rows were not calibration rows.

A row is known by SHA-256 over its shape and its bytes as little-endian float32, with -0 read as +0:

    sha256( b"row " + b"3x32x32" + b"\\n" + bytes )

Rows that agree after rounding to float32 have equal hashes, so the check errs on the side of refusing.
Not claimed: that near-duplicates (the same picture, shifted or scaled otherwise) are found.
"""

import hashlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from verify.audit.files import read_json
from verify.audit.program import Malformed
from verify.errors import DataError, ModelError
from verify.network.files import read_bytes
from verify.network.graph import Array

SHOWN = 8
LARGEST_FILE = 1 << 28


def row_hashes(rows: Array) -> list[str]:
    """SHA-256 of every row of ``(n, *shape)``, in hexadecimal.

    Raises:
        DataError: the array has no row axis.
    """
    array = np.asarray(rows)
    if array.ndim == 0:
        raise DataError("row hashes need an array with a row axis, got a single number")
    header = b"row " + "x".join(map(str, array.shape[1:])).encode() + b"\n"
    return [hashlib.sha256(header + _row_bytes(row)).hexdigest() for row in array]


def _row_bytes(row: Array) -> bytes:
    return (np.ascontiguousarray(row, dtype="<f4") + np.float32(0.0)).astype("<f4", copy=False).tobytes()


@dataclass(frozen=True)
class Disjointness:
    """What the hashes of test rows show.

    Attributes:
        rows: number of test rows.
        duplicates: test rows that repeat an earlier test row (positions).
        calibration_rows: number of distinct calibration rows compared with.
        digest: SHA-256 over the sorted hashes of the test rows.
    """

    rows: int
    duplicates: tuple[int, ...]
    calibration_rows: int
    digest: str


def check_disjoint(test: list[str], calibration: Collection[str]) -> Disjointness:
    """Compare the hashes of test rows with those of calibration rows.

    Raises:
        DataError: a test row is a calibration row; names the rows.
    """
    known = frozenset(calibration)
    shared = [i for i, name in enumerate(test) if name in known]
    if shared:
        places = ", ".join(map(str, shared[:SHOWN])) + (", ..." if len(shared) > SHOWN else "")
        raise DataError(
            f"{len(shared)} of {len(test)} test rows were used for calibration (rows {places}); "
            "a statistical guarantee needs inputs that no earlier step has seen: remove these rows"
        )
    return Disjointness(len(test), _repeats(test), len(known), _digest(test))


def _repeats(names: list[str]) -> tuple[int, ...]:
    seen: Counter[str] = Counter()
    repeats = []
    for i, name in enumerate(names):
        if seen[name]:
            repeats.append(i)
        seen[name] += 1
    return tuple(repeats)


def _digest(names: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def read_calibration_rows(path: Path) -> frozenset[str]:
    """Hashes from a ``calibration_rows.json`` file: ``{"version": 1, "rows": [...]}``.

    Raises:
        DataError: the file is missing or is not such a record.
    """
    try:
        record = read_json(read_bytes(Path(path), "calibration rows", LARGEST_FILE))
    except (ModelError, Malformed) as error:
        raise DataError(f"cannot read calibration rows from {path}: {error}") from None
    rows = record.get("rows") if isinstance(record, dict) and record.get("version") == 1 else None
    if not isinstance(rows, list) or not all(isinstance(r, str) and len(r) == 64 for r in rows):
        raise DataError(f'{path} is no record of calibration rows: expected {{"version": 1, "rows": [hashes]}}')
    return frozenset(rows)
