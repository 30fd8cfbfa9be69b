"""Bytes, JSON and numbers: what is read is the file and nothing else, what is not in SPEC.md's forms is refused."""

import io
import json
import os
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from verify.audit import files
from verify.audit.program import Malformed

# bytes


def test_a_regular_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"", b"abc", bytes(range(256)) * 300):
        path.write_bytes(data)
        assert files.read_file(path) == files.read_file(path, len(data)) == data
        assert files.sha256(data) == sha256(data).hexdigest()


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")  # without a writer: reading it would wait
    for name in ("link", "folder", "pipe", "nothing"):
        with pytest.raises(Malformed):
            files.read_file(tmp_path / name)
    with (tmp_path / "large").open("wb") as sparse:
        sparse.truncate(2**31 + 1)
    with pytest.raises(Malformed, match="larger than the limit"):
        files.read_file(tmp_path / "large")


def test_a_file_that_grows_or_says_too_little_is_held_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abcd")
    with pytest.raises(Malformed, match="larger than the limit"):
        files.read_file(path, 3)
    honest = os.fstat

    def smaller(handle: int) -> os.stat_result:
        status = list(honest(handle))
        status[6] = 1
        return os.stat_result(status)

    monkeypatch.setattr(files.os, "fstat", smaller)
    assert files.read_file(path, 4) == b"abcd"
    with pytest.raises(Malformed, match="larger than the limit"):
        files.read_file(path, 3)


def test_the_size_is_compared_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abcd")

    def unread(*_: Any, **__: Any) -> Any:
        raise AssertionError("read although it is too large")

    class Unread(io.FileIO):
        read = unread

    monkeypatch.setattr(files, "open", lambda path, *_, **__: Unread(path), raising=False)
    with pytest.raises(Malformed, match="larger than the limit"):
        files.read_file(path, 3)


# JSON


@pytest.mark.parametrize(
    "text",
    [
        "{", "", "nul", "[1,]", "{'a': 1}", "1.5", "1e3", "-0.0", "NaN", "Infinity", "-Infinity", "1" * 19,
        "-" + "1" * 18, '{"a": 1, "a": 1}', '[{"b": {"a": 1, "c": 2, "a": 3}}]', "[" * 65 + "]" * 65,
        '{"a":' * 65 + "1" + "}" * 65, "[" * 10**5, "[1] 2", '"a\nb"',
    ],
)  # fmt: skip
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        files.read_json(text.encode())


@pytest.mark.parametrize("data", [b"\xff", b'"\xc3"', b'"\xed\xa0\x80"', "[]".encode("utf-16")])
def test_other_encodings_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        files.read_json(data)


DEEP = "[" * 32 + '{"a":' * 32 + "1" + "}" * 32 + "]" * 32


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, -2, true, null, "\\u00e9\\n"], "b": {"a": {}}}', "9" * 18, "-" + "9" * 17, "0", DEEP,
        f"[{'[],' * 100}{'{},' * 100}{'[{}],' * 70}1]", '["[[[[\\"[[", "{{{{", "]]", "}", "\\\\", [1]]',
        "[" * 62 + '["[", {}]' + "]" * 62,
        "[" * 62 + '["\\\\", []]' + "]" * 62, "[" * 62 + "[{}, {}, [], []]" + "]" * 62,
    ],
)  # fmt: skip
def test_json_within_the_limits_is_read(text: str) -> None:
    assert files.read_json(text.encode()) == json.loads(text)


@pytest.mark.parametrize("text", [f"[{'[],' * 9}{DEEP}]", f"[{'{},' * 9}{DEEP}]", f'["]]]", "}}}}", {DEEP}]'])
def test_what_closed_before_does_not_deepen_and_words_do_not_flatten(text: str) -> None:
    with pytest.raises(Malformed, match="deeper than 64"):
        files.read_json(text.encode())


# values


def test_fields_come_in_the_order_asked_for() -> None:
    assert files.fields({"b": 1, "a": [2]}, "a b", "here") == [[2], 1]
    for value in ([], None, "a b", {"a": 1}, {"a": 1, "b": 2, "c": 3}, {}):
        with pytest.raises(Malformed, match="here"):
            files.fields(value, "a b", "here")


def test_values_have_their_type_and_limits() -> None:
    for good in (-3, 0, 4):
        assert files.whole(good, "here", -3, 4) == good
    assert [files.whole(n, "here") for n in (0, 2**53)] == [0, 2**53]
    for bad in (-4, 5, True, False, "1", None, [1], 1.0):
        with pytest.raises(Malformed, match="here"):
            files.whole(bad, "here", -3, 4)
    for large in (2**53 + 1, -1):
        with pytest.raises(Malformed, match="here"):
            files.whole(large, "here")
    for read, one in ((files.text, "x"), (files.array, [7])):
        for count in (0, 1, 3):
            assert read(one * count, "here", 3) == one * count  # type: ignore[operator]
        for wrong in (one * 4, None, 3, {"a": 1}, "x" if one == [7] else [7], b"x"):  # type: ignore[operator]
            with pytest.raises(Malformed, match="here"):
                read(wrong, "here", 3)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("-0", 0), ("7", 7), ("-12", -12), ("007", 7), ("1.25", Fraction(5, 4)), ("-0.5", Fraction(-1, 2)),
        ("12.30", Fraction(123, 10)), ("3e2", 300), ("3E2", 300), ("3e+2", 300), ("25e-1", Fraction(5, 2)), ("4e0", 4),
        ("1.5e1", 15), ("1.5e3", 1500), ("-1.25e-2", Fraction(-1, 80)), ("1e400", 10**400), ("1/3", Fraction(1, 3)),
        ("1e-400", Fraction(1, 10**400)), ("-6/4", Fraction(-3, 2)), ("0/5", 0), ("5p0", 5), ("3p2", 12), ("0p9", 0),
        ("-3p-2", Fraction(-3, 4)), ("12p1", 24), ("1p1200", 2**1200), ("-1p-1200", Fraction(-1, 2**1200)),
        ("1" * 400, int("1" * 400)), ("5" * 390 + "/7", Fraction(int("5" * 390), 7)),
    ],
)  # fmt: skip
def test_numbers_are_exact(text: str, value: Fraction) -> None:
    found = files.number(text, "here")
    assert found == value
    assert isinstance(found, Fraction)


@pytest.mark.parametrize(
    "value",
    [
        "", " 1", "1 ", "1\n", "+1", "--1", ".5", "5.", "1.e2", "e2", "1e", "1e2.0", "1e401", "1e-401", "1e9999",
        "1e00401", "1/0", "1/-2", "1/", "/2", "1.5/2", "1e2/3", "1.5e2/3", "1p1201", "1p-1201", "1p99999", "1p", "p1",
        "1.5p2", "1p+2", "1p2.0", "0x10", "1_0", "nan", "inf", "Infinity", "\u0661", "1e\u0662", "1p\u0662", "1/\u0663",
        "1" * 401, 1, 1.5, True, None, ["1"], {"float": "1"}, b"1",
    ],
)  # fmt: skip
def test_other_numbers_are_refused(value: Any) -> None:
    with pytest.raises(Malformed, match="here"):
        files.number(value, "here")
