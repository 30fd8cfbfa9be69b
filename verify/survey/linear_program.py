"""Linear and mixed-integer programs on scipy's HiGHS, written row by row.

A `Model` only grows. A branch of a search changes the bounds of variables, never the rows, so one model serves a
whole search. Nothing is certified: HiGHS satisfies rows to 1e-7 and integers to 1e-6.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from verify.survey.deadline import Deadline
from verify.survey.sets import Floats

Indices = NDArray[np.int64]
FAILED = 4  # scipy's status of a solve that broke down
_STATUS = {0: "OPTIMAL", 1: "STOPPED", 2: "INFEASIBLE", 3: "UNBOUNDED", FAILED: "FAILED"}


class Outcome(Enum):
    """How a solve ended."""

    OPTIMAL = "optimal"
    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, eq=False)
class Solution:
    """Value and point of the best solution found; `lower`: the solver's lower bound of the minimum.

    An infeasible program has both at infinity; one that was stopped has what is known by then.
    """

    outcome: Outcome
    value: float
    lower: float
    point: Floats | None


@dataclass
class Model:
    """``minimise c.v`` subject to row bounds, variable bounds and integrality."""

    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    integer: list[int] = field(default_factory=list)
    _entries: list[tuple[Indices, Indices, Floats]] = field(default_factory=list)
    _row_lower: list[Floats] = field(default_factory=list)
    _row_upper: list[Floats] = field(default_factory=list)
    _height: int = 0
    _built: Any = None

    def variables(
        self, count: int, lower: ArrayLike = -np.inf, upper: ArrayLike = np.inf, integer: bool = False
    ) -> Indices:
        """Add variables and return their indices ``(count,)``."""
        first = len(self.lower)
        self.lower += np.broadcast_to(np.asarray(lower, dtype=np.float64), (count,)).tolist()
        self.upper += np.broadcast_to(np.asarray(upper, dtype=np.float64), (count,)).tolist()
        self.integer += [int(integer)] * count
        self._built = None
        return np.arange(first, first + count)

    def rows(
        self, terms: Sequence[tuple[Indices, Floats]], lower: ArrayLike = -np.inf, upper: ArrayLike = np.inf
    ) -> None:
        """Add ``lower <= sum of matrix @ v[indices] <= upper`` for terms (indices ``(n,)``, matrix ``(k, n)``)."""
        height = len(terms[0][1])
        for indices, matrix in terms:
            r, c = np.nonzero(matrix)
            self._entries.append((r + self._height, indices[c], np.asarray(matrix)[r, c]))
        self._row_lower.append(np.broadcast_to(np.asarray(lower, dtype=np.float64), (height,)))
        self._row_upper.append(np.broadcast_to(np.asarray(upper, dtype=np.float64), (height,)))
        self._height += height
        self._built = None

    def minimise(
        self,
        indices: Indices,
        costs: Floats,
        *,
        lower: Floats | None = None,
        upper: Floats | None = None,
        deadline: Deadline | None = None,
    ) -> Solution:
        """Minimise ``costs . v[indices]``; `lower` and `upper` replace the bounds of all variables for this solve.

        Raises:
            OutOfTime: the deadline has passed before the solve.
        """
        low = np.array(self.lower) if lower is None else lower
        high = np.array(self.upper) if upper is None else upper
        if (low > high).any():
            return Solution(Outcome.INFEASIBLE, np.inf, np.inf, None)
        objective = np.zeros(len(low))
        objective[indices] = costs
        options: dict[str, Any] = {"mip_rel_gap": 0.0}
        if deadline is not None and np.isfinite(deadline.at):
            options["time_limit"] = deadline.left()
        for presolve in (True, False):  # HiGHS's presolve fails on some programs that it can solve
            found = milp(
                objective, integrality=np.array(self.integer), bounds=Bounds(low, high),
                constraints=self._constraints(), options={**options, "presolve": presolve},
            )  # fmt: skip
            if found.status != FAILED:
                break
        return _solution(found, any(self.integer))

    def _constraints(self) -> Any:
        if not self._height:
            return None
        if self._built is None:
            r, c, v = (np.concatenate(parts) for parts in zip(*self._entries, strict=True))
            matrix = coo_array((v, (r, c)), shape=(self._height, len(self.lower))).tocsc()
            self._built = LinearConstraint(matrix, np.concatenate(self._row_lower), np.concatenate(self._row_upper))
        return self._built


def _solution(found: Any, mixed: bool) -> Solution:
    outcome = Outcome[_STATUS[found.status]]
    if outcome is Outcome.INFEASIBLE:
        return Solution(outcome, np.inf, np.inf, None)
    value = -np.inf if outcome is Outcome.UNBOUNDED else np.inf if found.x is None else float(found.fun)
    bound = found.mip_dual_bound if mixed else value if outcome is Outcome.OPTIMAL else None
    lower = -np.inf if bound is None or np.isnan(bound) else float(bound)
    return Solution(outcome, value, lower, None if found.x is None else np.asarray(found.x))


def doubt(solution: Solution) -> str:
    """Why a solution whose point refutes nothing proves nothing either."""
    stopped = solution.outcome in (Outcome.STOPPED, Outcome.FAILED)
    return f"the solver {solution.outcome.value}" if stopped else "within the margin"
