"""Bytes from disk, and JSON from bytes: each file is opened once, and what is hashed is what is parsed."""

import hashlib
import json
import os
import re
import stat
from fractions import Fraction
from pathlib import Path
from typing import Any

from verify.audit.program import Malformed, require

MAX_FILE = 2**31
MAX_DEPTH = 64
MAX_DIGITS = 400
_DYADIC = re.compile(r"(-?\d+)p(-?\d{1,4})", re.ASCII)
_NUMBER = re.compile(r"(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d{1,4}))?(?:/(\d+))?", re.ASCII)


def read_file(path: Path, limit: int = MAX_FILE) -> bytes:
    """The content of a regular file that is not a link and holds at most `limit` bytes."""
    try:
        with open(path, "rb", opener=_open) as file:
            status = os.fstat(file.fileno())
            require(stat.S_ISREG(status.st_mode), f"{path}: not a regular file")
            require(status.st_size <= limit, f"{path}: larger than the limit of {limit} bytes")
            data = file.read(limit + 1)
    except OSError as error:
        raise Malformed(f"{path}: cannot be opened ({error.strerror}); links are refused") from None
    require(len(data) <= limit, f"{path}: larger than the limit of {limit} bytes")
    return data


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_json(data: bytes) -> Any:
    """JSON without duplicate keys, NaN, infinity, floating-point numbers, huge integers or deep nesting."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("not UTF-8 text") from None
    _check_depth(text)
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_constant, parse_int=_integer
        )
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON: {error}") from None


def _check_depth(text: str) -> None:
    """Refuse nesting beyond the limit before the recursive parser sees it (strings are skipped)."""
    depth = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token.group(), 0)
        require(depth <= MAX_DEPTH, f"nested deeper than {MAX_DEPTH}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    require(len(result) == len(pairs), f"duplicate key in {[k for k, _ in pairs][:20]}")
    return result


def _constant(text: str) -> Any:
    raise Malformed(f"{text[:40]} is refused: numbers other than integers are written as strings")


def _integer(text: str) -> int:
    require(len(text) <= 18, f"integer {text[:40]} is too long")
    return int(text)


def fields(value: Any, names: str, place: str) -> list[Any]:
    """The values of an object whose keys are exactly `names` (blank-separated), in that order."""
    wanted = names.split()
    require(isinstance(value, dict), f"{place} is not an object")
    require(set(value) == set(wanted), f"{place} has keys {sorted(value)}, expected exactly {sorted(wanted)}")
    return [value[n] for n in wanted]


def whole(value: Any, place: str, low: int = 0, high: int = 2**53) -> int:
    """A JSON integer in [low, high]."""
    fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    require(fits, f"{place} is {str(value)[:40]!r}, expected an integer in [{low}, {high}]")
    return int(value)


def text(value: Any, place: str, limit: int = 4096) -> str:
    """A JSON string of at most `limit` characters."""
    require(isinstance(value, str) and len(value) <= limit, f"{place} is not a string of at most {limit} characters")
    return str(value)


def array(value: Any, place: str, limit: int = 2**24) -> list[Any]:
    """A JSON array of at most `limit` items."""
    require(isinstance(value, list) and len(value) <= limit, f"{place} is not an array of at most {limit} items")
    return list(value)


def number(value: Any, place: str) -> Fraction:
    """An exact number: a string holding a decimal (exponent at most 400), a fraction p/q, or MpE for M 2^E."""
    power = _DYADIC.fullmatch(text(value, place, MAX_DIGITS))
    if power is not None:
        require(abs(int(power.group(2))) <= 1200, f"{place}: exponent {power.group(2)} is too large")
        return int(power.group(1)) * Fraction(2) ** int(power.group(2))
    match = _NUMBER.fullmatch(text(value, place, MAX_DIGITS))
    require(match is not None, f"{place} is {str(value)[:40]!r}, expected a decimal or a fraction in a string")
    sign, units, decimals, exponent, divisor = match.groups()  # type: ignore[union-attr]
    require(abs(int(exponent or 0)) <= 400, f"{place}: exponent {exponent} is too large")
    require(divisor is None or (decimals is None and exponent is None), f"{place}: mixed decimal and fraction")
    require(int(divisor or 1) != 0, f"{place}: division by zero")
    size = Fraction(int(units + (decimals or "")), int(divisor or 1))
    size *= Fraction(10) ** (int(exponent or 0) - len(decimals or ""))
    return -size if sign else size
