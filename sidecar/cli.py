"""``claude-sidecar``: the commands. Exit codes: 0 done, 1 failed, 2 wrong use or could not tell, 3 partly;
130 and 143 ended by SIGINT or SIGTERM.

Each command imports what it needs when it runs: an init container pays for every import.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sidecar import __version__, logs, memory, settings
from sidecar.errors import SettingsError, SidecarError, UserError
from sidecar.logs import log

if TYPE_CHECKING:
    from sidecar.settings import Settings

DONE, FAILED, WRONG_USE, PARTLY = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Every expected error ends as one sentence."""
    words = sys.argv[1:] if arguments is None else arguments
    chosen = _parser(words).parse_args(words)
    logs.set_up()
    memory.give_back()
    try:
        return _ended(chosen)
    except (SettingsError, UserError) as error:
        log.error("%s", error)
        return WRONG_USE
    except SidecarError as error:
        log.error("%s", error)
        return FAILED
    except KeyboardInterrupt:
        return FAILED
    except BrokenPipeError:  # whoever read our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _ended(chosen: argparse.Namespace) -> int:
    if chosen.command in (_run, _demo):  # they end in an order of their own
        return int(chosen.command(chosen))
    from sidecar.commands.interruption import until_signalled

    return until_signalled(chosen.name, lambda: int(chosen.command(chosen)))


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="claude-sidecar",
        description="Makes a pod's .claude directory outlive the pod.",
        epilog="Every setting is also an environment variable: see claude-sidecar config.",
    )
    parser.add_argument("--version", action="version", version=f"claude-sidecar {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add = partial(_add, frozenset(arguments), commands)
    restore = add("restore", "bring the area into the home, before the agent starts", _restore, dry_run=True)
    backup = add("backup", "bring the area up to date with the home", _backup, dry_run=True)
    for asking in (restore, backup):
        asking.add_argument(
            "--token-file", metavar="FILE", help="the user's token, if a running sidecar asks"
        )
    verify = add("verify", "compare home, ledger and area by content; change nothing", _verify)
    verify.add_argument(
        "--sample", default="100%", metavar="N%", help="read only N%% of the files that look untouched"
    )
    verify.add_argument("--seed", metavar="TEXT", help="what draws the sample [the day, in UTC]")
    _add_conflicts(frozenset(arguments), commands)
    forget = add("forget", "erase a user's whole area for good, every version of it", _forget)
    forget.add_argument("--user", dest="set_user_id", metavar="USER", help="whom to forget")
    forget.add_argument("--yes", action="store_true", help="erase; without it, only say what that would be")
    forget.add_argument("--force", action="store_true", help="even if somebody may still be writing")
    journal = add("journal", "what was flushed and not folded yet", _journal)
    journal.add_argument("what", choices=("ls", "show"), help="list the entries, or show one")
    journal.add_argument("entry", nargs="?", metavar="WRITER/SEQUENCE", help="the entry to show")
    checkpoint = add("checkpoint", "fold the journals of a bucket into its objects", _checkpoint)
    checkpoint.add_argument("--all-users", action="store_true", required=True, help="of every user")
    hooks = add("hooks", "print or install the client's hooks that call the sidecar", _hooks)
    hooks.add_argument("--install", metavar="FILE", help="merge them into this settings file")
    hooks.add_argument("--token-variable", metavar="NAME", help="environment variable that holds the token")
    add("drain", "tell this pod's sidecar that the end is near", _drain)
    add("run", "serve: triggers, interval backups, the last flush", _run)
    add("config", "print every setting with its value and where it comes from", _config)
    add("demo", "two pods' lives against an embedded S3 server", _demo, settings_flags=False)
    return parser


def _add_conflicts(words: frozenset[str], commands: Any) -> None:
    meaning = "what was displaced and is kept: list it, show a difference, take a version back"
    conflicts = commands.add_parser("conflicts", help=meaning, description=meaning)
    kinds = conflicts.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add = partial(_add, words, kinds)
    add("ls", "list what is kept under conflicts/, the newest first", _conflicts_ls)
    show = add("show", "show how a kept version differs from the current object", _conflicts_show)
    show.add_argument("word", metavar="PATH|ID", help="a path, or an id from conflicts ls")
    show.add_argument("--lines", type=int, default=200, metavar="N", help="at most N lines, 0 for all [200]")
    take = add("take", "make a kept version the current one; what it displaces is kept", _conflicts_take)
    take.add_argument("word", metavar="ID", help="an id from conflicts ls")
    take.add_argument("--bucket-only", action="store_true", help="leave the home alone")


def _add(
    words: frozenset[str],
    commands: Any,
    name: str,
    meaning: str,
    command: Any,
    *,
    dry_run: bool = False,
    settings_flags: bool = True,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=meaning, description=meaning)
    parser.set_defaults(command=command, name=name)
    parser.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
    if dry_run:
        parser.add_argument("--dry-run", action="store_true", help="say what would move, move nothing")
    if settings_flags and name in words:  # those of all commands take 9 ms to make
        group = parser.add_argument_group("settings", "each overrides its environment variable")
        for option in settings.OPTIONS:
            help_text = f"{option.meaning} [{option.variable}]"
            group.add_argument(
                option.flag, dest=f"set_{option.field}", metavar=option.metavar, help=help_text
            )
    return parser


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
    rows = [*settings.described(_settings(chosen)), _s5cmd_row()]
    if chosen.json:
        _print_json(rows)
        return DONE
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        value = "-" if row["value"] is None or row["value"] == () else row["value"]
        shown = ",".join(value) if isinstance(value, tuple) else str(value)
        sys.stdout.write(f"{row['name']:<{width}}  {shown:<28}  {row['origin']}\n")
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


def _print_json(value: Any) -> None:
    import orjson

    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")


if __name__ == "__main__":
    sys.exit(main())
