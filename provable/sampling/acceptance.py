"""Draw until a computable limit holds: turns a bound in expectation into a certainty.

When E loss <= limit / factor, one draw fails with probability at most 1/factor (Markov), `attempts`
independent ones with at most factor^-attempts. The loss after compensation is exactly computable from the
Gram matrix, so whether the limit holds is known, not believed.
"""

from collections.abc import Callable
from dataclasses import dataclass

from numpy.random import Generator

from provable.sampling.design import Array, SamplingDesign, Selection
from verify.errors import DataError


@dataclass(frozen=True)
class AcceptedDraw:
    """Outcome of drawing against a limit.

    Attributes:
        selection: the accepted draw, or the best of all attempts when none met the limit.
        loss: its loss.
        limit: what it was measured against.
        attempts: draws made.
        met: loss <= limit.
    """

    selection: Selection
    loss: float
    limit: float
    attempts: int
    met: bool


def draw_until(
    design: SamplingDesign,
    evidence: Array,
    count: int,
    *,
    loss: Callable[[Selection], float],
    limit: float,
    generator: Generator,
    attempts: int = 20,
) -> AcceptedDraw:
    """First draw with `loss` at most `limit`, or the best of `attempts`; never raises for a limit not met."""
    if attempts < 1:
        raise DataError(f"at least one attempt is needed; got {attempts}")
    best = design.draw(evidence, count, generator)
    smallest, made = loss(best), 1
    while smallest > limit and made < attempts:
        selection = design.draw(evidence, count, generator)
        value, made = loss(selection), made + 1
        if value < smallest:
            best, smallest = selection, value
    return AcceptedDraw(best, smallest, limit, made, smallest <= limit)
