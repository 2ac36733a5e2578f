"""The ``AWS_*`` variables, which mean here what they mean to every AWS tool.

What would end up in a header or an address and cannot stand there is refused by name: the S3 library does not
answer such a request with an error, it panics.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from sidecar.errors import SettingsError

# All that is read of them here. A pod may have others (a certificate of many lines, a password): they are not
# looked at, and not shown.
_KNOWN = frozenset(
    "AWS_" + name
    for name in (
        "ACCESS_KEY_ID",
        "CA_BUNDLE",
        "CONFIG_FILE",
        "CONTAINER_AUTHORIZATION_TOKEN",
        "CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "CONTAINER_CREDENTIALS_FULL_URI",
        "CONTAINER_CREDENTIALS_RELATIVE_URI",
        "DEFAULT_PROFILE",
        "DEFAULT_REGION",
        "EC2_METADATA_DISABLED",
        "EC2_METADATA_SERVICE_ENDPOINT",
        "ENDPOINT_URL",
        "ENDPOINT_URL_S3",
        "ENDPOINT_URL_STS",
        "PROFILE",
        "REGION",
        "ROLE_ARN",
        "ROLE_SESSION_NAME",
        "SECRET_ACCESS_KEY",
        "SESSION_TOKEN",
        "SHARED_CREDENTIALS_FILE",
        "USE_DUALSTACK_ENDPOINT",
        "USE_FIPS_ENDPOINT",
        "WEB_IDENTITY_TOKEN_FILE",
    )
)
_SECRETS = ("SECRET", "TOKEN", "ACCESS_KEY")
_TOKEN_FILES = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NOT_UTF8 = re.compile(r"[\udc80-\udcff]")  # how Python hands over such bytes
# https://docs.aws.amazon.com/general/latest/gr/rande.html; other stores have names of the same letters.
_REGION = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def read(environ: Mapping[str, str]) -> dict[str, str]:
    """Those of `environ` that are read here, set and not empty.

    Raises
    ------
    SettingsError: a control character in one of them, bytes that are not UTF-8, or a region that cannot be
        one. No secret is shown.
    """
    found = {name: text for name, text in environ.items() if name in _KNOWN and text}
    for name, text in sorted(found.items()):
        if text != text.rstrip("\r\n"):
            raise SettingsError(
                f"{name} ends with a line break",
                "take it away; a Secret filled by `echo` has one, by `echo -n` or `printf` it has none",
            )
        if _CONTROL.search(text):
            raise SettingsError(f"{name} holds a control character", "correct it")
        if _NOT_UTF8.search(text):
            raise SettingsError(f"{name} is not UTF-8", "correct it")
        if name in _REGIONS and not _REGION.fullmatch(text):
            raise SettingsError(f"{name} is {text[:80]!a}", "give the name of a region, such as eu-west-1")
    return found


def secret_files(aws: Mapping[str, str]) -> tuple[Path, ...]:
    """The files that every AWS tool takes credentials from, whether they exist or not."""
    default = Path(os.path.expanduser("~/.aws"))  # noqa: PTH111 - where there is no home, Path raises
    return (
        Path(aws.get("AWS_CONFIG_FILE") or default / "config"),
        Path(aws.get("AWS_SHARED_CREDENTIALS_FILE") or default / "credentials"),
        *(Path(aws[name]) for name in _TOKEN_FILES if aws.get(name)),
    )


def shown(name: str, text: str) -> str:
    """`text`, the value of `name`, as it may be shown: never a secret, a token or userinfo in a URL."""
    if name.endswith("_FILE"):
        return text
    if any(word in name for word in _SECRETS):
        return "****" + text[-4:] if name == "AWS_ACCESS_KEY_ID" and len(text) >= 12 else "****"
    return re.sub(r"//[^/@]*@", "//****@", text)
