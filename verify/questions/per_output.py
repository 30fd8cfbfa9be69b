"""Is ``|original_i(x) - compact_i(x)| <= eps_i`` for every output i and every x of the domain?

Theory: theory_notes/questions.md, section 3.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verify.errors import SpecificationError
from verify.network.graph import Network
from verify.questions.outputs import DIFFERENCE, Outputs, Ranges, float_above, float_below
from verify.questions.search import Judgement
from verify.spec.box import Number, exact


@dataclass(frozen=True)
class PerOutput:
    """The question, for some networks.

    Attributes:
        limits: exact ``eps_i``, one per output.
        refuting: deviations above these refute; by default the limits. None where nothing refutes.
    """

    outputs: Outputs
    limits: tuple[Fraction, ...]
    refuting: tuple[Fraction | None, ...] | None = None

    def judge(self, ranges: Ranges) -> Judgement:
        """Proved where every range lies within its limit."""
        limit = torch.tensor([float_below(v) for v in self.limits], dtype=torch.float64)
        reach = torch.maximum(-ranges.lower[DIFFERENCE], ranges.upper[DIFFERENCE])
        over = torch.where(reach <= limit, 0.0, reach / limit.clamp(min=1e-300))
        worst = over.max(dim=1)
        proved = (reach <= limit).all(dim=1)
        return Judgement(proved, worst.values, torch.full_like(worst.indices, DIFFERENCE), worst.indices)

    def violated(self, ranges: Ranges) -> bool:
        """Some deviation is surely above what refutes."""
        above = [math.inf if v is None else float_above(v) for v in self.refuting or self.limits]
        limit = torch.tensor(above, dtype=torch.float64)
        attained = torch.maximum(ranges.lower[DIFFERENCE], -ranges.upper[DIFFERENCE])
        return bool((attained > limit).any())

    def score(self, values: Sequence[Tensor]) -> Tensor:
        """Largest excess over what refutes."""
        above = [math.inf if v is None else float(v) for v in self.refuting or self.limits]
        limit = torch.tensor(above, dtype=torch.float64)
        return ((values[0] - values[1]).abs() - limit).amax(1)


def per_output(
    original: Network, compact: Network, limits: Sequence[Number], channels: Mapping[str, Any] | None = None
) -> PerOutput:
    """The question for a list of limits, one per output (row-major), or one limit for all of them.

    Raises:
        SpecificationError: a limit is negative or no number, or there are too few or too many.
        MismatchError, UnsupportedOperation: as `Outputs.of_pair`.
    """
    outputs = Outputs.of_pair(original, compact, channels)
    size = int(np.prod(original.output_shape))
    values = tuple(exact(v, f"limit {i}") for i, v in enumerate(limits))
    values = values * size if len(values) == 1 else values
    if len(values) != size:
        raise SpecificationError(f"{len(values)} limits for {size} outputs")
    for i, value in enumerate(values):
        if value < 0:
            raise SpecificationError(f"limit {i} is negative: {float(value)}")
    return PerOutput(outputs, values)
