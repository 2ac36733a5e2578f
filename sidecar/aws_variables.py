"""The ``AWS_*`` variables, which mean here what they mean to every AWS tool.

What would end up in a header or an address and cannot stand there is refused by name: the S3 library does not
answer such a request with an error, it panics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sidecar.errors import SettingsError

_SECRETS = ("SECRET", "TOKEN", "ACCESS_KEY")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# https://docs.aws.amazon.com/general/latest/gr/rande.html; other stores have names of the same letters.
_REGION = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def read(environ: Mapping[str, str]) -> dict[str, str]:
    """Those of `environ` that are set and not empty.

    Raises
    ------
    SettingsError: a control character in one of them, or a region that cannot be one. No value is shown.
    """
    found = {name: text for name, text in environ.items() if name.startswith("AWS_") and text}
    for name, text in sorted(found.items()):
        if text != text.rstrip("\r\n"):
            raise SettingsError(
                f"{name} ends with a line break",
                "take it away; a Secret filled by `echo` has one, by `echo -n` or `printf` it has none",
            )
        if _CONTROL.search(text):
            raise SettingsError(f"{name} holds a control character", "correct it")
        if name in _REGIONS and not _REGION.fullmatch(text):
            raise SettingsError(f"{name} is {text[:80]!a}", "give the name of a region, such as eu-west-1")
    return found


def shown(name: str, text: str) -> str:
    """`text`, the value of `name`, as it may be shown: never a secret, a token or userinfo in a URL."""
    if name.endswith("_FILE"):
        return text
    if any(word in name for word in _SECRETS):
        return "****" + text[-4:] if name == "AWS_ACCESS_KEY_ID" and len(text) >= 12 else "****"
    return re.sub(r"//[^/@]*@", "//****@", text)
