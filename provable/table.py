"""The per-layer table: what was promised, what it assumes, what was measured."""

import math
from io import StringIO

from rich.console import Console
from rich.table import Table

from provable.bounds.a_priori import APrioriBound
from provable.records import Compression, GroupReport

WIDTH = 118
HEADINGS = ("group", "kept", "T", "bound", "trivial", "says", "loss", "held-out", "ridge")


def layer_table(result: Compression) -> str:
    """One row per prunable group, then the totals and what the promises assume; plain text."""
    table = Table(box=None, pad_edge=False)
    rows = [_cells(report) for report in result.groups]
    filled = [i for i in range(len(HEADINGS)) if any(row[i] for row in rows)]
    for i in filled:
        table.add_column(HEADINGS[i], justify="right" if i else "left")
    for row in rows:
        table.add_row(*(row[i] for i in filled))
    out = StringIO()
    console = Console(file=out, width=WIDTH, color_system=None, highlight=False, markup=False)
    console.print(table)
    for line in (*totals(result), *_footnotes(result)):
        console.print(line)
    return out.getvalue()


def totals(result: Compression) -> list[str]:
    """Size before and after, in words."""
    before, after = result.before, result.after
    sizes = (
        ("multiply-adds", before.flops, after.flops),
        ("parameters", before.parameters, after.parameters),
        ("bytes", before.bytes, after.bytes),
    )
    lines = [f"{name} {old:,} -> {new:,} ({_share(new, old)} kept)" for name, old, new in sizes]
    if "latency" in result.settings.get("keep", {}):
        lines.append(f"latency {result.knob:.4g}: {result.knob_meaning}")
    return lines


def _cells(report: GroupReport) -> list[str]:
    bound = report.bound
    promise = ["", "", ""]
    if bound is not None:
        promise = [f"{bound.value:.3g}", f"{bound.trivial:.3g}", "nothing" if bound.vacuous else "something"]
    return [
        report.group,
        f"{report.kept}/{report.total}",
        _number(report.total_sensitivity),
        *promise,
        _number(report.loss),
        _number(report.held_out_loss),
        _number(report.ridge),
    ]


def _footnotes(result: Compression) -> list[str]:
    notes = []
    if any(report.loss is not None for report in result.groups):
        notes.append(
            "loss, held-out: calibration squared error at the group's consumers over the variance of the streams they "
            "feed"
        )
    images = sorted({report.sensitivity_images for report in result.groups} - {0})
    if images:
        notes.append(f"T: total sensitivity over {images[0]} images")
    for name, quantity, chance, assumption in dict.fromkeys(
        (r.bound.name, r.bound.quantity, _chance(r.bound), r.bound.assumption) for r in result.groups if r.bound
    ):
        notes.append(f"bound ({name}): {quantity}; {chance}; assumes: {assumption}")
    notes += [report.note for report in result.groups if report.note]
    return [*notes, *result.notes]


def _chance(bound: APrioriBound) -> str:
    """How surely it holds; a probability is never rounded up."""
    if bound.confidence >= 1.0:
        return "holds for sure"
    if bound.confidence <= 0.0:
        return "delta >= 1: holds with no probability at this number of images"
    return f"holds with probability at least {math.floor(1e4 * bound.confidence) / 1e4:g}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "-"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
