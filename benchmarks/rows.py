"""The rows of the comparison, and what is demanded of each, as a share of s5cmd's time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.arena import Arena, Sample
from benchmarks.peers import Tool

Work = Callable[[Arena, Tool, str], Sample]


@dataclass(frozen=True)
class Row:
    """`ratio`: how much of s5cmd's time is allowed; the other limits are for the row's own figures.

    `compared`: s5cmd's time is a measure for it, and the chart shows it.
    """

    name: str
    title: str
    workload: str
    work: Work
    ratio: float | None = None
    limit_seconds: float | None = None
    limit_requests: int | None = None
    limit_bytes: int | None = None
    appends: bool = False
    long: bool = False
    compared: bool = True

    def target(self) -> str:
        """What is demanded, in words."""
        words = [f"{self.ratio:g} of s5cmd's time"] if self.ratio is not None else []
        words += [f"{self.limit_seconds:g} s"] if self.limit_seconds is not None else []
        if self.limit_requests is not None:
            words.append({0: "no request", 1: "1 request"}.get(self.limit_requests, ""))
        words += [f"under {self.limit_bytes // 1024} KiB"] if self.limit_bytes is not None else []
        return ", ".join(words)


ROWS = {
    row.name: row
    for row in (
        Row("backup-small", "First backup, 5,000 small files", "small", Arena.backup, 0.45),
        Row("restore-small", "Restore, 5,000 small files", "small", Arena.restore, 0.10),
        Row(
            "nothing-changed",
            "Nothing changed, 5,000 files",
            "small",
            Arena.backup_again,
            0.25,
            limit_requests=0,
        ),
        Row("backup-mixed", "First backup, 800 mixed files, 60 MiB", "mixed", Arena.backup, 0.65),
        Row("restore-mixed", "Restore, 800 mixed files, 60 MiB", "mixed", Arena.restore, 0.20),
        Row(
            "backup-transcripts",
            "First backup, 600 MiB of transcripts",
            "transcripts",
            Arena.backup,
            0.85,
            long=True,
        ),
        Row(
            "restore-transcripts",
            "Restore, 600 MiB of transcripts",
            "transcripts",
            Arena.restore,
            1.0,
            long=True,
        ),
        Row(
            "append",
            "4 KiB appended to a transcript of 40 MiB",
            "append",
            Arena.backup_again,
            limit_requests=1,
            limit_bytes=8192,
            appends=True,
        ),
        Row(
            "empty",
            "Restore of an empty area",
            "empty",
            Arena.restore_nothing,
            limit_seconds=0.2,
            compared=False,
        ),
    )
}
