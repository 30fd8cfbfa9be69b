"""What is and is not established, in plain words, derived from the records alone.

The sentences never say more than the records: a bound counts as established only where its verdict is "proved".
"""

import math
import statistics
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any

from verify.report.records import BoxResult, NetworkReport

UNKNOWN = "\N{EN DASH}"


def number(value: float | None) -> str:
    """Three significant digits, a dash for what is unknown."""
    return UNKNOWN if value is None else f"{value:.3g}"


def rounded_up(value: float | None) -> str:
    """An upper bound in three significant digits, never below the bound itself."""
    return _directed(value, ROUND_CEILING)


def rounded_down(value: float | None) -> str:
    """A lower bound in three significant digits, never above the bound itself."""
    return _directed(value, ROUND_FLOOR)


def _directed(value: float | None, rounding: str) -> str:
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{float(Context(prec=3, rounding=rounding).create_decimal(value)):.3g}"


def bounds(box: BoxResult) -> str:
    """Both ends of what is known about one box."""
    return f"found {rounded_down(box.attacked_lower)}, {box.verdict} {rounded_up(box.certified_upper)}"


def percent(share: float) -> str:
    """A share in per cent, one decimal at most."""
    return f"{round(100 * share, 1):g} %"


def percent_up(share: float) -> str:
    """An upper bound on a share, in per cent, never below the bound itself."""
    return f"{math.ceil(Decimal(share) * 1000) / 10:g} %"


def finite(content: Any) -> Any:
    """The content with null for every number that JSON cannot hold."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def established(report: NetworkReport) -> list[str]:
    """One sentence for the proof, one for the audit, one per statistical statement, then the caller's."""
    proved = [box for box in report.boxes if box.proved]
    sentences = []
    if proved:
        largest = max(box.certified_upper for box in proved if box.certified_upper is not None)
        sentences.append(
            f"For every input in {_count(proved, report.boxes)} ({report.domain}): no output of the compact network "
            f"differs from the original's by more than the bound of that box, at most {rounded_up(largest)}. Proved, "
            "without probability, about the two files in real arithmetic."
        )
    if executed := [box.executed_upper for box in report.boxes if box.executed_upper is not None]:
        sentences.append(
            "Executed in float32 on float32 inputs, sums in any order, with or without fused multiply-add, the "
            f"networks differ by at most {rounded_up(max(executed))} in {_count(executed, report.boxes)}: certificates "
            "of their own, accepted by the auditor."
        )
    accepted = [box for box in proved if box.audited == "accept"]
    if accepted:
        sentences.append(
            f"The certificates of {_count(accepted, report.boxes)} were proved again in exact arithmetic by the "
            "independent auditor, which shares no code with the prover."
        )
    return [*sentences, *(result.statement for result in report.statistical), *report.established]


def not_established(report: NetworkReport) -> list[str]:
    """The limits of everything above, then the caller's."""
    sentences = []
    if report.boxes:
        sentences += _limits_of_proof(report.boxes)
    else:
        sentences.append("No formal proof: nothing here holds for every input of a region.")
    if report.statistical:
        sentences.append(
            "The statistical statements hold with their confidence for inputs drawn like the sample, independently of "
            "compression. They say nothing about chosen or shifted inputs."
        )
    sentences.append("Whether either network is right: only that the two are close.")
    if any(layer.bound_upper is not None for layer in report.layers):
        sentences.append(
            "The a-priori bounds per layer are about the choice of channels under their stated assumptions, and no "
            "part of any proof above."
        )
    return [*sentences, *report.not_established]


def ratio_summary(boxes: Sequence[BoxResult]) -> str:
    """How far the proved bounds are from the deviations that were found."""
    ratios = sorted(box.ratio for box in boxes if box.proved and box.attacked_lower > 0)
    if not ratios:
        return ""
    return f"proved over found: median {rounded_up(statistics.median(ratios))}, largest {rounded_up(ratios[-1])}"


def _limits_of_proof(boxes: Sequence[BoxResult]) -> list[str]:
    open_boxes = [box for box in boxes if not box.proved]
    sentences = [
        "Anything about inputs outside the boxes, or about executions with flush to zero, TF32, bfloat16, Winograd or "
        "FFT convolution, or by a runtime that changes the constants of the networks."
    ]
    if rounding := [box for box in boxes if box.executed_upper is None]:
        sentences.append(f"The rounding of any floating-point execution on {_count(rounding, boxes)}.")
    if open_boxes:
        sentences.insert(0, f"A bound on {_count(open_boxes, boxes)}: the search ended without a proof there.")
    unaudited = [box for box in boxes if box.proved and box.audited != "accept"]
    if unaudited:
        sentences.append(f"An independent check of {_count(unaudited, boxes)}: they rest on the prover alone.")
    return sentences


def _count(part: Sequence[object], whole: Sequence[object]) -> str:
    if len(part) == len(whole):
        return "the box" if len(whole) == 1 else f"all {len(whole)} boxes"
    return f"{len(part)} of {len(whole)} boxes"
