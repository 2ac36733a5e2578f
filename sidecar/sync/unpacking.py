"""Files out of packs into the home: only those whose object is the very version that was packed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter

from sidecar.area.manifest import FileEntry
from sidecar.area.packs import MAX_MEMBER_BYTES, PackReader
from sidecar.errors import AccessDenied, HomeFull, ObjectArchived, ObjectDamaged, ObjectMissing, StoreError
from sidecar.home.batches import WholeFile, write_batch
from sidecar.home.entries import FileStat
from sidecar.home.reads import must_be_whole_json
from sidecar.logs import log
from sidecar.sync.arrivals import Arrival, Wanted
from sidecar.sync.compare import RestoreStep, is_transcript
from sidecar.sync.marks import Mark, lasting
from sidecar.sync.prefetch import Prefetch
from sidecar.sync.transfers import concerns_all
from sidecar.sync.workspace import Workspace

# Fewer files than this come sooner one by one: a pack has some thousand others.
WORTH_FILES = 4
_BATCH_FILES = 128
_BATCH_BYTES = 4 * 1024 * 1024

Unpacked = tuple[Wanted, FileEntry, bytes]


def by_pack(wanted: Iterable[Wanted]) -> dict[str, list[Wanted]]:
    """The files that can come out of a pack, by its name, in the order in which they lie there.

    A file's entry stands only where the listing, made after the journal's, shows its version (rule 16).
    """
    packs: dict[str, list[tuple[int, Wanted]]] = {}
    for item in wanted:
        entry = item.entry if item.step is RestoreStep.TAKE else None
        if entry and _rides(item, entry):
            packs.setdefault(entry.pack, []).append((entry.offset, item))
    return {
        name: [item for _, item in sorted(items, key=itemgetter(0))]
        for name, items in packs.items()
        if len(items) >= WORTH_FILES
    }


def _rides(item: Wanted, entry: FileEntry) -> bool:
    if not entry.pack or entry.size != item.info.size or entry.size > MAX_MEMBER_BYTES:
        return False
    return not must_be_whole_json(item.path)  # those are looked at on their way from their object


def unpack(
    workspace: Workspace, prefetch: Prefetch, name: str, wanted: Sequence[Wanted]
) -> list[Arrival | None]:
    """Bring `wanted` out of the pack `name`, in its order; None for what must come from its object.

    Raises
    ------
    HomeFull: no space. StoreError: the store is away.
    """
    arrivals: list[Arrival | None] = []
    try:
        for batch in _batches(PackReader(prefetch.chunks(name), name), wanted):
            proven = _proven(batch)
            if len(proven) < len(batch):
                prefetch.doubted.add(name)
            arrivals += _put(workspace, batch, proven)
    except ObjectMissing:
        prefetch.doubted.add(name)
        log.debug("The pack %s is gone; its files come from their objects", name)
    except AccessDenied as error:
        workspace.own_area_denied("Packs may not be read", error)
    except StoreError as error:
        if concerns_all(error):
            raise
        if isinstance(error, (ObjectDamaged, ObjectArchived)):
            prefetch.doubted.add(name)
        log.warning("%s; its files come from their objects", error.message)
    return arrivals + [None] * (len(wanted) - len(arrivals))


def _batches(reader: PackReader, wanted: Iterable[Wanted]) -> Iterator[list[Unpacked]]:
    batch: list[Unpacked] = []
    size = 0
    for item in wanted:
        entry = item.entry
        if entry is None:
            raise ValueError("only what has an entry rides in a pack")
        batch.append((item, entry, reader.read(entry.offset, entry.size)))
        size += entry.size
        if len(batch) >= _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _proven(batch: Sequence[Unpacked]) -> list[Unpacked]:
    """What the digest confirms."""
    return [one for one in batch if hashlib.sha256(one[2]).hexdigest() == one[1].digest]


def _put(
    workspace: Workspace,
    batch: Sequence[Unpacked],
    proven: Sequence[Unpacked],
) -> list[Arrival | None]:
    begun_ns = workspace.now_ns()
    outcomes = write_batch(workspace.home, [_whole(entry, item.path, data) for item, entry, data in proven])
    marks: dict[str, Mark] = {}
    for (item, entry, _), outcome in zip(proven, outcomes, strict=True):
        if isinstance(outcome, FileStat):
            marks[item.path] = _mark(entry, outcome, begun_ns)
    workspace.ledger.record_all(marks, told=True)
    for outcome in outcomes:
        if isinstance(outcome, HomeFull):
            raise outcome
    return [
        Arrival(item.path, item.info.size, moved=True) if item.path in marks else None for item, _, _ in batch
    ]


def _whole(entry: FileEntry, path: str, data: bytes) -> WholeFile:
    if is_transcript(path) and data and not data.endswith(b"\n"):
        data += b"\n"  # a client appends straight onto a torn line and loses the next one too
    return WholeFile(path, data, entry.mtime_ns, entry.mode)


def _mark(entry: FileEntry, stat: FileStat, begun_ns: int) -> Mark:
    """Rule 6: the base is the object as it is."""
    known = lasting(stat, begun_ns)
    size, digest = entry.size, entry.digest
    return Mark(entry.etag, size, digest, size, digest, known, stat.mtime_ns, stat.mode)
