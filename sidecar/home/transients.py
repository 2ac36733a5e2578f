"""The client's locks and temporary files, and our own: never carried, whatever the settings say.

People keep trees of their own in the home (skills, plugins, hooks …), and a skill's ``uv.lock`` or
``Cargo.lock`` is content. So a name is taken for a lock where only the client makes such names:

- exactly ``.lock``, anywhere;
- a directory that ends in ``.lock``, anywhere (the client's locks are directories beside what they guard);
- a file that ends in ``.json.lock`` or ``.jsonl.lock``, anywhere (beside the client's own files);
- any other file that ends in ``.lock`` at the home's root, in the client's own areas (`CLIENT_AREAS`), and
  inside a ``.git`` directory (where git reserves the ending).

Temporary files follow the same line: ``<file>.tmp.<process>…`` and ``<file>.json.tmp`` anywhere, every
``.tmp`` at the root and in the client's own areas; a skill's ``page.tmp.html`` or ``draft.tmp`` is content.
"""

from __future__ import annotations

OWN_PREFIX = ".claude-sidecar-"
OWN_SUFFIX = ".tmp"

CLIENT_AREAS = frozenset(("projects", "tasks", "teams", "todos", "plans"))
"""Directories at the root in which the client alone chooses the names."""

_CLIENT_FILES = (".json", ".jsonl")


def is_own_temporary(name: str) -> bool:
    """True for a file that `writes` makes before it has its name."""
    return name.startswith(OWN_PREFIX) and name.endswith(OWN_SUFFIX)


def is_transient(name: str, *, is_directory: bool, clients_own: bool) -> bool:
    """True for a lock or a temporary file.

    Parameters
    ----------
    clients_own: the name stands at the home's root, in one of `CLIENT_AREAS` or in a ``.git`` directory.
    """
    if name.endswith(".lock"):
        return _is_lock(name, is_directory, clients_own)
    if is_directory:
        return False
    if is_own_temporary(name):
        return True
    return _is_temporary(name, clients_own)


def _is_lock(name: str, is_directory: bool, clients_own: bool) -> bool:
    return is_directory or clients_own or name == ".lock" or name[:-5].endswith(_CLIENT_FILES)


def _is_temporary(name: str, clients_own: bool) -> bool:
    if name.endswith(".tmp"):
        return clients_own or name[:-4].endswith(_CLIENT_FILES)
    of, mark, process = name.rpartition(".tmp.")
    return bool(mark) and (of.endswith(_CLIENT_FILES) or process[:1].isdigit())
