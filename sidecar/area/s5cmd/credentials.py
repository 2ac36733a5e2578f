"""What s5cmd may know: credentials that we found, the region and the endpoint, by its environment alone.

Its own search for credentials knows fewer sources than ours (no token service of another address, no newer
container address), and would read other files: so ours are lent, and it is told to look nowhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from sidecar.area.answers import SERVICE_MARK, Answer, of_awscrt, of_token_service
from sidecar.area.credentials import STATIC, crt_provider, lease_of, source_of
from sidecar.area.failures import Where, failure
from sidecar.area.lease import Credentials, Lease
from sidecar.area.target import Target

_FETCH_SECONDS = 20
_HANDED_ON = (
    "PATH",
    "LANG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    *(name for lower in ("http_proxy", "https_proxy", "no_proxy") for name in (lower, lower.upper())),
)
_AWS_HANDED_ON = ("AWS_CA_BUNDLE", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT")


def lease(aws: Mapping[str, str], target: Target) -> Lease:
    """The credentials that `aws` (the ``AWS_*`` variables) names, wherever they come from."""
    found = lease_of(aws, target, lasting=True)
    if found is not None:
        return found
    if source_of(aws) == STATIC:
        key_id, secret = aws["AWS_ACCESS_KEY_ID"], aws["AWS_SECRET_ACCESS_KEY"]
        return Lease(lambda: Credentials(key_id, secret, aws.get("AWS_SESSION_TOKEN"), None))
    return Lease(lambda: _of_the_instance(aws, target))


def _of_the_instance(aws: Mapping[str, str], target: Target) -> Credentials:
    got = crt_provider(aws, target)().get_credentials().result(_FETCH_SECONDS)
    return Credentials(got.access_key_id, got.secret_access_key, got.session_token, got.expiration)


def lent(credentials: Lease, where: Where) -> Credentials:
    """What `credentials` has now; raises Failure, whose sentence begins with `where`."""
    try:
        return credentials.current()
    except TimeoutError as error:
        raise failure(Answer(trouble="timeout", of_credentials=True), where) from error
    except Exception as error:
        text = str(error)
        answer = of_token_service(text) if SERVICE_MARK in text else of_awscrt(error)
        raise failure(answer, where) from error


def environ(credentials: Credentials, target: Target, aws: Mapping[str, str], place: Path) -> dict[str, str]:
    """The whole environment of an s5cmd that reaches `target` and writes nowhere but in `place`."""
    found = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    found |= {name: aws[name] for name in _AWS_HANDED_ON if aws.get(name)}
    found |= {
        "HOME": str(place),
        "TMPDIR": str(place),
        "AWS_ACCESS_KEY_ID": credentials.key_id,
        "AWS_SECRET_ACCESS_KEY": credentials.secret,
        "AWS_REGION": target.region,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    if credentials.token:
        found["AWS_SESSION_TOKEN"] = credentials.token
    if target.endpoint_given:
        found["S3_ENDPOINT_URL"] = target.endpoint
    return found
