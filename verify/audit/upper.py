"""Exact sums of products, added up to upper bounds.

A sum of products of integers of 40 bits is kept as three exact parts, hi hi, hi lo + lo hi and lo lo of 20-bit limbs;
only when all parts are known are they added, each rounded up. Theory note: exact_audit.md.
"""

from collections.abc import Sequence

import numpy as np

from verify.audit.exact import LIMB, Array, Resource, bits, coarse, largest, power

Parts = list[tuple[Array, int]]  # integers (R, L) below 2^52, in units of 2^exponent

LONGEST = 2**9  # terms of one exact sum
TERM_BITS = 2 * LIMB + 1
TOTAL_BITS = 40  # of the largest part when parts are added
MOST_PARTS = 2**11


def products(body: Array, values: Array, exponent: int) -> Parts:
    """``sum_i body[i, r, l] values[i, l]`` as exact parts (R, L), for integers in units whose product is 2^exponent.

    `values` may be (n, 1): the same on all leaves.

    Raises:
        Resource: an integer of 41 bits or more.
    """
    for factor in (body, values):
        if not max(largest(factor), -float(factor.min(initial=0.0))) < 2.0**TERM_BITS:
            raise Resource("a factor leaves the range of exact products")
    used = values.any(axis=1)  # many are 0: offsets of what is linear, coefficients of what is shut
    if not used.all():
        body, values = body[used], values[used]
    parts: Parts = []
    for first in range(0, len(body), LONGEST):
        some = slice(first, first + LONGEST)
        (b_hi, b_lo), (v_hi, v_lo) = _limbs(body[some]), _limbs(values[some])
        if v_hi.any():
            parts += [
                (_sums(b_hi, v_hi), exponent + 2 * LIMB),
                (_sums(b_hi, v_lo) + _sums(b_lo, v_hi), exponent + LIMB),
                (_sums(b_lo, v_lo), exponent),
            ]
        else:
            parts += [(_sums(b_hi, v_lo), exponent + LIMB), (_sums(b_lo, v_lo), exponent)]
    return parts


def _limbs(values: Array) -> tuple[Array, Array]:
    hi = values * power(-LIMB)
    np.rint(hi, out=hi)
    lo = hi * -power(LIMB)
    lo += values
    return hi, lo


def _sums(body: Array, values: Array) -> Array:
    """Exact: at most 2^9 products of at most 2^42."""
    found: Array
    if values.shape[1] == 1:
        found = np.matmul(values[:, 0], body.reshape(len(body), -1)).reshape(body.shape[1:])
    else:
        found = np.einsum("irl,il->rl", body, values)
    return found


def upward(values: Array, exponent: int) -> tuple[Array, int]:
    """Integers of any sign rounded up to 40 bits, and their exponent."""
    _, shift = coarse(np.abs(values), 2 * LIMB)
    return (np.ceil(values * power(-shift)) if shift else values), exponent + shift


def total(parts: Sequence[tuple[Array, int]], zero: Array) -> tuple[Array, int]:
    """An upper bound of the sum of the parts, added to zeros (R, L): integers below 2^52 and their exponent."""
    if len(parts) > MOST_PARTS:
        raise Resource("too many parts for an exact sum")
    used = [(part, exponent) for part, exponent in parts if part.any()]
    unit = max((bits(largest(np.abs(part))) + exponent for part, exponent in used), default=0) - TOTAL_BITS
    return sum((np.ceil(part * power(exponent - unit)) for part, exponent in used), start=zero), unit
