from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.errors import SettingsError
from sidecar.home.beneath import Home
from sidecar.home.rules import Rules
from sidecar.home.scan import scan
from tests.home.conftest import put


def lines(text: str) -> list[str]:
    return text.split()


UUID = "0b7c6f9e-1111-4222-8333-444455556666"

IN = lines(
    f"""
projects/-work/{UUID}.jsonl
projects/-work/{UUID}/subagents/agent-1.jsonl
projects/-work/{UUID}/subagents/agent-1.meta.json
projects/-work/{UUID}/tool-results/toolu_1.txt
projects/-work/memory/MEMORY.md
projects/-work/something-new.bin
.claude.json
settings.json
settings.local.json
CLAUDE.md
agents/reviewer.md
skills/pdf/SKILL.md
commands/deploy.md
rules/style.md
output-styles/terse.md
hooks/stop.sh
workflows/nightly.yaml
keybindings.json
agent-memory/reviewer/MEMORY.md
plans/plan.md
tasks/1/1.json
todos/{UUID}.json
jobs/1/state.json
teams/a/config.json
history.jsonl
plugins/installed_plugins.json
plugins/known_marketplaces.json
plugins/cache/a/b/plugin.json
plugins/marketplaces/a/README.md
names-nobody-knows.txt
names/nobody/knows.txt
.hidden-and-unknown
"""
)

SECRETS = lines(
    """
.credentials.json
.credentials.json.bak
sessions/123.json
sessions/123.abc.key
backups/.claude.json.backup.1
skills/x/.credentials.json
"""
)

COPIES = lines(
    """
file-history/a/b@v1
paste-cache/a.txt
image-cache/a/1.png
uploads/a/report.pdf
"""
)

JUNK = lines(
    """
debug/a.txt
logs/a.log
telemetry/a.json
statsig/a
cache/changelog.md
stats-cache.json
ide/1.json
chrome/a
feedback-bundles/a.zip
usage-data/a.json
session-env/a/b
shell-snapshots/a.sh
node_modules/a/index.js
.venv/bin/python
skills/a/node_modules/b/index.js
plugins/cache/a/.venv/pyvenv.cfg
.last-cleanup
remote-settings.json
policy-limits.json
mcp-needs-auth-cache.json
daemon.log
daemon/roster.json
daemon-control.key
"""
)

TRANSIENT = lines(
    f"""
.claude.json.lock
.claude.json.lock/owner
history.jsonl.lock
anything.lock
tasks/1/.lock
tasks/1/high.lock
teams/a/inboxes/b.json.lock
projects/-work/{UUID}.jsonl.lock
projects/-work/memory/x.lock/owner
plugins/installed_plugins.json.lock
skills/a/.lock
skills/a/build.lock/owner
skills/a/.git/index.lock
skills/a/.git/refs/heads/main.lock
.claude.json.tmp.12.1700000000000
.claude.json.tmp.12.ab34
settings.json.tmp.12.1700000000000
CLAUDE.md.tmp.12.1700000000000
projects/-work/memory/MEMORY.md.tmp.12.1700000000000
plugins/known_marketplaces.json.tmp.k3
plugins/installed_plugins.json.tmp
todos/a.tmp
.claude-sidecar-0123456789abcdef.tmp
skills/a/.claude-sidecar-0123456789abcdef.tmp
"""
)

# Content of people's own, although the names look alike.
ALIKE = lines(
    """
skills/a/uv.lock
skills/a/package-lock.json
skills/a/Cargo.lock
skills/a/poetry.lock
skills/a/yarn.lock
plugins/marketplaces/a/Gemfile.lock
hooks/flake.lock
agents/uv.lock
names/nobody/knows/uv.lock
skills/a/page.tmp.html
skills/a/draft.tmp
skills/a/padlock
skills/a/locks/README.md
skills/a/debug/notes.md
plugins/a/cache/b.json
plugins/a/sessions/b.json
skills/logs/SKILL.md
projects/-work/file-history/a
skills/a/stats-cache.json
skills/a/daemon.py
skills/a/credentials.json
"""
)

# Rules that speak of a directory do not speak of a file by that name.
FILES_NAMED_LIKE_DIRECTORIES = lines("debug logs cache uploads backups")

TAKEN = IN + ALIKE + FILES_NAMED_LIKE_DIRECTORIES
LEFT = SECRETS + COPIES + JUNK + TRANSIENT


def scanned(root: Path, rules: Rules) -> set[str]:
    with Home.open(root) as home:
        return set(scan(home, rules, max_file_bytes=2**20).files)


