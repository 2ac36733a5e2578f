"""Bad input as an operator makes it: one sentence, a true exit code, nothing written where it must not be."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sidecar.area.store import Store
from sidecar.errors import StoreError
from tests.processes import command, environ_of
from tests.sync.pods import MakeSettings, objects, pods

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs to become another user, or to mount a volume: run the tests as root"
)


def one_sentence(ended: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert ended.returncode == code, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.startswith(("ERROR", "CRITICAL"))]
    assert len(lines) == 1, ended.stderr
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("user", ["a/b", "..", "a\nb", "x" * 300, "back\\slash"])
@pytest.mark.parametrize("verb", ["restore", "backup", "run"])
def test_a_user_id_that_cannot_be_a_prefix(user: str, verb: str, settings_for: MakeSettings) -> None:
    settings = settings_for("a-bucket")
    ended = command(environ_of(settings, CLAUDE_SIDECAR_USER_ID=user), verb)
    one_sentence(ended, 2, "CLAUDE_SIDECAR_USER_ID")
    assert not Path(settings.home).exists()


@pytest.mark.parametrize("verb", ["restore", "backup"])
@pytest.mark.parametrize(
    ("name", "value"), [("CLAUDE_SIDECAR_EXCLUDE", "["), ("AWS_ENDPOINT_URL", "nonsense")]
)
def test_a_setting_that_is_found_wrong_only_where_it_is_used(
    bucket: str, settings_for: MakeSettings, verb: str, name: str, value: str
) -> None:
    settings = settings_for(bucket, user_id="ada")
    Path(settings.home).mkdir(parents=True)
    one_sentence(command(environ_of(settings, **{name: value}), verb), 2, name)


@pytest.mark.parametrize("verb", ["restore", "backup"])
@pytest.mark.parametrize("hidden_by", ["the home's link", "the state's link"])
def test_a_state_directory_in_the_home_behind_a_link(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, verb: str, hidden_by: str
) -> None:
    """Else the agent could read and write the ledger, and the ledger would go up with the home."""
    real = tmp_path / "real"
    (real / "below").mkdir(parents=True)
    (real / "CLAUDE.md").write_text("mine")
    if hidden_by == "the home's link":
        (tmp_path / "link").symlink_to(real)
        home, state = tmp_path / "link", real / "state"
    else:
        (tmp_path / "link").symlink_to(real / "below")
        home, state = real, tmp_path / "link/state"
    settings = settings_for(bucket, user_id="ada", home=str(home), state_dir=state)
    one_sentence(command(environ_of(settings), verb), 2, "CLAUDE_SIDECAR_STATE_DIR", "lies inside the home")
    assert not state.exists()
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket, Prefix="user_data/")


def test_credentials_in_the_home_are_used_and_not_uploaded(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, user_id="ada")
    environ = environ_of(settings)
    file = Path(settings.home) / "skills/credentials.md"
    file.parent.mkdir(parents=True)
    keys = (environ.pop("AWS_ACCESS_KEY_ID"), environ.pop("AWS_SECRET_ACCESS_KEY"))
    file.write_text("[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n".format(*keys))
    os.link(file, file.with_name("innocent.md"))
    environ["AWS_SHARED_CREDENTIALS_FILE"] = str(file)
    (file.parent / "SKILL.md").write_text("mine")
    ended = command(environ, "backup")
    assert ended.returncode == 0, ended.stderr
    assert "skills/credentials.md: the sidecar itself has its credentials from it" in ended.stderr
    assert "skills/innocent.md: the sidecar itself has its credentials from it" in ended.stderr
    assert set(objects(s3, bucket)) == {"skills/SKILL.md"}
    s3.put_object(Bucket=bucket, Key="user_data/ada/.claude/skills/credentials.md", Body=b"planted")
    ended = command(environ, "restore")
    assert "1 files of s3:" in ended.stderr
    assert b"planted" not in file.read_bytes()


@pytest.mark.parametrize("verb", ["restore", "backup"])
def test_a_home_that_is_a_file(bucket: str, settings_for: MakeSettings, verb: str) -> None:
    settings = settings_for(bucket, user_id="ada")
    Path(settings.home).write_text("precious")
    one_sentence(command(environ_of(settings), verb), 1, "is a file", "CLAUDE_SIDECAR_HOME")
    assert Path(settings.home).read_text() == "precious"


def test_a_home_that_is_missing_is_made_private(bucket: str, settings_for: MakeSettings) -> None:
    settings = settings_for(bucket, user_id="ada")
    assert command(environ_of(settings), "restore").returncode == 0
    assert Path(settings.home).stat().st_mode & 0o777 == 0o700


@needs_root
def test_a_home_of_somebody_else(bucket: str, settings_for: MakeSettings, tmp_path: Path) -> None:
    settings = settings_for(bucket, user_id="ada")
    home = Path(settings.home)
    home.mkdir(mode=0o755)
    settings.state_dir.mkdir()
    os.chown(settings.state_dir, 65533, 65533)
    ended = as_user(65533, environ_of(settings), "restore")
    one_sentence(ended, 1, "UID 0", "65533", "runAsUser")
    assert not list(home.iterdir())


def test_a_backup_of_a_home_that_is_not_there_is_no_success(bucket: str, settings_for: MakeSettings) -> None:
    settings = settings_for(bucket, user_id="ada")
    one_sentence(command(environ_of(settings), "backup"), 1, "is not there", "CLAUDE_SIDECAR_HOME")
    assert not Path(settings.home).exists()


@needs_root
def test_a_home_on_a_read_only_volume(bucket: str, settings_for: MakeSettings, tmp_path: Path) -> None:
    settings = settings_for(bucket, user_id="ada")
    with mounted(Path(settings.home), "ro"):
        one_sentence(command(environ_of(settings), "restore"), 1, "read-only")


@needs_root
def test_a_volume_that_fills_up_in_the_middle_of_a_restore(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2, user_id="ada")
    first.start()
    first.write("settings.json", '{"theme": "dark"}')
    for number in range(6):
        first.write(f"plugins/cache/{number}.bin", os.urandom(1024 * 1024))
    first.backup()
    with mounted(second.home, "size=4m"):
        environ = environ_of(second.settings, CLAUDE_SIDECAR_RESTORE_POLICY="require")
        ended = command(environ, "restore", "--json")
        assert ended.returncode == 3, ended.stderr
        assert "do not fit" in ended.stderr
        assert second.read("settings.json") == b'{"theme": "dark"}'
        assert not [path for path in second.home.rglob("*") if path.name.startswith(".claude-sidecar")]
        for path in (second.home / "plugins").rglob("*.bin"):
            assert path.stat().st_size == 1024 * 1024, "half a file"


@needs_root
def test_a_volume_that_runs_out_of_inodes_leaves_no_half_file_and_the_next_restore_goes_on(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2, user_id="ada")
    first.start()
    for number in range(40):
        first.write(f"plans/{number}.md", f"plan {number}")
    first.backup()
    with mounted(second.home, "size=64m,nr_inodes=20"):
        ended = command(environ_of(second.settings), "restore")
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr.count("is full") == 1, "each worker said it"
        assert "Traceback" not in ended.stderr
        came = {path.name: path.read_text() for path in second.home.rglob("*.md")}
        assert 0 < len(came) < 40
        assert all(text == f"plan {name[:-3]}" for name, text in came.items())
        subprocess.run(["mount", "-o", "remount,nr_inodes=1000", str(second.home)], check=True)
        assert command(environ_of(second.settings), "restore").returncode == 0
        assert len(list(second.home.rglob("*.md"))) == 40


@pytest.mark.parametrize("verb", ["restore", "backup"])
def test_a_bucket_with_a_typo(bucket: str, settings_for: MakeSettings, verb: str) -> None:
    settings = settings_for(bucket + "-typo", user_id="ada")
    Path(settings.home).mkdir()
    (Path(settings.home) / "settings.json").write_text("{}")
    one_sentence(command(environ_of(settings), verb), 1, bucket + "-typo")


def test_a_prefix_with_slashes_around_it(bucket: str, settings_for: MakeSettings) -> None:
    settings = settings_for(bucket, user_id="ada")
    ended = command(environ_of(settings, S3_WORKSPACE_PREFIX="/user_data/"), "backup")
    one_sentence(ended, 2, "S3_WORKSPACE_PREFIX", "user_data")


def test_what_kubernetes_makes_for_a_service_changes_nothing(bucket: str, settings_for: MakeSettings) -> None:
    settings = settings_for(bucket, user_id="ada")
    environ = environ_of(settings, CLAUDE_SIDECAR_PORT="tcp://10.0.0.1:8378")
    assert command(environ, "restore").returncode == 0


@pytest.mark.parametrize("verb", ["restore", "backup"])
def test_a_state_directory_that_cannot_be_written(bucket: str, settings_for: MakeSettings, verb: str) -> None:
    settings = settings_for(bucket, user_id="ada")
    Path(settings.home).mkdir()
    settings.state_dir.write_text("a file")
    one_sentence(command(environ_of(settings), verb), 1, "CLAUDE_SIDECAR_STATE_DIR")


@pytest.mark.parametrize(
    ("policy", "code"), [("auto", 0), ("continue", 0), ("require", 1)], ids=["auto", "continue", "require"]
)
def test_an_outage_and_the_restore_policy(
    bucket: str, settings_for: MakeSettings, policy: str, code: int
) -> None:
    settings = settings_for(bucket, user_id="ada", endpoint="http://127.0.0.1:9")
    environ = environ_of(
        settings, CLAUDE_SIDECAR_RESTORE_POLICY=policy, CLAUDE_SIDECAR_RESTORE_TIMEOUT_SECONDS="1"
    )
    ended = command(environ, "restore")
    assert ended.returncode == code, ended.stderr
    assert "The restore failed" in ended.stderr
    assert ("The agent starts without its history" in ended.stderr) == (code == 0)


@pytest.mark.parametrize(
    ("policy", "code"), [("auto", 1), ("continue", 0), ("require", 1)], ids=["auto", "continue", "require"]
)
def test_a_wrong_configuration_and_the_restore_policy(
    bucket: str, settings_for: MakeSettings, policy: str, code: int
) -> None:
    settings = settings_for(bucket + "-typo", user_id="ada")
    ended = command(environ_of(settings, CLAUDE_SIDECAR_RESTORE_POLICY=policy), "restore")
    assert ended.returncode == code, ended.stderr


def as_user(uid: int, environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command under another UID, which may read everything (the interpreter lies in root's home) but not
    write it."""
    user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    reads = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return subprocess.run(
        [*user, *reads, sys.executable, "-m", "sidecar.cli", *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class mounted:
    """A small memory-backed volume at `path` while the context lasts."""

    def __init__(self, path: Path, options: str) -> None:
        self._path, self._options = path, options

    def __enter__(self) -> None:
        self._path.mkdir(parents=True, exist_ok=True)
        ended = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", self._options, "tmpfs", str(self._path)],
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            pytest.skip(
                f"this machine allows no mount ({ended.stderr.strip()}); run as root with CAP_SYS_ADMIN"
            )

    def __exit__(self, *exc: Any) -> None:
        subprocess.run(["umount", str(self._path)], check=True)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("AWS_ACCESS_KEY_ID", "test\n", ("ends with a line break", "echo -n")),
        ("AWS_SECRET_ACCESS_KEY", "secret-word\r\n", ("ends with a line break",)),
        ("AWS_SESSION_TOKEN", "a\nsecret-word", ("control character",)),
        ("AWS_SECRET_ACCESS_KEY", "secret-word\udcff", ("not UTF-8",)),
        ("AWS_REGION", "us east{", ("us east{", "eu-west-1")),
    ],
)
def test_an_aws_variable_that_no_request_can_carry(
    name: str, value: str, words: tuple[str, ...], bucket: str, settings_for: MakeSettings
) -> None:
    ended = command(environ_of(settings_for(bucket, user_id="ada"), **{name: value}), "restore")
    one_sentence(ended, 2, name, *words)
    assert "secret-word" not in ended.stderr


def test_an_aws_variable_that_is_somebody_elses_stops_nothing_and_is_not_shown(
    bucket: str, settings_for: MakeSettings
) -> None:
    others = {"AWS_RDS_CERTIFICATE": "-----BEGIN\nabc\n-----END\n", "AWS_RDS_PASSWORD": "secret-word"}
    environ = environ_of(settings_for(bucket, user_id="ada"), **others)
    assert command(environ, "restore").returncode == 0
    shown = command(environ, "config")
    assert shown.returncode == 0
    assert "AWS_RDS" not in shown.stdout
    assert "secret-word" not in shown.stdout + shown.stderr


def test_a_request_that_cannot_be_written_down_is_an_error_and_no_panic(
    bucket: str, settings_for: MakeSettings
) -> None:
    settings = settings_for(bucket)
    token = {**settings.aws, "AWS_SESSION_TOKEN": "a\nb"}  # past the check of the variables
    store = Store.connect(replace(settings, aws=token))
    with pytest.raises(StoreError, match="cannot be written down") as caught:
        store.head("any")
    assert not caught.value.outage, "waiting does not help"
