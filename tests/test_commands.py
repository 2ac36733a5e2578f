"""The commands as an operator runs them: real processes, their words, their exit codes."""

import hashlib
import http.server
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.counting import Wiretap
from sidecar.settings import OPTIONS
from sidecar.sync.ledger import Ledger
from tests.processes import Sidecar, command, environ_of, free_port
from tests.servers import ServerProcess as Server
from tests.servers import client
from tests.sync.pods import MakeSettings, objects

LOG = "projects/-w/s.jsonl"


def write(settings: Any, path: str, text: str) -> None:
    file = Path(settings.home) / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@contextmanager
def held_ledger(settings: Any, bucket: str) -> Iterator[None]:
    """Somebody works on the state directory and answers on no port."""
    area = f"s3://{bucket}/user_data/ada/"
    with Ledger.open(settings.state_dir, user_id="ada", area=area, home=(0, 0)):
        yield


# -- a running sidecar is asked, not worked beside


def test_backup_and_restore_ask_the_sidecar_that_runs_here(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, user_id="ada")
    with Sidecar(environ_of(settings), tmp_path / "log") as running:
        running.wait_for("/readyz")
        environ = environ_of(settings, CLAUDE_SIDECAR_API_PORT=str(running.api_port))
        write(settings, "settings.json", "{}")
        done = command(environ, "backup", "--json")
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert (answer["durable"], answer["files"], answer["error"]) == (True, 1, None)
        assert objects(s3, bucket) == {"settings.json": b"{}"}
        s3.put_object(Bucket=bucket, Key="user_data/ada/.claude/CLAUDE.md", Body=b"from elsewhere")
        done = command(environ, "restore", "--json")
        assert (done.returncode, json.loads(done.stdout)["action"]) == (0, "restored"), done.stderr
        assert (Path(settings.home) / "CLAUDE.md").read_bytes() == b"from elsewhere"
        dry = command(environ, "backup", "--dry-run")
        assert dry.returncode == 1
        assert "a dry run cannot be asked of it" in dry.stderr
        running.end(signal.SIGTERM)


def test_a_ledger_whose_holder_does_not_answer_is_one_sentence_and_exit_1(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    settings = settings_for(bucket, user_id="ada")
    environ = environ_of(settings, CLAUDE_SIDECAR_API_PORT=str(free_port()))
    Path(settings.home).mkdir()
    with held_ledger(settings, bucket):
        for name in ("backup", "restore"):
            done = command(environ, name)
            assert done.returncode == 1
            assert "another claude-sidecar process works for this user on the state directory" in done.stderr
            assert "Traceback" not in done.stderr


def test_another_pods_sidecar_on_the_same_port_is_not_believed(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, user_id="ada")
    stranger = settings_for(
        bucket, user_id="bob", home=str(tmp_path / "bob"), state_dir=tmp_path / "bobs-state"
    )
    Path(settings.home).mkdir()
    with Sidecar(environ_of(stranger), tmp_path / "log") as running, held_ledger(settings, bucket):
        running.wait_for("/readyz")
        done = command(environ_of(settings, CLAUDE_SIDECAR_API_PORT=str(running.api_port)), "backup")
        running.end(signal.SIGTERM)
    assert done.returncode == 1
    assert "does not serve user ada in this bucket" in done.stderr


class _WantsAToken(http.server.BaseHTTPRequestHandler):
    """A sidecar without a fixed user, as far as the command sees it."""

    def do_GET(self) -> None:
        self._answer(200, self.server.stats)  # type: ignore[attr-defined]

    def do_POST(self) -> None:
        if self.headers["Authorization"] != "Bearer the-token":
            self._answer(401, {"error": "there is no token", "kind": "token_missing", "hint": "send one"})
        else:
            self._answer(
                200, {"user_id": "ada", "synced": True, "action": "restored", "files": 3, "bytes": 9}
            )

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


def test_a_sidecar_without_a_fixed_user_wants_a_token_which_comes_from_a_file(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    settings = settings_for(bucket, user_id="ada")
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), _WantsAToken) as api,
        held_ledger(settings, bucket),
    ):
        api.stats = {"bucket_name": bucket, "s3_prefix": "user_data", "users": {"ada": {}}}  # type: ignore[attr-defined]
        threading.Thread(target=api.serve_forever, daemon=True).start()
        environ = environ_of(settings, CLAUDE_SIDECAR_API_PORT=str(api.server_address[1]))
        refused = command(environ, "restore")
        (tmp_path / "token").write_text("the-token\n")
        accepted = command(environ, "restore", "--json", "--token-file", str(tmp_path / "token"))
        missing = command(environ, "restore", "--token-file", str(tmp_path / "none"))
        api.shutdown()
    assert refused.returncode == 1
    assert "--token-file" in refused.stderr
    assert (accepted.returncode, json.loads(accepted.stdout)["files"]) == (0, 3)
    assert missing.returncode == 2


