"""Where the figures that people read are written: ``docs/speed.*`` and the README's section."""

from __future__ import annotations

from pathlib import Path

from benchmarks import chart, report, results
from benchmarks.results import Comparison

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- speed: written by benchmarks -->", "<!-- /speed -->"


def publish(comparison: Comparison, root: Path = ROOT) -> None:
    """``docs/speed.json``, ``.svg``, ``.md``, and what stands between the marks in ``README.md``."""
    results.save(comparison, root / "docs/speed.json")
    (root / "docs/speed.svg").write_text(chart.svg(comparison))
    (root / "docs/speed.md").write_text("# Speed, every figure\n\n" + report.markdown(comparison))
    readme = root / "README.md"
    readme.write_text(with_section(readme.read_text(), section(comparison)))


def section(comparison: Comparison) -> str:
    """What the README says."""
    parts = ["![Time of each tool in s5cmd's time](docs/speed.svg)", report.heading(comparison)]
    parts += [report.summary(comparison, ms) for ms in comparison.round_trips()]
    parts.append("CPU, memory, requests, bytes and spread: [docs/speed.md](docs/speed.md).")
    return "\n\n".join(parts)


def with_section(text: str, body: str) -> str:
    """`text` with `body` between its marks.

    Raises
    ------
    ValueError: a mark is missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the text has no section between {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{body}\n\n{END}{after}"
