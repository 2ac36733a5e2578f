"""What the client keeps at the top of its home, and which of it belongs into a backup by default.

Names that nobody knows yet are in: better one file too many than a user's work missing. Directory rules hold
for the home's root only: ``cache/`` is junk there, ``plugins/cache/`` is not.
"""

from __future__ import annotations

from msgspec import Struct


class Verdict(Struct, frozen=True):
    """In or out, and why (half a sentence).

    ``optional``: an include pattern could take it in. ``descend``: out itself, but an include pattern names
    something below it. ``secret``: only a pattern that names it literally can take it in.
    """

    taken: bool
    reason: str
    optional: bool = False
    descend: bool = False
    secret: bool = False


TAKEN = Verdict(True, "it is part of a backup")
UNKNOWN = Verdict(True, "nobody knows the name, so it is part of a backup")
TRANSIENT = Verdict(False, "it is a lock or a temporary file")
SECRET = Verdict(False, "it holds secrets", optional=True, secret=True)
COPIES = Verdict(False, "it holds copies of the user's files", optional=True)
JUNK = Verdict(False, "it is a cache, a log or a state of one process", optional=True)

JUNK_ANYWHERE = frozenset(("node_modules", ".venv"))

_CREDENTIALS = ".credentials.json"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


SECRET_DIRECTORIES = _names("sessions backups")
_COPY_DIRECTORIES = _names("file-history paste-cache image-cache uploads")
_JUNK_DIRECTORIES = _names(
    "debug logs telemetry statsig cache ide chrome feedback-bundles usage-data session-env shell-snapshots"
)
_JUNK_FILES = _names(
    "stats-cache.json .last-cleanup remote-settings.json policy-limits.json mcp-needs-auth-cache.json"
)
_KNOWN_DIRECTORIES = _names(
    "projects agents skills commands rules output-styles hooks workflows agent-memory plans tasks todos jobs"
    " teams plugins"
)
_KNOWN_FILES = _names(".claude.json CLAUDE.md keybindings.json history.jsonl")


def _directories() -> dict[str, Verdict]:
    table = dict.fromkeys(SECRET_DIRECTORIES, SECRET)
    table |= dict.fromkeys(_COPY_DIRECTORIES, COPIES)
    table |= dict.fromkeys(_JUNK_DIRECTORIES, JUNK)
    return table | dict.fromkeys(_KNOWN_DIRECTORIES, TAKEN)


_BY_NAME = dict.fromkeys(_JUNK_FILES | JUNK_ANYWHERE, JUNK) | dict.fromkeys(_KNOWN_FILES, TAKEN)
_BY_DIRECTORY = _directories() | _BY_NAME


def is_credentials(name: str) -> bool:
    """True for the client's credential file and its copies (``.credentials.json.bak``), at any depth."""
    return name.startswith(_CREDENTIALS)


def verdict_at_root(name: str, is_directory: bool) -> Verdict:
    """The default for `name` directly in the home."""
    known = (_BY_DIRECTORY if is_directory else _BY_NAME).get(name)
    if known is not None:
        return known
    if is_credentials(name):
        return SECRET
    if name.startswith("daemon"):
        return JUNK
    if name.startswith("settings") and name.endswith(".json"):
        return TAKEN
    return UNKNOWN


def is_known(name: str) -> bool:
    """True if some row of the table speaks of `name` at the home's root, as a file or as a directory."""
    return UNKNOWN not in (verdict_at_root(name, True), verdict_at_root(name, False)) or name in _BY_DIRECTORY