# -- forget


def forgettable(settings: Any, s3: Any, bucket: str) -> dict[str, str]:
    """An area with one object, and the environment of the command."""
    s3.put_object(Bucket=bucket, Key="user_data/ada/.claude/CLAUDE.md", Body=b"mine")
    return environ_of(settings)


def test_forget_without_yes_says_what_would_go_and_exits_2(
    bucket: str, settings_for: MakeSettings, s3: Any
) -> None:
    environ = forgettable(settings_for(bucket), s3, bucket)
    done = command(environ, "forget", "--user", "ada")
    assert done.returncode == 2, done.stderr
    assert (
        "user_data/ada/ holds 1 objects, 0 older versions, 0 delete markers and 0 unfinished" in done.stdout
    )
    assert "Nothing was erased" in done.stdout
    as_json = json.loads(command(environ, "forget", "--user", "ada", "--json").stdout)
    assert (as_json["erased"], as_json["objects"], as_json["bytes"]) == (False, 1, 4)
    assert objects(s3, bucket) == {"CLAUDE.md": b"mine"}


def test_forget_refuses_while_somebody_may_be_writing_unless_forced_and_is_idempotent(
    bucket: str, settings_for: MakeSettings, s3: Any
) -> None:
    environ = forgettable(settings_for(bucket), s3, bucket)
    refused = command(environ, "forget", "--user", "ada", "--yes")
    assert refused.returncode == 1
    assert "user ada is still being written: user_data/ada/.claude/CLAUDE.md was written" in refused.stderr
    assert objects(s3, bucket)
    forced = command(environ, "forget", "--user", "ada", "--yes", "--force")
    assert (forced.returncode, objects(s3, bucket)) == (0, {})
    assert "Looked again: no version, no delete marker and no upload is left" in forced.stdout
    again = command(environ, "forget", "--user", "ada", "--yes", "--json")
    assert (again.returncode, json.loads(again.stdout)["already"]) == (0, True)


def test_forget_takes_its_user_from_the_command_line_alone(
    bucket: str, settings_for: MakeSettings, s3: Any
) -> None:
    environ = forgettable(settings_for(bucket, user_id="ada"), s3, bucket)
    done = command(environ, "forget", "--yes", "--force")
    assert done.returncode == 2
    assert "give --user" in done.stderr
    assert objects(s3, bucket)


def test_forget_sees_the_sidecar_that_works_here(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket)
    with held_ledger(settings, bucket):
        done = command(environ_of(settings), "forget", "--user", "ada", "--yes")
    assert done.returncode == 1
    assert "a claude-sidecar process works for this user" in done.stderr


# -- conflicts

HOSTILE = '{"v": "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m"}\n'


def displaced(settings: Any, s3: Any, bucket: str, data: str = HOSTILE) -> dict[str, str]:
    """A home in step with its area, a version of its settings under ``conflicts/``, and the environment."""
    environ = environ_of(settings)
    write(settings, "settings.json", '{"v": "now"}\n')
    assert command(environ, "restore").returncode == 0
    digest = hashlib.sha256(data.encode()).hexdigest()
    key = f"user_data/ada/.claude-sidecar/conflicts/20260102T030405Z/pod-1/settings.json.{digest[:8]}"
    s3.put_object(Bucket=bucket, Key=key, Body=data.encode())
    return environ


