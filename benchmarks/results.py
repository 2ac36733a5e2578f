"""What a comparison found: plain values, kept as JSON, from which tables and the chart are made."""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass, field
from pathlib import Path

import orjson

BASELINE = "s5cmd"


@dataclass
class Result:
    """All runs of one tool in one row at one round-trip time."""

    row: str
    tool: str
    round_trip_ms: int
    wall_seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_kib: list[int] = field(default_factory=list)
    requests: dict[str, int] | None = None
    sent_bytes: int = 0
    received_bytes: int = 0
    defect: str = ""

    @property
    def median_seconds(self) -> float:
        return statistics.median(self.wall_seconds)

    @property
    def request_count(self) -> int:
        return sum((self.requests or {}).values())


@dataclass
class Comparison:
    """One whole run. `tools` has the version of each that was asked for, None where it is missing."""

    began: str
    machine: str
    tools: dict[str, str | None]
    results: list[Result] = field(default_factory=list)

    def find(self, row: str, tool: str, round_trip_ms: int) -> Result | None:
        """The result, if the tool did the work at least once."""
        wanted = (row, tool, round_trip_ms)
        for one in self.results:
            if (one.row, one.tool, one.round_trip_ms) == wanted and one.wall_seconds and not one.defect:
                return one
        return None

    def ratio(self, result: Result) -> float | None:
        """The median time as a share of s5cmd's."""
        base = self.find(result.row, BASELINE, result.round_trip_ms)
        return result.median_seconds / base.median_seconds if base else None

    def rows(self) -> list[str]:
        return list(dict.fromkeys(one.row for one in self.results))

    def round_trips(self) -> list[int]:
        return list(dict.fromkeys(one.round_trip_ms for one in self.results))

    def missing(self) -> list[str]:
        return [name for name, version in self.tools.items() if version is None]

    def defects(self) -> list[Result]:
        return [one for one in self.results if one.defect]


def save(comparison: Comparison, file: Path) -> None:
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    file.write_bytes(orjson.dumps(dataclasses.asdict(comparison), option=options))


def load(file: Path) -> Comparison:
    read = orjson.loads(file.read_bytes())
    return Comparison(**{**read, "results": [Result(**one) for one in read["results"]]})
