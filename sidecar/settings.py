"""Everything that can be set: read once, from flags and the environment, into one frozen value.

A flag wins over the environment; an empty variable counts as unset. A name that nobody knows and a value
that cannot be meant are refused with a sentence: a misspelt option must not become a silent default.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from sidecar import aws_variables
from sidecar.errors import SettingsError
from sidecar.names import user_id_problem

OWN_PREFIX = "CLAUDE_SIDECAR_"
BUCKET_NOT_CONFIGURED = "S3_WORKSPACE_BUCKET not configured, .claude sync/backup will be disabled"

# What Kubernetes puts into every pod for a Service named claude-sidecar or claude-sidecar-<word>:
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_NAME = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?$")
_SERVICE_VALUE = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_IMAGE_STATE_DIR = Path("/var/lib/claude-sidecar")


class Owner(Struct, frozen=True):
    """To whom restored files are given; without a group they keep the one that they get anyway."""

    uid: int
    gid: int | None = None

    def __str__(self) -> str:
        return str(self.uid) if self.gid is None else f"{self.uid}:{self.gid}"

    @property
    def ids(self) -> tuple[int, int]:
        """As ``chown`` takes them: -1 leaves the group alone."""
        return self.uid, -1 if self.gid is None else self.gid


class Settings(Struct, frozen=True):
    """The values in force. Units are in the names; see ``OPTIONS`` for what each one means."""

    bucket: str | None = None
    prefix: str = "user_data"
    interval_minutes: float = 5.0
    home: str = ""
    owner: Owner | None = None
    user_id: str | None = None
    pod_uid: str | None = None
    state_dir: Path = _IMAGE_STATE_DIR
    sync_delay_seconds: float | None = 2.0
    grace_seconds: float = 30.0
    restore_policy: str = "auto"
    restore_timeout_seconds: float = 60.0
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_file_mib: int = 1024
    deletions: str = "keep"
    concurrency: int = 64
    engine: str = "native"
    log_format: str = "text"
    log_level: str = "INFO"
    api_port: int = 8377
    health_port: int = 8378
    termination_log: str = "/dev/termination-log"
    sse: str | None = None
    sse_kms_key_id: str | None = None
    jwt_jwks_url: str | None = None
    jwt_jwks_file: str | None = None
    jwt_public_key_file: str | None = None
    jwt_secret_file: str | None = None
    jwt_algorithms: tuple[str, ...] = ()
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    jwt_claim: str = "sub"
    jwt_header: str = "Authorization"
    jwt_leeway_seconds: float = 0.0
    jwt_verify: bool = True
    injected: bool = False
    aws: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Settings(bucket={self.bucket!r}, user_id={self.user_id!r}, ...)"  # never the secrets

    @property
    def serves_many_users(self) -> bool:
        """True where the home names ``{user_id}``: each user then has a directory of its own."""
        return "{user_id}" in self.home

    def home_of(self, user_id: str) -> Path:
        """The home directory of `user_id`."""
        return Path(self.home.replace("{user_id}", user_id))

    @property
    def private_files(self) -> tuple[Path, ...]:
        """The files that the sidecar has its own secrets from, whether they exist or not."""
        secret = (Path(self.jwt_secret_file),) if self.jwt_secret_file else ()
        return (*aws_variables.secret_files(self.aws), *secret)


class Option(Struct, frozen=True):
    """One setting: its field in `Settings`, its variable, its flag, how it is read, what it means."""

    field: str
    variable: str
    parse: Callable[[str], Any]
    meaning: str
    metavar: str = "VALUE"
    secret: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.field.replace("_", "-")


def _text(value: str) -> str:
    if any(not c.isprintable() for c in value):
        raise ValueError("it contains a control character; remove it")
    return value


def _bucket(value: str) -> str:
    if "/" in value:
        raise ValueError(
            "give the bucket's name alone, with no s3:// and no path; a path goes to S3_WORKSPACE_PREFIX"
        )
    if not _BUCKET.fullmatch(value) or ".." in value:
        raise ValueError(
            "a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens; correct it"
        )
    return value


def _prefix(value: str) -> str:
    trimmed = value.strip("/")
    if trimmed != value:
        raise ValueError(f"write it without slashes around it: {trimmed or 'user_data'}")
    if any(part in ("", ".", "..") for part in value.split("/")) or "\\" in value:
        raise ValueError(
            "it cannot hold an empty part, '.', '..' or a backslash; write words joined by single slashes"
        )
    return _text(value)


def _number(least: float, most: float, unit: str, whole: bool = False) -> Callable[[str], Any]:
    def parse(value: str) -> Any:
        try:
            number = int(value) if whole else float(value)
        except ValueError:
            raise ValueError(f"give a {'whole ' if whole else ''}number of {unit}") from None
        if not least <= number <= most:
            raise ValueError(f"give {least:g} to {most:g} {unit}")
        return number

    return parse


def _delay(value: str) -> float | None:
    if value.lower() == "off":
        return None
    try:
        delay = float(value)
    except ValueError:
        raise ValueError("give a number of seconds, or off") from None
    if not 0.05 <= delay <= 3600:
        raise ValueError("give 0.05 to 3600 seconds, or off")
    return delay


def _one_of(*words: str, upper: bool = False) -> Callable[[str], str]:
    def parse(value: str) -> str:
        word = value.upper() if upper else value
        if word not in words:
            raise ValueError(f"give one of: {', '.join(words)}")
        return word

    return parse


def _truth(value: str) -> bool:
    word = value.lower()
    if word in ("true", "1", "yes", "on"):
        return True
    if word in ("false", "0", "no", "off"):
        return False
    raise ValueError("give true or false")


def _lines(value: str) -> tuple[str, ...]:
    parts = (p.strip() for p in re.split(r"[\n,]", value))
    return tuple(p for p in parts if p and not p.startswith("#"))


def _home(value: str) -> str:
    _text(value)
    expanded = str(Path(value).expanduser())
    if not expanded.startswith("/"):
        raise ValueError(f"give an absolute path, such as {Path.cwd() / value}")
    if re.sub(r"\{user_id\}", "", expanded).count("{") or expanded.count("{user_id}") > 1:
        raise ValueError("the only placeholder is {user_id}, once")
    if ".." in Path(expanded).parts:
        raise ValueError("give the path without '..'")
    return expanded


def _directory(value: str) -> Path:
    path = Path(_text(value)).expanduser()
    if not path.is_absolute():
        raise ValueError("give an absolute path")
    return path


def _owner(value: str) -> Owner:
    match = re.fullmatch(r"([0-9]{1,10})(?::([0-9]{1,10}))?", value)
    numbers = [int(number) for number in match.groups() if number] if match else []
    # The last of 32 bits means "nobody in particular" to chown.
    if not numbers or max(numbers) >= 2**32 - 1:
        raise ValueError("give the agent's numeric UID, or UID:GID")
    return Owner(*numbers)


def _user_id(value: str) -> str:
    reason = user_id_problem(value)
    if reason:
        raise ValueError(f"{reason}; give 1 to 256 bytes of printable text without / and \\")
    return value


def _option(
    field: str, parse: Callable[[str], Any], meaning: str, metavar: str = "VALUE", variable: str = ""
) -> Option:
    return Option(field, variable or OWN_PREFIX + field.upper(), parse, meaning, metavar)


OPTIONS: tuple[Option, ...] = (
    _option(
        "bucket",
        _bucket,
        "bucket that holds the areas; unset: sync is disabled",
        "NAME",
        "S3_WORKSPACE_BUCKET",
    ),
    _option("prefix", _prefix, "prefix of all areas in the bucket", "PREFIX", "S3_WORKSPACE_PREFIX"),
    _option(
        "interval_minutes",
        _number(0.01, 1440, "minutes"),
        "minutes between two checkpoints",
        "MINUTES",
        "CLAUDE_BACKUP_INTERVAL_MINUTES",
    ),
    _option("home", _home, "the .claude directory; may contain {user_id}", "DIR"),
    _option("owner", _owner, "whose restored files are, where the sidecar runs as root", "UID[:GID]"),
    _option("user_id", _user_id, "the one user of this pod; needs no token", "USER"),
    _option("pod_uid", _text, "the pod's UID, part of the writer's name", "UID"),
    _option(
        "state_dir", _directory, "directory of the ledgers, on a volume that the agent does not mount", "DIR"
    ),
    _option(
        "sync_delay_seconds", _delay, "seconds from the first unflushed byte to its flush, or off", "SECONDS"
    ),
    _option(
        "grace_seconds", _number(1, 86400, "seconds"), "the pod's terminationGracePeriodSeconds", "SECONDS"
    ),
    _option(
        "restore_policy",
        _one_of("auto", "continue", "require"),
        "what a failed restore does to the pod",
        "WORD",
    ),
    _option(
        "restore_timeout_seconds",
        _number(1, 86400, "seconds"),
        "seconds without progress after which an outage ends the restore",
        "SECONDS",
    ),
    _option(
        "include",
        _lines,
        "patterns in gitignore syntax to take in although the defaults leave them out",
        "LIST",
    ),
    _option("exclude", _lines, "patterns in gitignore syntax to leave out", "LIST"),
    _option(
        "max_file_mib",
        _number(1, 5 * 1024 * 1024, "MiB", whole=True),
        "largest file that is kept, in MiB",
        "MIB",
    ),
    _option("deletions", _one_of("keep", "mirror"), "what a deletion in the home does to the bucket", "WORD"),
    _option("concurrency", _number(1, 512, "requests", whole=True), "requests in flight at most", "N"),
    _option("engine", _one_of("native", "s5cmd"), "who moves the bytes of whole objects", "WORD"),
    _option("log_format", _one_of("text", "json"), "form of the log lines", "WORD"),
    _option(
        "log_level",
        _one_of("DEBUG", "INFO", "WARNING", "ERROR", upper=True),
        "least level that is logged",
        "LEVEL",
    ),
    _option("api_port", _number(1, 65535, "", whole=True), "port of the trigger API on loopback", "PORT"),
    _option(
        "health_port",
        _number(1, 65535, "", whole=True),
        "port of health and metrics on all addresses",
        "PORT",
    ),
    _option("termination_log", _text, "file of the termination message", "FILE"),
    _option("sse", _one_of("AES256", "aws:kms"), "encryption at rest asked of the bucket", "WORD"),
    _option("sse_kms_key_id", _text, "KMS key for CLAUDE_SIDECAR_SSE=aws:kms", "KEY"),
    _option("jwt_jwks_url", _text, "URL of the key set that tokens are verified with", "URL"),
    _option("jwt_jwks_file", _text, "file of the key set", "FILE"),
    _option("jwt_public_key_file", _text, "PEM file of the public key", "FILE"),
    _option("jwt_secret_file", _text, "file of the shared secret", "FILE"),
    _option("jwt_algorithms", _lines, "algorithms that are accepted", "LIST"),
    _option("jwt_issuer", _text, "issuer that a token must name", "TEXT"),
    _option("jwt_audience", _text, "audience that a token must name", "TEXT"),
    _option("jwt_claim", _text, "claim that names the user; dots descend", "CLAIM"),
    _option("jwt_header", _text, "header that carries the token", "HEADER"),
    _option("jwt_leeway_seconds", _number(0, 3600, "seconds"), "clock error that is forgiven", "SECONDS"),
    _option(
        "jwt_verify",
        _truth,
        "false accepts unverified tokens: only behind a gateway that verified them",
        "BOOL",
    ),
    _option("injected", _truth, "set by the injector: an unknown name is then a warning", "BOOL"),
)

_BY_VARIABLE = {option.variable: option for option in OPTIONS}


def load(environ: Mapping[str, str], flags: Mapping[str, str] | None = None) -> Settings:
    """The settings of `flags` (field name to text) over `environ` over the defaults.

    Raises
    ------
    SettingsError: an unknown ``CLAUDE_SIDECAR_*`` variable, a value that cannot be read, or two settings
        that contradict each other. The message names the variable, the value and what to write.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for option in OPTIONS:
        flag = (flags or {}).get(option.field)
        if flag is not None:
            values[option.field] = _parsed(option, flag, option.flag)
            origins[option.field] = f"flag {option.flag}"
        elif (text := environ.get(option.variable)) and not _made_by_kubernetes(option.variable, text):
            values[option.field] = _parsed(option, text, option.variable)
            origins[option.field] = "environment"
    warnings = _unknown_names(environ, injected=bool(values.get("injected")))
    if "home" not in values:
        values["home"], origins["home"] = _default_home(environ)
    if "state_dir" not in values:
        values["state_dir"] = _default_state_dir(environ)
    settings = Settings(**values, aws=aws_variables.read(environ), origins=origins, warnings=warnings)
    _check_together(settings)
    return settings


