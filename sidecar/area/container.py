"""The credentials that the node gives a container: EKS Pod Identity, ECS.

https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from sidecar.area.lease import Credentials
from sidecar.area.web_identity import TokenServiceError, answered

_ECS = "http://169.254.170.2"


def container_credentials(aws: Mapping[str, str], ca_file: str | None) -> Credentials:
    """Ask once.

    Raises
    ------
    TokenServiceError: no answer, a refusal, or an answer without credentials.
    """
    # ECS first, as the SDKs look.
    relative = aws.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    url = _ECS + relative if relative else aws["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    token = _token(aws)
    text = answered(url, None, {"Authorization": token} if token else {}, ca_file, by_proxy=False)
    try:
        found = json.loads(text)
        end = found.get("Expiration")
        return Credentials(
            found["AccessKeyId"],
            found["SecretAccessKey"],
            found.get("Token"),
            datetime.fromisoformat(end.replace("Z", "+00:00")) if end else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TokenServiceError(502, "", "its answer holds no credentials") from error


def _token(aws: Mapping[str, str]) -> str:
    path = aws.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
    if not path:
        return aws.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
    try:
        return Path(path).read_text().strip()
    except (OSError, ValueError) as error:
        raise TokenServiceError(400, "TokenFile", str(error)) from error