def test_conflicts_are_listed_shown_and_taken_back(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, user_id="ada")
    assert "Nothing is kept" in command(environ_of(settings), "conflicts", "ls").stdout
    environ = displaced(settings, s3, bucket, '{"v": "then"}\n')
    (row,) = json.loads(command(environ, "conflicts", "ls", "--json").stdout)
    assert (row["path"], row["when"], row["writer"]) == (
        "settings.json",
        "2026-01-02T03:04:05+00:00",
        "pod-1",
    )
    assert row["difference"]["kind"] == "larger"
    listed = command(environ, "conflicts", "ls")
    assert listed.stdout.startswith(
        f"{row['id']}  2026-01-02T03:04:05+00:00  14  pod-1  settings.json  (1 by"
    )
    shown = command(environ, "conflicts", "show", "settings.json").stdout
    assert '-{"v": "now"}\n+{"v": "then"}\n' in shown
    taken = command(environ, "conflicts", "take", row["id"])
    assert taken.returncode == 0, taken.stderr
    assert "now holds it" in taken.stdout
    assert Path(settings.home, "settings.json").read_text() == '{"v": "then"}\n'
    assert command(environ, "backup").returncode == 0
    assert objects(s3, bucket) == {"settings.json": b'{"v": "then"}\n'}
    assert len(json.loads(command(environ, "conflicts", "ls", "--json").stdout)) == 2


