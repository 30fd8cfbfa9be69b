"""The largest deviation of two small ReLU networks on some boxes, by a complete method of choice.

    regions      every activation region: exact, up to `MOST_INPUTS` inputs
    milp         a mixed-integer program: attained exactly, its upper bound only claimed by the solver
    relaxation   one linear program: a proved upper bound, attained only at the middle of the boxes

A verdict rests on what is exact alone: the attained deviation refutes, the proved bound proves; what a solver claims
does neither. Theory: theory_notes/milp.md. Not claimed: that it ends in time on more than some tens of units.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from verify.complete.enumeration import enumerate_regions
from verify.complete.milp import milp_deviation
from verify.complete.relaxation import relaxed_upper
from verify.complete.system import ReluSystem, relu_system
from verify.errors import SpecificationError
from verify.network.graph import Network
from verify.network.operations import OPERATIONS
from verify.spec.box import Box, Number, exact
from verify.spec.deviation import Verdict

MOST_UNITS = 250  # elements that nonlinear operations of both networks compute
Point = tuple[Fraction, ...]


@dataclass(frozen=True)
class CompleteDeviation:
    """What a complete method established on all boxes together.

    Attributes:
        verdict: as of `verify_deviation`: without epsilon PROVED says that `upper` is finite.
        lower: deviation attained at `witness`, exactly.
        upper: proved bound, exact; infinite where there is none.
        claimed: the solver's upper bound, true up to its tolerances (1e-6); infinite where it has none, equal to the
            proved one of the methods without such claims.
        seconds: time taken.
    """

    verdict: Verdict
    epsilon: Fraction | None
    lower: Fraction
    upper: Fraction | float
    claimed: float
    witness: Point
    seconds: float


@dataclass(frozen=True)
class _OnBox:
    lower: Fraction
    upper: Fraction | float
    claimed: float
    witness: Point


def complete_deviation(
    original: Network,
    compact: Network,
    boxes: Sequence[Box],
    *,
    method: str = "regions",
    epsilon: Number | None = None,
    seconds: float = 60.0,
) -> CompleteDeviation:
    """The largest deviation on the union of some boxes.

    Args:
        method: "regions", "milp" or "relaxation".
        epsilon: the bound to decide; None for the largest deviation itself.
        seconds: for all boxes; when they are over, bounds are those found so far.

    Raises:
        SpecificationError: an unknown method, no box, a time that is not positive, or networks that are too large.
        MismatchError: the networks or boxes do not fit together, or a box has too many inputs for "regions".
        UnsupportedOperation: an operation is not piecewise linear over the rationals.
    """
    if method not in METHODS:
        raise SpecificationError(f"unknown method {method!r}; there are {', '.join(METHODS)}")
    if not boxes or not seconds > 0:
        raise SpecificationError(f"need a box and a positive time, got {len(boxes)} boxes and {seconds} seconds")
    limit, started = None if epsilon is None else exact(epsilon, "epsilon"), time.monotonic()
    _require_small(original, compact)
    system = relu_system(original, compact)
    found = [METHODS[method](system, box, started + seconds * (i + 1) / len(boxes)) for i, box in enumerate(boxes)]
    worst = max(found, key=lambda f: f.lower)
    upper = max(f.upper for f in found)
    return CompleteDeviation(
        _verdict(worst.lower, upper, limit), limit, worst.lower, upper, max(f.claimed for f in found), worst.witness,
        time.monotonic() - started,
    )  # fmt: skip


def _require_small(original: Network, compact: Network) -> None:
    units = sum(
        math.prod(node.shape)
        for network in (original, compact)
        for node in network.nodes
        if not OPERATIONS[node.op].linear
    )
    if units > MOST_UNITS:
        raise SpecificationError(
            f"the networks have {units} nonlinear elements; complete methods take at most {MOST_UNITS} together. "
            "`verify deviation` searches networks of any size."
        )


def _verdict(lower: Fraction, upper: Fraction | float, epsilon: Fraction | None) -> Verdict:
    if epsilon is not None and lower > epsilon:
        return Verdict.REFUTED
    if upper < math.inf and (epsilon is None or upper <= epsilon):
        return Verdict.PROVED
    return Verdict.UNKNOWN


def _by_regions(system: ReluSystem, box: Box, deadline: float) -> _OnBox:
    found = enumerate_regions(system, box, deadline=deadline)
    if found is None:
        return _at_the_middle(system, box, math.inf)
    below = [(-value, point) for value, point in zip(found.lower, found.lower_at, strict=True)]
    above = list(zip(found.upper, found.upper_at, strict=True))
    deviation, witness = max(below + above)
    return _OnBox(deviation, deviation, float(deviation), tuple(witness))


def _by_milp(system: ReluSystem, box: Box, deadline: float) -> _OnBox:
    found = milp_deviation(system, box, seconds=max(deadline - time.monotonic(), 1e-3))
    lower = found.deviation()
    return _OnBox(lower, max(found.proved), max(found.claimed), found.witness[found.attained.index(lower)])


def _by_relaxation(system: ReluSystem, box: Box, deadline: float) -> _OnBox:
    return _at_the_middle(system, box, max(relaxed_upper(system, box, deadline=deadline)))


def _at_the_middle(system: ReluSystem, box: Box, upper: Fraction | float) -> _OnBox:
    middle = tuple((low + high) / 2 for low, high in zip(box.lower, box.upper, strict=True))
    return _OnBox(max(abs(v) for v in system.values(middle)), upper, float(upper), middle)


METHODS: dict[str, Callable[[ReluSystem, Box, float], _OnBox]] = {
    "regions": _by_regions,
    "milp": _by_milp,
    "relaxation": _by_relaxation,
}
