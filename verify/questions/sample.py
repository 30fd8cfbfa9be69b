"""How many boxes of a declared sample are certified: |original - compact| <= epsilon on center ± radius.

Each box is decided on its own; `certified` of them are proved. For a declared grid that share is the answer. If the
centers are independent draws from a distribution, a fresh box is certified with probability at least `rate_lower`,
with the stated confidence (Clopper-Pearson).

Theory: theory_notes/questions.md, section 7. Not claimed: anything about boxes whose decision ran out of time, nor
about centers that were also used to make the compact network.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verify.errors import DataError, SpecificationError
from verify.formal.deviation import verify_deviation
from verify.network.graph import Network
from verify.parallel.workers import Here, Workers, WorkersLost
from verify.spec.box import Box, Number, exact
from verify.spec.deviation import Verdict
from verify.statistical.clopper_pearson import rate_lower
from verify.statistical.confidence import Level


@dataclass(frozen=True)
class SampleAnswer:
    """What was decided about the boxes.

    Attributes:
        verdicts: one per box; UNKNOWN also for boxes that were not reached.
        confidence: of `rate_lower`.
        rate_lower: lower bound of the probability that a fresh box is certified, if the centers are independent draws.
    """

    verdicts: tuple[Verdict, ...]
    confidence: Level
    rate_lower: float

    @property
    def certified(self) -> int:
        """Boxes proved."""
        return self.verdicts.count(Verdict.PROVED)

    @property
    def refuted(self) -> int:
        """Boxes with a replayed input beyond epsilon."""
        return self.verdicts.count(Verdict.REFUTED)


@dataclass(frozen=True)
class _Item:
    original: Network
    compact: Network
    channels: Mapping[str, Any] | None
    box: Box
    epsilon: Fraction
    seconds: float


def certify_boxes(
    original: Network,
    compact: Network,
    centers: NDArray[Any],
    radius: Number,
    epsilon: Number,
    channels: Mapping[str, Any] | None = None,
    *,
    minimum: Number | None = None,
    maximum: Number | None = None,
    confidence: Level = 0.999,
    seconds: float = 10.0,
    workers: Workers | None = None,
) -> SampleAnswer:
    """Decide every box ``center ± radius``, cut to [minimum, maximum] where given.

    Args:
        centers: ``(n, *input_shape)`` floats.
        seconds: per box.
        workers: where the boxes are decided; this process by default.

    Raises:
        DataError: no centers, another shape, integers, or values that are not finite.
        SpecificationError: a number is out of range.
        MismatchError, UnsupportedOperation: as `verify_deviation`.
    """
    if centers.ndim < 1 or len(centers) == 0 or centers[0].size != int(np.prod(original.input_shape)):
        raise DataError(f"centers have shape {centers.shape}, expected (n, *{original.input_shape}) with n >= 1")
    if centers.dtype.kind != "f" or not np.isfinite(centers).all():
        raise DataError(f"centers ({centers.dtype}) must be finite floating-point numbers")
    limit = exact(epsilon, "epsilon")
    if limit < 0 or not seconds > 0:
        raise SpecificationError(f"need epsilon >= 0 and seconds > 0, got {float(limit)} and {seconds}")
    boxes = [Box.around(center, radius, minimum, maximum) for center in centers]
    items = [_Item(original, compact, channels, box, limit, seconds) for box in boxes]
    verdicts = [Verdict.UNKNOWN] * len(items)
    rate_lower(0, len(items), confidence)  # a confidence out of range is refused before the work
    try:
        with closing((workers or Here()).each(decide, items)) as results:
            for position, verdict in results:
                verdicts[position] = verdict
    except WorkersLost:
        pass  # boxes that nobody could decide stay unknown
    found = tuple(verdicts)
    return SampleAnswer(found, confidence, rate_lower(found.count(Verdict.PROVED), len(found), confidence))


def decide(item: _Item) -> Verdict:
    """The verdict on one box; runs on a worker."""
    return verify_deviation(
        item.original, item.compact, [item.box], epsilon=item.epsilon, channels=item.channels, timeout=item.seconds
    ).verdict
