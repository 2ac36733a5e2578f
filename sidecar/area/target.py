"""Where the bucket is: endpoint, region and the certificates that are trusted on the way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from sidecar.errors import SettingsError
from sidecar.settings import Settings

_DEFAULT_REGION = "us-east-1"
# Without userinfo, which would be logged, and without anything that a URL must write in another way.
_ENDPOINT = re.compile(
    r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?(/[A-Za-z0-9._~/-]*)?"
)


class Target(Struct, frozen=True):
    """``region_given``: somebody chose the region; otherwise it may be replaced by the bucket's own."""

    bucket: str
    endpoint: str
    region: str
    region_given: bool
    endpoint_given: bool
    ca_file: str | None = None

    @property
    def host(self) -> str:
        return self.endpoint.partition("://")[2]

    @property
    def is_plain_http(self) -> bool:
        return self.endpoint.startswith("http://")

    def certificates(self) -> str | None:
        """The text of ``AWS_CA_BUNDLE``."""
        if self.ca_file is None:
            return None
        try:
            return Path(self.ca_file).read_text()
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"AWS_CA_BUNDLE cannot be read: {error}", "give a file of PEM certificates, or unset it"
            ) from error

    def in_region(self, region: str, aws: Mapping[str, str]) -> Target:
        """The same bucket, looked for in `region`."""
        endpoint = self.endpoint if self.endpoint_given else _aws_endpoint(aws, region)
        return replace(self, region=region, endpoint=endpoint)


def target_of(settings: Settings) -> Target:
    """Where `settings` say that the bucket is.

    Raises
    ------
    SettingsError: no bucket, or an endpoint that is not an ``http://`` or ``https://`` address.
    """
    if not settings.bucket:
        raise SettingsError("no bucket is configured", "set S3_WORKSPACE_BUCKET")
    aws = settings.aws
    region = aws.get("AWS_REGION") or aws.get("AWS_DEFAULT_REGION") or _profile_region(aws)
    given = aws.get("AWS_ENDPOINT_URL_S3") or aws.get("AWS_ENDPOINT_URL")
    return Target(
        bucket=settings.bucket,
        endpoint=_checked(given) if given else _aws_endpoint(aws, region or _DEFAULT_REGION),
        region=region or _DEFAULT_REGION,
        region_given=bool(region),
        endpoint_given=bool(given),
        ca_file=aws.get("AWS_CA_BUNDLE"),
    )


def _checked(endpoint: str) -> str:
    trimmed = endpoint.rstrip("/")
    match = _ENDPOINT.fullmatch(trimmed)
    if not match or int(match["port"] or 0) > 65535:
        raise SettingsError(
            "AWS_ENDPOINT_URL is not an address of the form http://host:port or https://host", "correct it"
        )
    return trimmed


def _aws_endpoint(aws: Mapping[str, str], region: str) -> str:
    # https://docs.aws.amazon.com/general/latest/gr/s3.html
    fips = "-fips" if aws.get("AWS_USE_FIPS_ENDPOINT", "").lower() == "true" else ""
    dual = ".dualstack" if aws.get("AWS_USE_DUALSTACK_ENDPOINT", "").lower() == "true" else ""
    suffix = ".cn" if region.startswith("cn-") else ""
    return f"https://s3{fips}{dual}.{region}.amazonaws.com{suffix}"


def profile_files(aws: Mapping[str, str]) -> tuple[Path, Path]:
    """The shared configuration file and the shared credentials file, whether they exist or not."""
    home = Path("~/.aws").expanduser()
    return (
        Path(aws.get("AWS_CONFIG_FILE") or home / "config"),
        Path(aws.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials"),
    )


def _profile_region(aws: Mapping[str, str]) -> str | None:
    name = aws.get("AWS_PROFILE") or aws.get("AWS_DEFAULT_PROFILE") or "default"
    files = [path for path in profile_files(aws) if path.is_file()]
    if not files:
        return None
    import configparser

    for path in files:
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(path.read_text())
        except (OSError, ValueError, configparser.Error):
            continue  # whoever needs the file's credentials reports it
        for section in (name, f"profile {name}"):
            if region := parser.get(section, "region", fallback=None):
                return region.strip()
    return None
