"""Names in the bucket: what is where, and which keys are ours to read.

    s3://BUCKET/PREFIX/USER/.claude/<relative path>                  one object per file, plain bytes
    s3://BUCKET/PREFIX/USER/.claude-sidecar/manifest.json.zst
                                           /journal/<writer>/<sequence>.zst
                                           /packs/<digest>.tar.zst      small files, many in one
                                           /packs/<digest>.json.zst     a part of the manifest
                                           /conflicts/<UTC>/<writer>/<relative path>.<digest8>
                                           /forgotten

The layout is read and written by other tools; it never changes.
"""

from __future__ import annotations

from msgspec import Struct

from sidecar.errors import UserError
from sidecar.names import user_id_problem


class AreaKeys(Struct, frozen=True):
    """The keys of one user's area under `prefix`.

    Raises
    ------
    UserError: a user id that cannot name a prefix; it is refused, never repaired.
    """

    prefix: str
    user_id: str

    def __post_init__(self) -> None:
        problem = user_id_problem(self.user_id)
        if problem:
            shown = ascii(self.user_id[:80])
            raise UserError(
                f"the user id {shown} cannot be used: {problem}",
                "a user id is 1 to 256 bytes of printable text without / and \\",
            )

    @property
    def root(self) -> str:
        return f"{self.prefix}/{self.user_id}/"

    @property
    def objects(self) -> str:
        return f"{self.root}.claude/"

    @property
    def own(self) -> str:
        return f"{self.root}.claude-sidecar/"

    @property
    def manifest(self) -> str:
        return f"{self.own}manifest.json.zst"

    @property
    def packs(self) -> str:
        return f"{self.own}packs/"

    @property
    def journal(self) -> str:
        return f"{self.own}journal/"

    @property
    def conflicts(self) -> str:
        return f"{self.own}conflicts/"

    @property
    def tombstone(self) -> str:
        """What `forget` leaves: the one key of a forgotten area."""
        return f"{self.own}forgotten"

    def object(self, path: str) -> str:
        """The key of the file at `path` (relative to the home, ``/`` between its parts)."""
        return self.objects + path

    def path(self, key: str) -> str:
        """The home path of an object's `key`."""
        return key[len(self.objects) :]

    def conflict(self, stamp: str, writer: str, path: str, digest: str) -> str:
        """The key of a displaced version of `path`: `stamp` is UTC, `digest` its SHA-256 in hex."""
        return f"{self.conflicts}{stamp}/{writer}/{path}.{digest[:8]}"