def _parsed(option: Option, text: str, where: str) -> Any:
    try:
        return option.parse(text)
    except ValueError as problem:
        raise SettingsError(f"{where} is {_shown(text)}: {problem}") from None


def _shown(text: str) -> str:
    return ascii(text) if len(text) <= 80 else ascii(text[:80]) + "…"


def _made_by_kubernetes(name: str, value: str) -> bool:
    if _SERVICE_NAME.search(name):
        return True
    return name.endswith("_PORT") and _SERVICE_VALUE.match(value) is not None


def _unknown_names(environ: Mapping[str, str], *, injected: bool) -> tuple[str, ...]:
    sentences = []
    for name, value in sorted(environ.items()):
        if not name.startswith(OWN_PREFIX) or name in _BY_VARIABLE or _made_by_kubernetes(name, value):
            continue
        sentences.append(f"{name} is not a setting; the nearest is {_nearest(name)}")
    if sentences and not injected:
        raise SettingsError(
            "; ".join(sentences), "correct or remove it; claude-sidecar config lists all settings"
        )
    return tuple(sentences)


def _nearest(name: str) -> str:
    """The setting that `name` may stand for: one that has all its words, else the most alike."""
    import difflib

    words = name.removeprefix(OWN_PREFIX).split("_")
    holding = [known for known in _BY_VARIABLE if set(words) <= set(known.split("_"))]
    return difflib.get_close_matches(name, holding or _BY_VARIABLE, n=1, cutoff=0.0)[0]


