"""The ledger of error symbols of one batch: who gets one, in which row, and which inputs it stems from.

Elements ask in the order of the nodes and, within a node, original, compact, difference, each by index; they
are served while the budget of their sub-box lasts. An element that gets no symbol keeps its error in its
remainder (and its caller then prefers the interval hull to a sloped relaxation).
"""

import torch
from torch import Tensor

from verify.formal.form import FAMILIES, Fresh

FEW_INPUTS = 64  # up to here the ledger records from which inputs a symbol's error stems


class MemoryLimit(Exception):
    """The generators of this batch would exceed the memory limit; use fewer sub-boxes or fewer symbols."""


class Ledger:
    """Rows handed out so far, per family, for a batch of sub-boxes.

    Args:
        batch: number of sub-boxes.
        symbols: budget of symbols of one sub-box, input symbols included; 0 gives interval propagation.
        bytes_limit: refuse (MemoryLimit) to let the generators of one step grow beyond this.
    """

    def __init__(self, batch: int, symbols: int, bytes_limit: int) -> None:
        self.batch, self.budget, self.bytes_limit = batch, symbols, bytes_limit
        self.rows = [0 for _ in FAMILIES]
        self.used = torch.zeros(batch, dtype=torch.int64)
        self.shares: list[list[Tensor]] = [[] for _ in FAMILIES]
        self.finite = torch.ones(batch, dtype=torch.bool)

    def grant(self, wanted: Tensor) -> Tensor:
        """Which of the wanted elements ``(batch, n)`` get a symbol."""
        if self.budget <= 0:
            return torch.zeros_like(wanted)
        counts = wanted.sum(1)
        if bool((self.used + counts <= self.budget).all()):
            granted = wanted
        else:
            granted = wanted & (self.used[:, None] + wanted.cumsum(1) <= self.budget)
        self.used = self.used + granted.sum(1)
        return granted

    def fresh(self, family: int, granted: Tensor, size: Tensor, share: Tensor | None) -> Fresh | None:
        """Rows for the granted elements, each with generator ``size``, both ``(batch, n)``.

        Args:
            share: ``(inputs, batch, n)``, the part of each input in the error, or None.
        """
        index, used = packed(granted)
        if len(index) == 0:
            return None
        start = self.rows[family]
        self.rows[family] += len(index)
        if share is not None:
            rows = share.gather(2, index.T.expand(len(share), -1, -1)) * used.T  # (inputs, batch, p)
            self.shares[family].append(rows.permute(2, 1, 0))
        return Fresh(family, start, index, size.gather(1, index.T).T * used)

    def share(self, family: int) -> Tensor | None:
        """``(rows, batch, inputs)`` recorded for a family."""
        return torch.cat(self.shares[family]) if self.shares[family] else None

    def reserve(self, rows: int, elements: int) -> None:
        """Account for a new block of generators."""
        bytes_needed = 8 * rows * elements * self.batch
        if bytes_needed > self.bytes_limit:
            raise MemoryLimit(f"{bytes_needed} bytes of generators, limit {self.bytes_limit}")

    def watch(self, radius: Tensor) -> None:
        """Remember the sub-boxes in which a radius is NaN or infinite: nothing is proved there."""
        self.finite &= radius.isfinite().all(1)


def packed(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the true elements of ``(batch, n)``, per row to the front: index and use, ``(p, batch)``."""
    counts = mask.sum(1)
    width = int(counts.max()) if len(counts) else 0
    index = torch.zeros(width, len(mask), dtype=torch.int64)
    used = torch.zeros(width, len(mask), dtype=torch.float64)
    row, column = mask.nonzero(as_tuple=True)
    first = counts.cumsum(0) - counts
    slot = torch.arange(len(row)) - first[row]
    index[slot, row] = column
    used[slot, row] = 1.0
    return index, used
