"""Backward bounds of whole boxes beside a branch and bound: the better bound for images, without a certificate.

With hundreds of inputs splitting gains little, and one backward pass per box is worth more than any number of
splits. Slopes are searched for, which no auditor re-does: this bound is reported on its own and must never be written
into a certificate or shown as audited. Theory: theory_notes/backward_pair.md.
"""

import time
from collections.abc import Sequence

import torch

from verify.errors import UnsupportedOperation
from verify.formal.backward.bound import backward_bounds
from verify.formal.lift import Lift
from verify.network.graph import Network
from verify.spec.box import Box


def backward_upper(
    original: Network, compact: Network, lift: Lift | None, boxes: Sequence[Box], *, seconds: float
) -> float | None:
    """Upper bound of the deviation on all boxes, or None: an operation without a rule, or too little memory or time.

    Args:
        seconds: for all boxes together; every box gets an equal share, and what is under way is finished.
    """
    worst, started = 0.0, time.monotonic()
    for count, box in enumerate(boxes):
        left = seconds - (time.monotonic() - started)
        if left <= 0.0:
            return None
        low, high = (torch.from_numpy(v)[None] for v in box.outward())
        try:
            found = backward_bounds(original, compact, lift, low, high, seconds=0.5 * left / (len(boxes) - count))
        except (UnsupportedOperation, MemoryError, OverflowError):
            return None
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            return None
        worst = max(worst, float(found.deviation()))
    return worst
