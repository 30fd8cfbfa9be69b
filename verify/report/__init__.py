"""One self-contained HTML page about a compression and its verification: no script, no external resource.

plain records (records.py) ──► words.py    what is and is not established, in sentences
                           ──► figures.py  inline SVG
                           ──► objectives.py  which items of an assurance argument the records answer
                           ──► page.py     the page, or the same as JSON, written atomically

The page repeats what it is given and proves nothing itself: the evidence is in the certificate files it names.
"""

from verify.report.objectives import Evidence, evidence
from verify.report.page import render_json, render_report, write_report
from verify.report.records import BoxResult, Layer, NetworkReport, Report, ShippedFile, Size, StatisticalResult

__all__ = [
    "BoxResult",
    "Evidence",
    "Layer",
    "NetworkReport",
    "Report",
    "ShippedFile",
    "Size",
    "StatisticalResult",
    "evidence",
    "render_json",
    "render_report",
    "write_report",
]
