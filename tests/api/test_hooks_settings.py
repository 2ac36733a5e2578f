"""The settings that make Claude Code tell us: a snippet, and its way into a file that is somebody's own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sidecar.api.hooks_settings import EVENTS, install, merged, rendered, snippet
from sidecar.errors import SettingsError

OWN = {
    "model": "opus",
    "hooks": {
        "Stop": [{"hooks": [{"type": "command", "command": "say done"}]}],
        "PreToolUse": [{"matcher": "Bash", "hooks": [{"type": "command", "command": "check"}]}],
    },
    "permissions": {"allow": ["Bash(ls:*)"]},
    "ümlaut": "✓",
}


def test_the_snippet_posts_every_writing_event_to_the_port() -> None:
    hooks = snippet(9000)["hooks"]
    assert set(hooks) == {"Stop", "SubagentStop", "SessionEnd", "PreCompact", "PostToolUse"} == set(EVENTS)
    for event, ((group),) in hooks.items():
        (hook,) = group["hooks"]
        assert (hook["type"], hook["url"]) == ("http", "http://127.0.0.1:9000/hooks/claude")
        assert ("matcher" in group) == (event == "PostToolUse")


def test_a_token_is_named_never_written() -> None:
    (group,) = snippet(8377, "USER_TOKEN")["hooks"]["Stop"]
    (hook,) = group["hooks"]
    assert hook["headers"] == {"Authorization": "Bearer $USER_TOKEN"}
    assert hook["allowedEnvVars"] == ["USER_TOKEN"]


def test_what_is_there_stays_as_it_is() -> None:
    result = merged(OWN)
    assert list(result) == list(OWN)
    assert result["hooks"]["Stop"][0] == OWN["hooks"]["Stop"][0]
    assert len(result["hooks"]["Stop"]) == 2
    assert result["hooks"]["PreToolUse"] == OWN["hooks"]["PreToolUse"]
    assert {name: result[name] for name in ("model", "permissions", "ümlaut")} == {
        name: OWN[name] for name in ("model", "permissions", "ümlaut")
    }


def test_merging_changes_none_of_its_arguments() -> None:
    before = json.dumps(OWN)
    merged(OWN)
    assert json.dumps(OWN) == before


def test_twice_is_the_same_as_once() -> None:
    assert merged(merged(OWN)) == merged(OWN)


def test_our_hook_with_an_ornament_of_theirs_is_not_added_again() -> None:
    adorned = merged({})
    adorned["hooks"]["Stop"][0]["hooks"][0]["statusMessage"] = "saving"
    assert merged(adorned) == adorned


def test_another_port_renews_our_hooks_where_they_stand() -> None:
    result = merged(merged(OWN, 8377), 9000)
    assert "8377" not in json.dumps(result)
    assert len(result["hooks"]["Stop"]) == 2
    assert result["hooks"]["Stop"][0] == OWN["hooks"]["Stop"][0]


def test_somebody_elses_http_hook_is_not_ours() -> None:
    other = {"type": "http", "url": "https://audit.example/hooks/claude"}
    settings = {"hooks": {"Stop": [{"hooks": [other, {"type": "http", "url": "http://[bad"}, "odd", 7]}]}}
    result = merged(settings)
    assert result["hooks"]["Stop"][0] == settings["hooks"]["Stop"][0]
    assert len(result["hooks"]["Stop"]) == 2


@pytest.mark.parametrize("settings", [{"hooks": []}, {"hooks": {"Stop": {}}}, {"hooks": None}])
def test_hooks_of_another_form_are_left_alone(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        merged(settings)


# -- the file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.json"


def test_installing_twice_writes_once(file: Path) -> None:
    file.write_text(rendered(OWN))
    assert install(file) is True
    was = file.stat()
    content = file.read_bytes()
    assert json.loads(content) == merged(OWN)
    assert "✓".encode() in content
    assert install(file) is False
    assert (file.stat().st_ino, file.stat().st_mtime_ns, file.read_bytes()) == (
        was.st_ino,
        was.st_mtime_ns,
        content,
    )


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_the_mode_and_the_owner_stay(file: Path, mode: int) -> None:
    file.write_text("{}")
    file.chmod(mode)
    if os.getuid() == 0:
        os.chown(file, 12345, 12346)
    was = file.stat()
    install(file)
    now = file.stat()
    assert (now.st_mode, now.st_uid, now.st_gid) == (was.st_mode, was.st_uid, was.st_gid)


def test_a_file_that_is_not_there_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "deep" / ".claude" / "settings.json"
    assert install(file) is True
    assert json.loads(file.read_text()) == snippet()
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b"{'a': 1}", b'{"a": 1, "a": 2}', b'{"a": NaN}', b"\xff", b"// note\n{}", b"[" * 100_000],
    ids=lambda content: repr(content[:12]),
)
def test_a_file_that_is_no_settings_is_left_as_it_is_and_said(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        install(file)
    assert str(file) in str(caught.value) and caught.value.hint
    assert file.read_bytes() == content
    assert list(file.parent.iterdir()) == [file]


def test_an_empty_file_is_filled(file: Path) -> None:
    file.write_text("\n")
    assert install(file) is True
    assert json.loads(file.read_text()) == snippet()


def test_a_link_is_not_followed(tmp_path: Path, file: Path) -> None:
    target = tmp_path / "target.json"
    target.write_text("{}")
    file.symlink_to(target)
    with pytest.raises(SettingsError) as caught:
        install(file)
    assert str(target) in caught.value.hint
    assert file.is_symlink() and target.read_text() == "{}"


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_what_is_no_file_does_not_hang_and_is_said(file: Path, kind: str) -> None:
    os.mkfifo(file) if kind == "fifo" else file.mkdir()
    with pytest.raises(SettingsError):
        install(file)


def test_a_disk_that_is_full_leaves_the_old_file_whole(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(rendered(OWN))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SettingsError) as caught:
        install(file)
    assert "No space left" in str(caught.value)
    assert file.read_text() == rendered(OWN)
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("module", ["sidecar.api.hooks_settings", "sidecar.client", "sidecar.api.openapi"])
def test_who_needs_no_server_imports_none(module: str) -> None:
    heavy = ("aiohttp", "jwt", "prometheus_client", "asyncio", "cryptography")
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_pod_with_a_fixed_user_does_not_pay_for_token_verification() -> None:
    code = (
        "import sys, sidecar.api.listeners; from sidecar.api.identity import Verifier;"
        "from sidecar.settings import Settings; Verifier.from_settings(Settings(user_id='ada'));"
        "print([m for m in ('jwt', 'cryptography') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_guide_shows_the_snippet_that_is_installed() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    shown = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", guide, re.DOTALL)]
    assert snippet() in shown
