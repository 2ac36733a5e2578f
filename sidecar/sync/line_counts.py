"""How many lines of a transcript are where: home, object and journal, compared as multisets."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from sidecar.area.objects import ObjectInfo
from sidecar.area.store import Store
from sidecar.sync import merge, unfold
from sidecar.sync.bodies import Bytes, Spool
from sidecar.sync.merge import Readable
from sidecar.sync.unfold import Placed
from sidecar.sync.verification import LineCounts


def counted(
    store: Store,
    key: str,
    info: ObjectInfo | None,
    local: Readable,
    local_end: int,
    placed: Placed | None,
    spool_directory: Path,
) -> LineCounts:
    """The lines of ``local[:local_end]`` against the object (`info` None: none) with the journal on top.

    16 bytes and a counter for each line; the object is spooled to disk above 8 MiB.
    """
    with ExitStack() as stack:
        remote: Readable = Bytes(b"")
        if info:
            download = stack.enter_context(store.open(key, if_match=info.etag))
            remote = stack.enter_context(Spool(download.chunks(), spool_directory))
        added = unfold.missing(remote, placed.lines) if placed else b""
        held = _lines(remote, remote.size)
    durable = held + _lines(Bytes(added), len(added))
    home = _lines(local, local_end)
    lacking, more = (home - durable).total(), (durable - home).total()
    return LineCounts(lacking, more, (home - held).total() - lacking)


def _lines(source: Readable, end: int) -> Counter[bytes]:
    return Counter(identity for _, _, identity in merge.lines(source, 0, end))