def test_a_hostile_version_cannot_drive_the_terminal(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    environ = displaced(settings_for(bucket, user_id="ada"), s3, bucket)
    for arguments in (
        ["ls"],
        ["show", "settings.json"],
        ["show", "settings.json", "--json"],
        ["show", "\x1b[2J"],
    ):
        done = command(environ, "conflicts", *arguments)
        for output in (done.stdout, done.stderr):
            assert [c for c in output if not c.isprintable() and c != "\n"] == [], arguments
    assert "\\x1b]0;owned\\x07" in command(environ, "conflicts", "show", "settings.json").stdout


def test_a_long_difference_is_cut_and_says_so(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    environ = displaced(settings_for(bucket, user_id="ada"), s3, bucket, "\n" * 300)
    short = command(environ, "conflicts", "show", "settings.json", "--lines", "5").stdout
    assert short.splitlines()[-1] == "… 297 more lines; --lines 0 shows all"
    assert (
        len(command(environ, "conflicts", "show", "settings.json", "--lines", "0").stdout.splitlines()) > 300
    )


def test_a_wrong_id_names_the_nearest_and_exits_2(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    environ = displaced(settings_for(bucket, user_id="ada"), s3, bucket)
    for name in ("show", "take"):
        done = command(environ, "conflicts", name, "setting.json")
        assert done.returncode == 2
        assert "the nearest are " in done.stderr
        assert "(settings.json, 2026-01-02T03:04:05+00:00)" in done.stderr
        done = command(environ, "conflicts", name, "setting.json", "--json")
        assert (done.returncode, json.loads(done.stdout)["kind"]) == (2, "unknown_version")


def test_a_home_that_was_never_this_users_is_not_written_into(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, user_id="ada")
    displaced(settings, s3, bucket, '{"v": "then"}\n')
    operator = settings_for(
        bucket, user_id="ada", home=str(tmp_path / "operator"), state_dir=tmp_path / "operators-state"
    )
    write(operator, "settings.json", "the operator's own")
    done = command(environ_of(operator), "conflicts", "take", "settings.json")
    assert done.returncode == 0, done.stderr
    assert "the home was not touched" in done.stdout
    assert Path(operator.home, "settings.json").read_text() == "the operator's own"
    assert not (tmp_path / "operators-state").exists()
    assert objects(s3, bucket)["settings.json"] == b'{"v": "then"}\n'
    assert Path(settings.home, "settings.json").read_text() == '{"v": "now"}\n'


def test_conflicts_take_works_beside_a_running_sidecar(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, user_id="ada")
    environ = displaced(settings, s3, bucket, '{"v": "then"}\n')
    with Sidecar(environ, tmp_path / "log") as running:
        running.wait_for("/readyz")
        done = command(environ, "conflicts", "take", "settings.json", "--json")
        assert (done.returncode, json.loads(done.stdout)["home"]) == (0, "written"), done.stderr
        assert running.call("POST", "/v1/sync?wait=checkpoint")[1]["durable"] is True
        assert running.end(signal.SIGTERM) == 0
    assert objects(s3, bucket)["settings.json"] == b'{"v": "then"}\n'
    assert Path(settings.home, "settings.json").read_text() == '{"v": "then"}\n'


# -- a store without conditions


def test_two_backups_by_hand_on_a_store_that_ignores_conditions_lose_nothing_that_was_there(
    rclone_server: Server, settings_for: MakeSettings, tmp_path: Path
) -> None:
    """Without the question one pod's line and its edit went, with nothing kept and nothing said."""
    client(rclone_server).create_bucket(Bucket="weak")
    settings = [
        settings_for("weak", user_id="ada", home=str(tmp_path / name), state_dir=tmp_path / f"state-{name}")
        for name in ("one", "two", "three")
    ]
    one, two, three = (environ_of(each) | rclone_server.environ() for each in settings)
    write(settings[0], LOG, '{"n": 0}\n')
    write(settings[0], "skills/a.md", "first")
    assert "The store ignores conditional writes" in command(one, "backup").stderr
    assert "ignores" not in command(two, "restore").stderr, "who only reads does not ask"
    for number, each in ((1, settings[0]), (2, settings[1])):
        write(each, LOG, f'{{"n": 0}}\n{{"n": {number}}}\n')
        write(each, "skills/a.md", f"edit {number}")
    for environ in (one, two):
        done = command(environ, "backup")
        assert done.returncode == 0, done.stderr
        assert "The store ignores conditional writes" in done.stderr
    command(three, "restore")
    lines = (Path(settings[2].home) / LOG).read_text().splitlines()
    assert sorted(lines) == ['{"n": 0}', '{"n": 1}', '{"n": 2}']
    kept = json.loads(command(three, "conflicts", "ls", "--json").stdout)
    assert [version["path"] for version in kept] == ["skills/a.md"]


def test_a_store_that_honours_conditions_is_asked_once(bucket: str, settings_for: MakeSettings) -> None:
    settings = settings_for(bucket, user_id="ada")
    asked = []
    with Wiretap(settings.aws["AWS_ENDPOINT_URL"], 0) as tap:
        environ = environ_of(settings, AWS_ENDPOINT_URL=tap.endpoint)
        for number in range(3):
            write(settings, "CLAUDE.md", f"edit {number}")
            assert command(environ, "backup").returncode == 0
            asked.append(tap.take().requests.get("DELETE", 0))
    assert asked == [1, 0, 0], "the question's object goes again"


# -- verify


def test_verify_says_equal_different_or_that_it_could_not_tell(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, user_id="ada")
    environ = environ_of(settings)
    assert command(environ, "verify").returncode == 2, "there is no home yet"
    write(settings, "settings.json", "{}")
    write(settings, LOG, '{"n": 1}\n')
    command(environ, "restore")
    equal = command(environ, "verify")
    assert equal.returncode == 0, equal.stdout
    assert equal.stdout.startswith("User ada: equal; 2 paths, 2 of them read, ")
    s3.put_object(Bucket=bucket, Key="user_data/ada/.claude/settings.json", Body=b'{"v": "other"}')
    before = objects(s3, bucket, "user_data/")
    different = command(environ, "verify", "--sample", "1%", "--json")
    assert different.returncode == 1
    answer = json.loads(different.stdout)
    assert [row["kind"] for row in answer["differences"]] == ["remote_newer"]
    assert [row["kind"] for row in answer["by_design"]] == ["manifest_stale"]
    assert (answer["manifest"]["entries"], answer["manifest"]["stale"]) == (2, 1)
    assert answer["packs"] == {"named": 0, "read": 0}
    assert (answer["equal"], answer["sample"], len(answer["seed"])) == (False, 0.01, 10)
    assert objects(s3, bucket, "user_data/") == before, "it repairs nothing"
    unknown = command({**environ, "S3_WORKSPACE_BUCKET": bucket + "-typo"}, "verify")
    assert unknown.returncode == 2
    assert "It could not be told whether home and bucket are equal" in unknown.stderr


def test_verify_names_what_is_no_text_in_words_and_in_json(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    settings = settings_for(bucket, user_id="ada")
    environ = environ_of(settings)
    write(settings, "plans/bad\udcff.md", "x")
    write(settings, "plans/new\nline.md", "x")
    command(environ, "restore")
    in_words, in_json = command(environ, "verify"), command(environ, "verify", "--json")
    assert (in_words.returncode, in_json.returncode) == (1, 1), in_json.stderr
    answer = json.loads(in_json.stdout)
    assert {row["path"]: row["reason"] for row in answer["differences"]} == {
        "plans/bad\\udcff.md": "a name that is not valid UTF-8",
        "plans/new\nline.md": "a control character in the name",
    }
    assert "plans/bad\\udcff.md" in in_words.stdout
    assert in_words.stdout.count("\n") == 3


def test_a_setting_that_is_no_text_is_shown(bucket: str, settings_for: MakeSettings) -> None:
    environ = environ_of(settings_for(bucket, user_id="ada"), CLAUDE_SIDECAR_EXCLUDE="a\udcff")
    for words in (("config",), ("config", "--json")):
        done = command(environ, *words)
        assert done.returncode == 0, done.stderr
        assert "a\\udcff" in done.stdout.replace("\\\\", "\\")


@pytest.mark.parametrize(
    "words",
    ["verify", "conflicts ls", "conflicts show x", "journal ls", "forget --user ada", "restore", "backup"],
)
def test_json_stays_json_where_the_bucket_cannot_be_reached(
    words: str, bucket: str, settings_for: MakeSettings
) -> None:
    settings = settings_for(bucket, user_id="ada", endpoint="http://127.0.0.1:9")
    write(settings, "CLAUDE.md", "mine")
    environ = environ_of(
        settings, CLAUDE_SIDECAR_RESTORE_TIMEOUT_SECONDS="1", CLAUDE_SIDECAR_RESTORE_POLICY="require"
    )
    done = command(environ, *words.split(), "--json")
    answer = json.loads(done.stdout)
    assert done.returncode in (1, 2)
    assert "cannot be reached" in answer["error"]
    assert (answer["kind"], bool(answer["hint"])) == ("unreachable", True)


@pytest.mark.parametrize("words", ["verify", "config", "forget --user ada"])
def test_json_stays_json_where_a_setting_cannot_be_read(words: str, settings_for: MakeSettings) -> None:
    environ = environ_of(settings_for("a-bucket", user_id="ada"), CLAUDE_SIDECAR_CONCURRENCY="many")
    done = command(environ, *words.split(), "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["kind"]) == (2, "settings")
    assert "CLAUDE_SIDECAR_CONCURRENCY" in answer["error"]


def test_verify_refuses_a_sample_that_cannot_be_meant(bucket: str, settings_for: MakeSettings) -> None:
    environ = environ_of(settings_for(bucket, user_id="ada"))
    for sample in ("0", "101%", "many"):
        done = command(environ, "verify", "--sample", sample)
        assert done.returncode == 2
        assert "give a part in percent" in done.stderr


def test_verify_works_beside_a_running_sidecar_and_counts_the_journal_as_durable(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    settings = settings_for(bucket, user_id="ada")
    environ = environ_of(settings, CLAUDE_SIDECAR_SYNC_DELAY_SECONDS="0.1")
    with Sidecar(environ, tmp_path / "log") as running:
        running.wait_for("/readyz")
        write(settings, LOG, '{"n": 1}\n')
        write(settings, "settings.json", "{}")
        assert running.call("POST", "/v1/sync?wait=durable")[1]["durable"] is True
        done = command(environ, "verify", "--json")
        running.end(signal.SIGTERM)
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["differences"]) == (0, []), done.stderr
    assert {row["kind"] for row in answer["by_design"]} == {"journalled", "passed_over"}
    assert "beside the process that works on it" in answer["ledger"]


def test_a_restore_drill_beside_a_pod_at_work_finds_no_difference_and_then_the_damage(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, user_id="ada")
    environ = environ_of(settings, CLAUDE_SIDECAR_SYNC_DELAY_SECONDS="0.1")
    for number in range(80):
        write(settings, f"skills/{number}.md", f"skill {number}")
    drill = {**environ, "CLAUDE_SIDECAR_HOME": str(tmp_path / "drill/.claude")}
    drill["CLAUDE_SIDECAR_STATE_DIR"] = str(tmp_path / "drill/state")
    with Sidecar(environ, tmp_path / "log") as running:
        running.wait_for("/readyz")
        running.call("POST", "/v1/backup")
        write(settings, LOG, '{"n": 1}\n')
        assert running.call("POST", "/v1/sync?wait=durable")[1]["durable"] is True
        restored = command(drill, "restore", "--restore-policy", "require")
        assert restored.returncode == 0, restored.stderr
        healthy = command(drill, "verify")
        assert healthy.returncode == 0, healthy.stdout
        assert (
            "80 entries, 0 of them stale, 1 directories, 0 links, and 1 packs, 1 of them read"
            in healthy.stdout
        )
        (pack,) = [k for k in objects(s3, bucket, "user_data/ada/") if k.endswith(".tar.zst")]
        s3.put_object(Bucket=bucket, Key="user_data/ada/" + pack, Body=b"damage")
        damaged = command(drill, "verify", "--sample", "1%", "--json")
        running.end(signal.SIGTERM)
    answer = json.loads(damaged.stdout)
    assert (damaged.returncode, answer["equal"]) == (1, False)
    assert [(row["path"], row["kind"]) for row in answer["differences"]] == [(pack, "pack_damaged")]
    assert answer["packs"] == {"named": 1, "read": 1}


# -- the documentation


def test_every_command_and_every_flag_of_its_own_is_documented() -> None:
    document = (Path(__file__).resolve().parents[1] / "docs/commands.md").read_text("utf-8")
    headings = set(re.findall(r"^## (\w+)", document, re.MULTILINE))
    shared = {option.flag for option in OPTIONS} | {"--help", "--json"}
    environ = {"PATH": os.environ["PATH"], "COLUMNS": "200"}
    listed = command(environ, "--help").stdout
    names = set(re.findall(r"^    (\w+)(?: |$)", listed, re.MULTILINE)) - {"COMMAND"}
    assert {"restore", "verify", "forget", "conflicts"} <= names
    assert names <= headings
    for name in [*names, "conflicts ls", "conflicts show", "conflicts take"]:
        usage = command(environ, *name.split(), "--help").stdout
        section = document.partition(f"\n## {name.split()[0]}")[2].partition("\n## ")[0]
        own = set(re.findall(r"^  (--[a-z-]+)", usage, re.MULTILINE)) - shared
        assert {flag for flag in own if flag not in section} == set(), name


def test_a_start_with_an_empty_area_asks_little(bucket: str, settings_for: MakeSettings) -> None:
    settings = settings_for(bucket, user_id="ada")
    with Wiretap(settings.aws["AWS_ENDPOINT_URL"], 0) as tap:
        ended = command(environ_of(settings, AWS_ENDPOINT_URL=tap.endpoint), "restore")
        assert ended.returncode == 0, ended.stderr
        asked = tap.take().requests
    assert set(asked) == {"GET", "LIST"}
    assert asked["LIST"] == 4, "the journal and the objects, each empty answer confirmed"
    assert asked["GET"] <= 3, "tombstone, manifest, and a proof that it is S3 if nothing else was one yet"
