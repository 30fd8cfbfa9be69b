"""What a theorem promises before anything is pruned, as a value for tables."""

from dataclasses import dataclass

from verify.errors import DataError


@dataclass(frozen=True)
class APrioriBound:
    """An upper bound on a stated quantity, with everything it rests on.

    Attributes:
        name: theorem, e.g. "layer theorem".
        value: the upper bound, in float64, not rounded outward.
        trivial: what removing every channel (keeping the bias) already achieves; the same unit as `value`.
        confidence: probability with which the bound holds, over everything that `assumption` names as random.
        assumption: what it assumes, in words.
        quantity: what is bounded, in words with its unit.
    """

    name: str
    value: float
    trivial: float
    confidence: float
    assumption: str
    quantity: str

    @property
    def vacuous(self) -> bool:
        """The bound says nothing: its value is not below the trivial one, or its confidence is not positive."""
        return not (self.value < self.trivial and self.confidence > 0)


RELATIVE_ERROR = "e in |z_hat_u - z_u| <= e (z_u^+ + z_u^-) for every output unit u of one layer"


def checked_failure(failure: float) -> float:
    """`failure`, if it is a probability strictly between 0 and 1."""
    if not 0 < failure < 1:
        raise DataError(f"a failure probability lies strictly between 0 and 1; got {failure}")
    return failure


def checked_positive(name: str, value: float) -> float:
    """`value`, if it is a positive finite number."""
    if not 0 < value < float("inf"):
        raise DataError(f"{name} must be positive and finite; got {value}")
    return value
