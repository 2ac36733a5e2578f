"""What a command leaves behind: its exit code, its result on standard output, its progress on standard error.

What comes from a bucket or a home is somebody else's text: it is escaped before a terminal sees it.
"""

from __future__ import annotations

import re
import sys
import time
from typing import Any

from sidecar.errors import SettingsError, SidecarError, UserError
from sidecar.logs import as_json, log, printable
from sidecar.sync.progress import Progress

DONE, FAILED, WRONG_USE, PARTLY = 0, 1, 2, 3
COULD_NOT_TELL = WRONG_USE
_LINE_SECONDS = 10.0
# JSON leaves these as they are, and a terminal does not: C1 controls, and marks that turn text around.
_UNSEEN = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_TERMINAL_SECONDS = 0.1


def failure_code(kind: str | None) -> int:
    """The exit code of an operation that ended with an error of this kind."""
    return WRONG_USE if kind in (SettingsError.kind, UserError.kind) else FAILED


def say(line: str = "") -> None:
    """One line on standard output; what could drive a terminal is escaped, tabs excepted."""
    text = line if line.isprintable() else "\t".join(printable(part) for part in line.split("\t"))
    sys.stdout.write(text + "\n")


def print_json(value: Any) -> None:
    """`value` on standard output."""
    text = as_json(value, indented=True).decode()
    sys.stdout.write(_UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def print_error(error: SidecarError) -> None:
    """What a command that was asked for JSON prints where it has no result."""
    print_json({"error": error.message, "kind": error.kind, "hint": error.hint})


def mib(size_bytes: int) -> str:
    """A size for people, in MiB."""
    return f"{size_bytes / 1024 / 1024:.1f}"


def sentence(error: str | None, hint: str | None) -> str:
    """An error and its hint as one text."""
    return f"{error}{f' ({hint})' if hint else ''}"


class Shown:
    """Shows progress: one moving line on a terminal, a log line every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._every_seconds = _TERMINAL_SECONDS if self._terminal else _LINE_SECONDS
        self._last = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now, ended = time.monotonic(), progress.files == progress.files_total
        if now - self._last < self._every_seconds and not (ended and self._terminal):
            return
        self._last = now
        text = (
            f"{progress.word}: {progress.files} of {progress.files_total} files, "
            f"{mib(progress.bytes)} of {mib(progress.bytes_total)} MiB"
        )
        if self._terminal:
            sys.stderr.write(f"\r{text}\x1b[K" + ("\n" if ended else ""))
            sys.stderr.flush()
        else:
            log.info("%s", text)
