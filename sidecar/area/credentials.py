"""Who we are to the store: where credentials come from, in the order in which AWS tools look.

    static        AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
    web identity  AWS_ROLE_ARN, AWS_WEB_IDENTITY_TOKEN_FILE (IRSA)
    profile       AWS_PROFILE, the shared files: keys, roles, processes, single sign-on
    container     AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI (Pod Identity, ECS)
    metadata      the instance's own, unless AWS_EC2_METADATA_DISABLED

obstore finds most of them itself and starts faster with them; what it does not know comes from awscrt, which
is imported for that alone. obstore ignores AWS_EC2_METADATA_DISABLED: we do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sidecar.area.target import Target, profile_files
from sidecar.errors import CredentialsMissing

if TYPE_CHECKING:
    from awscrt.auth import AwsCredentialsProvider  # type: ignore[import-untyped]
    from obstore.store import S3Credential

_FETCH_SECONDS = 20
# Keys without an end of their own are asked for again now and then: a file that was rotated is noticed.
_LOOK_AGAIN = timedelta(minutes=15)
_KEPT = timedelta(seconds=30)

STATIC, WEB_IDENTITY, PROFILE, CONTAINER, METADATA = (
    "static",
    "web identity",
    "profile",
    "container",
    "metadata",
)


def source_of(aws: Mapping[str, str]) -> str:
    """Which of the sources `aws` (the ``AWS_*`` variables) names.

    Raises
    ------
    CredentialsMissing: none, or half of one. Nothing is asked over the network to find that out.
    """
    if aws.get("AWS_ACCESS_KEY_ID") or aws.get("AWS_SECRET_ACCESS_KEY"):
        _both(aws, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        return STATIC
    if aws.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        _both(aws, "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN")
        return WEB_IDENTITY
    if aws.get("AWS_PROFILE") or any(path.is_file() for path in profile_files(aws)):
        return PROFILE
    if aws.get("AWS_CONTAINER_CREDENTIALS_FULL_URI") or aws.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        return CONTAINER
    if aws.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        raise CredentialsMissing(
            "no credentials for the bucket: no AWS_* variable gives any, and instance metadata is disabled",
            "give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a service account with a role",
        )
    return METADATA


def _both(aws: Mapping[str, str], first: str, second: str) -> None:
    for name in (first, second):
        if not aws.get(name):
            raise CredentialsMissing(
                f"no credentials for the bucket: {name} is not set", f"set {first} and {second}"
            )


def obstore_arguments(aws: Mapping[str, str], target: Target) -> dict[str, Any]:
    """The arguments with which an obstore store finds its credentials."""
    source = source_of(aws)
    if source == STATIC:
        config = {
            "access_key_id": aws["AWS_ACCESS_KEY_ID"],
            "secret_access_key": aws["AWS_SECRET_ACCESS_KEY"],
        }
        if token := aws.get("AWS_SESSION_TOKEN"):
            config["session_token"] = token
        return {"config": config}
    if source == WEB_IDENTITY and not aws.get("AWS_ENDPOINT_URL_STS", "").startswith("http://"):
        return {"config": _web_identity(aws)}
    if source == CONTAINER and not aws.get("AWS_CONTAINER_AUTHORIZATION_TOKEN"):
        return {"config": _container(aws)}
    if source == METADATA:
        address = aws.get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
        return {"config": {"metadata_endpoint": address} if address else {}}
    return {"credential_provider": _asking(crt_provider(aws, target))}


def _web_identity(aws: Mapping[str, str]) -> dict[str, str]:
    config = {
        "role_arn": aws["AWS_ROLE_ARN"],
        "web_identity_token_file": aws["AWS_WEB_IDENTITY_TOKEN_FILE"],
        "role_session_name": aws.get("AWS_ROLE_SESSION_NAME", "claude-sidecar"),
    }
    if endpoint := aws.get("AWS_ENDPOINT_URL_STS"):
        config["endpoint_url_sts"] = endpoint
    return config


def _container(aws: Mapping[str, str]) -> dict[str, str]:
    names = {
        "container_credentials_full_uri": "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "container_credentials_relative_uri": "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "container_authorization_token_file": "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    }
    return {option: aws[name] for option, name in names.items() if aws.get(name)}


def crt_provider(aws: Mapping[str, str], target: Target) -> Callable[[], AwsCredentialsProvider]:
    """The same credentials for awscrt's requests: what is called before each of them."""
    from awscrt.auth import AwsCredentialsProvider

    source = source_of(aws)
    if source == WEB_IDENTITY:
        from sidecar.area.web_identity import WebIdentity

        return WebIdentity(aws, target).provider
    if source == STATIC:
        fixed = AwsCredentialsProvider.new_static(
            aws["AWS_ACCESS_KEY_ID"], aws["AWS_SECRET_ACCESS_KEY"], aws.get("AWS_SESSION_TOKEN")
        )
    elif source == PROFILE:
        fixed = _profile(aws)
    else:
        fixed = AwsCredentialsProvider.new_default_chain()
    return lambda: fixed


def _profile(aws: Mapping[str, str]) -> AwsCredentialsProvider:
    """The profile's keys, role or process; what else awscrt finds by itself comes last."""
    from awscrt.auth import AwsCredentialsProvider

    config, credentials = profile_files(aws)
    name = aws.get("AWS_PROFILE") or None
    makers: tuple[Callable[[], AwsCredentialsProvider], ...] = (
        lambda: AwsCredentialsProvider.new_profile(
            profile_name=name, config_filepath=str(config), credentials_filepath=str(credentials)
        ),
        lambda: AwsCredentialsProvider.new_process(name),
        AwsCredentialsProvider.new_default_chain,
    )
    made = []
    for make in makers:
        try:
            made.append(make())
        except RuntimeError:  # the profile names no such source
            continue
    return AwsCredentialsProvider.new_chain(made)


def _asking(provider: Callable[[], AwsCredentialsProvider]) -> Callable[[], S3Credential]:
    """obstore's way to ask; it asks again when the last answer has expired."""

    kept: list[tuple[datetime, S3Credential]] = []

    def ask() -> S3Credential:
        now = datetime.now(UTC)
        # Near its end a credential is asked for before each request: not each may start a process.
        if not kept or now - kept[0][0] > _KEPT:
            got = provider().get_credentials().result(_FETCH_SECONDS)
            answer: S3Credential = {
                "access_key_id": got.access_key_id,
                "secret_access_key": got.secret_access_key,
                "token": got.session_token,
                "expires_at": got.expiration or now + _LOOK_AGAIN,
            }
            kept[:] = [(now, answer)]
        return kept[0][1]

    return ask
