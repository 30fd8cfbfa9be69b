"""Rigorous ranges of linear functions of the outputs, of both networks and of their difference.

A question appends rows ``R`` to both networks (`with_rows`); R f - R g is then bounded layer by layer like any other
difference, so what the networks share cancels. Theory: theory_notes/questions.md, section 1.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verify.errors import MismatchError, SpecificationError
from verify.formal.lift import align
from verify.formal.program import EVERY_SYMBOL, Program, SeparateProgram, compile_pair, influence_of
from verify.formal.symbols import Ledger
from verify.network.graph import Network, Node

ORIGINAL, COMPACT, DIFFERENCE = range(3)


@dataclass(frozen=True)
class Ranges:
    """What holds for some functions of the outputs on each sub-box of a batch; NaN nowhere.

    Attributes:
        lower, upper: per form (`ORIGINAL`, `COMPACT`, `DIFFERENCE`; the original alone for a single network)
            ``(batch, rows)``, rounded outward; infinite where nothing could be shown.
        influences: per form and row, estimated on demand by `influence`.
    """

    lower: tuple[Tensor, ...]
    upper: tuple[Tensor, ...]
    forms: tuple[Any, ...]
    ledger: Ledger

    def influence(self, form: Tensor, row: Tensor, width: Tensor) -> Tensor:
        """``(batch, inputs)``: estimated part of each input in a range; `form`, `row` are ``(batch,)``."""
        result = width.clone()
        for which, affine in enumerate(self.forms):
            mine = form == which
            found = influence_of(affine, row.clamp(max=affine.centre.shape[1] - 1), self.ledger) if mine.any() else None
            if found is not None:
                result[mine] = torch.nan_to_num(found[mine])
        return result


@dataclass(frozen=True)
class Outputs:
    """A pair of networks, or one alone, compiled.

    Attributes:
        networks: the original and the compact one, or one network.
    """

    networks: tuple[Network, ...]
    program: Program

    @classmethod
    def of_pair(cls, original: Network, compact: Network, channels: Mapping[str, Any] | None) -> "Outputs":
        """Both networks and their difference.

        Raises:
            MismatchError: shapes or channels do not fit.
            UnsupportedOperation: a node has no bound propagation rule.
        """
        for what, a, b in (
            ("input", original.input_shape, compact.input_shape),
            ("output", original.output_shape, compact.output_shape),
        ):
            if math.prod(a) != math.prod(b):
                raise MismatchError(f"the networks have {what} shapes {a} and {b}; they cannot be compared")
        return cls((original, compact), compile_pair(original, compact, align(original, compact, channels)))

    @classmethod
    def of_one(cls, network: Network) -> "Outputs":
        """One network alone."""
        return cls((network,), SeparateProgram(network))

    def ranges(
        self,
        lower: Tensor,
        upper: Tensor,
        *,
        symbols: int = EVERY_SYMBOL,
        bytes_limit: int = 2**31,
        deadline: float = math.inf,
    ) -> Ranges:
        """Ranges on the sub-boxes ``[lower, upper]``, both ``(batch, inputs)`` float64.

        Raises:
            MemoryLimit, TimeLimit: as `Program.bounds`.
        """
        ledger = Ledger(lower.shape[0], lower.shape[1], symbols, bytes_limit, deadline)
        with torch.inference_mode():
            forms = self.program.outputs(lower, upper, ledger)
            for form in forms:
                ledger.watch(form)
            finite = ledger.finite()[:, None]
            pairs = [form.bounds() for form in forms]
            low = tuple(torch.where(finite, a, -torch.inf) for a, _ in pairs)
            high = tuple(torch.where(finite, b, torch.inf) for _, b in pairs)
            return Ranges(low, high, forms, ledger)


def with_rows(network: Network, rows: NDArray[np.float64]) -> Network:
    """The network followed by ``y -> rows y``, rows ``(r, outputs)`` taken exactly.

    Raises:
        SpecificationError: the rows do not fit the outputs.
    """
    size = math.prod(network.output_shape)
    if rows.ndim != 2 or rows.shape[1] != size:
        raise SpecificationError(f"rows of shape {rows.shape} do not fit {size} outputs")
    taken = {network.input, *(node.name for node in network.nodes), *network.parameters}
    flat, last, key = (_fresh(f"question_{what}", taken) for what in ("flat", "rows", "weight"))
    nodes = (
        Node(flat, "reshape", (network.output,), (size,), {}, {"shape": (size,)}),
        Node(last, "linear", (flat,), (len(rows),), {"weight": key}, {}),
    )
    return Network(
        network.input, network.input_shape, (*network.nodes, *nodes), last, {**network.parameters, key: rows}
    )


def _fresh(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def float_below(value: Any) -> float:
    """The largest float64 that does not exceed an exact number."""
    from fractions import Fraction

    nearest = float(value)
    return nearest if Fraction(nearest) <= value else math.nextafter(nearest, -math.inf)


def float_above(value: Any) -> float:
    """The smallest float64 that is not below an exact number."""
    return -float_below(-value)
