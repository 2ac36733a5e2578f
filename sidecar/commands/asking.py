"""Asking the sidecar that runs on this state directory, over its trigger API on loopback.

Only the sidecar that holds the ledger may work on the home. Whether it is that one which answers is looked up
first: another pod's API on the same port must not back up somebody else and be believed.
"""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from sidecar.api.routes import MOST_WAIT_SECONDS
from sidecar.errors import SettingsError, SidecarError
from sidecar.logs import log
from sidecar.settings import Settings
from sidecar.sync.initial import backup_failed, failed
from sidecar.sync.ledger import LedgerBusy
from sidecar.sync.results import BackupResult, SyncResult, Unsynced

_CONNECT_SECONDS = 2.0
# A restore answers when it ends, and says nothing before; a checkpoint is told how long it may take.
_RESTORE_SECONDS = 3600.0
_MOST_BYTES = 16 * 1024 * 1024

Answer = tuple[int, dict[str, Any]]


class RunningSidecar:
    """The sidecar that `user_id` has on this state directory; answers become the results of the commands.

    Parameters
    ----------
    token_file: a file with the user's token, for a pod that has no fixed user.
    """

    def __init__(self, settings: Settings, user_id: str, token_file: str | None = None) -> None:
        self._settings = settings
        self._user_id = user_id
        self._token_file = token_file

    def backup(self, busy: LedgerBusy, *, dry_run: bool) -> BackupResult:
        """A checkpoint, made by the sidecar; the sentence of `busy` where none answers."""
        answer = self._asked(f"/v1/sync?wait=checkpoint&timeout={MOST_WAIT_SECONDS}", busy, dry_run)
        if isinstance(answer, SidecarError):
            return backup_failed(self._user_id, answer)
        status, body = answer
        told = _told(status, body)
        refused = tuple(
            Unsynced(str(entry.get("path")), str(entry.get("reason"))) for entry in body.get("refused") or ()
        )
        return BackupResult(
            self._user_id,
            durable=body.get("durable") is True,
            generation=_number(body, "generation"),
            files=_number(body, "files"),
            bytes=_number(body, "bytes"),
            unsynced_bytes=_number(body, "unsynced_bytes"),
            refused=refused,
            error=told.error,
            kind=told.kind,
            hint=told.hint,
        )

    def restore(self, busy: LedgerBusy, *, dry_run: bool) -> SyncResult:
        """A restore into the live home, made by the sidecar; the sentence of `busy` where none answers."""
        answer = self._asked("/v1/restore", busy, dry_run)
        if isinstance(answer, SidecarError):
            return failed(self._user_id, answer)
        status, body = answer
        told = _told(status, body)
        return SyncResult(
            self._user_id,
            synced=body.get("synced") is True,
            action=str(body.get("action", "failed")),
            files=_number(body, "files"),
            bytes=_number(body, "bytes"),
            outage=told.kind in _outage_kinds(SidecarError),
            error=told.error,
            kind=told.kind,
            hint=told.hint,
        )

    def _asked(self, target: str, busy: LedgerBusy, dry_run: bool) -> Answer | SidecarError:
        if dry_run:
            return SidecarError(busy.message, "a dry run cannot be asked of it; leave out --dry-run")
        token = self._token()
        try:
            problem = self._stranger()
            if problem:
                return SidecarError(busy.message, problem)
            log.info("A sidecar runs for user %s here: it is asked to do it", self._user_id)
            return self._call("POST", target, _RESTORE_SECONDS, token)
        except TimeoutError:
            return SidecarError("the sidecar did not answer in time", "it goes on; ask again")
        except (OSError, http.client.HTTPException, ValueError):
            return busy

    def _stranger(self) -> str:
        """Why the API that answers is not that of the sidecar we mean; empty if it is."""
        _, stats = self._call("GET", "/v1/stats", _CONNECT_SECONDS * 5, None)
        ours = (self._settings.bucket, self._settings.prefix)
        if (stats.get("bucket_name"), stats.get("s3_prefix")) == ours and self._user_id in (
            stats.get("users") or ()
        ):
            return ""
        return (
            f"the sidecar on port {self._settings.api_port} does not serve user {self._user_id} in this "
            "bucket; give the port of the right one with --api-port"
        )

    def _token(self) -> str:
        if self._token_file is None:
            return ""
        try:
            return Path(self._token_file).read_text("ascii").strip()
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"the token file {self._token_file} cannot be read: {error}", "give a file that holds a token"
            ) from error

    def _call(self, method: str, target: str, seconds: float, token: str | None) -> Answer:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self._settings.api_port, timeout=_CONNECT_SECONDS
        )
        try:
            connection.connect()
            connection.sock.settimeout(seconds)
            headers = {self._settings.jwt_header: f"Bearer {token}"} if token else {}
            connection.request(method, quote(target, safe="/?=&."), headers=headers)
            answer = connection.getresponse()
            body = json.loads(answer.read(_MOST_BYTES))
            if not isinstance(body, dict):
                raise ValueError("its answer is no JSON object")
            return answer.status, body
        finally:
            connection.close()


class _Told(Struct, frozen=True):
    """What an answer says went wrong; nothing where nothing did."""

    error: str | None
    kind: str | None
    hint: str | None


def _told(status: int, body: dict[str, Any]) -> _Told:
    error, hint = body.get("error"), body.get("hint")
    if status == 401:
        hint = "give the user's token with --token-file: this pod has no fixed user"
    if error is None and status >= 400:
        error = f"the sidecar answered {status}"
    return _Told(error, body.get("kind"), hint)


def _number(body: dict[str, Any], name: str) -> int:
    value = body.get(name)
    return value if isinstance(value, int) else 0


def _outage_kinds(root: type[SidecarError]) -> frozenset[str]:
    own = {root.kind} if root.outage else set()
    return frozenset(own).union(*(_outage_kinds(below) for below in root.__subclasses__()))
