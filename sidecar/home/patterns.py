"""The patterns of CLAUDE_SIDECAR_INCLUDE and CLAUDE_SIDECAR_EXCLUDE: lines in gitignore syntax.

https://git-scm.com/docs/gitignore#_pattern_format

Imported libraries cost a start 35 ms, so pathspec is loaded only where there is a pattern.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sidecar.errors import SettingsError
from sidecar.home.catalogue import SECRET_DIRECTORIES, is_credentials

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_WILDCARDS = frozenset("*?[\\")


class Exclusions:
    """What a user leaves out."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._patterns = patterns
        self._files = _compiled(patterns, "CLAUDE_SIDECAR_EXCLUDE")
        self._directory_patterns = patterns
        self._directories = self._files
        if any(pattern.startswith("!") for pattern in patterns):
            # "x/**" means what is in x, not x: a later "!x/y" must still be reached.
            self._directory_patterns = tuple(p for p in patterns if not p.endswith("/**"))
            self._directories = _compiled(self._directory_patterns, "CLAUDE_SIDECAR_EXCLUDE")

    def matching(self, path: str, is_directory: bool) -> str:
        """The pattern that leaves `path` out; empty if none does."""
        spec = self._directories if is_directory else self._files
        patterns = self._directory_patterns if is_directory else self._patterns
        found = spec.check_file(path + "/" if is_directory else path)
        return patterns[found.index] if found.include and found.index is not None else ""


class Inclusions:
    """What a user takes in although the table leaves it out."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        variable = "CLAUDE_SIDECAR_INCLUDE"
        self._all = _compiled(patterns, variable)
        self._secret = _compiled(tuple(p for p in patterns if _names_a_secret(p)), variable)
        self._leading = frozenset(lead for pattern in patterns for lead in _literal_directories(pattern))

    def match(self, path: str, is_directory: bool, *, secret: bool) -> bool:
        """True if a pattern takes `path` in; for a secret one only a pattern that names it literally."""
        spec = self._secret if secret else self._all
        return bool(spec.match_file(path + "/" if is_directory else path))

    def lead_below(self, directory: str) -> bool:
        """True if a pattern names something inside `directory`."""
        return directory in self._leading


def _compiled(patterns: tuple[str, ...], variable: str) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    for pattern in patterns:
        _demand_meaning(pattern, variable)
    return GitIgnoreSpec.from_lines(patterns, backend="simple")


def _demand_meaning(pattern: str, variable: str) -> None:
    from pathspec import GitIgnoreSpec

    body = pattern.removeprefix("!").removeprefix("/").removesuffix("/")
    try:
        (compiled,) = GitIgnoreSpec.from_lines([pattern], backend="simple").patterns
    except (ValueError, re.error):
        compiled = None
    if compiled is None or compiled.include is None:
        raise _wrong(pattern, variable, "it is not a pattern in gitignore syntax")
    if any(part in ("", ".", "..") for part in body.split("/")):
        raise _wrong(pattern, variable, "an empty part, '.' or '..' matches nothing")


def _wrong(pattern: str, variable: str, why: str) -> SettingsError:
    return SettingsError(
        f"{variable} holds {pattern!a}: {why}",
        "write it as in a .gitignore at the home's root, for example file-history/ or /notes/*.log",
    )


def _parts(pattern: str) -> list[str]:
    return pattern.removeprefix("!").removeprefix("/").rstrip("/").split("/")


def _names_a_secret(pattern: str) -> bool:
    parts = _parts(pattern)
    if is_credentials(parts[-1]):
        return _WILDCARDS.isdisjoint(pattern)
    return parts[0] in SECRET_DIRECTORIES


def _literal_directories(pattern: str) -> list[str]:
    """The directories that `pattern` passes through, as far as it writes them out: ``a``, ``a/b``."""
    leads: list[str] = []
    for part in _parts(pattern)[:-1]:
        if not _WILDCARDS.isdisjoint(part):
            break
        leads.append(f"{leads[-1]}/{part}" if leads else part)
    return leads
