"""Who we are to the store: where credentials come from, in the order in which AWS tools look.

    static        AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
    web identity  AWS_ROLE_ARN, AWS_WEB_IDENTITY_TOKEN_FILE (IRSA)
    profile       AWS_PROFILE, the shared files: keys, roles, processes, single sign-on
    container     AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI (Pod Identity, ECS)
    metadata      the instance's own, unless AWS_EC2_METADATA_DISABLED

obstore finds most of them itself and starts faster with them, but does not tell when they end: a process
that lives long asks by itself (`lease_of`), and so does whoever needs what obstore does not know. Profiles
are read by awscrt, which is imported for that alone. obstore ignores AWS_EC2_METADATA_DISABLED: we do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sidecar.area.lease import Credentials, Lease
from sidecar.area.target import Target, profile_files
from sidecar.errors import CredentialsMissing

if TYPE_CHECKING:
    from awscrt.auth import AwsCredentialsProvider  # type: ignore[import-untyped]

_FETCH_SECONDS = 20

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


def lease_of(aws: Mapping[str, str], target: Target, *, lasting: bool) -> Lease | None:
    """Credentials that we ask for ourselves; None where obstore does it, or where there is nothing to ask.

    Parameters
    ----------
    lasting: for a process that lives long; others save the imports that it takes.
    """
    source = source_of(aws)
    if source == WEB_IDENTITY and (lasting or aws.get("AWS_ENDPOINT_URL_STS", "").startswith("http://")):
        from sidecar.area.web_identity import WebIdentity

        return Lease(WebIdentity(aws, target).assumed)
    if source == CONTAINER and (lasting or aws.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")):
        from sidecar.area.container import container_credentials

        return Lease(lambda: container_credentials(aws, target.ca_file))
    if source == PROFILE:
        provider = _profile(aws)
        return Lease(lambda: _asked(provider))
    return None


def obstore_arguments(aws: Mapping[str, str], lease: Lease | None) -> dict[str, Any]:
    """The arguments with which an obstore store finds its credentials."""
    if lease is not None:
        return {"credential_provider": lease.for_obstore}
    source = source_of(aws)
    if source == STATIC:
        config = {
            "access_key_id": aws["AWS_ACCESS_KEY_ID"],
            "secret_access_key": aws["AWS_SECRET_ACCESS_KEY"],
        }
        if token := aws.get("AWS_SESSION_TOKEN"):
            config["session_token"] = token
        return {"config": config}
    if source == WEB_IDENTITY:
        return {"config": _web_identity(aws)}
    if source == CONTAINER:
        return {"config": _container(aws)}
    address = aws.get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
    return {"config": {"metadata_endpoint": address} if address else {}}


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


def crt_provider(
    aws: Mapping[str, str], target: Target, lease: Lease | None = None
) -> Callable[[], AwsCredentialsProvider]:
    """The same credentials for awscrt's requests: what is called before each of them."""
    from awscrt.auth import AwsCredentialsProvider

    source = source_of(aws)
    if source in (WEB_IDENTITY, CONTAINER):
        shared = lease or lease_of(aws, target, lasting=True)
        assert shared is not None
        return shared.for_awscrt
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


def _asked(provider: AwsCredentialsProvider) -> Credentials:
    got = provider.get_credentials().result(_FETCH_SECONDS)
    return Credentials(got.access_key_id, got.secret_access_key, got.session_token, got.expiration)
