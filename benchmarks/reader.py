"""The outside reader: looks into the bucket all the time and notes when it first saw what."""

from __future__ import annotations

import threading
import time
from typing import Any

from benchmarks.bed import BUCKET, Place
from sidecar.area import journal
from sidecar.area.journal import Lines

PAUSE_SECONDS = 0.01


class Reader:
    """``with Reader(place) as reader:``; knows the journal and the objects of `place`'s user.

    A look at the journal costs a LIST and a GET for each new entry: its duration is part of the figures.
    """

    def __init__(self, place: Place) -> None:
        from obstore.store import S3Store

        aws = place.settings.aws
        self._store: Any = S3Store(
            BUCKET,
            endpoint=aws["AWS_ENDPOINT_URL"],
            access_key_id=aws["AWS_ACCESS_KEY_ID"],
            secret_access_key=aws["AWS_SECRET_ACCESS_KEY"],
            region=aws["AWS_REGION"],
            client_options={"allow_http": True},
        )
        self._root = f"user_data/{place.user}/"
        self._known: set[str] = set()
        self._ends: dict[str, list[tuple[float, int]]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        self._thread.join()

    def seen_at(self, path: str, end: int) -> float | None:
        """When the first `end` bytes of `path` were first seen in the bucket (``time.monotonic()``)."""
        return next((at for at, seen in self._ends.get(path, ()) if seen >= end), None)

    def wait_for(self, path: str, end: int, limit_seconds: float = 120.0) -> float:
        deadline = time.monotonic() + limit_seconds
        while (at := self.seen_at(path, end)) is None:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise RuntimeError(f"{path} did not become durable in {limit_seconds:g} s")
            time.sleep(0.005)
        return at

    def _look_on(self) -> None:
        next_objects = 0.0
        while not self._stopping.is_set():
            self._look_at_journal()
            if time.monotonic() > next_objects:  # a checkpoint's and the large files' way; rarely the first
                self._look_at_objects()
                next_objects = time.monotonic() + 0.25
            self._stopping.wait(PAUSE_SECONDS)

    def _look_at_journal(self) -> None:
        import obstore

        for page in obstore.list(self._store, self._root + ".claude-sidecar/journal/"):
            for info in page:
                key = info["path"]
                if key in self._known:
                    continue
                try:
                    body = bytes(obstore.get(self._store, key).bytes())
                except FileNotFoundError:
                    continue
                self._known.add(key)
                for record in journal.decoded(body, key).records:
                    end = record.end if isinstance(record, Lines) else len(record.data)
                    self._note(record.path, end)

    def _look_at_objects(self) -> None:
        import obstore

        prefix = self._root + ".claude/"
        for page in obstore.list(self._store, prefix):
            for info in page:
                self._note(info["path"][len(prefix) :], info["size"])

    def _note(self, path: str, end: int) -> None:
        ends = self._ends.setdefault(path, [])
        if not ends or end > ends[-1][1]:
            ends.append((time.monotonic(), end))
