"""Do both networks choose the same largest output wherever the original's leads by more than a margin m?

For output j, with all pairs of outputs as rows of one appended linear layer: on a sub-box j is settled if

    some k:   f_j - f_k <= m                                        (j never leads by more than m), or
    every k:  (f_j - f_k) - (g_j - g_k) <= m   or   g_j - g_k > 0    (where j leads, g_j is the single largest)

Theory: theory_notes/questions.md, section 4. With m = 0 the claim is about all inputs at which the original has a
single largest output. Not claimed: anything where it has none, nor about rounding on a device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verify.errors import SpecificationError
from verify.network.graph import Network
from verify.questions.outputs import COMPACT, DIFFERENCE, ORIGINAL, Outputs, Ranges, float_above, float_below, with_rows
from verify.questions.search import Judgement
from verify.spec.box import Number, exact

MOST_OUTPUTS = 128


@dataclass(frozen=True)
class SameArgMax:
    """The question, for some networks.

    Attributes:
        outputs: both networks with a row ``e_j - e_k`` for every pair j < k appended.
        size: number of outputs of the networks themselves.
        margin: exact m.
    """

    outputs: Outputs
    size: int
    margin: Fraction

    def judge(self, ranges: Ranges) -> Judgement:
        """Proved where every output is settled."""
        margin = float_below(self.margin)
        z_upper = self._above(ranges, ORIGINAL)  # (batch, j, k), +inf on the diagonal
        y_lower, d_upper = -self._above(ranges, COMPACT).transpose(1, 2), self._above(ranges, DIFFERENCE)
        itself = torch.eye(self.size, dtype=torch.bool)
        never = (z_upper <= margin).any(2)
        kept = ((d_upper <= margin) | (y_lower > 0.0) | itself).all(2)
        gaps = torch.stack([z_upper.amin(2, keepdim=True).expand_as(z_upper) - margin, -y_lower, d_upper - margin])
        gaps = torch.nan_to_num(gaps, nan=torch.inf)
        settled = (never | kept)[:, :, None] | itself
        least = gaps.min(dim=0)  # what needs least, for every j and k
        need = torch.where(settled, -torch.inf, least.values).flatten(1)
        worst = need.max(dim=1)
        j, k = worst.indices // self.size, worst.indices % self.size
        form = least.indices.flatten(1).gather(1, worst.indices[:, None])[:, 0]
        rival = z_upper.argmin(2).gather(1, j[:, None])[:, 0]
        return Judgement((never | kept).all(1), worst.values, form, self._row(j, torch.where(form == 0, rival, k)))

    def violated(self, ranges: Ranges) -> bool:
        """Some output surely leads by more than m, and surely is not the compact network's single largest."""
        margin = float_above(self.margin)
        z_lower, y_upper = -self._above(ranges, ORIGINAL).transpose(1, 2)[0], self._above(ranges, COMPACT)[0]
        itself = torch.eye(self.size, dtype=torch.bool)
        leads = ((z_lower > margin) | itself).all(1)
        lost = ((y_upper <= 0.0) & ~itself).any(1)
        return bool((leads & lost).any())

    def score(self, values: Sequence[Tensor]) -> Tensor:
        """The smaller of: lead of the original's largest output beyond m, and what beats it in the compact network."""
        f, g = (self._square(v) for v in values)
        itself = torch.eye(self.size, dtype=torch.bool)
        lead = torch.where(itself, torch.inf, f).amin(2)
        beaten = torch.where(itself, -torch.inf, -g).amax(2)
        return torch.minimum(lead - float(self.margin), beaten).amax(1)

    def _above(self, ranges: Ranges, form: int) -> Tensor:
        """Upper bounds ``(batch, j, k)`` of output j minus output k, infinite on the diagonal."""
        square = self._square(ranges.upper[form], ranges.lower[form])
        return square.masked_fill(torch.eye(self.size, dtype=torch.bool), torch.inf)

    def _square(self, pairs: Tensor, opposite: Tensor | None = None) -> Tensor:
        """``(batch, pairs)`` as ``(batch, j, k)``; ``-opposite`` (by default the same) below the diagonal."""
        first, second = torch.triu_indices(self.size, self.size, 1)
        square = torch.zeros(len(pairs), self.size, self.size, dtype=pairs.dtype)
        square[:, first, second] = pairs
        square[:, second, first] = -(pairs if opposite is None else opposite)
        return square

    def _row(self, j: Tensor, k: Tensor) -> Tensor:
        """Number of the row of a pair, in either order."""
        low, high = torch.minimum(j, k), torch.maximum(j, k)
        return (low * self.size - low * (low + 1) // 2 + high - low - 1).clamp(0, self.size * (self.size - 1) // 2 - 1)


def same_arg_max(
    original: Network, compact: Network, margin: Number = 0, channels: Mapping[str, Any] | None = None
) -> SameArgMax:
    """The question for two networks of the same shapes.

    Raises:
        SpecificationError: fewer than 2 or more than `MOST_OUTPUTS` outputs, or a negative margin.
        MismatchError, UnsupportedOperation: as `Outputs.of_pair`.
    """
    size, m = int(np.prod(original.output_shape)), exact(margin, "margin")
    if m < 0:
        raise SpecificationError(f"the margin must not be negative, got {float(m)}")
    if not 2 <= size <= MOST_OUTPUTS:
        raise SpecificationError(f"arg max needs 2 to {MOST_OUTPUTS} outputs, the networks have {size}")
    Outputs.of_pair(original, compact, channels)  # shapes and channels fit, before rows hide them
    first, second = np.triu_indices(size, 1)
    rows = np.zeros((len(first), size))
    rows[np.arange(len(first)), first], rows[np.arange(len(first)), second] = 1.0, -1.0
    pair = Outputs.of_pair(with_rows(original, rows), with_rows(compact, rows), channels)
    return SameArgMax(pair, size, m)
