"""What an algorithm of the survey answers."""

from dataclasses import dataclass
from enum import Enum

from verify.errors import VerifyError
from verify.survey.sets import AffineImage, Floats, Hyperrectangle


class Status(Enum):
    """The three answers."""

    HOLDS = "holds"
    VIOLATED = "violated"
    UNKNOWN = "unknown"


@dataclass(frozen=True, eq=False)
class Result:
    """An answer with its evidence, in float64 arithmetic with solver tolerances: no certificate.

    Attributes:
        status: HOLDS: every output of the input set lies in the output set. VIOLATED: `counter_example` was
            evaluated and lies outside. UNKNOWN: neither was shown.
        words: why, where the status alone does not say it.
        counter_example: an input ``(n,)`` of the input set whose output violates the property; only with VIOLATED.
        radius: adversarial radius in the max norm around the centre of the input set, where the algorithm gives
            one: no violation was found nearer. `radius_kind` says how much that is worth.
        radius_kind: "certified" (a lower bound of the distance to the nearest violation), "nearest" (the distance
            itself, within the input set) or "region-local" (nothing is said outside the centre's linear region).
        reach: box that contains all outputs, where the algorithm computes one.
        pieces: sets whose union contains all outputs, where the algorithm computes them.
    """

    status: Status
    words: str = ""
    counter_example: Floats | None = None
    radius: float | None = None
    radius_kind: str | None = None
    reach: Hyperrectangle | None = None
    pieces: tuple[AffineImage, ...] = ()

    def __post_init__(self) -> None:
        if (self.status is Status.VIOLATED) != (self.counter_example is not None):
            raise VerifyError("VIOLATED needs a counter-example, and nothing else may carry one")
