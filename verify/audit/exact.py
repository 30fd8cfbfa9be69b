"""Exact arithmetic: integers carried by float64 arrays, guarded so that no operation rounds.

A matrix product runs on limbs of 20 bits: k products of at most 2^41 each stay below 2^52, so every partial sum is
an integer that float64 holds, and BLAS returns the exact result in any order of summation.

Floating-point division and logarithms only propose (slopes, units); no step of the proof rests on them.
Theory note: exact_audit.md. Not claimed: anything about the rounding of the deployed networks.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]
Slack = tuple[Array, int]  # a radius (n, L) >= 0 in units of 2^exponent

LIMB = 20
FORM_BITS = 2 * LIMB  # sum |body| + rem < 2^FORM_BITS
LARGEST = 2**52  # no sum in a float64 product may reach this
LONGEST_ROW = 2**11  # longer rows of weights are cut


class Resource(Exception):
    """The fixed-point range or the memory allowed does not suffice; says nothing about the claim."""


class OutOfRange(Resource):
    """Integers would outgrow the unit chosen for them."""


class Memory(Resource):
    """Too much memory for this many leaves at once; fewer may do."""


class Refuted(Exception):
    """A step of the proof fails: the certificate does not prove its claim."""


def power(exponent: int) -> float:
    """2^exponent. Below 2^-200 every integer of ours scales to less than a half, as it would by the true factor."""
    if exponent > 200:
        raise Resource(f"numbers of magnitudes 2^{exponent} apart do not fit one fixed-point range")
    return float(2.0 ** max(exponent, -200))


def bits(value: float) -> int:
    """The smallest b with value < 2^b, for an integer-valued value >= 0."""
    return int(value).bit_length()


def largest(values: Array) -> float:
    """Largest element of a non-negative array, 0 if it is empty."""
    return float(values.max(initial=0.0))


def coarse(values: Array, width: int) -> Slack:
    """Non-negative integers rounded up to `width` bits: values <= result 2^shift, result <= 2^width."""
    shift = max(0, bits(largest(values)) - width)
    return (np.ceil(values * power(-shift)), shift) if shift else (values, 0)


@dataclass(frozen=True)
class Real:
    """Real numbers with |number - mantissa 2^exponent| <= slack 2^exponent; integral mantissa, |mantissa| < 2^53."""

    mantissa: Array
    exponent: Index
    slack: Array

    @property
    def top(self) -> int:
        """All |numbers| are below 2^top."""
        used = (self.mantissa != 0) | (self.slack != 0)
        return int(self.exponent[used].max()) + 54 if used.any() else 0

    def __getitem__(self, key: Any) -> "Real":
        return Real(self.mantissa[key], self.exponent[key], self.slack[key])

    def reshape(self, *shape: int) -> "Real":
        return Real(self.mantissa.reshape(shape), self.exponent.reshape(shape), self.slack.reshape(shape))

    def transpose(self, *axes: int) -> "Real":
        return Real(self.mantissa.transpose(axes), self.exponent.transpose(axes), self.slack.transpose(axes))

    def expand(self, shape: tuple[int, ...]) -> "Real":
        """Broadcast to `shape`."""
        mantissa, slack = np.broadcast_to(self.mantissa, shape), np.broadcast_to(self.slack, shape)
        return Real(mantissa, np.broadcast_to(self.exponent, shape), slack)

    def negated(self) -> "Real":
        return Real(-self.mantissa, self.exponent, self.slack)

    def units(self, unit: int) -> tuple[Array, Array]:
        """Integers and radii with |number / 2^unit - integer| <= radius; the radius is 0 where nothing is lost."""
        if self.top - unit > 54:
            raise Resource("a number exceeds the fixed-point range chosen for it")
        shift = np.clip(self.exponent - unit, -200, 0)
        scaled = np.ldexp(self.mantissa, shift)
        whole = np.rint(scaled)
        return whole, np.ceil(np.ldexp(self.slack, shift)) + (whole != scaled)

    def same(self, other: "Real") -> Mask:
        """Where both are the same number for certain."""
        equal = (self.mantissa == other.mantissa) & (self.exponent == other.exponent)
        certain: Mask = equal & (self.slack == 0) & (other.slack == 0)
        return certain


def self_test() -> None:
    """Known answers at the edge of the exact range; a machine that misses one must not judge.

    Raises:
        Resource: rounding, the matrix product or subnormal numbers do not behave as IEEE 754 says.
    """
    rounded = np.rint(np.array([0.5, 1.5, 2.5, -0.5, -1.5])).tolist() == [0.0, 2.0, 2.0, 0.0, -2.0]
    small, large = np.add([2.0**-1074, 2.0**52], [0.0, 1.0]).tolist()
    kept = small > 0.0 and large == 2.0**52 + 1.0
    left = 2**LIMB - np.arange(40 * LONGEST_ROW, dtype=np.int64).reshape(40, LONGEST_ROW) % 7
    right = 2**LIMB - np.arange(LONGEST_ROW * 5, dtype=np.int64).reshape(LONGEST_ROW, 5) % 3
    right[1::2, 1:] *= -1  # column 0 reaches 2^51, the others cancel
    product_of_floats = np.matmul(left.astype(np.float64), right.astype(np.float64))
    corner = sum(a * b for a, b in zip(left[0].tolist(), right[:, 0].tolist(), strict=True))
    exact = np.array_equal(product_of_floats, np.matmul(left, right)) and int(product_of_floats[0, 0]) == corner
    if not (rounded and kept and exact):
        raise Resource("this machine's float64 arithmetic fails the self test")
