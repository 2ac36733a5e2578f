"""Entries of which nobody knows whether they arrived, and those that are only on their way."""

import threading
from pathlib import Path
from typing import Any

import pytest

from sidecar.area.objects import Listing
from sidecar.errors import StoreUnreachable
from sidecar.sync import doubts
from tests.sync.pods import MakeSettings, conflicts, objects, pods
from tests.sync.test_journal import LOG, Running, run  # noqa: F401


def test_a_flush_on_its_way_is_not_taken_for_one_that_was_lost(
    bucket: str,
    settings_for: MakeSettings,
    tmp_path: Path,
    run: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.append(LOG, "one\n")
    running: Running = run(pod)
    running.checkpoint()
    pod.append(LOG, "two\n")
    store, ledger = running.workspace.store, running.workspace.ledger
    listed, on_the_way = threading.Event(), threading.Event()
    put, list_keys = store.put, store.list

    def put_late(key: str, *rest: Any, **more: Any) -> str:
        on_the_way.set()
        assert listed.wait(10)
        return put(key, *rest, **more)

    def list_first(prefix: str, **more: Any) -> Listing:
        answer = list_keys(prefix, **more)  # without the entry
        listed.set()
        flushing.join()
        return answer

    monkeypatch.setattr(store, "put", put_late)
    monkeypatch.setattr(store, "list", list_first)
    flushing = threading.Thread(target=running.flush)
    flushing.start()
    assert on_the_way.wait(10)
    doubts.resolve(running.workspace)  # what a checkpoint begins with
    listed.set()
    flushing.join()
    assert len(ledger.entries()) == 1, "an acknowledged entry was forgotten"


def test_nothing_is_deleted_while_an_entry_of_it_is_in_doubt(
    bucket: str,
    settings_for: MakeSettings,
    tmp_path: Path,
    run: Any,  # noqa: F811
    s3: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1, deletions="mirror")
    pod.append(LOG, "one\n")
    pod.write("CLAUDE.md", "stays")
    pod.write("plans/a.md", "stays")
    running: Running = run(pod)
    running.checkpoint()
    pod.append(LOG, "two\n")
    store, ledger = running.workspace.store, running.workspace.ledger
    put, list_keys = store.put, store.list

    def lose_the_answer(key: str, *rest: Any, **more: Any) -> str:
        put(key, *rest, **more)
        raise StoreUnreachable("the answer was lost")

    def fail_once(prefix: str, **more: Any) -> Listing:
        if ledger.writer in prefix and failing.pop("once", None):
            raise StoreUnreachable("no answer")
        return list_keys(prefix, **more)

    with monkeypatch.context() as patched:
        patched.setattr(store, "put", lose_the_answer)
        running.flush()
    assert ledger.doubts()
    (Path(pod.settings.home) / LOG).unlink()
    failing = {"once": True}
    monkeypatch.setattr(store, "list", fail_once)
    for _ in range(4):
        running.checkpoint()
    assert LOG not in objects(s3, bucket)
    assert not ledger.doubts() and not ledger.entries(), "an entry of a forgotten path stays for ever"
    running.crash()
    (fresh,) = pods(settings_for, bucket, tmp_path / "fresh", 1)
    fresh.start()
    assert not (Path(fresh.settings.home) / LOG).exists()


def test_what_a_flush_tried_beside_a_settling_does_not_come_back_once_it_was_taken_back(
    bucket: str,
    settings_for: MakeSettings,
    tmp_path: Path,
    run: Any,  # noqa: F811
    s3: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.append(LOG, "one\n")
    running: Running = run(pod)
    running.checkpoint()
    pod.append(LOG, "two\n")
    running.flush()
    store = running.workspace.store
    put, waiting = store.put, ["three\n"]

    def flush_meanwhile(key: str, *rest: Any, **more: Any) -> str:
        if key.endswith(LOG) and waiting:
            pod.append(LOG, waiting.pop())
            running.flush()
        etag = put(key, *rest, **more)
        if "/journal/" in key:
            raise StoreUnreachable("the answer was lost")
        return etag

    with monkeypatch.context() as patched:
        patched.setattr(store, "put", flush_meanwhile)
        running.checkpoint()
    assert not waiting and objects(s3, bucket)[LOG] == b"one\ntwo\n"
    pod.write(LOG, "one\ntwo\n")
    for _ in range(3):
        running.checkpoint()
    running.crash()
    (fresh,) = pods(settings_for, bucket, tmp_path / "fresh", 1)
    fresh.start()
    assert fresh.read(LOG) == b"one\ntwo\n", "what the agent took back is there again"
    assert any(b"three\n" in data for data in conflicts(s3, bucket).values()), "it is kept nowhere"
