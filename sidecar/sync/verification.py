"""Whether a home and its area hold the same, path by path: what is found is judged here, purely.

Promised: equal bytes are called equal and others are not; each difference has a reason that a person can act
on. What is by design is told apart: foreign and excluded keys, what is durable in the journal and waits for a
checkpoint, a last line that the client has not finished, an entry of the manifest that is stale.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from msgspec import Struct

from sidecar.area.manifest import FileEntry
from sidecar.area.metadata import FileMetadata
from sidecar.area.objects import ObjectInfo
from sidecar.home.entries import FileStat
from sidecar.sync.compare import is_transcript
from sidecar.sync.findings import Finding, Kind
from sidecar.sync.marks import Mark


class LocalSide(Struct, frozen=True):
    """The home's file. ``sha256``: of its whole lines (a transcript) or of all; None where it was not read.

    ``known_sha256``: of the prefix that the ledger's mark names. ``unfinished``: bytes behind the last line.
    """

    stat: FileStat
    sha256: str | None = None
    known_sha256: str = ""
    unfinished: int = 0


class RemoteSide(Struct, frozen=True):
    """The area's object. ``sha256`` None: not read. ``torn``: why it is not whole, as half a sentence."""

    info: ObjectInfo
    sha256: str | None = None
    metadata: FileMetadata | None = None
    torn: str = ""


class LineCounts(Struct, frozen=True):
    """Lines of the home that neither object nor journal has, lines that the home lacks, and lines of the home
    that only the journal has."""

    lacking: int
    more: int
    journalled: int


class Facts(Struct, frozen=True):
    """All that is known of one path. ``left_out``: why the rules pass it over; ``refused``: why the home's
    file cannot be taken. ``journalled``: the journal holds the home's version; ``in_journal``: it holds some;
    ``journal_wins``: it holds another one that a restore would prefer.
    """

    path: str
    local: LocalSide | None = None
    remote: RemoteSide | None = None
    mark: Mark | None = None
    entry: FileEntry | None = None
    has_manifest: bool = True
    left_out: str = ""
    refused: str = ""
    journalled: bool = False
    in_journal: bool = False
    journal_wins: bool = False
    lines: LineCounts | None = None


def looks_untouched(local: FileStat, remote: ObjectInfo, mark: Mark | None) -> bool:
    """Whether the ledger takes both sides for unchanged: what a sample may leave unread."""
    return mark is not None and mark.stat == local and mark.etag == remote.etag


def sample(names: Iterable[str], fraction: float, seed: str) -> frozenset[str]:
    """What `seed` draws: about `fraction` of `names`, and at least one, so that a drill proves something."""
    drawn = {name: _drawn(name, seed) for name in names}
    chosen = frozenset(name for name, number in drawn.items() if number < fraction * 2**64)
    return chosen or (frozenset((min(drawn, key=drawn.__getitem__),)) if drawn else chosen)


def _drawn(name: str, seed: str) -> int:
    digest = hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8])


def judged(facts: Facts) -> list[Finding]:
    """What is to be said of a path; nothing where both sides are equal."""
    return [Finding(facts.path, kind, reason) for kind, reason in _judged(facts)]


_Told = Iterator[tuple[Kind, str]]


def _judged(facts: Facts) -> _Told:
    local, remote = facts.local, facts.remote
    if facts.left_out:
        yield Kind.PASSED_OVER, facts.left_out
        return
    if facts.refused:
        yield Kind.REFUSED, facts.refused
    elif local and remote:
        yield from _both(facts, local, remote)
    elif local:
        yield from _only_local(facts, local)
    else:
        yield from _only_remote(facts)
    yield from _manifest(facts)


def _only_local(facts: Facts, local: LocalSide) -> _Told:
    if local.unfinished and local.unfinished == local.stat.size:
        yield Kind.UNFINISHED_LINE, f"its {local.unfinished} bytes are no whole line yet"
    elif facts.journalled:
        yield Kind.JOURNALLED, "durable in the journal; the next checkpoint makes it an object"
    elif facts.mark and facts.mark.etag:
        yield Kind.DELETED_IN_BUCKET, "its object was deleted by another; it goes up again when it changes"
    else:
        yield Kind.NOT_UPLOADED, "only in the home: it was not uploaded yet"


def _only_remote(facts: Facts) -> _Told:
    if facts.remote is None and not facts.in_journal:
        return  # an entry of the manifest alone
    where = "in the bucket" if facts.remote else "in the journal"
    if facts.mark:
        yield Kind.DELETED_LOCALLY, f"only {where}: it was deleted in the home"
    else:
        yield Kind.NOT_RESTORED, f"only {where}: it was not restored, or another writer made it since"
    if facts.remote and facts.remote.sha256 is not None:
        yield from _object(facts, facts.remote)


