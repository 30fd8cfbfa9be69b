"""What rounding can change in a float32 execution of one step: any order of summation, with or without FMA.

For a step with n products per output, weights W and constants b that are float32 numbers, and an input x of the
execution itself (all earlier rounding included), with u = 2^-24 and gamma_m = m u / (1 - m u),

    |float32(W x + b) - (W x + b)| <= gamma_m (|W| |x| + |b|) + 2 (m + 1) 2^-149,   m = n + 3,

for every order and parenthesisation of the sum, a fused multiply-add anywhere, and a mean or quotient computed as a
division or as a product with the rounded reciprocal. gamma_m <= (m + ceil(m^2 / 2^23)) u for m <= 2^22. Nothing can
overflow while |W| |x| + |b| < 2^100. A sum of two values rounds once; ReLU, maxima and moves do not round.

Not covered, and therefore refused or excluded by the claim: batch norm that is not folded, weights that are not float32
numbers, flush to zero, TF32, bfloat16, and algorithms that transform the sum (Winograd, FFT, Strassen).
Theory note: float32_execution.md.
"""

from collections.abc import Sequence

import numpy as np

from verify.audit.exact import LIMB, Mask, Real, Refuted, Resource, Slack, bits, coarse, largest
from verify.audit.form import Form, constant, settle
from verify.audit.lift import Affine
from verify.audit.linear import LinearMap, bounded_sums
from verify.audit.program import Program, supported

UNIT_ROUNDOFF = -24
SMALLEST = -149
LONGEST_SUM = 2**22
LARGEST_SUM = 100  # sums stay below 2^100, far from overflow
MAGNITUDE_BITS = 28


def check_program(program: Program) -> None:
    """Refuse networks whose float32 execution the bounds above do not describe.

    Raises:
        Unsupported: batch norm, or a constant that is not a float32 number.
    """
    supported(program.float32, "float32 claims need networks whose input and constants are all float32")
    for step in program.steps:
        supported(not step.normalizes, f"{step.name}: batch norm in float32; fold it into the layer before it")
        for numbers in (step.weight, step.bias):
            supported(numbers is None or _is_float32(numbers), f"{step.name}: constants that are not float32 numbers")


def _is_float32(numbers: Real) -> bool:
    """Whether all numbers that are known exactly are float32 numbers; the others are quotients, counted in m."""
    values = np.ldexp(numbers.mantissa, np.clip(numbers.exponent, -1000, 900))[numbers.slack == 0]
    with np.errstate(over="ignore", under="ignore"):
        return bool((values.astype(np.float32) == values).all())


def of_affine(affine: Affine, x: Form) -> list[Slack]:
    """Bounds of the rounding error of an affine step on `x`, (n, L).

    Raises:
        Refuted: a sum may overflow. Resource: a sum is too long.
    """
    linear, leaves = affine.linear, x.rem.shape[1]
    length = linear.taps.shape[2] + 3
    sizes = _magnitudes(linear, x)
    if affine.place is not None:
        sizes = [(size[affine.place], exponent) for size, exponent in sizes]
    if affine.bias is not None and affine.bias_error is not None:
        bias = np.abs(affine.bias) + affine.bias_error
        sizes.append((bias[:, None] * np.ones(leaves), affine.bias_unit))
    lost = np.full_like(sizes[0][0], 2.0 * (length + 1))
    return [*_relative(sizes, length), (lost, SMALLEST)]


def of_sum(terms: Sequence[Form]) -> list[Slack]:
    """Bounds of the rounding error of a sum of values, (n, L)."""
    return _relative([(term.size, term.exponent) for term in terms], len(terms))


def as_form(slacks: Sequence[Slack], granted: Mask, block: int) -> Form:
    """The errors as a form: a symbol for each that was granted one, a remainder for the others."""
    return settle([constant(np.zeros(granted.shape), 0)], slacks, granted, block)


def _magnitudes(linear: LinearMap, x: Form) -> list[Slack]:
    """Bounds of ``|W| |x|``, cut as the product itself is."""
    values, shift = coarse(x.size, LIMB)
    exponent = linear.upper_exponent + x.exponent + shift
    return [(bounded_sums(part, part.upper, int(largest(part.upper)), values), exponent) for part in linear.cut()]


def _relative(sizes: Sequence[Slack], length: int) -> list[Slack]:
    """gamma_length times each size."""
    if length > LONGEST_SUM:
        raise Resource(f"a sum of {length} terms is too long for the rounding bound")
    factor = length + -(-(length**2) // 2**23)
    found = []
    for size, exponent in sizes:
        if bits(largest(size)) + exponent > LARGEST_SUM:
            raise Refuted("a sum in float32 may overflow")
        values, shift = coarse(size, MAGNITUDE_BITS)
        found.append((values * float(factor), exponent + shift + UNIT_ROUNDOFF))
    return found