@pytest.mark.parametrize("path", TAKEN)
def test_what_belongs_into_a_backup_is_taken_in_both_directions(root: Path, path: str) -> None:
    put(root, path)
    assert scanned(root, Rules()) == {path}
    assert Rules().takes(path)


@pytest.mark.parametrize("path", LEFT)
def test_what_does_not_belong_into_a_backup_is_left_in_both_directions(root: Path, path: str) -> None:
    put(root, path)
    assert scanned(root, Rules()) == set()
    assert not Rules().takes(path)
    assert Rules().decide(path, False).reason


@pytest.mark.parametrize("path", COPIES + JUNK)
def test_copies_and_caches_come_in_by_an_include_pattern(root: Path, path: str) -> None:
    put(root, path)
    assert Rules().decide(path, False).optional
    for pattern in (path.partition("/")[0], "/" + path, "*"):
        rules = Rules(include=(pattern,))
        if "node_modules" in path[1:] or ".venv" in path[1:]:
            rules = Rules(include=("node_modules/", ".venv"))
        assert rules.takes(path), pattern
        assert scanned(root, rules) == {path}


@pytest.mark.parametrize("path", TRANSIENT)
@pytest.mark.parametrize("pattern", ["*", "**", "{path}", "*.lock", ".lock"])
def test_locks_and_temporary_files_never_come_in(root: Path, path: str, pattern: str) -> None:
    put(root, path)
    rules = Rules(include=(pattern.format(path=path), path.partition("/")[0]))
    assert not rules.takes(path)
    assert not rules.decide(path, False).optional
    assert scanned(root, rules) == set()


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "**",
        "/*",
        ".*",
        "*.json",
        ".credentials*",
        ".credentials.jso[n]",
        ".credentials.json*",
        "?credentials.json",
    ],
)
def test_credentials_do_not_come_in_by_a_wildcard(root: Path, pattern: str) -> None:
    put(root, ".credentials.json")
    assert not Rules(include=(pattern,)).takes(".credentials.json")
    assert scanned(root, Rules(include=(pattern,))) == set()


@pytest.mark.parametrize("pattern", [".credentials.json", "/.credentials.json"])
def test_credentials_come_in_by_their_name(root: Path, pattern: str) -> None:
    put(root, ".credentials.json")
    put(root, ".credentials.json.bak")
    rules = Rules(include=("debug/", pattern))
    assert rules.takes(".credentials.json")
    assert scanned(root, rules) == {".credentials.json"}


def test_secret_directories_come_in_only_by_a_pattern_that_starts_with_their_name(root: Path) -> None:
    put(root, "sessions/1.json")
    put(root, "sessions/1.key")
    put(root, "backups/a")
    assert scanned(root, Rules(include=("*", "**/*.key", "session?/"))) == set()
    assert scanned(root, Rules(include=("sessions/*.json", "*"))) == {"sessions/1.json"}
    assert scanned(root, Rules(include=("backups/",))) == {"backups/a"}


def test_a_pattern_inside_a_left_out_directory_opens_it_for_itself_alone(root: Path) -> None:
    for path in ("debug/latest.txt", "debug/other.txt", "debug/deep/er/a.log", "debug/deep/b.log"):
        put(root, path)
    assert scanned(root, Rules(include=("debug/latest.txt",))) == {"debug/latest.txt"}
    assert scanned(root, Rules(include=("/debug/deep/er/*.log",))) == {"debug/deep/er/a.log"}
    assert not Rules(include=("debug/latest.txt",)).takes("debug/other.txt")
    with Home.open(root) as home:
        found = scan(home, Rules(include=("debug/latest.txt",)), max_file_bytes=10)
    assert set(found.directories) == {""}


def test_an_exclude_pattern_beats_an_include_pattern(root: Path) -> None:
    put(root, "uploads/a.pdf")
    put(root, "uploads/a.iso")
    assert scanned(root, Rules(include=("uploads/",), exclude=("*.iso",))) == {"uploads/a.pdf"}


def test_exclude_patterns_mean_what_they_mean_to_git(root: Path) -> None:
    for path in ("a.log", "keep.log", "x/b.log", "x/tmp/c", "tmp/d", "y/z/e", "y/keep/f", "y/g"):
        put(root, path)
    assert scanned(root, Rules(exclude=("*.log", "!keep.log"))) >= {"keep.log", "y/g"}
    assert not scanned(root, Rules(exclude=("*.log", "!keep.log"))) & {"a.log", "x/b.log"}
    assert "x/tmp/c" in scanned(root, Rules(exclude=("/tmp/",)))
    assert scanned(root, Rules(exclude=("y/**", "!y/g", "tmp", "*.log"))) == {"y/g"}
    # What lies below an excluded directory cannot be taken back.
    assert not scanned(root, Rules(exclude=("y/", "!y/g"))) & {"y/g", "y/z/e"}


