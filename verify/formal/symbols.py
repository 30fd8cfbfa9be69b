"""The ledger of error symbols of one batch: who gets one, in which row, and which inputs it stems from.

Every input coordinate has a symbol, unless the budget is 0. Elements ask in the order of the nodes and, within a
node, original, compact, difference, each by index; they are served while the budget of their sub-box lasts. An
element that gets no symbol keeps its error in its remainder (and then prefers the interval hull to a slope).
"""

import math
import time

import torch
from torch import Tensor

from verify.formal.form import BLOCKS, COMPACT, ORIGINAL, REST, Form, Fresh
from verify.formal.rounding import raised

_COPIES = 4  # of the generators a step makes: the three forms of a value and temporaries
FEW_INPUTS = 64  # up to here the ledger records from which inputs a symbol's error stems


class MemoryLimit(Exception):
    """The generators of this batch would exceed the memory limit; use fewer sub-boxes or fewer symbols."""


class TimeLimit(Exception):
    """The deadline passed before a batch was done."""


class Ledger:
    """Rows handed out so far, per block, for a batch of sub-boxes.

    Args:
        batch, inputs: numbers of sub-boxes and of input coordinates.
        symbols: budget of symbols of one sub-box, input symbols included; 0 gives interval propagation.
        bytes_limit: refuse (MemoryLimit) steps that need more, their temporaries included.
        deadline: moment of `time.monotonic` after which no step is begun (TimeLimit).
    """

    def __init__(
        self, batch: int, inputs: int, symbols: int, bytes_limit: int = 2**31, deadline: float = math.inf
    ) -> None:
        self.batch, self.bytes_limit, self.deadline = batch, bytes_limit, deadline
        self.inputs = inputs if symbols > 0 else 0
        self.left = torch.full((batch, 1), symbols - inputs, dtype=torch.int64)
        self.plenty = symbols - inputs  # what every sub-box has at least
        self.rows = [self.inputs if block in (ORIGINAL, COMPACT) else 0 for block in BLOCKS]
        self.shares: list[list[Tensor]] = [[] for _ in BLOCKS]
        self.total = torch.zeros(batch, dtype=torch.float64)

    def grant(self, wanted: Tensor, order: Tensor | None = None) -> Tensor:
        """Which of the wanted elements ``(batch, n)`` get a symbol.

        Args:
            order: stored position -> position in the file's order, in which elements are served; None if the same.
        """
        if self.plenty >= wanted.shape[1]:  # enough for all, whatever the sub-box
            self.plenty -= wanted.shape[1]
            self.left -= wanted.sum(1, keepdim=True)
            return wanted
        if not self.inputs or not bool((self.left > 0).any()):
            return torch.zeros_like(wanted)
        asked = wanted if order is None else wanted[:, order.argsort()]
        served = asked & (asked.cumsum(1) <= self.left)
        granted = served if order is None else served[:, order]
        self.left -= granted.sum(1, keepdim=True)
        self.plenty = int(self.left.amin())
        return granted

    def fresh(self, block: int, granted: Tensor, half: Tensor, argument: Form) -> Fresh | None:
        """Rows for the granted elements, each with generator ``half``, both ``(batch, n)``.

        Args:
            argument: form of the value whose relaxation makes the error; its input rows say where that stems from.
        """
        index, used = packed(granted)
        if not index.shape[0]:
            return None
        start = self.rows[block]
        self.rows[block] += index.shape[0]
        if self.inputs <= FEW_INPUTS:
            self.shares[block].append(self._share_of(argument, index, used))
        return Fresh(block, start, index, half.gather(1, index.T).T * used)

    def _share_of(self, argument: Form, index: Tensor, used: Tensor) -> Tensor:
        """``(p, batch, inputs)``: the part of each input in the radius of the elements at `index`."""
        rows = argument.input_rows()
        if rows is None:  # a value that does not depend on the input
            return torch.zeros(*index.shape, self.inputs, dtype=torch.float64)
        own = rows.gather(2, index.T.expand(self.inputs, -1, -1)).abs()  # (inputs, batch, p)
        own *= used.T / raised(argument.radius.gather(1, index.T))
        return own.permute(2, 1, 0)

    def share(self, block: int) -> Tensor | None:
        """``(errors, batch, inputs)``: the part of each input in the errors of a block."""
        source = self.shares[COMPACT if block == REST else block]
        return torch.cat(source) if source else None

    def reserve(self, rows: int, elements: int) -> None:
        """Raise MemoryLimit unless a step that makes so many generators of so many elements fits, TimeLimit if late."""
        needed = _COPIES * 8 * rows * elements * self.batch
        if needed > self.bytes_limit:
            raise MemoryLimit(f"a step needs about {needed} bytes, the limit is {self.bytes_limit}")
        if time.monotonic() >= self.deadline:
            raise TimeLimit("the deadline passed")

    def watch(self, form: Form) -> None:
        """Remember the sub-boxes in which a form is NaN or infinite: nothing is proved there."""
        self.total = self.total + form.size.sum(1)

    def finite(self) -> Tensor:
        """``(batch,)``: all forms watched were finite."""
        return self.total.isfinite()


def packed(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the true elements of ``(batch, n)``, per row to the front: index and use, ``(p, batch)``."""
    counts = mask.sum(1)
    width = int(counts.max()) if mask.shape[0] else 0
    index = torch.zeros(width, mask.shape[0], dtype=torch.int64)
    used = torch.zeros(width, mask.shape[0], dtype=torch.float64)
    if width:
        row, column = mask.nonzero(as_tuple=True)
        slot = torch.arange(row.shape[0]) - (counts.cumsum(0) - counts)[row]
        index[slot, row] = column
        used[slot, row] = 1.0
    return index, used
