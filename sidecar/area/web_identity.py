"""A role's credentials for the token that Kubernetes mounts (IRSA), as awscrt is to use them.

awscrt's own provider does not know ``AWS_ENDPOINT_URL_STS``, and a private endpoint is common where pods have
no way to the internet.
https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.area.target import Target

if TYPE_CHECKING:
    from awscrt.auth import AwsCredentials, AwsCredentialsProvider  # type: ignore[import-untyped]

_TIMEOUT_SECONDS = 10
# A delegate is asked for each request: credentials are kept until shortly before their end.
_MARGIN = timedelta(minutes=2)


def provider(aws: Mapping[str, str], target: Target) -> AwsCredentialsProvider:
    """awscrt's view of the role in `aws`."""
    from awscrt.auth import AwsCredentialsProvider

    kept: list[AwsCredentials] = []

    def ask() -> AwsCredentials:
        if not kept or kept[0].expiration - _MARGIN < datetime.now(UTC):
            kept[:] = [_assumed(aws, target)]
        return kept[0]

    return AwsCredentialsProvider.new_delegate(ask)


def _assumed(aws: Mapping[str, str], target: Target) -> AwsCredentials:
    from awscrt.auth import AwsCredentials

    answer = _post(aws, target)
    found = {
        name: re.search(f"<{name}>([^<]+)</{name}>", answer)
        for name in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
    }
    values = {name: match.group(1) for name, match in found.items() if match}
    if len(values) < len(found):
        raise ValueError("the answer of the token service holds no credentials")
    expiration = datetime.fromisoformat(values["Expiration"].replace("Z", "+00:00"))
    return AwsCredentials(
        values["AccessKeyId"], values["SecretAccessKey"], values["SessionToken"], expiration
    )


def _post(aws: Mapping[str, str], target: Target) -> str:
    import ssl
    import urllib.parse
    import urllib.request

    form = {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": aws["AWS_ROLE_ARN"],
        "RoleSessionName": aws.get("AWS_ROLE_SESSION_NAME", "claude-sidecar"),
        "WebIdentityToken": Path(aws["AWS_WEB_IDENTITY_TOKEN_FILE"]).read_text().strip(),
    }
    suffix = ".cn" if target.region.startswith("cn-") else ""
    endpoint = aws.get("AWS_ENDPOINT_URL_STS") or f"https://sts.{target.region}.amazonaws.com{suffix}"
    request = urllib.request.Request(endpoint.rstrip("/") + "/", urllib.parse.urlencode(form).encode())  # noqa: S310
    context = ssl.create_default_context(cafile=target.ca_file) if endpoint.startswith("https:") else None
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS, context=context) as answer:  # noqa: S310
        text: str = answer.read(65536).decode()
    return text
