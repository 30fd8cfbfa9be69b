"""Statements that a sample of deviations supports, each with its own share of the error probability.

    disagreement   P(arg max differs)          <= bound     Clopper-Pearson on the count k
    exceedance     P(deviation > epsilon)      <= bound     Clopper-Pearson on the count k
    quantile       P(deviation <= bound)       >= coverage  Wilks, the rank-th largest of n
    mean           E[min(deviation, cap)]      <= bound     betting

Deviations enter padded (see `verify.statistical.certificate`), so rounding counts against every claim. Bounds are
rounded up to ten digits. Theory notes: clopper_pearson.md, tolerance.md, mean_bounds.md in theory_notes.
Not claimed: anything jointly for several claims unless their error shares are added up.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from verify.errors import SpecificationError
from verify.statistical.betting import betting_upper
from verify.statistical.clopper_pearson import rate_upper
from verify.statistical.confidence import Level, exact
from verify.statistical.tolerance import tolerance_upper

DIGITS = 10
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Question:
    """What is asked, fixed before the sample is looked at.

    Attributes:
        kind: "disagreement", "exceedance", "quantile" or "mean".
        parameter: epsilon, the coverage or the cap; None for a disagreement.
    """

    kind: str
    parameter: Fraction | None = None


@dataclass(frozen=True)
class Claim:
    """An answered question.

    Attributes:
        question: what was asked.
        bound: the upper bound, an exact decimal, rounded up.
        samples: n.
        count: k for rates (samples counted as violations), the rank for a quantile, 0 for a mean.
        measured: the same quantity on the sample itself, for comparison only.
        delta: probability of error of this claim alone.
    """

    question: Question
    bound: Fraction
    samples: int
    count: int
    measured: float
    delta: Fraction

    @property
    def statement(self) -> str:
        """The claim in words."""
        return _WORDS[self.question.kind](self)


def answer(question: Question, padded: Floats, agrees: NDArray[np.bool_], delta: Fraction) -> Claim:
    """The claim that a sample supports.

    Args:
        padded: ``(n,)`` deviations with their rounding margin added.
        agrees: ``(n,)`` whether the arg max certainly agrees.
        delta: probability of error allowed, in (0, 1).

    Raises:
        DataError: too few samples for a quantile.
    """
    return _ANSWERS[question.kind](question, padded, agrees, delta)


def disagreement() -> Question:
    """How often do the networks have different arg max?"""
    return Question("disagreement")


def exceedance(epsilon: Fraction) -> Question:
    """How often is the deviation larger than `epsilon` >= 0?"""
    if epsilon < 0:
        raise SpecificationError(f"epsilon must not be negative, got {float(epsilon)}")
    return Question("exceedance", epsilon)


def quantile(coverage: Level) -> Question:
    """Which deviation is not exceeded on a share `coverage` of inputs?"""
    return Question("quantile", exact(coverage, "coverage"))


def mean(cap: Fraction) -> Question:
    """How large is the mean of ``min(deviation, cap)``?"""
    if cap <= 0:
        raise SpecificationError(f"the cap must be positive, got {float(cap)}")
    return Question("mean", cap)


def decimal_up(value: Fraction, digits: int = DIGITS) -> Fraction:
    """The smallest decimal with `digits` significant digits that is at least `value` >= 0."""
    if value == 0:
        return value
    power = len(str(value.numerator)) - len(str(value.denominator)) - digits
    unit = Fraction(10) ** power
    while value / unit >= 10**digits:
        unit *= 10
    return -(-value // unit) * unit


def decimal_text(value: Fraction) -> str:
    """An exact decimal number as text; for numbers that are no decimals the fraction."""
    for places in range(64):
        scaled = value * 10**places
        if scaled.denominator == 1:
            sign, digits = "-" if scaled < 0 else "", str(abs(scaled.numerator)).rjust(places + 1, "0")
            return f"{sign}{digits[: len(digits) - places]}" + (f".{digits[-places:]}" if places else "")
    return str(value)


def percent(value: Fraction) -> str:
    """A share in per cent, rounded up to four digits."""
    return f"{decimal_text(decimal_up(100 * value, 4))} %"


def _rate(question: Question, violations: NDArray[np.bool_], delta: Fraction) -> Claim:
    k, n = int(violations.sum()), len(violations)
    bound = min(Fraction(1), decimal_up(Fraction(rate_upper(k, n, 1 - delta))))
    return Claim(question, bound, n, k, k / n, delta)


def _disagreement(question: Question, padded: Floats, agrees: NDArray[np.bool_], delta: Fraction) -> Claim:
    return _rate(question, ~agrees, delta)


def _exceedance(question: Question, padded: Floats, agrees: NDArray[np.bool_], delta: Fraction) -> Claim:
    return _rate(question, np.array([Fraction(d) > _parameter(question) for d in padded.tolist()]), delta)


def _quantile(question: Question, padded: Floats, agrees: NDArray[np.bool_], delta: Fraction) -> Claim:
    found = tolerance_upper(padded, _parameter(question), 1 - delta)
    measured = float(np.quantile(padded, float(found.coverage)))
    return Claim(question, decimal_up(Fraction(found.bound)), found.samples, found.rank, measured, delta)


def _mean(question: Question, padded: Floats, agrees: NDArray[np.bool_], delta: Fraction) -> Claim:
    cap = _parameter(question)
    shares = np.minimum(np.nextafter(padded / float(cap), np.inf) * (1 + 2.0**-50), 1.0)  # never below the true share
    bound = decimal_up(cap * Fraction(betting_upper(shares, 1 - delta)))
    return Claim(question, bound, len(padded), 0, float(np.minimum(padded, float(cap)).mean()), delta)


def _parameter(question: Question) -> Fraction:
    if question.parameter is None:
        raise SpecificationError(f"a claim of kind {question.kind!r} needs a parameter")
    return question.parameter


_ANSWERS: dict[str, Callable[[Question, Floats, NDArray[np.bool_], Fraction], Claim]] = {
    "disagreement": _disagreement,
    "exceedance": _exceedance,
    "quantile": _quantile,
    "mean": _mean,
}

_WORDS: dict[str, Callable[[Claim], str]] = {
    "disagreement": lambda c: (
        f"the arg max of the two networks differs on at most {percent(c.bound)} of inputs "
        f"({c.count} of {c.samples} samples were counted as different)"
    ),
    "exceedance": lambda c: (
        f"the deviation exceeds {decimal_text(_parameter(c.question))} on at most {percent(c.bound)} of inputs "
        f"({c.count} of {c.samples} samples were counted)"
    ),
    "quantile": lambda c: (
        f"at least {decimal_text(100 * _parameter(c.question))} % of inputs deviate by at most "
        f"{decimal_text(decimal_up(c.bound, 6))} (the {_ordinal(c.count)}largest of {c.samples} samples)"
    ),
    "mean": lambda c: (
        f"the mean of the deviation, cut off at {decimal_text(_parameter(c.question))}, is at most "
        f"{decimal_text(decimal_up(c.bound, 6))} ({c.samples} samples)"
    ),
}

KINDS = tuple(_ANSWERS)


def _ordinal(rank: int) -> str:
    if rank == 1:
        return ""
    suffix = "th" if rank % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return f"{rank}{suffix} "
