"""Every error that a caller may want to tell apart, as one tree.

    SidecarError                 kind             outage
    ├── SettingsError            settings         no     wrong use: exit code 2
    ├── HomeError                home             no     the home cannot be used, or a path in it is refused
    │   ├── HomeFull             home_full        no     no space left, or over a quota
    │   └── FileChanged          file_changed     yes    a file moved under our hands; the next round sees it
    ├── LedgerError              ledger           no     the state directory cannot be used
    ├── UserError                user             no     a user id that cannot be a prefix, or a second user
    ├── FormatError              format           no     a format we do not know: "could not tell"
    └── StoreError               store            no
        ├── ObjectMissing        object_missing   no     this one key is not there
        ├── ConditionFailed      conflict         no     somebody else wrote meanwhile (412): read again
        ├── ObjectArchived       archived         no     in an archived storage class
        ├── ObjectDamaged        corrupt          no     bytes that are not what they claim to be
        ├── BucketMissing        bucket_missing   no     no bucket by that name
        ├── AccessDenied         denied           no     the identity is known and may not
        ├── CredentialsMissing   no_credentials   no     nobody gave credentials
        ├── CredentialsRefused   credentials      no     expired, unknown or badly signed
        ├── RegionWrong          region           no     the bucket lives elsewhere
        ├── TlsRefused           tls              no     the certificate was not accepted
        ├── StoreUnreachable     unreachable      yes    no connection, time-out, 5xx
        └── StoreThrottled       throttled        yes    503 SlowDown and its kin

``outage`` says whether waiting can help. It is the line between "the bucket is away" and "this will
never work": the restore policy stands on it. Every error carries a sentence (what happened, to what)
and a hint (what to do now). None carries a secret or a file's content.
"""

from __future__ import annotations


class SidecarError(Exception):
    """The root.

    Parameters
    ----------
    message: one sentence: what happened, and to what.
    hint: one sentence: what a person can do now; may be empty.
    """

    kind = "error"
    outage = False

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class SettingsError(SidecarError):
    kind = "settings"


class HomeError(SidecarError):
    kind = "home"


class HomeFull(HomeError):
    kind = "home_full"


class FileChanged(HomeError):
    kind = "file_changed"
    outage = True


class LedgerError(SidecarError):
    kind = "ledger"


class UserError(SidecarError):
    kind = "user"


class FormatError(SidecarError):
    kind = "format"


class StoreError(SidecarError):
    kind = "store"


class ObjectMissing(StoreError):
    kind = "object_missing"


class ConditionFailed(StoreError):
    kind = "conflict"


class ObjectArchived(StoreError):
    kind = "archived"


class ObjectDamaged(StoreError):
    kind = "corrupt"


class BucketMissing(StoreError):
    kind = "bucket_missing"


class AccessDenied(StoreError):
    kind = "denied"


class CredentialsMissing(StoreError):
    kind = "no_credentials"


class CredentialsRefused(StoreError):
    kind = "credentials"


class RegionWrong(StoreError):
    kind = "region"


class TlsRefused(StoreError):
    kind = "tls"


class StoreUnreachable(StoreError):
    kind = "unreachable"
    outage = True


class StoreThrottled(StoreError):
    kind = "throttled"
    outage = True
