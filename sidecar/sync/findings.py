"""What a comparison of a home and its area can find: plain values.

What costs a restore speed and no content is by design where it is legal (a stale entry of the manifest), and
a difference where somebody damaged or forged something.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct


class Kind(Enum):
    """What is wrong, or by design, with a path."""

    NOT_UPLOADED = "not_uploaded"
    REFUSED = "refused"
    DELETED_IN_BUCKET = "deleted_in_bucket"
    NOT_RESTORED = "not_restored"
    DELETED_LOCALLY = "deleted_locally"
    LOCAL_NEWER = "local_newer"
    REMOTE_NEWER = "remote_newer"
    BOTH_CHANGED = "both_changed"
    CONFLICT = "conflict"
    OBJECT_LACKS_LINES = "object_lacks_lines"
    OBJECT_HAS_MORE_LINES = "object_has_more_lines"
    OBJECT_TORN = "object_torn"
    OBJECT_DAMAGED = "object_damaged"
    METADATA_LIES = "metadata_lies"
    LEDGER_LIES = "ledger_lies"
    TIMES_DIFFER = "times_differ"
    LINK_DIFFERS = "link_differs"
    MANIFEST_LIES = "manifest_lies"
    MANIFEST_DAMAGED = "manifest_damaged"
    PACK_MISSING = "pack_missing"
    PACK_DAMAGED = "pack_damaged"
    COULD_NOT_TELL = "could_not_tell"
    # By design: no difference.
    PASSED_OVER = "passed_over"
    JOURNALLED = "journalled"
    SAME_LINES = "same_lines"
    UNFINISHED_LINE = "unfinished_line"
    MANIFEST_BEHIND = "manifest_behind"
    MANIFEST_STALE = "manifest_stale"


# Where the manifest knows another version of an object, or none: legal, and one request of a restore each.
STALE = frozenset((Kind.MANIFEST_BEHIND, Kind.MANIFEST_STALE))
BY_DESIGN = STALE | {Kind.PASSED_OVER, Kind.JOURNALLED, Kind.SAME_LINES, Kind.UNFINISHED_LINE}


class Finding(Struct, frozen=True):
    """One thing that was found of a path; ``reason`` is half a sentence."""

    path: str
    kind: Kind
    reason: str

    @property
    def by_design(self) -> bool:
        return self.kind in BY_DESIGN
