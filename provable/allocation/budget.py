"""A budget: which cost, how much of it may stay, and what to say when that is out of reach."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from provable.cost import Counts
from provable.errors import BudgetError

KINDS = ("flops", "parameters", "bytes", "latency", "channels")
SHORT = {"params": "parameters"}


@dataclass(frozen=True)
class Budget:
    """What fraction of the original may stay.

    Attributes:
        kind: one of `KINDS` (provable.budgets says what each is).
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
    kind = SHORT.get(kind, kind)
    if kind not in KINDS:
        raise BudgetError(f"keep: unknown budget {kind!r}, expected one of {', '.join(KINDS)}")
    number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
    if not number or not math.isfinite(fraction) or not 0.0 < fraction <= 1.0:
        raise BudgetError(f"keep: {kind} is the fraction that stays, a number in (0, 1]; got {fraction!r}")
    return Budget(kind, float(fraction))


def check_reachable(smallest: Counts, full: Counts, budget: Budget) -> None:
    """Refuse a budget below the cost of the narrowest network allowed.

    Raises:
        BudgetError: the message names the smallest fraction that can be reached.
    """
    if int(smallest) > budget.fraction * int(full):
        raise unreachable(budget, int(smallest) / int(full), f"original's {int(full):,} {budget.kind}")


def unreachable(budget: Budget, reachable: float, whole: str) -> BudgetError:
    """The error for a budget below what the narrowest network allowed costs, as a share of the whole."""
    return BudgetError(
        f"keep {budget.kind}={budget.fraction:g} cannot be met: with every prunable group at its floor "
        f"{reachable:.4f} of the {whole} are left (rounded up: {math.ceil(reachable * 1e4) / 1e4:g}); keep more, "
        "lower the floor, round to a smaller multiple, or widen the scope"
    )


AllocateByCost = Callable[[Callable[[Counts], Counts], Budget], Allocation]
"""(cost of arrays of counts, budget) -> counts: a recipe's rule, everything else about the network known to it."""