def test_an_excluded_path_names_its_pattern() -> None:
    verdict = Rules(exclude=("*.iso", "/notes/*.log")).decide("notes/a.log", False)
    assert not verdict.taken
    assert "/notes/*.log" in verdict.reason


@pytest.mark.parametrize(
    "pattern", ["!", "/", "a[", "[z-a]", "", "#x", "./x", "a//b", "../x", "x/../y", "\\"]
)
@pytest.mark.parametrize("side", ["include", "exclude"])
def test_a_pattern_that_cannot_be_meant_is_named(pattern: str, side: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Rules(**{side: ("fine/", pattern)})
    assert ascii(pattern) in caught.value.message
    assert f"CLAUDE_SIDECAR_{side.upper()}" in caught.value.message


def test_names_that_no_rule_speaks_of_can_be_told() -> None:
    paths = [*TAKEN, *LEFT, "mystery.txt", "puzzle/a/b"]
    unknown = Rules().unknown_top_level(paths)
    assert unknown == (".hidden-and-unknown", "mystery.txt", "names", "names-nobody-knows.txt", "puzzle")


def test_pathspec_is_not_loaded_where_there_is_no_pattern() -> None:
    from tests.home.children import run_child

    loaded = run_child("Rules().takes('a'); print(json.dumps('pathspec' in sys.modules))")
    assert loaded is False


_GIT_NAMES = st.sampled_from(lines("a b c x.log keep.log"))
_GIT_PATTERNS = st.lists(
    st.sampled_from(
        lines(
            "a/ /a *.log !keep.log a/** !a/b b/c **/c a/*/c !a/keep.log * !*/ !x.log /b/ !/b/a c **/b/** [ab]"
            " ? a/**/ **/ b/** !b/** !c/ !a/"
        )
    ),
    min_size=1,
    max_size=4,
).map(tuple)


def trees(names: st.SearchStrategy[str]) -> st.SearchStrategy[set[str]]:
    """Paths of files, none of which is another's directory."""
    paths = st.sets(st.lists(names, min_size=1, max_size=4).map("/".join), max_size=12)
    return paths.map(lambda found: {p for p in found if not any(o.startswith(p + "/") for o in found)})


@pytest.mark.skipif(shutil.which("git") is None, reason="git, which is the reference, is not installed")
@given(trees(_GIT_NAMES), _GIT_PATTERNS)
@example({"keep.log/b/x.log/keep.log"}, ("*.log", "!keep.log"))
@example({"b/x.log/b/x.log"}, ("**/b/**", "!x.log"))
@settings(max_examples=60, deadline=None)
def test_git_itself_ignores_the_same_files(
    tmp_path_factory: pytest.TempPathFactory, paths: set[str], exclude: tuple[str, ...]
) -> None:
    root, git = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("git")
    for path in paths:
        put(root, path)
    (git / "patterns").write_text("\n".join(exclude) + "\n")
    here = ["git", f"--git-dir={git}/repository", f"--work-tree={root}"]
    subprocess.run([*here, "init", "-q"], check=True)
    command = [*here, "ls-files", "-o", f"--exclude-from={git}/patterns"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert scanned(root, Rules(exclude=exclude)) == set(listed.stdout.splitlines())


_NAMES = st.sampled_from(
    lines(
        "projects debug sessions uploads skills a uv.lock .lock x.json.lock a.tmp b.json.tmp.7 node_modules"
        " .git .credentials.json settings.json cache keep.log"
    )
)
_PATTERNS = st.lists(
    st.sampled_from(
        lines(
            "debug/ uploads/a /a *.lock !keep.log *.log a/** !a/cache sessions/a node_modules ** skills/*/a"
            " .credentials.json uploads/**/a"
        )
    ),
    max_size=3,
).map(tuple)


@given(trees(_NAMES), _PATTERNS, _PATTERNS)
@settings(max_examples=120, deadline=None)
def test_a_scan_and_a_key_get_the_same_answer(
    tmp_path_factory: pytest.TempPathFactory,
    paths: set[str],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
) -> None:
    root = tmp_path_factory.mktemp("home")
    for path in paths:
        put(root, path)
    rules = Rules(include=include, exclude=exclude)
    assert scanned(root, rules) == {path for path in paths if Rules(include, exclude).takes(path)}
