"""From an answer to an error with a kind, a sentence and a hint: which way it fails, and what to do now.

"Denied", "no such bucket", "expired" and "unreachable" are told apart, because a person does something else
for each of them. None of them ever looks like "there is nothing there".
"""

from __future__ import annotations

from msgspec import Struct

from sidecar.area.answers import Answer
from sidecar.area.credentials import METADATA
from sidecar.errors import (
    AccessDenied,
    BucketMissing,
    ConditionFailed,
    CredentialsMissing,
    CredentialsRefused,
    ObjectArchived,
    ObjectMissing,
    RegionWrong,
    StoreError,
    StoreThrottled,
    StoreUnreachable,
    TlsRefused,
)

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
_UNKNOWN_KEY = {"InvalidAccessKeyId", "InvalidToken", "InvalidClientTokenId", "InvalidIdentityToken"}
_THROTTLED = {
    "SlowDown",
    "ServiceUnavailable",
    "RequestLimitExceeded",
    "TooManyRequests",
    "Throttling",
    "ThrottlingException",
    "BandwidthLimitExceeded",
}
# Answers of 4xx after which the very same request may succeed.
_AGAIN = {"RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "OperationAborted"}
_REGION = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}


class Where(Struct, frozen=True):
    """What a request was about: ``what`` begins the sentence (``the listing of s3://bucket/prefix``)."""

    what: str
    bucket: str
    endpoint: str
    region: str
    credentials: str = ""
    reads_object: bool = False


class Failure(Exception):
    """A request failed: what the server said (`answer`), and the `error` that a caller is to see."""

    def __init__(self, answer: Answer, error: StoreError) -> None:
        super().__init__(str(error))
        self.answer = answer
        self.error = error


def failure(answer: Answer, where: Where) -> Failure:
    """The `Failure` for `answer`."""
    return Failure(answer, _error(answer, where))


def _error(answer: Answer, where: Where) -> StoreError:
    if answer.of_credentials:
        return _of_credentials(answer, where)
    if not answer.status:
        return _without_answer(answer, where)
    return _by_code(answer, where) or _by_status(answer, where)


