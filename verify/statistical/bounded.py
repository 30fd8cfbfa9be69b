"""What the bounds on a mean share: values in [0, 1], checked, and a float result pushed up past its rounding."""

from typing import cast

import numpy as np
from numpy.typing import NDArray

from verify.errors import DataError
from verify.network.graph import Array

SLACK = 2.0**-36


def unit_values(values: Array, least: int = 1) -> NDArray[np.float64]:
    """`values` as a flat float64 array.

    Raises:
        DataError: fewer than `least` values, or one outside [0, 1] (NaN included).
    """
    x = np.asarray(values, dtype=np.float64).ravel()
    if len(x) < least:
        raise DataError(f"need at least {least} value(s), got {len(x)}")
    if not bool(((x >= 0.0) & (x <= 1.0)).all()):
        raise DataError("values must lie in [0, 1]; divide by the cap they cannot exceed (clip at it first)")
    return cast(NDArray[np.float64], x)


def pushed_up(bound: float) -> float:
    """`bound` plus far more than the rounding of its float64 evaluation, at most 1."""
    return min(1.0, bound * (1.0 + SLACK) + SLACK * 2.0**-10)
