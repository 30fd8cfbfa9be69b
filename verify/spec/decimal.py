"""Decimal text to exact fractions, with limits: an exponent of a billion must not hang the reader."""

import re
from fractions import Fraction

from verify.errors import SpecificationError

LONGEST_NUMBER = 400
LARGEST_EXPONENT = 400

_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]([+-]?[0-9]{1,6}))?")


def read_decimal(text: str, what: str = "number") -> Fraction:
    """The exact value of a decimal such as ``-0.3``, ``1e-5`` or ``.5``.

    Raises:
        SpecificationError: not a decimal, more than 400 characters, or an exponent beyond ±400.
    """
    if len(text) > LONGEST_NUMBER:
        raise SpecificationError(f"{what} has {len(text)} characters, more than {LONGEST_NUMBER}: {text[:20]}...")
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise SpecificationError(f"{what} is {text!r}, expected a decimal number such as -0.25 or 1e-3")
    if match[1] is not None and abs(int(match[1])) > LARGEST_EXPONENT:
        raise SpecificationError(f"{what} is {text}: exponents beyond ±{LARGEST_EXPONENT} are refused")
    return Fraction(text)