def _object(facts: Facts, remote: RemoteSide) -> _Told:
    """What is wrong with an object by itself."""
    if remote.torn:
        yield Kind.OBJECT_TORN, remote.torn
    if remote.metadata and remote.metadata.sha256 not in ("", remote.sha256):
        yield Kind.METADATA_LIES, "the object's sha256 metadata is not the digest of its bytes"
    if _is_damaged(facts.mark, remote):
        yield Kind.OBJECT_DAMAGED, "the object's bytes are not those that were written under this ETag"


def _is_damaged(mark: Mark | None, remote: RemoteSide) -> bool:
    return mark is not None and mark.etag == remote.info.etag and mark.digest not in ("", remote.sha256)


def _both(facts: Facts, local: LocalSide, remote: RemoteSide) -> _Told:
    if local.sha256 is None or remote.sha256 is None:
        return  # left out of the sample
    mark = facts.mark
    yield from _object(facts, remote)
    if mark and mark.stat == local.stat and local.known_sha256 != mark.local_digest:
        yield Kind.LEDGER_LIES, "its bytes changed without its size and times: no checkpoint sees that"
    if local.unfinished:
        yield Kind.UNFINISHED_LINE, f"its last {local.unfinished} bytes are no whole line yet"
    if facts.journal_wins:
        yield Kind.REMOTE_NEWER, "the journal has a newer version; the next restore takes it"
    elif is_transcript(facts.path) and (local.sha256 != remote.sha256 or (facts.lines and facts.lines.more)):
        yield from _lines(facts)
    elif local.sha256 == remote.sha256:
        yield from _times(facts, local.stat, remote)
    elif not _is_damaged(mark, remote):
        yield from _content(facts, local, remote, mark)


def _lines(facts: Facts) -> _Told:
    counts = facts.lines or LineCounts(0, 0, 0)
    if counts.lacking:
        yield Kind.OBJECT_LACKS_LINES, f"the bucket lacks {counts.lacking} of its lines"
    if counts.more:
        yield Kind.OBJECT_HAS_MORE_LINES, f"the bucket has {counts.more} lines that the home lacks"
    if counts.journalled:
        yield Kind.JOURNALLED, f"{counts.journalled} of its lines wait in the journal for a checkpoint"
    if not (counts.lacking or counts.more or counts.journalled):
        yield Kind.SAME_LINES, "both have the same lines, in another order"


def _content(facts: Facts, local: LocalSide, remote: RemoteSide, mark: Mark | None) -> _Told:
    if facts.journalled:
        yield Kind.JOURNALLED, "the home's version is durable in the journal; the next checkpoint decides"
        return
    if mark is None:
        yield Kind.BOTH_CHANGED, "both differ, and this pod knows no common version"
        return
    if mark.settled and mark.settled.local_digest == local.sha256:
        yield Kind.CONFLICT, "another version won a conflict; the home's is kept under conflicts/"
        return
    same_home = local.known_sha256 == mark.local_digest and local.stat.size == mark.local_size
    same_bucket = remote.info.etag == mark.etag
    if same_home:
        yield Kind.REMOTE_NEWER, "the bucket has a newer version; the next restore takes it"
    elif same_bucket:
        yield Kind.LOCAL_NEWER, "the home has a newer version; the next checkpoint sends it"
    else:
        yield Kind.BOTH_CHANGED, "home and bucket both changed; the next checkpoint decides"


def _times(facts: Facts, stat: FileStat, remote: RemoteSide) -> _Told:
    entry, described = facts.entry, remote.metadata
    if entry and entry.etag == remote.info.etag:
        mtime_ns, mode = entry.mtime_ns, entry.mode
    elif described and described.mtime_ns is not None and described.mode is not None:
        mtime_ns, mode = described.mtime_ns, described.mode
    else:
        return
    if mode != stat.mode:
        yield Kind.TIMES_DIFFER, f"its mode is {stat.mode:04o} in the home and {mode:04o} in the bucket"
    if mtime_ns != stat.mtime_ns:
        later = "home" if stat.mtime_ns > mtime_ns else "bucket"
        yield Kind.TIMES_DIFFER, f"its bytes are equal, its time of change is later in the {later}"


def _manifest(facts: Facts) -> _Told:
    entry, remote = facts.entry, facts.remote
    if not facts.has_manifest:
        return
    if remote is None:
        if entry:
            yield Kind.MANIFEST_STALE, "the manifest names an object that is not there"
        return
    if entry and entry.etag == remote.info.etag:
        if entry.size != remote.info.size or remote.sha256 not in (None, entry.digest):
            yield Kind.MANIFEST_LIES, "the manifest says other bytes of this very object"
        return
    what = "names an older version of it" if entry else "does not know it"
    if facts.mark and facts.mark.etag == remote.info.etag:
        yield Kind.MANIFEST_BEHIND, f"the manifest {what}; the next checkpoint brings that up to date"
    else:
        yield Kind.MANIFEST_STALE, f"the manifest {what}; that costs a restore time, and no content"