def _of_credentials(answer: Answer, where: Where) -> StoreError:
    if where.credentials == METADATA and answer.status < 500:
        return CredentialsMissing(
            f"no credentials for the bucket {where.bucket}: no AWS_* variable gives any, and the instance "
            "metadata gives none either",
            "give the pod a service account with a role, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    if answer.trouble == "credentials":
        return CredentialsMissing(
            f"no credentials for the bucket {where.bucket}: {answer.detail}",
            "check the service account, the mounted token or the profile of this pod",
        )
    if answer.status and answer.status < 500:
        return CredentialsRefused(
            f"no credentials for the bucket {where.bucket}: the credential service answered {_said(answer)}",
            "check the role's trust policy, and that the token in the pod is meant for it",
        )
    return StoreUnreachable(
        f"no credentials for the bucket {where.bucket}: the credential service did not answer "
        f"({answer.detail or answer.trouble or answer.status})",
        "it is tried again; check the network policy of this pod if it lasts",
    )


def _without_answer(answer: Answer, where: Where) -> StoreError:
    detail = f" ({answer.detail})" if answer.detail else ""
    if answer.trouble == "tls":
        return TlsRefused(
            f"{where.what} failed: no secure connection to {where.endpoint}{detail}",
            "give the store's CA in AWS_CA_BUNDLE, and check that the endpoint speaks https",
        )
    if answer.trouble == "redirect":
        return _wrong_region(answer, where)
    if answer.trouble == "garbled":
        return _not_s3(where, "an answer that is not S3's")
    if answer.trouble == "key":
        return StoreError(f"{where.what} failed: {answer.detail}", "such a key cannot be used; rename it")
    if answer.trouble == "panic":
        message = f"{where.what} failed: the request cannot be written down: {answer.detail}"
        return StoreError(message, "look for odd characters in the credentials, the endpoint and the region")
    happened = {
        "dns": f"the name of {where.endpoint} cannot be resolved",
        "connect": f"{where.endpoint} cannot be reached",
        "timeout": f"{where.endpoint} did not answer in time",
        "no ranges": f"{where.endpoint} gives whole objects only",
    }.get(answer.trouble, f"the connection to {where.endpoint} broke")
    return StoreUnreachable(
        f"{where.what} failed: {happened}{detail}",
        "it is tried again; check AWS_ENDPOINT_URL and the network if it lasts",
    )


def _by_code(answer: Answer, where: Where) -> StoreError | None:
    code, what = answer.code, where.what
    if code in _EXPIRED:
        return CredentialsRefused(
            f"{what} failed: the credentials have expired",
            "renew them",
        )
    if code in _UNKNOWN_KEY:
        return CredentialsRefused(
            f"{what} failed: the store does not know the access key or token", "check AWS_ACCESS_KEY_ID"
        )
    if code == "SignatureDoesNotMatch":
        return CredentialsRefused(
            f"{what} failed: the store rejects the signature", "check AWS_SECRET_ACCESS_KEY (is it complete?)"
        )
    if code == "RequestTimeTooSkewed":
        return CredentialsRefused(
            f"{what} failed: this machine's clock differs too much from the store's", "set the clock"
        )
    if "kms:" in answer.message.lower() or code.startswith("KMS."):
        return AccessDenied(
            f"{what} failed: the encryption key of the bucket cannot be used ({code})",
            "allow kms:GenerateDataKey and kms:Decrypt on the bucket's KMS key",
        )
    if code == "NoSuchBucket":
        return BucketMissing(
            f"{what} failed: there is no bucket {where.bucket} at {where.endpoint}",
            "create it, or correct S3_WORKSPACE_BUCKET",
        )
    if code == "NoSuchKey":
        return ObjectMissing(f"{what} failed: there is no such object")
    if code == "InvalidObjectState":
        return ObjectArchived(
            f"{what} failed: it is in an archived storage class", "restore it in the store first"
        )
    if code in _REGION and (answer.region or code != "AuthorizationHeaderMalformed"):
        return _wrong_region(answer, where)
    if code in _THROTTLED:
        return StoreThrottled(f"{what} was throttled by the store ({code})", "it is tried again, more slowly")
    if code in _AGAIN:
        return StoreUnreachable(f"{what} failed on the way ({code})", "it is tried again")
    return None


def _by_status(answer: Answer, where: Where) -> StoreError:
    what, status = where.what, answer.status
    if status == 412:
        return ConditionFailed(f"{what} met another version than expected", "it is read again")
    if status == 403:
        return _denied(answer, where)
    if status == 401:
        return CredentialsRefused(f"{what} failed: the store wants other credentials ({_said(answer)})")
    if status == 301:
        return _wrong_region(answer, where)
    if status == 429 or (status == 503 and not answer.code):
        return StoreThrottled(f"{what} was throttled by the store", "it is tried again, more slowly")
    if status in (408, 409) or (status >= 500 and status != 501):
        return StoreUnreachable(
            f"{what} failed: the store answered {_said(answer)}",
            "it is tried again; look at the store if it lasts",
        )
    if status == 404:
        return _not_s3(where, "404 without saying what is missing")
    return StoreError(f"{what} failed: the store answered {_said(answer)}")


def _denied(answer: Answer, where: Where) -> StoreError:
    if where.reads_object:
        return AccessDenied(
            f"{where.what} was denied: either it may not be read, or it does not exist and may not be listed",
            "allow s3:GetObject on the prefix and s3:ListBucket on the bucket",
        )
    said = f" ({answer.message})" if answer.message and answer.message != "Access Denied" else ""
    return AccessDenied(
        f"{where.what} was denied{said}",
        "allow s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject and s3:DeleteObject on the prefix",
    )


def _wrong_region(answer: Answer, where: Where) -> StoreError:
    right = f"set AWS_REGION={answer.region}" if answer.region else "set AWS_REGION to the bucket's region"
    return RegionWrong(
        f"{where.what} failed: the bucket {where.bucket} is not in the region {where.region}", right
    )


def _not_s3(where: Where, what: str) -> StoreError:
    return StoreError(
        f"{where.what} failed: {where.endpoint} gave {what}",
        "check AWS_ENDPOINT_URL: it has to be the S3 address of the store, not its console or a proxy's page",
    )


def not_s3(where: Where, what: str) -> Failure:
    """The failure for a server that answered, but not as S3 does."""
    return Failure(Answer(trouble="garbled"), _not_s3(where, what))


def _said(answer: Answer) -> str:
    return f"{answer.status} {answer.code}".strip() + (f": {answer.message}" if answer.message else "")
