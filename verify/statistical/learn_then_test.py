"""Choosing among candidates by test data with a confidence that survives the choice: fixed-sequence testing.

Candidates lambda_1, lambda_2, ... in an order fixed before the data are seen; lambda_j is bad if its rate of violations
in some stratum exceeds the limit x. With k of n violations in each stratum,

    p_j = max over strata of P( Bin(n, x) <= k )          valid: P(p_j <= d) <= d for a bad lambda_j
    accept lambda_1, lambda_2, ... as long as p_j <= delta; stop at the first that is not

Then P( any accepted candidate is bad ) <= delta, whatever the dependence between candidates: if one is, the FIRST bad
one was tested and accepted, and that has probability at most delta. No correction for the number of candidates.

Reference: Angelopoulos, Bates, Candes, Jordan, Lei 2021, Learn then Test. Theory note: theory_notes/learn_then_test.md.
Not claimed: anything if the candidates or their order were chosen with these data, or the samples are not independent
draws from one distribution.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from verify.errors import DataError
from verify.statistical.binomial import binomial_tail_upper
from verify.statistical.confidence import Level, exact


@dataclass(frozen=True)
class Count:
    """Violations among the samples of one stratum, such as a class or all samples."""

    violations: int
    samples: int


@dataclass(frozen=True)
class Decision:
    """One tested candidate.

    Attributes:
        counts: per stratum.
        p_value_upper: upper bound of the p-value, exact up to 1e-40 relative.
        accepted: whether its rates are at most the limit, with the confidence of the whole sequence.
    """

    counts: tuple[Count, ...]
    p_value_upper: Fraction
    accepted: bool


class FixedSequence:
    """A sequence of tests that ends with the first candidate that is not accepted.

    Args:
        limit: rate of violations that is allowed in every stratum, in (0, 1).
        confidence: probability with which no accepted candidate is bad.
    """

    def __init__(self, limit: Level, confidence: Level) -> None:
        self._limit, self._delta = exact(limit, "limit"), 1 - exact(confidence)
        self._decisions: list[Decision] = []

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """All decisions so far, in order."""
        return tuple(self._decisions)

    @property
    def ended(self) -> bool:
        """Whether a candidate was refused: no further one may be tested."""
        return bool(self._decisions) and not self._decisions[-1].accepted

    def test(self, counts: Sequence[Count]) -> Decision:
        """Decide on the next candidate.

        Raises:
            DataError: the sequence has ended, or there is no stratum.
        """
        if self.ended:
            raise DataError("the sequence of tests has ended: a candidate after a refused one has no valid test")
        if not counts:
            raise DataError("a test needs the counts of at least one stratum")
        p = max(binomial_tail_upper(c.samples, c.violations, self._limit) for c in counts)
        self._decisions.append(Decision(tuple(counts), p, p <= self._delta))
        return self._decisions[-1]
