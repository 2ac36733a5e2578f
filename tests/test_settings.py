"""Settings: read once, refused with a sentence, never a silent default."""

from pathlib import Path

import pytest

from sidecar.errors import SettingsError
from sidecar.settings import OPTIONS, described, load

HOME = {"HOME": "/home/agent"}


def test_the_defaults_are_the_documented_ones() -> None:
    settings = load(HOME)
    assert (settings.bucket, settings.prefix, settings.interval_minutes) == (None, "user_data", 5.0)
    assert settings.home == "/home/agent/.claude"
    assert (settings.sync_delay_seconds, settings.grace_seconds) == (2.0, 30.0)
    assert (settings.api_port, settings.health_port) == (8377, 8378)
    assert (settings.restore_policy, settings.restore_timeout_seconds) == ("auto", 60.0)
    assert (settings.deletions, settings.engine, settings.max_file_mib) == ("keep", "native", 1024)


def test_a_flag_wins_over_the_environment_and_an_empty_variable_is_unset() -> None:
    environ = {**HOME, "S3_WORKSPACE_BUCKET": "from-env", "S3_WORKSPACE_PREFIX": ""}
    assert load(environ).bucket == "from-env"
    assert load(environ).prefix == "user_data"
    settings = load(environ, {"bucket": "from-flag"})
    assert settings.bucket == "from-flag"
    assert settings.origins["bucket"] == "flag --bucket"


def test_the_home_follows_the_clients_own_variable() -> None:
    assert load({**HOME, "CLAUDE_CONFIG_DIR": "/data/.claude"}).home == "/data/.claude"
    both = {**HOME, "CLAUDE_CONFIG_DIR": "/data/.claude", "CLAUDE_SIDECAR_HOME": "/homes/{user_id}"}
    assert load(both).home_of("ada") == Path("/homes/ada")


def test_a_relative_home_is_refused_with_the_absolute_one() -> None:
    with pytest.raises(SettingsError, match=rf"--home is 'x/.claude': .* such as {Path.cwd()}/x/.claude$"):
        load(HOME, {"home": "x/.claude"})


def test_an_unknown_name_is_fatal_and_the_nearest_is_named() -> None:
    with pytest.raises(SettingsError, match=r"CLAUDE_SIDECAR_USER_IDD.*nearest is CLAUDE_SIDECAR_USER_ID"):
        load({**HOME, "CLAUDE_SIDECAR_USER_IDD": "ada"})


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("CLAUDE_SIDECAR_INTERVAL", "CLAUDE_BACKUP_INTERVAL_MINUTES"),
        ("CLAUDE_SIDECAR_BUCKET", "S3_WORKSPACE_BUCKET"),
        ("CLAUDE_SIDECAR_PREFIX", "S3_WORKSPACE_PREFIX"),
        ("CLAUDE_SIDECAR_DELAY_SECONDS", "CLAUDE_SIDECAR_SYNC_DELAY_SECONDS"),
        ("CLAUDE_SIDECAR_JWKS_URL", "CLAUDE_SIDECAR_JWT_JWKS_URL"),
        ("CLAUDE_SIDECAR_SYNC_DELY_SECONDS", "CLAUDE_SIDECAR_SYNC_DELAY_SECONDS"),
    ],
)
def test_the_nearest_name_is_the_one_that_was_meant(misspelt: str, meant: str) -> None:
    with pytest.raises(SettingsError, match=rf"{misspelt} is not a setting; the nearest is {meant}\b"):
        load({**HOME, misspelt: "x"})


def test_an_owner_is_a_uid_with_or_without_a_group() -> None:
    assert load(HOME).owner is None
    alone, both = load({**HOME, "CLAUDE_SIDECAR_OWNER": "1000"}), load(HOME, {"owner": "1000:2000"})
    assert alone.owner and both.owner
    assert (alone.owner.ids, both.owner.ids) == ((1000, -1), (1000, 2000))
    shown = {row["name"]: row["value"] for row in described(both)}
    assert shown["CLAUDE_SIDECAR_OWNER"] == "1000:2000"


@pytest.mark.parametrize("value", ["agent", "-1", "1000:", ":1000", "1000:agent", "4294967295", "1 000"])
def test_an_owner_that_is_no_uid_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match=r"CLAUDE_SIDECAR_OWNER.*numeric UID, or UID:GID"):
        load({**HOME, "CLAUDE_SIDECAR_OWNER": value})


def test_in_an_injected_pod_an_unknown_name_is_a_warning() -> None:
    settings = load({**HOME, "CLAUDE_SIDECAR_INJECTED": "true", "CLAUDE_SIDECAR_FROM_THE_FUTURE": "1"})
    assert "CLAUDE_SIDECAR_FROM_THE_FUTURE" in settings.warnings[0]


