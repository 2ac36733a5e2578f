"""A comparison as Markdown: a short table by row, a long one with every figure."""

from __future__ import annotations

from benchmarks.flushes import NAME as FLUSH
from benchmarks.results import BASELINE, Comparison, Result
from benchmarks.rows import ROWS, Row

OURS = "claude-sidecar"


def markdown(comparison: Comparison) -> str:
    """Everything."""
    parts = [heading(comparison), *(summary(comparison, ms) for ms in comparison.round_trips())]
    parts += [details(comparison, ms) for ms in comparison.round_trips()]
    return "\n\n".join(parts) + "\n"


def heading(comparison: Comparison) -> str:
    """What was compared, on what, and what is missing or failed."""
    present = [f"{name} {version}" for name, version in comparison.tools.items() if version]
    lines = [f"Measured {comparison.began} on {comparison.machine}: {', '.join(present)}."]
    if missing := comparison.missing():
        lines.append(f"**Missing here: {', '.join(missing)}.**")
    for row, tool, defect in dict.fromkeys((r.row, r.tool, r.defect) for r in comparison.defects()):
        lines.append(f"**{tool} failed in {row}:** {defect.splitlines()[0]}")
    return "\n\n".join(lines)


def summary(comparison: Comparison, milliseconds: int) -> str:
    """A line for each row: every tool's median, and how it stands to s5cmd and to what is demanded."""
    names = [name for name, version in comparison.tools.items() if version]
    table = [["work", *names, "must be", "is"]]
    for name in comparison.rows():
        row = ROWS[name]
        cells = [_cell(comparison, found(comparison, row, tool, milliseconds)) for tool in names]
        table.append([row.title, *cells, row.target(), verdict(comparison, row, milliseconds)])
    return f"### {way(milliseconds)}: median seconds (in s5cmd's time)\n\n{_table(table)}"


def details(comparison: Comparison, milliseconds: int) -> str:
    """Every figure of every tool."""
    columns = ["work", "tool", "seconds: median (least to most)", "of s5cmd's", "rounds"]
    table = [[*columns, "CPU s", "peak MiB", "requests", "sent", "received"]]
    for result in comparison.results:
        if result.round_trip_ms == milliseconds and result.wall_seconds and not result.defect:
            table.append(_detail(comparison, result))
    note = "\n\nRequests and bytes are one run's, counted without the round-trip time; heads included."
    return f"### {way(milliseconds)}: every figure\n\n{_table(table)}{note}"


def way(milliseconds: int) -> str:
    return f"{milliseconds} ms round trip" if milliseconds else "No round-trip time"


def found(comparison: Comparison, row: Row, tool: str, milliseconds: int) -> Result | None:
    """What stands for `tool` in `row`: the running sidecar where a line is appended."""
    name = FLUSH if row.appends and tool == OURS else tool
    return comparison.find(row.name, name, milliseconds)


def verdict(comparison: Comparison, row: Row, milliseconds: int) -> str:
    """What claude-sidecar does of what is demanded, and whether that is enough."""
    ours = found(comparison, row, OURS, milliseconds)
    if ours is None:
        return "not measured"
    said: list[tuple[str, bool]] = []
    if row.ratio is not None and (ratio := comparison.ratio(ours)) is not None:
        said.append((f"{ratio:.2f}", ratio <= row.ratio))
    if row.limit_seconds is not None:
        said.append((f"{ours.median_seconds:.2f} s", ours.median_seconds <= row.limit_seconds))
    if row.limit_requests is not None:
        plural = "" if ours.request_count == 1 else "s"
        said.append((f"{ours.request_count} request{plural}", ours.request_count <= row.limit_requests))
    if row.limit_bytes is not None:
        total = ours.sent_bytes + ours.received_bytes
        said.append((f"{total / 1024:.1f} KiB", total < row.limit_bytes))
    return ", ".join(text if good else f"**{text}: missed**" for text, good in said)


def _cell(comparison: Comparison, result: Result | None) -> str:
    if result is None:
        return "-"
    ratio = comparison.ratio(result)
    return figure(result.median_seconds) + (f" ({ratio:.2f})" if ratio and result.tool != BASELINE else "")


def figure(seconds: float) -> str:
    """Three digits that mean something."""
    return f"{seconds:.3f}" if seconds < 1 else f"{seconds:.2f}"


def _detail(comparison: Comparison, result: Result) -> list[str]:
    ratio = comparison.ratio(result)
    spread = f"{figure(min(result.wall_seconds))} to {figure(max(result.wall_seconds))}"
    kinds = " ".join(f"{kind} {count}" for kind, count in sorted((result.requests or {}).items()))
    counted = result.requests is not None
    return [
        ROWS[result.row].title,
        result.tool,
        f"{figure(result.median_seconds)} ({spread})",
        f"{ratio:.2f}" if ratio else "-",
        str(len(result.wall_seconds)),
        figure(sorted(result.cpu_seconds)[len(result.cpu_seconds) // 2]),
        f"{max(result.peak_kib) / 1024:.0f}",
        f"{result.request_count:,}: {kinds}" if kinds else "0" if counted else "-",
        amount(result.sent_bytes) if counted else "-",
        amount(result.received_bytes) if counted else "-",
    ]


def amount(size_bytes: int) -> str:
    """Bytes as people read them."""
    if size_bytes < 10_000:
        return f"{size_bytes:,} B"
    return f"{size_bytes / 1e3:.0f} kB" if size_bytes < 1_000_000 else f"{size_bytes / 1e6:.1f} MB"


def _table(rows: list[list[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
