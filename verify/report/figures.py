"""Figures as inline SVG: colours come from the page's style sheet, so they follow light and dark.

kept_channels   one bar per layer, the part that stays
deviations      one line per box from the deviation found to the deviation proved: the truth lies on it
ratio_histogram how many boxes have which certified / attacked ratio
"""

import math
from collections.abc import Callable, Sequence
from html import escape

from verify.report import words
from verify.report.records import BoxResult, Layer

Scale = Callable[[float], float]
WIDTH = 720
LEFT = 190  # room for names and axis labels
ROW = 26


def kept_channels(layers: Sequence[Layer]) -> str:
    """Horizontal bars, one per layer: full length is the original, the filled part is kept."""
    scale = (WIDTH - LEFT - 90) / max((layer.channels for layer in layers), default=1)
    parts = []
    for row, layer in enumerate(layers):
        y = row * ROW + 4
        parts += [
            _text(LEFT - 8, y + 13, _shortened(layer.name), "end"),
            _bar(LEFT, y, layer.channels * scale, "removed"),
            _bar(LEFT, y, layer.kept * scale, "kept"),
            _text(LEFT + layer.channels * scale + 8, y + 13, f"{layer.kept} of {layer.channels}"),
        ]
    return _svg(parts, len(layers) * ROW + 6, "Channels kept per layer")


def deviations(boxes: Sequence[BoxResult]) -> str:
    """Per box, sorted by the deviation found, a line from attacked to certified on a logarithmic scale."""
    drawn = sorted((b for b in boxes if b.attacked_lower > 0), key=lambda b: (b.attacked_lower, b.certified_upper or 0))
    if not drawn:
        return ""
    height, top, bottom, left = 260, 12, 34, 70
    ticks = _ticks([v for b in drawn for v in (b.attacked_lower, b.certified_upper) if v])
    low, high = math.log10(ticks[0]), math.log10(ticks[-1])

    def y(value: float) -> float:
        return top + (height - top - bottom) * (high - math.log10(value)) / (high - low)

    step = (WIDTH - left - 16) / len(drawn)
    parts = _axis(ticks, y, left)
    for i, box in enumerate(drawn):
        parts += _interval(left + (i + 0.5) * step, box, y)
    parts.append(_text((WIDTH + left - 16) / 2, height - 8, "boxes, sorted by the deviation found", "middle"))
    return _svg(parts, height, "Deviation found by attack and deviation proved, for each box")


def ratio_histogram(boxes: Sequence[BoxResult], bins: int = 12) -> str:
    """Number of proved boxes by certified / attacked ratio; nothing to see with fewer than three."""
    ratios = [b.ratio for b in boxes if b.proved and math.isfinite(b.ratio)]
    if len(ratios) < 3:
        return ""
    height, floor, left = 190, 146, 70
    width = max(max(ratios) - 1, 1e-3) / bins
    counts = [0] * bins
    for ratio in ratios:
        counts[min(int(max(ratio - 1, 0) / width), bins - 1)] += 1
    step = (WIDTH - left - 16) / bins
    parts = [_column(left + i * step, floor, step, 115 * c / max(counts), c) for i, c in enumerate(counts) if c]
    parts += [_text(left + i * step, floor + 16, words.number(1 + i * width), "middle") for i in range(0, bins + 1, 3)]
    parts.append(f'<line class="axis" x1="{left}" x2="{WIDTH - 16}" y1="{floor}" y2="{floor}"/>')
    legend = "proved / found (1 is the best possible)"
    parts.append(_text((WIDTH + left - 16) / 2, height - 6, legend, "middle"))
    return _svg(parts, height, "Histogram of the ratio proved over found")


def _column(x: float, floor: float, step: float, tall: float, count: int) -> str:
    bar = f'<rect class="kept" x="{x + 2:.1f}" y="{floor - tall:.1f}" width="{step - 4:.1f}" height="{tall:.1f}"/>'
    return bar + _text(x + step / 2, floor - tall - 5, str(count), "middle")


def _interval(x: float, box: BoxResult, y: Scale) -> list[str]:
    """The line of one box with a mark at each end."""
    found = y(box.attacked_lower)
    hint = f"<title>{escape(f'{box.name}: {words.bounds(box)}')}</title>"
    parts = []
    if box.certified_upper:
        proved = y(box.certified_upper)
        kind = "certified" if box.proved else "open"
        parts.append(f'<line class="between" x1="{x:.1f}" x2="{x:.1f}" y1="{found:.1f}" y2="{proved:.1f}"/>')
        parts.append(f'<rect class="{kind}" x="{x - 3:.1f}" y="{proved - 3:.1f}" width="6" height="6">{hint}</rect>')
    return [*parts, f'<circle class="attacked" cx="{x:.1f}" cy="{found:.1f}" r="3">{hint}</circle>']


def _axis(ticks: Sequence[float], y: Scale, left: float) -> list[str]:
    parts = []
    for tick in ticks:
        at = y(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{WIDTH - 16}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(_text(left - 8, at + 4, words.number(tick), "end"))
    return parts


def _ticks(values: Sequence[float]) -> list[float]:
    """1, 2, 5 times powers of ten that enclose the values; at most about eight of them."""
    first, last = math.floor(math.log10(min(values))), math.floor(math.log10(max(values)))
    digits = (1, 2, 5) if last - first < 2 else (1,)
    ladder = [digit * 10.0**power for power in range(first, last + 2) for digit in digits]
    below = max(i for i, tick in enumerate(ladder) if tick <= min(values))
    above = min(i for i, tick in enumerate(ladder) if tick >= max(values))
    return ladder[below : max(above, below + 1) + 1]


def _shortened(name: str, longest: int = 26) -> str:
    return name if len(name) <= longest else f"…{name[-(longest - 1) :]}"


def _bar(x: float, y: float, width: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{ROW - 8}" rx="2"/>'


def _text(x: float, y: float, content: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def _svg(parts: Sequence[str], height: float, label: str) -> str:
    body = "\n".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(label)}">\n{body}\n</svg>'
