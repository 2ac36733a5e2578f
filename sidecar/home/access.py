"""Who this process is to a home: to whom it gives what it restores, and what it cannot read.

The client makes its files for its own UID alone (0600), so a sidecar under another UID reads nothing and an
agent under another UID than the restored files' sees an empty history. Both are said before they hurt.
"""

from __future__ import annotations

import os
import stat

from msgspec import Struct

from sidecar.home.beneath import DIRECTORY, Directory, Home
from sidecar.home.entries import Refused
from sidecar.home.rules import Rules
from sidecar.home.scan import scan

_SIGNS = ("cannot be read by UID", "may not read it")


class Ownership(Struct, frozen=True):
    """``uid``: this process; ``home_uid``, ``home_mode``: the home's directory; ``given``: the UID that the
    settings name, if any; ``others``: whose the names directly in the home are."""

    uid: int
    home_uid: int
    home_mode: int
    given: int | None = None
    others: frozenset[int] = frozenset()

    @classmethod
    def of(cls, home: Home, given: int | None) -> Ownership:
        """As it is now. Raises OSError where the home itself cannot be read."""
        with Directory(home.descend("", DIRECTORY)) as fd, os.scandir(fd) as entries:
            found = os.fstat(fd)
            others = frozenset(entry.stat(follow_symlinks=False).st_uid for entry in entries)
        return cls(os.geteuid(), found.st_uid, stat.S_IMODE(found.st_mode), given, others)

    def told(self) -> tuple[str, str, bool]:
        """A sentence, its hint, and whether it is a warning; the sentence is empty where all is plain."""
        if self.uid != 0:
            return self._told_of_a_user()
        if self.given is not None:
            return f"Restored files are given to UID {self.given} (CLAUDE_SIDECAR_OWNER)", "", False
        if self.home_uid != 0:
            return f"Restored files are given to UID {self.home_uid}, the owner of the home", "", False
        sentence = "Restored files belong to root: the home is root's, and nobody says whose it is"
        is_shared = bool(self.home_mode & stat.S_IWOTH) or any(self.others)
        if is_shared:
            sentence += ". An agent under another UID cannot read them"
        return (
            sentence,
            "set CLAUDE_SIDECAR_OWNER to the agent's UID, or run the sidecar as that UID (runAsUser)",
            is_shared,
        )

    def _told_of_a_user(self) -> tuple[str, str, bool]:
        if self.given in (None, self.uid):
            return "", "", False
        return (
            f"CLAUDE_SIDECAR_OWNER is {self.given}, but this process is UID {self.uid} and can give no file "
            f"away: restored files belong to UID {self.uid}",
            f"run the sidecar as UID {self.given} (runAsUser), or as root",
            True,
        )


def is_unreadable(reason: str) -> bool:
    """Whether a refusal's half sentence says that this process has no right to read."""
    return any(sign in reason for sign in _SIGNS)


def unreadable(home: Home, rules: Rules, max_file_bytes: int) -> tuple[Refused, ...]:
    """What belongs into a backup and cannot be read by this process; a directory stands for what lies below.

    Raises
    ------
    HomeError: the home itself cannot be read.
    """
    found = scan(home, rules, max_file_bytes=max_file_bytes)
    return tuple(refused for refused in found.refused if is_unreadable(refused.reason))
