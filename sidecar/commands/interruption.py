"""A command that is told to end, ends at once: one sentence, and the exit code by which shells know why.

Nothing is cleaned up on the way: every file appears whole or not at all, and the ledger says only what was
acknowledged, so a command that is cut off is no worse than one that was killed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from sidecar.logs import log

# https://pubs.opengroup.org/onlinepubs/9699919799/utilities/V3_chap02.html#tag_18_08_02
_BASE = 128
_LOOK_SECONDS = 0.2
# Whoever reads our output may have stopped reading: then neither a line nor what is buffered can be written.
_SAY_SECONDS = 0.5


def until_signalled(name: str, work: Callable[[], int]) -> int:
    """What `work` returns or raises; on SIGINT or SIGTERM the process ends with 130 or 143.

    `work` runs in a thread, and this one only waits: a call into the S3 library would delay the signal.
    """
    ends: list[int | BaseException] = []

    def run() -> None:
        try:
            ends.append(work())
        except BaseException as error:
            ends.append(error)

    def end(number: int, frame: FrameType | None) -> None:
        try:
            saying = threading.Thread(target=_say, args=(name, number), daemon=True)
            saying.start()
            saying.join(_SAY_SECONDS)
        finally:
            os._exit(_BASE + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_LOOK_SECONDS)
    ended = ends[0]
    if isinstance(ended, BaseException):
        raise ended
    return ended


def _say(name: str, number: int) -> None:
    log.warning(
        "%s was ended by %s; what is done stays, and the same command goes on from there",
        name,
        signal.Signals(number).name,
    )
    if sys.stdout is not None:  # it was closed before we began
        with suppress(OSError):
            sys.stdout.flush()
