"""A role's credentials for the token that Kubernetes mounts (IRSA), for awscrt's requests.

awscrt's own provider does not know ``AWS_ENDPOINT_URL_STS``, and a private endpoint is common where pods have
no way to the internet; obstore's knows it, if it is an https address.
https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.area.answers import SERVICE_MARK
from sidecar.area.target import Target

if TYPE_CHECKING:
    from awscrt.auth import AwsCredentialsProvider  # type: ignore[import-untyped]

_TIMEOUT_SECONDS = 10
_MARGIN = timedelta(minutes=5)
_FIELDS = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")


class TokenServiceError(Exception):
    """No credentials: ``status`` and ``code`` as the service answered, 0 where it did not.

    Its text is read again by `sidecar.area.answers`: an engine hands it on as text only.
    """

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"{SERVICE_MARK} {status} {code or '-'} {detail}")


class WebIdentity:
    """The role that `aws` names, assumed anew shortly before its credentials end."""

    def __init__(self, aws: Mapping[str, str], target: Target) -> None:
        self._aws = aws
        self._target = target
        self._lock = threading.Lock()
        self._provider: AwsCredentialsProvider | None = None
        self._until = datetime.now(UTC)

    def provider(self) -> AwsCredentialsProvider:
        """awscrt's view of credentials that are good now; raises `TokenServiceError`."""
        from awscrt.auth import AwsCredentials, AwsCredentialsProvider

        with self._lock:
            if self._provider is None or self._until - _MARGIN < datetime.now(UTC):
                key, secret, token, end = self._assumed()
                self._until = datetime.fromisoformat(end.replace("Z", "+00:00"))
                credentials = AwsCredentials(key, secret, token, self._until)
                self._provider = AwsCredentialsProvider.new_delegate(lambda: credentials)
            return self._provider

    def _assumed(self) -> list[str]:
        answer = self._post()
        found = [re.search(f"<{name}>([^<]+)</{name}>", answer) for name in _FIELDS]
        values = [match.group(1) for match in found if match]
        if len(values) < len(_FIELDS):
            raise TokenServiceError(502, "", "its answer holds no credentials")
        return values

    def _post(self) -> str:
        import ssl
        import urllib.error
        import urllib.request

        endpoint = self._endpoint()
        request = urllib.request.Request(endpoint, self._form())  # noqa: S310 - our own setting
        secure = endpoint.startswith("https:")
        context = ssl.create_default_context(cafile=self._target.ca_file) if secure else None
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS, context=context) as answer:  # noqa: S310
                text: str = answer.read(65536).decode()
        except urllib.error.HTTPError as error:
            with error:
                code = re.search(rb"<Code>(\w+)</Code>", error.read(65536))
            raise TokenServiceError(error.code, code.group(1).decode() if code else "", "") from error
        except OSError as error:
            raise TokenServiceError(0, "", str(error)) from error
        return text

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
