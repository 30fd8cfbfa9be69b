"""A moment after which an algorithm gives up."""

import math
import time
from dataclasses import dataclass


class OutOfTime(Exception):
    """The time limit of a call has passed; `Algorithm.solve` turns it into UNKNOWN, no caller sees it."""


@dataclass(frozen=True)
class Deadline:
    """A point of the monotonic clock, in seconds; infinity for none."""

    at: float = math.inf

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """So many seconds from now."""
        return cls(time.monotonic() + seconds)

    def left(self) -> float:
        """Seconds left, more than zero.

        Raises:
            OutOfTime: there are none.
        """
        left = self.at - time.monotonic()
        if left <= 0:
            raise OutOfTime
        return left
