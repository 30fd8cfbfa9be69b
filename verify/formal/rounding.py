"""What float64 arithmetic can lose, and bounds that stay bounds in spite of it.

Round to nearest, any order of summation, with or without FMA (Higham, Accuracy and Stability, 2002):

    |fl(sum of n products) - exact| <= gamma_n * sum |products| + underflow,  gamma_n = n u / (1 - n u), u = 2^-53

`slack(n) = (n + 10) 2^-52 >= 2 gamma_n` for n u < 0.001: one half covers the error itself, the other half the
rounding of the expression that bounds it. `TINY` covers underflow, also where subnormals are flushed to zero.
`MARGIN` times a magnitude, taken off every bound, pays for the few additions and products of bounds that follow.
Proof: theory_notes/floating_point.md. Not claimed: arithmetic other than IEEE float64 (no TF32, no Winograd).
"""

import torch
from torch import Tensor

TINY = 1e-280
MARGIN = 2.0**-49
LONGEST_SUM = 2**40  # keeps n u below 0.001


def slack(terms: int) -> float:
    """Relative factor that covers `terms` roundings of a sum of products, twice."""
    if not 0 <= terms < LONGEST_SUM:
        raise OverflowError(f"a sum of {terms} terms is too long for a rounding bound")
    return (terms + 10) * 2.0**-52


def raised(x: Tensor) -> Tensor:
    """Upper bound of a non-negative number computed with at most 16 roundings of non-negative terms."""
    return torch.add(_TINY, x, alpha=1.0 + 2.0**-48)


def above(x: Tensor) -> Tensor:
    """The next float64 up: an upper bound of the exact result of one rounded operation."""
    return torch.nextafter(x, _INFINITY)


def below(x: Tensor) -> Tensor:
    """The next float64 down."""
    return torch.nextafter(x, -_INFINITY)


_TINY = torch.tensor(TINY, dtype=torch.float64)
_INFINITY = torch.tensor(torch.inf, dtype=torch.float64)
