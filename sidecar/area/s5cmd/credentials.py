"""What s5cmd may know: credentials that we found, the region and the endpoint, by its environment alone.

Its own search for credentials knows fewer sources than ours (no token service of another address, no newer
container address), and would read other files: so ours are lent, and it is told to look nowhere.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sidecar.area.answers import Answer, of_awscrt, of_token_service
from sidecar.area.credentials import STATIC, crt_provider, source_of
from sidecar.area.failures import Where, failure
from sidecar.area.target import Target

_FETCH_SECONDS = 20
_MARGIN = timedelta(minutes=5)
# As for our own requests: keys without an end of their own are looked at again now and then.
_LOOK_AGAIN = timedelta(minutes=15)
_HANDED_ON = (
    "PATH",
    "LANG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    *(name for lower in ("http_proxy", "https_proxy", "no_proxy") for name in (lower, lower.upper())),
)
_AWS_HANDED_ON = ("AWS_CA_BUNDLE", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Good until ``until``, or for ever."""

    key_id: str
    secret: str = field(repr=False)
    token: str | None = field(repr=False)
    until: datetime | None

    def environ(self, target: Target, aws: Mapping[str, str], directory: Path) -> dict[str, str]:
        """The whole environment of an s5cmd that reaches `target` and writes nowhere but in `directory`."""
        environ = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
        environ |= {name: aws[name] for name in _AWS_HANDED_ON if aws.get(name)}
        environ |= {
            "HOME": str(directory),
            "TMPDIR": str(directory),
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": target.region,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        if self.token:
            environ["AWS_SESSION_TOKEN"] = self.token
        if target.endpoint_given:
            environ["S3_ENDPOINT_URL"] = target.endpoint
        return environ


class Lender:
    """Finds credentials where `aws` (the ``AWS_*`` variables) says, anew before they end."""

    def __init__(self, aws: Mapping[str, str]) -> None:
        self._aws = aws
        self._lock = threading.Lock()
        self._lent: Credentials | None = None

    def lent(self, target: Target, where: Where) -> Credentials:
        """Credentials that are good now; raises Failure, whose sentence begins with `where`."""
        with self._lock:
            lent = self._lent
            if lent is None or (lent.until and lent.until - _MARGIN < datetime.now(UTC)):
                lent = self._lent = self._found(target, where)
            return lent

    def forget(self) -> None:
        """They were refused: look again."""
        with self._lock:
            self._lent = None

    def _found(self, target: Target, where: Where) -> Credentials:
        aws = self._aws
        if source_of(aws) == STATIC:
            token = aws.get("AWS_SESSION_TOKEN")
            return Credentials(aws["AWS_ACCESS_KEY_ID"], aws["AWS_SECRET_ACCESS_KEY"], token, None)
        from sidecar.area.web_identity import TokenServiceError

        try:
            got = crt_provider(aws, target)().get_credentials().result(_FETCH_SECONDS)
        except TokenServiceError as error:
            raise failure(of_token_service(str(error)), where) from error
        except TimeoutError as error:
            raise failure(Answer(trouble="timeout", of_credentials=True), where) from error
        except Exception as error:
            raise failure(of_awscrt(error), where) from error
        until = got.expiration or datetime.now(UTC) + _LOOK_AGAIN
        return Credentials(got.access_key_id, got.secret_access_key, got.session_token, until)
