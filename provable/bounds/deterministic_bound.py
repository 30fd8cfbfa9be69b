"""Deterministic bound: a kept set A without reweighting loses at most its tail of sensitivity.

Given E_K(x), for every output unit u of the layer:
    |z_hat_u - z_u| <= K (sum_{j not in A} s_j) max(z_u^+, z_u^-) <= K tail (z_u^+ + z_u^-)
No sampling, hence no delta; random is only whether E_K(x) holds.

Proof: theory_notes/deterministic_and_hybrid.md. Says nothing (vacuous) from K tail >= 1 on.
"""

from collections.abc import Sequence

import numpy as np

from provable.bounds.a_priori import RELATIVE_ERROR, APrioriBound
from provable.bounds.event_bound import Coverage
from provable.sampling.design import Array
from verify.errors import DataError


def deterministic_error(scores: Array, kept: Sequence[int], slack: float = 1.0) -> float:
    """K times the sum of the removed channels' sensitivities."""
    if not slack >= 1:
        raise DataError(f"the slack K is at least 1; got {slack}")
    removed = np.ones(scores.size, dtype=bool)
    removed[list(kept)] = False
    return slack * float(np.sum(scores[removed]))


def deterministic_bound(scores: Array, kept: Sequence[int], coverage: Coverage) -> APrioriBound:
    """The promise for one fresh input x and one layer."""
    return APrioriBound(
        name="deterministic bound",
        value=deterministic_error(scores, kept, coverage.slack),
        trivial=1.0,
        confidence=coverage.probability,
        assumption=f"{coverage.assumption}; kept slices unchanged",
        quantity=RELATIVE_ERROR,
    )
