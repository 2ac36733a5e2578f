"""How far an operation is: told to whoever wants to show it."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct


class Progress(Struct, frozen=True):
    """``word`` names the work; files and bytes count what is done and what there is."""

    word: str
    files: int
    files_total: int
    bytes: int
    bytes_total: int


Watcher = Callable[[Progress], None]


def nobody(progress: Progress) -> None:
    """Watches nothing."""
