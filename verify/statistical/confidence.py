"""Confidence levels as exact numbers, and their division over several claims.

Bonferroni: claims that each fail with probability at most delta_i fail together with at most sum delta_i.
"""

from fractions import Fraction

from verify.errors import SpecificationError

Level = str | float | Fraction


def exact(value: Level, what: str = "confidence") -> Fraction:
    """`value` as a Fraction strictly inside (0, 1); a float is read as the decimal it prints as (0.999 is 999/1000).

    Raises:
        SpecificationError: it is no number or lies outside (0, 1).
    """
    try:
        number = value if isinstance(value, Fraction) else Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise SpecificationError(f"{what} must be a number strictly between 0 and 1, got {value!r}") from None
    if not 0 < number < 1:
        raise SpecificationError(f"{what} must lie strictly between 0 and 1, got {value!r}")
    return number


def error_share(confidence: Level, claims: int) -> Fraction:
    """Probability of error left to each of `claims` claims that must hold together: ``(1 - confidence) / claims``."""
    if claims < 1:
        raise SpecificationError(f"at least one claim is needed, got {claims}")
    return (1 - exact(confidence)) / claims
