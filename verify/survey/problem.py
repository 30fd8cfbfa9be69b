"""One question for all 18 algorithms: does ``x in X`` imply ``f(x) in Y``?

The complement of Y is a union of polytopes ``{y : A y <= b}`` (`Violation`); with ``level(y) = max_i (A y - b)_i``
an output violates iff its level is at most 0 (below 0, where Y is closed). So

    HOLDS      needs  min over X of the level of every violation  >  margin
    VIOLATED   needs  an x, evaluated, with level <= -margin of the arithmetic

What lies between is UNKNOWN. The margins pay for float64 rounding and for solver tolerances, roughly: the answers
are those of reference implementations, not certificates (theory_notes/survey.md).
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from verify.errors import MismatchError, SpecificationError
from verify.survey.linear_program import Model, Outcome
from verify.survey.network import ReluNetwork
from verify.survey.result import Result, Status
from verify.survey.sets import Complement, Floats, Hyperrectangle, InputSet, OutputSet

SOLVER = 1e-6  # HiGHS: rows hold to 1e-7, integers to 1e-6
ARITHMETIC = 1e-9
INWARD = (0.0, 1e-10, 1e-8, 1e-6)  # how far a solver's point is pulled to the middle until it lies in the input set


@dataclass(frozen=True, eq=False)
class Violation:
    """A part of the complement of the output set: ``{y : normals y <= offsets}``; normals ``(k, m)``."""

    normals: Floats
    offsets: Floats

    def level(self, y: Floats) -> Floats:
        """``max_i (normals y - offsets)_i``, at most 0 inside; y ``(m,)`` or ``(batch, m)``."""
        return np.asarray((y @ self.normals.T - self.offsets).max(axis=-1))

    def margin(self, unit: float = SOLVER) -> float:
        """`unit` in the scale of the rows."""
        return unit * max(1.0, float(np.abs(self.offsets).max()), float(np.abs(self.normals).sum(axis=1).max()))


@dataclass(frozen=True, eq=False)
class Problem:
    """Network, input set, output set.

    Raises:
        MismatchError: the sets have other dimensions than the network.
    """

    network: ReluNetwork
    input: InputSet
    output: OutputSet

    def __post_init__(self) -> None:
        for name, found, needed in (
            ("input", self.input.dimension, self.network.inputs),
            ("output", self.output.dimension, self.network.outputs),
        ):
            if found != needed:
                raise MismatchError(f"the {name} set has dimension {found}, the network has {needed} {name}s")

    @cached_property
    def violations(self) -> tuple[Violation, ...]:
        """The complement of the output set: one polytope, or one half-space for every row of a convex output set."""
        if isinstance(self.output, Complement):
            return (Violation(*self.output.of.rows()),)
        normals, offsets = self.output.rows()
        return tuple(Violation(-a[None, :], -b[None]) for a, b in zip(normals, offsets, strict=True))

    @cached_property
    def box(self) -> Hyperrectangle:
        """The smallest box around the input set (for a polytope: to solver tolerance, widened by it).

        Raises:
            SpecificationError: the input set is empty or unbounded.
        """
        if isinstance(self.input, Hyperrectangle):
            return self.input
        model = Model()
        x = model.variables(self.network.inputs)
        model.rows([(x, self.input.normals)], upper=self.input.offsets)
        ends = []
        for sign in (1.0, -1.0):
            for i in x:
                found = model.minimise(np.array([i]), np.array([sign]))
                if found.outcome is not Outcome.OPTIMAL:
                    raise SpecificationError(f"the input polytope is {found.outcome.value} in coordinate {i}")
                ends.append(sign * found.value - sign * SOLVER * max(1.0, abs(found.value)))
        n = self.network.inputs
        return Hyperrectangle(np.array(ends[:n]), np.array(ends[n:]))

    @cached_property
    def input_rows(self) -> tuple[Floats, Floats]:
        """Rows ``A x <= b`` of the input set beyond those of its box; none for a hyperrectangle."""
        if isinstance(self.input, Hyperrectangle):
            return np.zeros((0, self.network.inputs)), np.zeros(0)
        return self.input.rows()

    @cached_property
    def middle(self) -> Floats:
        """A point deep inside the input set: the centre of a box, the Chebyshev centre of a polytope."""
        if isinstance(self.input, Hyperrectangle):
            return self.input.center
        model, norms = Model(), np.linalg.norm(self.input.normals, axis=1)
        x, r = model.variables(self.network.inputs), model.variables(1, 0.0, float(self.box.radius.max()))
        model.rows([(x, self.input.normals), (r, norms[:, None])], upper=self.input.offsets)
        found = model.minimise(r, np.array([-1.0]))
        if found.point is None:
            raise SpecificationError("the input polytope is empty")
        return found.point[x]

    def replay(self, candidate: Floats | None, result: Result | None = None) -> Result | None:
        """VIOLATED if a point (pulled into the input set) violates when evaluated in float64, else None.

        Args:
            candidate: where a solver believes a violation to be; None gives None.
            result: what else the answer shall carry.
        """
        if candidate is None:
            return None
        for share in INWARD:
            x = np.clip(candidate, self.box.lower, self.box.upper)
            x = x + share * (self.middle - x)
            if self.input.contains(x):
                y = self.network.evaluate(x)
                if any(v.level(y) <= -v.margin(ARITHMETIC) for v in self.violations):
                    return replace(result or Result(Status.UNKNOWN), status=Status.VIOLATED, counter_example=x)
        return None
