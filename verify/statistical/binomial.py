"""Tails of the binomial distribution, exactly or rounded up, in integer arithmetic.

    T(n, k, p) = P(Bin(n, p) <= k) = sum_{j=0..k} C(n, j) p^j (1-p)^(n-j)

`binomial_tail` is the exact rational number (small n). `binomial_tail_upper` is a number that is never
below it, for any n: mantissas of 192 bits, every division and truncation rounded up.

Theory note: theory_notes/clopper_pearson.md, section 2.
Not claimed: `binomial_tail_upper` is no lower bound; it exceeds the tail by a relative error of about 1e-40.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

from verify.errors import DataError

BITS = 192


def binomial_tail(samples: int, violations: int, rate: Fraction) -> Fraction:
    """``P(Bin(samples, rate) <= violations)``, exact; cost grows with samples^2."""
    _check(samples, violations, rate)
    a, b = rate.numerator, rate.denominator - rate.numerator
    if violations >= samples:
        return Fraction(1)
    total = sum(math.comb(samples, j) * a**j * b ** (samples - j) for j in range(violations + 1))
    return Fraction(total, rate.denominator**samples)


def binomial_tail_upper(samples: int, violations: int, rate: Fraction) -> Fraction:
    """An upper bound of ``P(Bin(samples, rate) <= violations)``, tight to about 40 digits.

    Raises:
        DataError: a count is negative or the rate lies outside [0, 1].
    """
    _check(samples, violations, rate)
    if violations >= samples or rate == 0:
        return Fraction(1)
    if rate == 1:
        return Fraction(0)
    term = _mass_upper(samples, violations, rate)
    return min(Fraction(1), _sum_downwards(term, samples, violations, rate).fraction())


@dataclass(frozen=True)
class _Upper:
    """The number ``mantissa * 2**exponent``; products and sums round up."""

    mantissa: int
    exponent: int

    @staticmethod
    def of(value: Fraction) -> "_Upper":
        shift = BITS - value.numerator.bit_length() + value.denominator.bit_length()
        scaled = value.numerator << shift if shift >= 0 else -(-value.numerator >> -shift)
        return _Upper(-(-scaled // value.denominator), -shift)

    def times(self, other: "_Upper") -> "_Upper":
        return _rounded_up(self.mantissa * other.mantissa, self.exponent + other.exponent)

    def plus(self, other: "_Upper") -> "_Upper":
        low = min(self.exponent, other.exponent)
        if max(self.exponent, other.exponent) - low > 4 * BITS:  # the smaller one is worth less than one unit
            large, small = (self, other) if self.exponent > other.exponent else (other, self)
            return large if small.mantissa == 0 else _Upper(large.mantissa + 1, large.exponent)
        total = (self.mantissa << (self.exponent - low)) + (other.mantissa << (other.exponent - low))
        return _rounded_up(total, low)

    def power(self, count: int) -> "_Upper":
        result, square = _Upper(1, 0), self
        while count:
            if count & 1:
                result = result.times(square)
            square, count = square.times(square), count >> 1
        return result

    def fraction(self) -> Fraction:
        return Fraction(self.mantissa) * Fraction(2) ** self.exponent

    def below(self, other: "_Upper", bits: int) -> bool:
        """Whether this number is certainly smaller than ``other * 2**-bits``."""
        return self.exponent + self.mantissa.bit_length() + bits < other.exponent + other.mantissa.bit_length() - 1


def _rounded_up(mantissa: int, exponent: int) -> _Upper:
    surplus = mantissa.bit_length() - BITS
    return _Upper(mantissa, exponent) if surplus <= 0 else _Upper(-(-mantissa >> surplus), exponent + surplus)


def _mass_upper(n: int, k: int, p: Fraction) -> _Upper:
    """``C(n, k) p^k (1-p)^(n-k)``, rounded up."""
    smaller = min(k, n - k)
    choose = _Upper.of(Fraction(math.comb(n, smaller))) if smaller <= 2000 else _choose_upper(n, smaller)
    return choose.times(_Upper.of(p).power(k)).times(_Upper.of(1 - p).power(n - k))


def _choose_upper(n: int, k: int) -> _Upper:
    product = _Upper(1, 0)
    for j in range(1, k + 1):
        product = product.times(_Upper.of(Fraction(n - k + j, j)))
    return product


def _sum_downwards(term: _Upper, n: int, k: int, p: Fraction) -> _Upper:
    """``sum_{j<=k}`` of the masses, from the mass at k; masses further down are bounded by a geometric series."""
    odds = (1 - p) / p
    total = term
    for j in range(k, 0, -1):
        ratio = odds * Fraction(j, n - j + 1)  # mass(j - 1) / mass(j), falls with j
        if ratio < 1:
            rest = term.times(_Upper.of(ratio / (1 - ratio)))
            if rest.below(total, 140):
                return total.plus(rest)
        term = term.times(_Upper.of(ratio))
        total = total.plus(term)
    return total


def _check(samples: int, violations: int, rate: Fraction) -> None:
    if samples < 0 or violations < 0:
        raise DataError(f"counts must not be negative, got {violations} of {samples}")
    if not 0 <= rate <= 1:
        raise DataError(f"a rate lies in [0, 1], got {rate}")