@pytest.mark.parametrize(
    "name",
    [
        "CLAUDE_SIDECAR_SERVICE_HOST",
        "CLAUDE_SIDECAR_SERVICE_PORT",
        "CLAUDE_SIDECAR_SERVICE_PORT_HEALTH",
        "CLAUDE_SIDECAR_PORT",
        "CLAUDE_SIDECAR_PORT_8378_TCP",
        "CLAUDE_SIDECAR_PORT_8378_TCP_ADDR",
        "CLAUDE_SIDECAR_PORT_8378_TCP_PROTO",
        # A Service named claude-sidecar-api makes the very name of a setting.
        "CLAUDE_SIDECAR_API_PORT",
    ],
)
def test_what_kubernetes_makes_for_a_service_is_ignored(name: str) -> None:
    assert load({**HOME, name: "tcp://10.0.0.1:8378"}) == load(HOME)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("S3_WORKSPACE_BUCKET", "s3://bucket", "name alone"),
        ("S3_WORKSPACE_BUCKET", "My_Bucket", "lower-case"),
        ("S3_WORKSPACE_BUCKET", "ab", "3 to 63"),
        ("S3_WORKSPACE_PREFIX", "/user_data/", "without slashes around it: user_data"),
        ("S3_WORKSPACE_PREFIX", "a//b", "empty part"),
        ("S3_WORKSPACE_PREFIX", "a/../b", "empty part"),
        ("CLAUDE_BACKUP_INTERVAL_MINUTES", "five", "number of minutes"),
        ("CLAUDE_BACKUP_INTERVAL_MINUTES", "0", "minutes"),
        ("CLAUDE_BACKUP_INTERVAL_MINUTES", "nan", "minutes"),
        ("CLAUDE_SIDECAR_USER_ID", "a/b", "slash"),
        ("CLAUDE_SIDECAR_USER_ID", "..", "relative path"),
        ("CLAUDE_SIDECAR_USER_ID", "a\nb", "control"),
        ("CLAUDE_SIDECAR_USER_ID", "x" * 257, "longer than 256 bytes"),
        ("CLAUDE_SIDECAR_HOME", "relative/path", "absolute"),
        ("CLAUDE_SIDECAR_HOME", "/home/{user}", "placeholder"),
        ("CLAUDE_SIDECAR_HOME", "/home/../etc", "without"),
        ("CLAUDE_SIDECAR_SYNC_DELAY_SECONDS", "soon", "or off"),
        ("CLAUDE_SIDECAR_RESTORE_POLICY", "maybe", "auto, continue, require"),
        ("CLAUDE_SIDECAR_API_PORT", "99999", "1 to 65535"),
        ("CLAUDE_SIDECAR_JWT_VERIFY", "perhaps", "true or false"),
        ("CLAUDE_SIDECAR_SSE", "rot13", "AES256"),
        ("CLAUDE_SIDECAR_ENGINE", "rclone", "native, s5cmd"),
    ],
)
def test_a_wrong_value_is_refused_by_name_with_what_to_write(name: str, value: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence) as refused:
        load({**HOME, name: value})
    assert name in refused.value.message


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"CLAUDE_SIDECAR_SSE_KMS_KEY_ID": "key"}, "CLAUDE_SIDECAR_SSE is not aws:kms"),
        ({"CLAUDE_SIDECAR_JWT_SECRET_FILE": "/a", "CLAUDE_SIDECAR_JWT_JWKS_FILE": "/b"}, "both set"),
        ({"CLAUDE_SIDECAR_API_PORT": "9000", "CLAUDE_SIDECAR_HEALTH_PORT": "9000"}, "both 9000"),
        ({"CLAUDE_SIDECAR_STATE_DIR": "/home/agent/.claude/state"}, "inside the home"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        load({**HOME, **environ})


def test_config_shows_every_setting_with_its_origin_and_no_secret() -> None:
    environ = {
        **HOME,
        "S3_WORKSPACE_BUCKET": "my-bucket",
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI",
        "AWS_SESSION_TOKEN": "FwoGZXIvYXdzE",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token",
        "AWS_ENDPOINT_URL": "http://user:word@127.0.0.1:9000",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "a-token",
    }
    rows = described(load(environ))
    assert {row["name"] for row in rows} >= {option.variable for option in OPTIONS}
    shown = {row["name"]: row for row in rows}
    assert shown["S3_WORKSPACE_BUCKET"]["origin"] == "environment"
    assert shown["AWS_WEB_IDENTITY_TOKEN_FILE"]["value"] == "/var/run/token"
    text = str(rows)
    for secret in ("wJalrXUtnFEMI", "FwoGZXIvYXdzE", "word", "a-token", "AKIAIOSFODNN7EXAMPLE"):
        assert secret not in text
