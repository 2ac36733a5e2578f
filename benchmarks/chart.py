"""The comparison as a picture: bars of each tool's time in s5cmd's, one panel for each round-trip time.

Plain SVG without scripts or fonts of its own; its colours follow the reader's light or dark mode.
"""

from __future__ import annotations

from html import escape

from benchmarks import report
from benchmarks.report import OURS
from benchmarks.results import Comparison
from benchmarks.rows import ROWS, Row

MOST = 2.0  # bars end here; what is longer says so
BAR, GAP, TITLE, LEFT, RIGHT, HEAD = 12, 14, 18, 12, 92, 78
PANEL = 430
COLOURS = ("#d9622b", "#4d7ea8", "#7a9e53", "#8d6fb0", "#8a8a8a")
STYLE = """
  text { font: 11px ui-sans-serif, system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600 } .head { font-size: 13px; font-weight: 600 } .small { fill: #57606a }
  .axis { stroke: #8c959f; stroke-width: 1 } .target { stroke: #24292f; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9da7b1 } .axis { stroke: #6e7681 } .target { stroke: #e6edf3 }
  }
"""


def svg(comparison: Comparison) -> str:
    """The whole picture."""
    tools = [name for name, version in comparison.tools.items() if version]
    rows = [ROWS[name] for name in comparison.rows() if ROWS[name].compared]
    trips = comparison.round_trips()
    height = HEAD + len(rows) * (TITLE + len(tools) * BAR + GAP)
    width = LEFT + max(2, len(trips)) * PANEL
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="Time of each tool in s5cmd\'s time; shorter is better">',
        f"<style>{STYLE}</style>",
        *_legend(tools, comparison.missing()),
    ]
    for number, milliseconds in enumerate(trips):
        parts += _panel(comparison, rows, tools, milliseconds, LEFT + number * PANEL)
    return "\n".join([*parts, "</svg>", ""])


def _legend(tools: list[str], missing: list[str]) -> list[str]:
    parts, x = [], LEFT
    for number, tool in enumerate(tools):
        parts.append(f'<rect x="{x}" y="10" width="10" height="10" fill="{_colour(number)}"/>')
        parts.append(_text(x + 14, 19, tool, "title" if tool == OURS else ""))
        x += 30 + 7 * len(tool)
    if missing:
        parts.append(_text(x, 19, f"{', '.join(missing)}: missing", "small"))
    note = "Shorter is better; the upright stroke is what we demand of ourselves. s5cmd's time is 1."
    return [*parts, _text(LEFT, 38, note, "small")]


def _panel(comparison: Comparison, rows: list[Row], tools: list[str], milliseconds: int, x: int) -> list[str]:
    parts = [_text(x, 64, report.way(milliseconds), "head")]
    y = HEAD
    for row in rows:
        parts.append(_text(x, y + 12, row.title, "title"))
        y += TITLE
        one = x + _length(1.0)
        parts.append(f'<path class="axis" d="M{one} {y}v{len(tools) * BAR}"/>')
        for number, tool in enumerate(tools):
            parts += _bar(comparison, row, tool, milliseconds, _colour(number), x, y + number * BAR)
        if row.ratio is not None:
            at = x + _length(row.ratio)
            parts.append(f'<path class="target" d="M{at} {y - 1}v{BAR}"/>')
        y += len(tools) * BAR + GAP
    return parts


def _bar(
    comparison: Comparison, row: Row, tool: str, milliseconds: int, colour: str, x: int, y: int
) -> list[str]:
    result = report.found(comparison, row, tool, milliseconds)
    ratio = comparison.ratio(result) if result else None
    if result is None or ratio is None:
        return [_text(x + 2, y + 9, f"{tool}: no figure", "small")]
    length = _length(min(ratio, MOST))
    label = f"{ratio:.2f} · {report.figure(result.median_seconds)} s" + (" →" if ratio > MOST else "")
    title = f"<title>{escape(tool)}: {escape(label)}</title>"
    bar = f'<rect x="{x}" y="{y}" width="{max(length, 1)}" height="{BAR - 2}" fill="{colour}">{title}</rect>'
    return [bar, _text(x + length + 4, y + 9, label, "small")]


def _length(ratio: float) -> int:
    return round(ratio / MOST * (PANEL - RIGHT - LEFT))


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _text(x: int, y: int, text: str, kind: str) -> str:
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(text)}</text>'
