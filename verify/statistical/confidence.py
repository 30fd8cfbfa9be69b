"""Confidence levels as exact numbers, and their division over several claims.

Bonferroni: claims that each fail with probability at most delta_i fail together with at most sum delta_i.
"""

import re
from fractions import Fraction

from verify.errors import SpecificationError
from verify.spec.decimal import LONGEST_NUMBER, read_decimal

Level = str | float | Fraction
_QUOTIENT = re.compile(r"(-?[0-9]+)/0*([1-9][0-9]*)")


def number(value: Level, what: str) -> Fraction:
    """An exact number: a fraction, or a decimal or p/q as text; a float is read as the decimal it prints as.

    Raises:
        SpecificationError: it is none of these, or has more than 400 characters or an exponent beyond 400.
    """
    if isinstance(value, Fraction):
        return value
    quotient = _QUOTIENT.fullmatch(text := str(value))
    if quotient is None or len(text) > LONGEST_NUMBER:
        return read_decimal(text, what)
    return Fraction(int(quotient[1]), int(quotient[2]))


def exact(value: Level, what: str = "confidence") -> Fraction:
    """`value` as a Fraction strictly inside (0, 1); a float is read as the decimal it prints as (0.999 is 999/1000).

    Raises:
        SpecificationError: it is no number or lies outside (0, 1).
    """
    level = number(value, what)
    if not 0 < level < 1:
        raise SpecificationError(f"{what} must lie strictly between 0 and 1, got {value!r}")
    return level


def error_share(confidence: Level, claims: int) -> Fraction:
    """Probability of error left to each of `claims` claims that must hold together: ``(1 - confidence) / claims``."""
    if claims < 1:
        raise SpecificationError(f"at least one claim is needed, got {claims}")
    return (1 - exact(confidence)) / claims
