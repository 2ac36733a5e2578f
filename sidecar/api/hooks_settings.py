"""The Claude Code settings that make the client tell us when it has written: ``claude-sidecar hooks``.

The client posts its events itself (``"type": "http"``), so the agent's image needs neither curl nor a shell.
Format: https://code.claude.com/docs/en/hooks
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sidecar.errors import SettingsError

PATH = "/hooks/claude"
# After these a transcript or a tool's result has grown. SessionStart takes no http hooks, and writes nothing.
EVENTS = ("PostToolUse", "PreCompact", "Stop", "SubagentStop", "SessionEnd")
WITH_MATCHER = frozenset({"PostToolUse"})
TIMEOUT_SECONDS = 5
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_MOST_BYTES = 16 * 1024 * 1024


def snippet(port: int = 8377, token_variable: str | None = None) -> dict[str, Any]:
    """The settings to add, for the trigger API on `port`.

    ``token_variable`` names an environment variable of the agent with the user's token: needed only where one
    sidecar serves many users and each hook shall count for its own.
    """
    hook: dict[str, Any] = {
        "type": "http",
        "url": f"http://127.0.0.1:{port}{PATH}",
        "timeout": TIMEOUT_SECONDS,
    }
    if token_variable:
        hook["headers"] = {"Authorization": f"Bearer ${token_variable}"}
        hook["allowedEnvVars"] = [token_variable]
    groups: dict[str, Any] = {}
    for event in EVENTS:
        matcher = {"matcher": "*"} if event in WITH_MATCHER else {}
        groups[event] = [{**matcher, "hooks": [dict(hook)]}]
    return {"hooks": groups}


def rendered(settings: dict[str, Any]) -> str:
    """`settings` as they stand in a file."""
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"


def merged(settings: dict[str, Any], port: int = 8377, token_variable: str | None = None) -> dict[str, Any]:
    """`settings` with our hooks in them; what else is there stays as it is and where it is.

    A hook of ours that is there already (http, loopback, our path) is brought up to date, not added again.

    Raises
    ------
    SettingsError: their hooks are not of the form that Claude Code reads.
    """
    result: dict[str, Any] = {**settings}
    hooks = result["hooks"] = dict(_typed(settings.get("hooks", {}), dict, "hooks"))
    for event, (ours,) in snippet(port, token_variable)["hooks"].items():
        groups = list(_typed(hooks.get(event, []), list, f"hooks.{event}"))
        (new,) = ours["hooks"]
        known = any(_is_ours(hook) for group in groups for hook in _hooks_in(group))
        hooks[event] = [_renewed(group, new) for group in groups] if known else [*groups, ours]
    return result


def install(path: Path, port: int = 8377, token_variable: str | None = None) -> bool:
    """Put our hooks into the settings file at `path`, made if it is not there; False if they were there.

    The file is replaced whole or not at all, and keeps its mode and owner. A file that is there already and
    unchanged is not written. Not promised: comments (the format has none) and the file's own white space.

    Raises
    ------
    SettingsError: a symbolic link, no regular file, no JSON object, or not readable or writable.
    """
    try:
        was = _read(path)
        settings = merged(was, port, token_variable)
        if settings == was:
            return False
        _replace(path, rendered(settings).encode())
    except OSError as problem:
        reason = problem.strerror or type(problem).__name__
        raise SettingsError(f"{path} cannot be changed: {reason}", "look at its path and its mode") from None
    return True


def _typed(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind):
        raise SettingsError(
            f"{where} in these settings is not of the form that Claude Code reads", "correct it by hand first"
        )
    return value


def _hooks_in(group: Any) -> list[Any]:
    hooks = group.get("hooks") if isinstance(group, dict) else None
    return hooks if isinstance(hooks, list) else []


def _is_ours(hook: Any) -> bool:
    if not isinstance(hook, dict) or hook.get("type") != "http" or not isinstance(hook.get("url"), str):
        return False
    try:
        url = urlsplit(hook["url"])
        return url.path == PATH and url.hostname in _LOOPBACK
    except ValueError:
        return False


def _renewed(group: Any, new: dict[str, Any]) -> Any:
    if not any(_is_ours(hook) for hook in _hooks_in(group)):
        return group
    return {**group, "hooks": [{**hook, **new} if _is_ours(hook) else hook for hook in group["hooks"]]}


def _read(path: Path) -> dict[str, Any]:
    if path.is_symlink():
        raise SettingsError(
            f"{path} is a symbolic link, which is not followed", f"give the file itself: {path.resolve()}"
        )
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return {}
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SettingsError(f"{path} is not a regular file", "give a settings file")
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise SettingsError(f"{path} is larger than {_MOST_BYTES} bytes", "give a settings file")
    return _parsed(path, data)


def _parsed(path: Path, data: bytes) -> dict[str, Any]:
    try:
        if not data.strip():
            return {}
        value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_without_twins, parse_constant=_none)
    except (ValueError, RecursionError) as problem:
        raise SettingsError(
            f"{path} is not JSON, and was left as it is: {problem}", "correct it first"
        ) from None
    if not isinstance(value, dict):
        raise SettingsError(f"{path} holds JSON, but no object, and was left as it is", "correct it first")
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; one that names a key twice would lose a value when written again."""
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it names {next(n for n in names if names.count(n) > 1)!r} twice")
    return value


def _none(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        with os.fdopen(descriptor, "wb") as file:
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                _own(descriptor, status)
                os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _own(descriptor: int, status: os.stat_result) -> None:
    mine = os.fstat(descriptor)
    if (mine.st_uid, mine.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(descriptor, status.st_uid, status.st_gid)