def _default_home(environ: Mapping[str, str]) -> tuple[str, str]:
    configured = environ.get("CLAUDE_CONFIG_DIR")
    if configured:
        option = Option("home", "CLAUDE_CONFIG_DIR", _home, "")
        return _parsed(option, configured, "CLAUDE_CONFIG_DIR"), "environment CLAUDE_CONFIG_DIR"
    user_home = environ.get("HOME") or "/root"
    return str(Path(user_home) / ".claude"), "default"


def _default_state_dir(environ: Mapping[str, str]) -> Path:
    if _IMAGE_STATE_DIR.is_dir():
        return _IMAGE_STATE_DIR
    # https://specifications.freedesktop.org/basedir-spec/latest/
    base = environ.get("XDG_STATE_HOME")
    if base and Path(base).is_absolute():
        return Path(base) / "claude-sidecar"
    return Path(environ.get("HOME") or "/root") / ".local" / "state" / "claude-sidecar"


def _check_together(settings: Settings) -> None:
    if settings.sse_kms_key_id and settings.sse != "aws:kms":
        raise SettingsError(
            "CLAUDE_SIDECAR_SSE_KMS_KEY_ID is set, but CLAUDE_SIDECAR_SSE is not aws:kms",
            "set both or neither",
        )
    keys = [
        n
        for n in ("jwt_jwks_url", "jwt_jwks_file", "jwt_public_key_file", "jwt_secret_file")
        if getattr(settings, n)
    ]
    if len(keys) > 1:
        names = " and ".join(OWN_PREFIX + n.upper() for n in keys)
        raise SettingsError(f"{names} are both set", "give one source of keys")
    if settings.api_port == settings.health_port:
        raise SettingsError(
            f"CLAUDE_SIDECAR_API_PORT and CLAUDE_SIDECAR_HEALTH_PORT are both {settings.api_port}",
            "give two ports",
        )
    home, state = Path(settings.home), settings.state_dir
    if state == home or home in state.parents:
        raise SettingsError(
            f"CLAUDE_SIDECAR_STATE_DIR ({state}) lies inside the home ({home})",
            "put it on a volume that the agent does not mount",
        )


def described(settings: Settings) -> list[dict[str, Any]]:
    """Every setting with its variable, flag, value, origin and meaning, secrets masked (for ``config``)."""
    rows = []
    for option in OPTIONS:
        value = getattr(settings, option.field)
        rows.append(
            {
                "name": option.variable,
                "flag": option.flag,
                "value": str(value) if isinstance(value, Path | Owner) else value,
                "origin": settings.origins.get(option.field, "default"),
                "meaning": option.meaning,
            }
        )
    for name, text in sorted(settings.aws.items()):
        value = aws_variables.shown(name, text)
        rows.append({"name": name, "flag": "", "value": value, "origin": "environment", "meaning": ""})
    return rows
