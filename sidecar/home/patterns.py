"""The patterns of CLAUDE_SIDECAR_INCLUDE and CLAUDE_SIDECAR_EXCLUDE: lines in gitignore syntax.

https://git-scm.com/docs/gitignore#_pattern_format

Imported libraries cost a start 35 ms, so pathspec is loaded only where there is a pattern.
"""

from __future__ import annotations

import re

from sidecar.errors import SettingsError
from sidecar.home.catalogue import SECRET_DIRECTORIES, is_credentials

_WILDCARDS = frozenset("*?[\\")
# What pathspec makes of "*/" and "**/": any slash, so it cannot tell a directory from what lies in it.
_ANY_DIRECTORY = "(?P<ps_d>/)"


class _Lines:
    """Lines of which the last that matches decides. A path is matched by itself, never through a directory
    above it: as with git, what a directory gets holds for all below (`rules`)."""

    def __init__(self, patterns: tuple[str, ...], variable: str) -> None:
        compiled = [_compiled(pattern, variable) for pattern in patterns]
        self._lines = list(zip(patterns, compiled, strict=True))[::-1]

    def matching(self, path: str, is_directory: bool) -> str:
        """The line that matches `path`; empty if none does, or if the last one begins with ``!``."""
        for pattern, compiled in self._lines:
            if _matches_itself(pattern, compiled, path, is_directory):
                return "" if pattern.startswith("!") else pattern
        return ""


class Exclusions:
    """What a user leaves out."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._lines = _Lines(patterns, "CLAUDE_SIDECAR_EXCLUDE")

    def matching(self, path: str, is_directory: bool) -> str:
        """The pattern that leaves `path` out; empty if none does."""
        return self._lines.matching(path, is_directory)


class Inclusions:
    """What a user takes in although the table leaves it out."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        variable = "CLAUDE_SIDECAR_INCLUDE"
        self._all = _Lines(patterns, variable)
        self._secret = _Lines(tuple(p for p in patterns if _names_a_secret(p)), variable)
        self._leading = frozenset(lead for pattern in patterns for lead in _literal_directories(pattern))

    def match(self, path: str, is_directory: bool, *, secret: bool) -> bool:
        """True if a pattern takes `path` in; for a secret one only a pattern that names it literally."""
        lines = self._secret if secret else self._all
        return bool(lines.matching(path, is_directory))

    def lead_below(self, directory: str) -> bool:
        """True if a pattern names something inside `directory`."""
        return directory in self._leading


def _matches_itself(pattern: str, compiled: re.Pattern[str], path: str, is_directory: bool) -> bool:
    if compiled.pattern == _ANY_DIRECTORY:
        return is_directory
    if pattern.rstrip("/").endswith("/**"):  # what is inside, not the directory itself
        return compiled.search(path) is not None and (is_directory or not pattern.endswith("/"))
    text = path + "/" if is_directory else path
    found = compiled.search(text)
    if found is None:
        return False
    # pathspec marks the slash behind the part that matched: the last one, or that of a directory above.
    mark = found.start("ps_d") if "ps_d" in compiled.groupindex else -1
    return mark in (-1, len(text) - 1)


def _compiled(pattern: str, variable: str) -> re.Pattern[str]:
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    body = pattern.removeprefix("!").removeprefix("/").removesuffix("/")
    try:
        regex = GitIgnoreSpecPattern(pattern).regex
    except (ValueError, re.error):
        regex = None
    if regex is None:
        raise _wrong(pattern, variable, "it is not a pattern in gitignore syntax")
    if any(part in ("", ".", "..") for part in body.split("/")):
        raise _wrong(pattern, variable, "an empty part, '.' or '..' matches nothing")
    return regex


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
