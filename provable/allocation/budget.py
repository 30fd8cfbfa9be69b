"""A budget: which cost, how much of it may stay, and what to say when that is out of reach."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from provable.cost import CostModel, Counts
from provable.errors import BudgetError

KINDS = ("flops", "params", "channels")


@dataclass(frozen=True)
class Budget:
    """What fraction of the original may stay.

    Attributes:
        kind: "flops" (multiply-adds of conv and linear), "params", or "channels" (the same share in every group).
        fraction: in (0, 1].
    """

    kind: str
    fraction: float


@dataclass(frozen=True)
class Allocation:
    """How many slots each group keeps.

    Attributes:
        counts: group name -> kept slots.
        knob: the number that settled it.
        meaning: what that number is.
    """

    counts: Mapping[str, int]
    knob: float
    meaning: str


def budget_of(keep: Mapping[str, float]) -> Budget:
    """The budget in words such as ``{"flops": 0.5}``: keep half of the multiply-adds.

    Raises:
        BudgetError: not exactly one known kind, or a fraction outside (0, 1].
    """
    if len(keep) != 1:
        raise BudgetError(f"keep names {len(keep)} budgets, expected exactly one of {', '.join(KINDS)}: {dict(keep)}")
    ((kind, fraction),) = keep.items()
    if kind not in KINDS:
        raise BudgetError(f"keep: unknown budget {kind!r}, expected one of {', '.join(KINDS)}")
    number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
    if not number or not math.isfinite(fraction) or not 0.0 < fraction <= 1.0:
        raise BudgetError(f"keep: {kind} is the fraction that stays, a number in (0, 1]; got {fraction!r}")
    return Budget(kind, float(fraction))


def cost_of(model: CostModel, kind: str) -> Callable[[Counts], Counts]:
    """Cost of arrays of counts (..., groups) in the order of the model's groups."""
    return {"flops": model.flop_terms, "params": model.parameter_terms}[kind].value


def check_reachable(smallest: Counts, full: Counts, budget: Budget) -> None:
    """Refuse a budget below the cost of the narrowest network allowed.

    Raises:
        BudgetError: the message names the smallest fraction that can be reached.
    """
    if int(smallest) > budget.fraction * int(full):
        reachable = int(smallest) / int(full)
        raise BudgetError(
            f"keep {budget.kind}={budget.fraction:g} cannot be met: with every prunable group at its floor "
            f"{reachable:.4f} of the original's {int(full):,} {budget.kind} are left (rounded up: "
            f"{math.ceil(reachable * 1e4) / 1e4:g}); keep more, lower the floor, or widen the scope"
        )
