"""From a compression on disk to a certificate beside it: proved on a domain, and accepted by the auditor.

Proving is `verify`'s business, and believing is the auditor's; nothing here weakens either answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from provable.records import Compression
from verify.audit.check import AuditReport
from verify.certificate.issue import issue_certificate
from verify.formal.deviation import verify_deviation
from verify.network.read_onnx import read_onnx
from verify.spec.box import Box
from verify.spec.deviation import Verdict

CERTIFICATE = "certificate.json"
HEADROOM = Fraction(49, 50)
"""Share of the bound wanted that the search proves: the auditor's own bound may lie a little above the search's."""
NOTHING = 1e-30  # what outward rounding leaves of a deviation that is 0
RATIO, FLOOR = 1.2, 1e-6  # the search for the tightest bound ends at this multiple of the attack, or below this


@dataclass(frozen=True)
class Certified:
    """What a domain allows to say about a compression.

    Attributes:
        bound: the certified deviation, accepted by the auditor; None if there is no certificate.
        upper: the deviation that the search proved; infinite if it proved none.
        lower: a deviation that really occurs.
        leaves: sub-boxes of the proof.
        reason: why there is no certificate; empty if there is one.
    """

    bound: Fraction | None
    upper: float
    lower: float
    leaves: int
    reason: str

    @property
    def sentence(self) -> str:
        """What was and was not established, in plain words."""
        if self.bound is None:
            return (
                f"UNKNOWN: no certificate ({self.reason}). Nothing was established about the deviation on the domain."
            )
        return (
            f"PROVED and audited: for every input of the domain and every output, |original - compact| <= "
            f"{float(self.bound):.4g}, in real arithmetic ({self.leaves:,} sub-boxes). Nothing is said about other "
            "inputs or about rounding on a device."
        )


def certify(
    result: Compression,
    folder: Path,
    boxes: Sequence[Box],
    *,
    epsilon: Fraction | None = None,
    timeout: float = 60.0,
    floor: float = FLOOR,
) -> Certified:
    """Prove the deviation of the two ONNX files in `folder`, and write the certificate there if the auditor accepts it.

    Args:
        result: what was saved to `folder`.
        boxes: the domain.
        epsilon: the bound wanted; None for the smallest that can be shown.
        timeout: seconds for the search.
        floor: without epsilon, the search ends at a bound this small; for networks that are equal in real numbers take
            `NOTHING`, and the auditor can say 0.
    """
    original, compact = folder / "original.onnx", folder / "compact.onnx"
    found = verify_deviation(
        read_onnx(original), read_onnx(compact), boxes, channels=result.channels, timeout=timeout, ratio=RATIO,
        floor=floor, epsilon=None if epsilon is None else HEADROOM * epsilon,
    )  # fmt: skip
    if found.verdict is Verdict.PROVED:
        found = replace(found, epsilon=epsilon)
    issued = issue_certificate(folder / CERTIFICATE, found, boxes=boxes, original=original, compact=compact)
    if isinstance(issued, tuple):
        return Certified(issued[0], found.upper, found.lower, found.leaves, "")
    reason = f"the search ended with {found.verdict.value}: between {found.lower:.4g} and {found.upper:.4g}"
    if isinstance(issued, AuditReport):
        reason = f"the auditor said {issued.verdict.value}: {issued.reason}"
    return Certified(None, found.upper, found.lower, found.leaves, reason)
