"""Boxes of exact numbers as forms of the input.

Every interval is rounded outward to the integers of one unit. Theory note: exact_audit.md.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from verify.audit.certificate import Box
from verify.audit.exact import FORM_BITS
from verify.audit.form import CENTRE, Form, check_memory


def scaled_floor(value: Fraction, exponent: int) -> int:
    """The largest integer not above value / 2^exponent."""
    return (value.numerator << max(-exponent, 0)) // (value.denominator << max(exponent, 0))


class InputGrid:
    """Boxes as forms of the input, in one unit for all leaves of a root box, each interval rounded outward."""

    def __init__(self, root: Box) -> None:
        reach = max(max(abs(low), abs(high)) for low, high in root)
        top = reach.numerator.bit_length() - reach.denominator.bit_length() + 1 if reach else 0
        self.exponent = top - (FORM_BITS - 2)
        self.known: dict[int, tuple[tuple[Fraction, Fraction], int, int]] = {}  # by identity, kept alive here

    def interval(self, pair: tuple[Fraction, Fraction]) -> tuple[int, int]:
        """Centre and radius, in units, of an interval that contains the given one."""
        if id(pair) not in self.known:
            low, high = scaled_floor(pair[0], self.exponent), -scaled_floor(-pair[1], self.exponent)
            centre = (low + high) // 2
            self.known[id(pair)] = pair, centre, max(high - centre, centre - low)
        return self.known[id(pair)][1:]

    def form(self, boxes: Sequence[Box]) -> Form:
        """The input on these boxes: one symbol per coordinate that is not constant on all of them."""
        numbers = np.array([[self.interval(pair) for pair in box] for box in boxes], dtype=np.float64)
        centre, radius = numbers[:, :, 0].T, numbers[:, :, 1].T  # (n, leaves)
        moving = np.flatnonzero(radius.any(axis=1))
        blocks = (*CENTRE, (1, len(moving)))
        check_memory(len(centre), len(boxes), blocks)
        body = np.zeros((len(centre), 1 + len(moving), len(boxes)))
        body[:, 0] = centre
        body[moving, 1 + np.arange(len(moving))] = radius[moving]
        return Form(self.exponent, blocks, body, np.zeros(centre.shape))
