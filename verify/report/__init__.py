"""One self-contained HTML page about a compression and its verification: no script, no external resource.

plain records (records.py) ──► words.py    what is and is not established, in sentences
                           ──► figures.py  inline SVG
                           ──► page.py     the page, written atomically

The page repeats what it is given and proves nothing itself: the evidence is in the certificate files it names.
"""

from verify.report.page import render_report, write_report
from verify.report.records import BoxResult, Layer, NetworkReport, Report, ShippedFile, Size, StatisticalResult

__all__ = [
    "BoxResult",
    "Layer",
    "NetworkReport",
    "Report",
    "ShippedFile",
    "Size",
    "StatisticalResult",
    "render_report",
    "write_report",
]
