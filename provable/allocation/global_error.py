"""Provable filter pruning's budget rule: one error e for all layers, as small as the budget allows.

    m_g(e) = (6 + 2e) T_g log(2 N_g / delta) / (3 e^2)        draws the layer theorem asks for
    k_g(e) = ceil( sum_j 1 - (1 - q_j)^m )                    distinct channels they leave in expectation

k falls as e grows; e is bisected until the cost meets the budget. A group whose sensitivity is spread over many
channels (large T) keeps more. The e that comes out is an allocation knob: at usual budgets it is far above 1, where
the theorem says nothing. The honest error of each layer is reported beside it.

Reference: Liebenwein et al., ICLR 2020, and its published code (section "global epsilon"); the constant is the one
that Bernstein's inequality needs. Theory: theory_notes/allocation.md.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from provable.allocation.budget import Allocation, Budget, check_reachable
from provable.allocation.widths import Widths
from provable.bounds.layer_theorem import layer_sample_size
from provable.cost import Counts
from provable.sampling.with_replacement import expected_distinct
from provable.selection.by_sensitivity import FAILURE, measured
from provable.selection.evidence import Evidence

KNOB = "global error e of the layer theorem, as an allocation knob"
SMALLEST, LARGEST = 1e-9, 1e12


def allocate(
    evidence: Sequence[Evidence],
    cost: Callable[[Counts], Counts],
    budget: Budget,
    widths: Mapping[str, Widths],
) -> Allocation:
    """Counts at the smallest e (to 1e-6 relative) whose cost meets the budget.

    Args:
        evidence: of every group, with sensitivities; in the order of the cost's last axis.
        cost: cost of arrays of counts (..., groups).
        budget: what fraction of the cost may stay.
        widths: group -> widths it may take, ascending; a layer that wants another one gets the next wider one.

    Raises:
        BudgetError: the budget is below the cost of the narrowest widths.
        CalibrationError: a group has no sensitivity.
    """
    full = np.array([known.slots for known in evidence], dtype=np.int64)
    ladders = [widths[known.group.name] for known in evidence]
    check_reachable(cost(np.array([ladder[0] for ladder in ladders], dtype=np.int64)), cost(full), budget)
    limit = budget.fraction * int(cost(full))
    low, high = math.log(SMALLEST), math.log(LARGEST)
    if int(cost(full)) <= limit:
        return _result(evidence, full, 0.0)
    while high - low > 1e-6:
        middle = (low + high) / 2.0
        meets = int(cost(_counts(evidence, math.exp(middle), ladders))) <= limit
        low, high = (low, middle) if meets else (middle, high)
    return _result(evidence, _counts(evidence, math.exp(high), ladders), math.exp(high))


def _counts(evidence: Sequence[Evidence], error: float, ladders: Sequence[Widths]) -> Counts:
    wanted = [_kept(known, error) for known in evidence]
    found = [ladder[bisect_left(ladder, count)] for ladder, count in zip(ladders, wanted, strict=True)]
    return np.array(found, dtype=np.int64)


def _kept(evidence: Evidence, error: float) -> int:
    sensitivity = measured(evidence)
    draws = layer_sample_size(error, sensitivity.total, evidence.sums, FAILURE)
    distinct = expected_distinct(sensitivity.distribution, draws)
    return min(evidence.slots, max(1, math.ceil(distinct - 1e-9)))


def _result(evidence: Sequence[Evidence], counts: Counts, error: float) -> Allocation:
    names = [known.group.name for known in evidence]
    return Allocation(dict(zip(names, counts.tolist(), strict=True)), error, KNOB)
