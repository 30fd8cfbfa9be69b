"""Backward bounds of the sub-boxes of a search: the rule "pair_backward", one pass without search for slopes.

It costs about ten times a zonotope and is ten to a hundred times tighter on sub-boxes that are still wide for the
network, so a search that does not end quickly turns to it. The auditor re-does this rule with its own arithmetic on
networks of affine steps and ReLU. Theory: theory_notes/backward_pair.md.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.formal.backward.bound import Analysis, Effort, both_signs
from verify.formal.backward.phases import Phases
from verify.formal.backward.substitution import Coefficients
from verify.formal.backward.tape import Fixed, Linear, Rectifier, Start, Tape, record_pair
from verify.formal.lift import Lift
from verify.formal.program import EVERY_SYMBOL
from verify.network.graph import Network

RULE = "pair_backward"
LARGEST_MAP = 2**23  # entries of an affine step as a matrix: what the auditor transposes
TOGETHER = 256  # sub-boxes bounded at once, where the networks are small
COEFFICIENTS = 2**21  # of one value, for all sub-boxes that are bounded at once


@dataclass(frozen=True)
class LeafBounds:
    """Bounds of the difference of two networks on batches of sub-boxes, by substitution from the output backward."""

    tape: Tape

    @property
    def together(self) -> int:
        """How many sub-boxes to bound at once."""
        widest = max(max(entry.sizes) for entry in self.tape.entries)
        return max(1, min(TOGETHER, COEFFICIENTS // widest**2))

    def bounds(self, lower: Tensor, upper: Tensor, *, seconds: float, started: float) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds ``(batch, outputs)`` on boxes ``(batch, inputs)``, rounded outward.

        Args:
            seconds, started: time (of `time.monotonic`) after which no argument of a ReLU is sharpened any more.
        """
        with torch.no_grad():
            analysis = Analysis(self.tape, lower, upper, Effort(0, 0, EVERY_SYMBOL, started, seconds)).run()
            rows = both_signs(self.tape.entries[self.tape.output].sizes[1])
            start = {self.tape.output: Coefficients(d=rows)}
            function = analysis.function(start, analysis.relaxed, analysis.weights)
            high, negated = function.largest(lower, upper).expand(len(lower), -1).chunk(2, dim=1)
            known = analysis.known[self.tape.output].d
            return torch.fmax(-negated, known.lower), torch.fmin(high, known.upper)

    def phases(self, lower: Tensor, upper: Tensor, *, seconds: float, started: float) -> Phases:
        """One box ``(1, inputs)``, on which the signs of arguments of ReLUs may be decided."""
        return Phases(self.tape, lower, upper, seconds=seconds, started=started)


def leaf_bounds(original: Network, compact: Network, lift: Lift | None) -> LeafBounds | None:
    """The rule for two networks, or None where the auditor does not know it: no lift, or other steps than its own.

    Raises:
        UnsupportedOperation: a node has no bound propagation rule.
    """
    if lift is None:
        return None
    tape = record_pair(original, compact, lift)
    return LeafBounds(tape) if all(_known(entry, tape) for entry in tape.entries[1:]) else None


def _known(entry: Start, tape: Tape) -> bool:
    if isinstance(entry, Linear):
        reads = max(tape.entries[i].sizes[0] for i in entry.inputs)
        return entry.sizes[0] * reads <= LARGEST_MAP
    return isinstance(entry, Rectifier | Fixed)
