"""The words of the command line. Parsed only: what a command does with them is in `sidecar.cli`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from sidecar import __version__, settings


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command's ``name`` (``restore``, ``conflicts ls``) and its options; ends the process on wrong use.

    Settings that were given as flags are ``set_<field>``; the others are None.
    """
    parser = argparse.ArgumentParser(
        prog="claude-sidecar",
        description="Makes a pod's .claude directory outlive the pod.",
        epilog="Every setting is also an environment variable: see claude-sidecar config.",
        formatter_class=_Formatter,
    )
    parser.add_argument("--version", action="version", version=f"claude-sidecar {__version__}")
    commands = _Commands(parser, words)
    named = words[0] if words else ""
    for name, describe in _COMMANDS.items():
        if name == named or named not in _COMMANDS:  # all of them take 7 ms to describe
            describe(commands)
    return parser.parse_args(words)


class _Formatter(argparse.HelpFormatter):
    """As wide as the terminal. argparse makes one for each option that is added, and would ask shutil, which
    takes three compressors along: 3 ms."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    try:
        given = int(os.environ.get("COLUMNS", "0"))
        return given if given > 0 else os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (AttributeError, ValueError, OSError):  # no output at all; no number; no terminal
        return 80


class _Commands:
    """The commands right below `parser`; `above` begins their names."""

    def __init__(self, parser: argparse.ArgumentParser, words: Sequence[str], above: str = "") -> None:
        self._parsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
        self._words = words
        self._above = above

    def add(
        self, name: str, meaning: str, *, dry_run: bool = False, settings_flags: bool = True
    ) -> argparse.ArgumentParser:
        parser = self._parsers.add_parser(name, help=meaning, description=meaning, formatter_class=_Formatter)
        parser.set_defaults(name=self._above + name)
        parser.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
        if dry_run:
            parser.add_argument("--dry-run", action="store_true", help="say what would move, move nothing")
        # Those of all commands take 9 ms to make, and no word but the command's is none of them.
        if settings_flags and name in self._words and len(self._words) > 1:
            group = parser.add_argument_group("settings", "each overrides its environment variable")
            for option in settings.OPTIONS:
                help_text = f"{option.meaning} [{option.variable}]"
                group.add_argument(
                    option.flag, dest=f"set_{option.field}", metavar=option.metavar, help=help_text
                )
        return parser

    def group(self, name: str, meaning: str) -> _Commands:
        """Commands of two words, of which `name` is the first."""
        parser = self._parsers.add_parser(name, help=meaning, description=meaning, formatter_class=_Formatter)
        return _Commands(parser, self._words, f"{name} ")


def _restore(commands: _Commands) -> None:
    meaning = "bring the area into the home, before the agent starts"
    _may_ask(commands.add("restore", meaning, dry_run=True))


def _backup(commands: _Commands) -> None:
    _may_ask(commands.add("backup", "bring the area up to date with the home", dry_run=True))


def _may_ask(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--token-file", metavar="FILE", help="the user's token, if a running sidecar asks")


def _verify(commands: _Commands) -> None:
    verify = commands.add("verify", "compare home, ledger, area, manifest and packs; change nothing")
    verify.add_argument(
        "--sample",
        default="100%",
        metavar="N%",
        help="read only N%% of the files and packs that look untouched",
    )
    verify.add_argument("--seed", metavar="TEXT", help="what draws the sample [the day, in UTC]")


def _conflicts(commands: _Commands) -> None:
    meaning = "what was displaced and is kept: list it, show a difference, take a version back"
    kinds = commands.group("conflicts", meaning)
    kinds.add("ls", "list what is kept under conflicts/, the newest first")
    show = kinds.add("show", "show how a kept version differs from the current object")
    show.add_argument("word", metavar="PATH|ID", help="a path, or an id from conflicts ls")
    show.add_argument("--lines", type=int, default=200, metavar="N", help="at most N lines, 0 for all [200]")
    take = kinds.add("take", "make a kept version the current one; what it displaces is kept")
    take.add_argument("word", metavar="ID", help="an id from conflicts ls")
    take.add_argument("--bucket-only", action="store_true", help="leave the home alone")


def _forget(commands: _Commands) -> None:
    forget = commands.add("forget", "erase a user's whole area for good, every version of it")
    forget.add_argument("--user", dest="set_user_id", metavar="USER", help="whom to forget")
    forget.add_argument("--yes", action="store_true", help="erase; without it, only say what that would be")
    forget.add_argument("--force", action="store_true", help="even if somebody may still be writing")


def _journal(commands: _Commands) -> None:
    journal = commands.add("journal", "what was flushed and not folded yet")
    journal.add_argument("what", choices=("ls", "show"), help="list the entries, or show one")
    journal.add_argument("entry", nargs="?", metavar="WRITER/SEQUENCE", help="the entry to show")


def _checkpoint(commands: _Commands) -> None:
    checkpoint = commands.add("checkpoint", "fold the journals of a bucket into its objects")
    checkpoint.add_argument("--all-users", action="store_true", required=True, help="of every user")


def _hooks(commands: _Commands) -> None:
    hooks = commands.add("hooks", "print or install the client's hooks that call the sidecar")
    hooks.add_argument("--install", metavar="FILE", help="merge them into this settings file")
    hooks.add_argument("--token-variable", metavar="NAME", help="environment variable that holds the token")


def _drain(commands: _Commands) -> None:
    commands.add("drain", "tell this pod's sidecar that the end is near")


def _run(commands: _Commands) -> None:
    commands.add("run", "serve: triggers, interval backups, the last flush")


def _config(commands: _Commands) -> None:
    commands.add("config", "print every setting with its value and where it comes from")


def _demo(commands: _Commands) -> None:
    commands.add("demo", "two pods' lives against an embedded S3 server", settings_flags=False)


_COMMANDS: dict[str, Callable[[_Commands], None]] = {
    "restore": _restore,
    "backup": _backup,
    "verify": _verify,
    "conflicts": _conflicts,
    "forget": _forget,
    "journal": _journal,
    "checkpoint": _checkpoint,
    "hooks": _hooks,
    "drain": _drain,
    "run": _run,
    "config": _config,
    "demo": _demo,
}
