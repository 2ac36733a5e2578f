"""What became of one path in a checkpoint."""

from __future__ import annotations

from msgspec import Struct


class Shipped(Struct, frozen=True):
    """``moved``: an object was written. ``noted``: what the manifest says of the path changed.

    ``conflict``: a loser was kept aside: ``remote_kept``, ``local_kept`` or ``rewritten``. ``pending``:
    eligible and not in the bucket, and why. ``refused``: not eligible as it stands, and why. ``tail_bytes``:
    an unfinished last line that waits for its end.
    """

    path: str
    sent_bytes: int = 0
    moved: bool = False
    noted: bool = False
    conflict: str = ""
    pending: str = ""
    refused: str = ""
    tail_bytes: int = 0
