"""Row hashes: stable, refuse calibration rows by position, report repeats."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.errors import DataError
from verify.statistical.disjoint import check_disjoint, read_calibration_rows, row_hashes


def test_hash_is_the_documented_one() -> None:
    """Golden value: other programs compute it too."""
    import hashlib

    row = np.array([[1.5, -2.0], [0.0, 3.0]], np.float32)
    expected = hashlib.sha256(b"row 2x2\n" + row.astype("<f4").tobytes()).hexdigest()
    assert row_hashes(row[None]) == [expected]


@given(st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3), st.integers(1, 5))
@settings(deadline=None, max_examples=50)
def test_equal_rows_equal_hashes_whatever_the_layout(row: list[float], copies: int) -> None:
    a = np.array([row] * copies, np.float32)
    hashes = {
        *row_hashes(a),
        *row_hashes(np.asfortranarray(a)),
        *row_hashes(a.astype(">f4")),
        *row_hashes(a.astype(float)),
    }
    assert len(hashes) == 1


def test_shape_sign_of_zero_and_value() -> None:
    flat = np.zeros((1, 4), np.float32)
    assert row_hashes(flat) != row_hashes(flat.reshape(1, 2, 2))
    assert row_hashes(flat) == row_hashes(-flat)
    assert row_hashes(flat) != row_hashes(flat + 1e-3)


def test_calibration_rows_are_refused_and_named() -> None:
    data = np.arange(12, dtype=np.float32).reshape(6, 2)
    with pytest.raises(DataError, match=r"2 of 6 test rows .*rows 1, 4"):
        check_disjoint(row_hashes(data), [row_hashes(data)[4], row_hashes(data)[1]])


def test_repeats_are_reported() -> None:
    data = np.array([[1.0], [2.0], [1.0], [1.0]])
    report = check_disjoint(row_hashes(data), [])
    assert report.duplicates == (2, 3)
    assert report.rows == 4


def test_calibration_rows_file(tmp_path: Path) -> None:
    rows = row_hashes(np.eye(3))
    path = tmp_path / "calibration_rows.json"
    path.write_text(json.dumps({"version": 1, "rows": rows}))
    assert read_calibration_rows(path) == frozenset(rows)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", '{"version": 2, "rows": []}', '{"version": 1, "rows": ["x"]}', '{"version": 1}', "[" * 100_000,
        '{"version": 1, "rows": [], "rows": []}', '{"version": 1, "rows": [NaN]}',
    ],
)  # fmt: skip
def test_broken_calibration_rows_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "calibration_rows.json"
    path.write_text(text)
    with pytest.raises(DataError, match="calibration rows"):
        read_calibration_rows(path)
    with pytest.raises(DataError, match="calibration rows"):
        read_calibration_rows(tmp_path / "missing.json")
