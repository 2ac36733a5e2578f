"""A role's credentials for the token that Kubernetes mounts (IRSA).

awscrt's own provider does not know ``AWS_ENDPOINT_URL_STS``, and a private endpoint is common where pods have
no way to the internet; obstore's knows it, if it is an https address, and does not tell when they end.
https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from sidecar.area.answers import SERVICE_MARK
from sidecar.area.lease import Credentials
from sidecar.area.target import Target

_TIMEOUT_SECONDS = 10
_FIELDS = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")


class TokenServiceError(Exception):
    """No credentials: ``status`` and ``code`` as the service answered, 0 where it did not.

    Its text is read again by `sidecar.area.answers`: an engine hands it on as text only.
    """

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"{SERVICE_MARK} {status} {code or '-'} {detail}")


class WebIdentity:
    """The role that `aws` names."""

    def __init__(self, aws: Mapping[str, str], target: Target) -> None:
        self._aws = aws
        self._target = target

    def assumed(self) -> Credentials:
        """Its credentials, asked for now; raises `TokenServiceError`."""
        answer = answered(self._endpoint(), self._form(), {}, self._target.ca_file)
        found = [re.search(f"<{name}>([^<]+)</{name}>", answer) for name in _FIELDS]
        values = [match.group(1) for match in found if match]
        if len(values) < len(_FIELDS):
            raise TokenServiceError(502, "", "its answer holds no credentials")
        key, secret, token, end = values
        return Credentials(key, secret, token, datetime.fromisoformat(end.replace("Z", "+00:00")))

    def _endpoint(self) -> str:
        suffix = ".cn" if self._target.region.startswith("cn-") else ""
        usual = f"https://sts.{self._target.region}.amazonaws.com{suffix}"
        return (self._aws.get("AWS_ENDPOINT_URL_STS") or usual).rstrip("/") + "/"

    def _form(self) -> bytes:
        from urllib.parse import urlencode

        try:
            token = Path(self._aws["AWS_WEB_IDENTITY_TOKEN_FILE"]).read_text().strip()
        except (OSError, ValueError) as error:
            raise TokenServiceError(400, "TokenFile", str(error)) from error
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": self._aws["AWS_ROLE_ARN"],
            "RoleSessionName": self._aws.get("AWS_ROLE_SESSION_NAME", "claude-sidecar"),
            "WebIdentityToken": token,
        }
        return urlencode(form).encode()


def answered(
    url: str, form: bytes | None, headers: Mapping[str, str], ca_file: str | None, *, by_proxy: bool = True
) -> str:
    """What a credential service at `url` answers; raises `TokenServiceError`.

    Parameters
    ----------
    form: is posted; None: the answer is got.
    by_proxy: False for a service of the node, which no proxy can reach.
    """
    import ssl
    import urllib.error
    import urllib.request

    context = ssl.create_default_context(cafile=ca_file) if url.startswith("https:") else None
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
    if not by_proxy:
        handlers.append(urllib.request.ProxyHandler({}))
    try:
        request = urllib.request.Request(url, form, dict(headers))  # noqa: S310 - our own setting
        with urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT_SECONDS) as answer:
            text: str = answer.read(65536).decode()
    except urllib.error.HTTPError as error:
        with error:
            code = re.search(rb"<Code>(\w+)</Code>", error.read(65536))
        raise TokenServiceError(error.code, code.group(1).decode() if code else "", "") from error
    except (OSError, ValueError) as error:
        raise TokenServiceError(0, "", str(error)) from error
    return text
