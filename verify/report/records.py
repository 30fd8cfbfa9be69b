"""What a report is made of: plain numbers and words, from whatever produced them.

Every deviation is ``max over outputs |original(x) - compact(x)|``, in the units of the networks' outputs. A number
that is not known is None, and is shown as a dash.
"""

import math
from dataclasses import dataclass

from verify.errors import DataError


@dataclass(frozen=True)
class Size:
    """One cost of the network before and after ("multiply-adds", "parameters", ...)."""

    name: str
    original: int
    compact: int


@dataclass(frozen=True)
class Layer:
    """One group of channels that stay or leave together.

    Attributes:
        name: the layer, or the first layer of the group.
        channels, kept: how many there were, how many stay.
        total_sensitivity: T of the sensitivity bound.
        bound_upper: the a-priori bound of the sample size, under its assumptions.
        loss: relative squared error of what the consumers read, on the calibration inputs.
    """

    name: str
    channels: int
    kept: int
    total_sensitivity: float | None = None
    bound_upper: float | None = None
    loss: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.kept <= self.channels:
            raise DataError(f"layer {self.name!r} keeps {self.kept} of {self.channels} channels")


@dataclass(frozen=True)
class BoxResult:
    """The deviation on one box of inputs.

    Attributes:
        name: which box.
        verdict: "proved", "refuted" or "unknown".
        certified_upper: no input of the box deviates by more. None if no bound was proved; infinity becomes None.
        attacked_lower: an input of the box was found that deviates by this much.
        audited: the verdict of the independent auditor on the box's certificate, "" if it was not asked.
        executed_upper: no float32 execution on an input of the box deviates by more, with a certificate of its own that
            the auditor accepted. None if there is none.
    """

    name: str
    verdict: str
    certified_upper: float | None
    attacked_lower: float
    audited: str = ""
    executed_upper: float | None = None

    def __post_init__(self) -> None:
        for name in ("certified_upper", "executed_upper"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                object.__setattr__(self, name, None)

    @property
    def proved(self) -> bool:
        return self.verdict == "proved" and self.certified_upper is not None

    @property
    def ratio(self) -> float:
        """Certified over attacked: 1 is the best possible; infinity if the attack found nothing."""
        if self.certified_upper is None or self.attacked_lower <= 0:
            return math.inf
        return self.certified_upper / self.attacked_lower


@dataclass(frozen=True)
class StatisticalResult:
    """One statement that holds with a stated confidence over fresh inputs.

    Attributes:
        quantity: short name ("different arg-max", "deviation of 99 % of inputs", ...).
        measured: its value on the sample.
        bound_upper: the upper confidence bound.
        confidence: of the bound, in (0, 1).
        samples: number of fresh inputs.
        statement: the whole claim in one sentence.
        share: the quantity is a share of the inputs (shown in per cent), not a deviation.
    """

    quantity: str
    measured: float
    bound_upper: float
    confidence: float
    samples: int
    statement: str
    share: bool = False


@dataclass(frozen=True)
class ShippedFile:
    """A file that the report speaks about, pinned by its SHA-256."""

    name: str
    sha256: str


@dataclass(frozen=True)
class NetworkReport:
    """All there is to say about one original network and its compact version.

    Attributes:
        name, description: a heading and one sentence.
        sizes, layers: what compression did.
        layer_notes: what the numbers per layer are and assume, shown under their table.
        domain: the boxes in words ("radius 0.01 around 50 held-out images"); "" when nothing formal was tried.
        boxes, statistical: what verification found.
        established, not_established: further sentences of the caller, shown after the report's own.
        files: what ships, and the certificates.
    """

    name: str
    description: str = ""
    sizes: tuple[Size, ...] = ()
    layers: tuple[Layer, ...] = ()
    layer_notes: tuple[str, ...] = ()
    domain: str = ""
    boxes: tuple[BoxResult, ...] = ()
    statistical: tuple[StatisticalResult, ...] = ()
    established: tuple[str, ...] = ()
    not_established: tuple[str, ...] = ()
    files: tuple[ShippedFile, ...] = ()


@dataclass(frozen=True)
class Report:
    """A page: a title, one part per network, and how it was made (("torch", "2.13.0"), ("seed", "0"), ...)."""

    title: str
    networks: tuple[NetworkReport, ...]
    made_with: tuple[tuple[str, str], ...] = ()
