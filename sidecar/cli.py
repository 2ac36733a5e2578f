"""``claude-sidecar``: the commands. Exit codes: 0 done, 1 failed, 2 wrong use or could not tell, 3 partly;
130 and 143 ended by SIGINT or SIGTERM.

Each command imports what it needs when it runs: an init container pays for every import.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sidecar import logs, memory, settings
from sidecar.arguments import parse
from sidecar.errors import SettingsError, SidecarError, UserError
from sidecar.logs import log

if TYPE_CHECKING:
    import argparse

    from sidecar.settings import Settings

DONE, FAILED, WRONG_USE, PARTLY = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Every expected error ends as one sentence.

    Without `arguments` they are the process's, which may end here.
    """
    chosen = parse(sys.argv[1:] if arguments is None else arguments)
    logs.set_up()
    memory.give_back()
    code = _code(chosen)
    if arguments is None and _COMMANDS[chosen.name] not in _IN_THEIR_ORDER:
        _leave(code)
    return code


def _leave(code: int) -> None:
    """End the process as it is: to take the interpreter down first is an eighth of what `restore` of an empty
    area takes, and frees what the kernel frees anyway."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # it was closed before we began
                stream.flush()
    except OSError:  # the interpreter's own end says why, and that it failed
        return
    os._exit(code)


def _code(chosen: argparse.Namespace) -> int:
    try:
        return _ended(chosen)
    except (SettingsError, UserError) as error:
        return _failed(chosen, error, WRONG_USE)
    except SidecarError as error:
        return _failed(chosen, error, FAILED)
    except KeyboardInterrupt:
        return FAILED
    except BrokenPipeError:  # whoever read our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _failed(chosen: argparse.Namespace, error: SidecarError, code: int) -> int:
    log.error("%s", error)
    if getattr(chosen, "json", False):
        from sidecar.commands.output import print_error

        print_error(error)
    return code


def _ended(chosen: argparse.Namespace) -> int:
    command = _COMMANDS[chosen.name]
    if command in _IN_THEIR_ORDER:
        return command(chosen)
    from sidecar.commands.interruption import until_signalled

    return until_signalled(chosen.name, lambda: command(chosen))


def _settings(chosen: argparse.Namespace) -> Settings:
    flags = {
        name.removeprefix("set_"): value
        for name, value in vars(chosen).items()
        if name.startswith("set_") and value is not None
    }
    read = settings.load(os.environ, flags)
    logs.set_up(read.log_format, read.log_level)
    for sentence in read.warnings:
        log.warning("%s", sentence)
    return read


def _moving(chosen: argparse.Namespace) -> Settings:
    """The settings of a command that moves files; what its engine cannot guarantee is said first."""
    read = _settings(chosen)
    if read.engine == "s5cmd" and read.bucket:
        from sidecar.area.s5cmd.program import weaker_guard

        log.warning("%s", weaker_guard())
    return read


def _restore(chosen: argparse.Namespace) -> int:
    from sidecar.commands import restore

    return restore(_moving(chosen), dry_run=chosen.dry_run, as_json=chosen.json, token_file=chosen.token_file)


def _backup(chosen: argparse.Namespace) -> int:
    from sidecar.commands import backup

    return backup(_moving(chosen), dry_run=chosen.dry_run, as_json=chosen.json, token_file=chosen.token_file)


def _verify(chosen: argparse.Namespace) -> int:
    from sidecar.commands.verify import verify

    return verify(_settings(chosen), sample=chosen.sample, seed=chosen.seed, as_json=chosen.json)


def _conflicts_ls(chosen: argparse.Namespace) -> int:
    from sidecar.commands.conflicts import ls

    return ls(_settings(chosen), as_json=chosen.json)


def _conflicts_show(chosen: argparse.Namespace) -> int:
    from sidecar.commands.conflicts import show

    return show(_settings(chosen), chosen.word, most_lines=max(0, chosen.lines), as_json=chosen.json)


def _conflicts_take(chosen: argparse.Namespace) -> int:
    from sidecar.commands.conflicts import take_back

    return take_back(_settings(chosen), chosen.word, bucket_only=chosen.bucket_only, as_json=chosen.json)


def _forget(chosen: argparse.Namespace) -> int:
    from sidecar.commands.forget import forget

    return forget(_settings(chosen), yes=chosen.yes, force=chosen.force, as_json=chosen.json)


def _journal(chosen: argparse.Namespace) -> int:
    from sidecar.commands.journal import journal_ls, journal_show

    read = _settings(chosen)
    if chosen.what == "ls":
        return journal_ls(read, as_json=chosen.json)
    if not chosen.entry:
        raise SettingsError("no entry is named", "claude-sidecar journal ls lists them")
    return journal_show(read, chosen.entry, as_json=chosen.json)


def _checkpoint(chosen: argparse.Namespace) -> int:
    from sidecar.commands.journal import checkpoint_all_users

    return checkpoint_all_users(_moving(chosen), as_json=chosen.json)


def _hooks(chosen: argparse.Namespace) -> int:
    from pathlib import Path

    from sidecar.api.hooks_settings import install, rendered, snippet

    port = _settings(chosen).api_port
    if not chosen.install:
        sys.stdout.write(rendered(snippet(port, chosen.token_variable)))
        return DONE
    changed = install(Path(chosen.install), port, chosen.token_variable)
    log.info("%s: %s", chosen.install, "the hooks are in" if changed else "the hooks were in already")
    return DONE


def _drain(chosen: argparse.Namespace) -> int:
    from sidecar.commands.journal import drain

    return drain(_settings(chosen))


def _run(chosen: argparse.Namespace) -> int:
    from sidecar import termination

    held = termination.hold_signals()
    from sidecar.server import run

    return run(_moving(chosen), held)


def _config(chosen: argparse.Namespace) -> int:
    from sidecar.commands.output import print_json, say

    rows = [*settings.described(_settings(chosen)), _s5cmd_row()]
    if chosen.json:
        print_json(rows)
        return DONE
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        value = "-" if row["value"] is None or row["value"] == () else row["value"]
        shown = ",".join(value) if isinstance(value, tuple) else str(value)
        say(f"{row['name']:<{width}}  {shown:<28}  {row['origin']}")
    return DONE


def _s5cmd_row() -> dict[str, Any]:
    """Which s5cmd there is, for ``kubectl exec`` and for the engine by that name."""
    from sidecar.area.s5cmd.program import installed

    program, version = installed() or ("not on PATH", None)
    meaning = "the program that CLAUDE_SIDECAR_ENGINE=s5cmd uses"
    return {"name": "s5cmd", "flag": "", "value": version, "origin": program, "meaning": meaning}


def _demo(chosen: argparse.Namespace) -> int:
    from sidecar.demo import demo

    return demo()


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "restore": _restore,
    "backup": _backup,
    "verify": _verify,
    "conflicts ls": _conflicts_ls,
    "conflicts show": _conflicts_show,
    "conflicts take": _conflicts_take,
    "forget": _forget,
    "journal": _journal,
    "checkpoint": _checkpoint,
    "hooks": _hooks,
    "drain": _drain,
    "run": _run,
    "config": _config,
    "demo": _demo,
}
# They end in an order of their own.
_IN_THEIR_ORDER = (_run, _demo)


if __name__ == "__main__":
    sys.exit(main())
