"""The page itself: HTML text from the records, every word of the caller escaped, written atomically; also as JSON."""

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path

from verify.report import figures, words
from verify.report.objectives import evidence
from verify.report.records import BoxResult, Layer, NetworkReport, Report, Size, StatisticalResult
from verify.report.style import STYLE

SHOWN_BOXES = 100


def write_report(path: Path | str, report: Report) -> None:
    """Write the page, as JSON if `path` ends in ``.json``; an existing file is replaced, and never left half written.

    Raises:
        OSError: the folder does not exist or cannot be written to.
    """
    path = Path(path)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".partial", delete=False) as file:
        try:
            file.write(render_json(report) if path.suffix == ".json" else render_report(report))
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def render_json(report: Report) -> str:
    """The records, the sentences and the evidence items as JSON; infinity and NaN become null."""
    networks = [
        {
            "records": asdict(network),
            "established": words.established(network),
            "not_established": words.not_established(network),
            "evidence": [asdict(item) for item in evidence(network)],
        }
        for network in report.networks
    ]
    content = {"title": report.title, "networks": networks, "made_with": dict(report.made_with)}
    return json.dumps(words.finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def render_report(report: Report) -> str:
    """The page as text."""
    networks = "\n".join(_network(network) for network in report.networks)
    made = _pairs(report.made_with)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{escape(report.title)}</h1>
<p class="lead">A deviation is the largest difference, over all outputs, between the compact and the original network on
one input.</p>
{networks}
{made}
</main>
</body>
</html>
"""


def _network(network: NetworkReport) -> str:
    parts = [
        f"<h2>{escape(network.name)}</h2>",
        f"<p>{escape(network.description)}</p>" if network.description else "",
        _sizes(network.sizes),
        '<div class="claims">',
        _sentences("Established", "yes", words.established(network)),
        _sentences("Not established", "no", words.not_established(network)),
        "</div>",
        _deviations(network),
        _layers(network.layers, network.layer_notes),
        _evidence(network),
        _files(network),
    ]
    return "<section>\n" + "\n".join(part for part in parts if part) + "\n</section>"


def _sizes(sizes: Sequence[Size]) -> str:
    tiles = (
        f'<div class="tile"><b>{words.percent(size.compact / size.original) if size.original else words.UNKNOWN}</b>'
        f"<span>of the {escape(size.name)} kept<br>{size.original:,} → {size.compact:,}</span></div>"
        for size in sizes
    )
    return f'<div class="tiles">{"".join(tiles)}</div>' if sizes else ""


def _sentences(heading: str, kind: str, sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) or "<li>Nothing.</li>"
    return f'<div class="{kind}"><h3>{heading}</h3><ul>{items}</ul></div>'


def _deviations(network: NetworkReport) -> str:
    rows = [*_formal_rows(network), *(_statistical_row(result) for result in network.statistical)]
    if not rows:
        return ""
    table = _table("How far apart the outputs are", ("", "bound", "found", "holds for"), rows)
    return "\n".join([table, *_pictures(network.boxes), _boxes(network.boxes)])


def _formal_rows(network: NetworkReport) -> list[tuple[str, ...]]:
    if not network.boxes:
        return []
    proved = [box for box in network.boxes if box.proved]
    upper = max((box.certified_upper for box in proved if box.certified_upper is not None), default=None)
    found = max(box.attacked_lower for box in proved or network.boxes)
    holds = f"every input in {len(proved)} of {len(network.boxes)} boxes: {network.domain}"
    return [
        (
            "formal, largest over the boxes",
            words.rounded_up(upper),
            words.rounded_down(found),
            holds,
        )
    ]


def _statistical_row(result: StatisticalResult) -> tuple[str, ...]:
    bound = words.percent_up(result.bound_upper) if result.share else words.rounded_up(result.bound_upper)
    measured = words.percent(result.measured) if result.share else words.number(result.measured)
    holds = f"{words.percent(result.confidence)} confidence, {result.samples} fresh inputs"
    return f"statistical, {result.quantity}", bound, measured, holds


def _pictures(boxes: Sequence[BoxResult]) -> list[str]:
    legend = (
        '<span class="attacked">●</span> found by attack &nbsp; <span class="certified">■</span> proved: the largest '
        "deviation in the box lies on the line between them"
    )
    if any(box.certified_upper and not box.proved for box in boxes):
        legend += ' &nbsp; <span class="unproved">□</span> the claim asked for was not proved'
    return [
        _figure(figures.deviations(boxes), legend),
        _figure(figures.ratio_histogram(boxes), escape(words.ratio_summary(boxes))),
    ]


def _boxes(boxes: Sequence[BoxResult]) -> str:
    if not boxes:
        return ""
    rows = [
        (
            b.name,
            words.rounded_up(b.certified_upper),
            words.rounded_up(b.executed_upper),
            words.rounded_down(b.attacked_lower),
            b.verdict,
            b.audited or words.UNKNOWN,
        )
        for b in boxes[:SHOWN_BOXES]
    ]
    left_out = f" (the first {SHOWN_BOXES} of {len(boxes)})" if len(boxes) > SHOWN_BOXES else ""
    table = _table("", ("box", "certified", "in float32", "attacked", "verdict", "auditor"), rows)
    return f"<details><summary>Every box{left_out}</summary>{table}</details>"


def _layers(layers: Sequence[Layer], notes: Sequence[str]) -> str:
    if not layers:
        return ""
    rows = [
        (
            layer.name,
            f"{layer.kept} of {layer.channels}",
            words.number(layer.total_sensitivity),
            words.rounded_up(layer.bound_upper),
            words.number(layer.loss),
        )
        for layer in layers
    ]
    header = ("layer", "channels kept", "total sensitivity", "a-priori bound", "calibration loss")
    below = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return f"<h3>Per layer</h3>{_figure(figures.kept_channels(layers), '')}{_table('', header, rows)}{below}"


def _evidence(network: NetworkReport) -> str:
    rows = [(f"{e.item} {e.name}", e.objectives, e.status, e.words) for e in evidence(network)]
    note = (
        "Objectives are numbered as in EASA's concept paper on machine learning, issue 2; the mapping is ours. It is "
        "not claimed that an authority accepts an item, or that an item alone meets an objective."
    )
    table = _table("", ("evidence", "objectives", "here", "what there is"), rows)
    return f'<h3>Evidence for an assurance argument</h3>{table}<p class="note">{note}</p>'


def _files(network: NetworkReport) -> str:
    rows = [(file.name, file.sha256) for file in network.files]
    if not rows:
        return ""
    table = _table("", ("file", "SHA-256"), rows)
    return f'<details class="files"><summary>Files this report speaks about</summary>{table}</details>'


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    items = " · ".join(f"{escape(name)} {escape(value)}" for name, value in pairs)
    return f"<footer>{items}</footer>" if items else ""


def _figure(svg: str, caption: str) -> str:
    if not svg:
        return ""
    return f"<figure>{svg}{f'<figcaption>{caption}</figcaption>' if caption else ''}</figure>"


def _table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="scroll"><table>{title}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
