"""Forgetting a user: all of it goes, nothing else, and it does not come back by an older pod."""

import asyncio
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sidecar.area.connection import Connection
from sidecar.area.keys import AreaKeys
from sidecar.area.objects import IfAbsent
from sidecar.area.store import Store
from sidecar.area.versions import Version
from sidecar.errors import CredentialsRefused, FormatError, StoreUnreachable
from sidecar.sync import tombstones
from sidecar.sync.books import Books
from sidecar.sync.drain import Drain
from sidecar.sync.ending import Ending
from sidecar.sync.erasure import Erasure, Inventory, activity, erase, inventory
from sidecar.sync.flusher import Flusher
from sidecar.sync.flushing import Flushing
from sidecar.sync.initial import backup_failed, backup_home, initial_sync
from sidecar.sync.observers import Observers
from sidecar.sync.operations import Operations
from sidecar.sync.results import BackupResult
from sidecar.sync.tombstones import UserForgotten
from tests import faults
from tests.fault_proxy import Exchange, FaultProxy
from tests.servers import Server, client
from tests.sync.pods import T0, MakeSettings, Pod, objects, pods

ADA = AreaKeys("user_data", "ada")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def keys_of(s3: Any, bucket: str) -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def versions_of(s3: Any, bucket: str) -> list[tuple[str, bool]]:
    """(key, whether it is a delete marker) of all versions."""
    page = s3.list_object_versions(Bucket=bucket)
    found = [(entry["Key"], False) for entry in page.get("Versions", [])]
    return found + [(entry["Key"], True) for entry in page.get("DeleteMarkers", [])]


@pytest.fixture
def moto(moto_server: Server) -> Iterator[Any]:
    """The outside writer on moto."""
    outside = client(moto_server)
    yield outside
    outside.close()


@pytest.fixture
def versioned(moto: Any) -> str:
    """A bucket with versions."""
    name = f"versions-{uuid.uuid4().hex[:8]}"
    moto.create_bucket(Bucket=name)
    moto.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


# -- decisions


def test_whoever_wrote_within_the_window_may_still_be_writing() -> None:
    found = Inventory(newest_at=1000.0, newest_key="k", at=1100.0)
    assert activity(found, within_seconds=600) == "k was written 100 seconds ago"
    assert activity(found, within_seconds=99) == ""
    assert activity(Inventory(at=1100.0)) == "", "an empty area"
    assert activity(Inventory(newest_at=2000.0, newest_key="k", at=1100.0)), "a clock that went back"


# -- what goes and what stays


def test_everything_of_the_user_goes_and_nothing_of_anybody_else(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    pod.write("settings.json", "{}")
    pod.append("projects/-w/s.jsonl", "one\n")
    pod.backup()
    foreign = [
        "user_data/ada/other-tool",
        "user_data/ada/.claude/config/",
        "user_data/ada/.claude-sidecar/x/y",
    ]
    others = ["user_data/ada2/.claude/a", "user_data/adam", "other/ada/.claude/a", "user_data/a/.claude/b"]
    for key in foreign + others:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    erasure = erase(pod.store, ADA, now=NOW)
    assert erasure.left == ()
    assert erasure.tally.objects >= 5
    assert set(keys_of(s3, bucket)) == {*others, ADA.tombstone}
    assert tombstones.read(pod.store, ADA).forgotten_at == "2026-01-02T03:04:05+00:00"  # type: ignore[union-attr]


def test_versions_delete_markers_and_unfinished_uploads_go_too(
    versioned: str, settings_for: MakeSettings, moto_server: Server, moto: Any
) -> None:
    for body in (b"1", b"2", b"3"):
        moto.put_object(Bucket=versioned, Key="user_data/ada/.claude/a", Body=body)
    moto.put_object(Bucket=versioned, Key="user_data/ada/.claude/we & <you>//ü +%20", Body=b"4")
    moto.put_object(Bucket=versioned, Key="user_data/ada2/.claude/a", Body=b"5")
    moto.delete_object(Bucket=versioned, Key="user_data/ada/.claude/a")
    for key in ("user_data/ada/.claude/big", "user_data/ada2/.claude/big"):
        moto.create_multipart_upload(Bucket=versioned, Key=key)
    store = Store.connect(settings_for(versioned, server=moto_server))
    found = inventory(store, ADA)
    tally = found.tally
    assert (tally.objects, tally.old_versions, tally.markers, tally.uploads, tally.bytes) == (1, 3, 1, 1, 4)
    erasure = erase(store, ADA, now=NOW)
    assert (erasure.tally, erasure.left) == (tally, ())
    assert versions_of(moto, versioned) == [(ADA.tombstone, False), ("user_data/ada2/.claude/a", False)]
    uploads = moto.list_multipart_uploads(Bucket=versioned)["Uploads"]
    assert [upload["Key"] for upload in uploads] == ["user_data/ada2/.claude/big"]


def test_what_is_locked_stays_and_is_named_with_its_reason(
    settings_for: MakeSettings, moto_server: Server, moto: Any
) -> None:
    name = f"locked-{uuid.uuid4().hex[:8]}"
    moto.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    moto.put_object(Bucket=name, Key="user_data/ada/.claude/free", Body=b"1")
    moto.put_object(
        Bucket=name,
        Key="user_data/ada/.claude/kept",
        Body=b"2",
        ObjectLockMode="COMPLIANCE",
        ObjectLockRetainUntilDate=datetime.now(UTC) + timedelta(days=1),
    )
    erasure = erase(Store.connect(settings_for(name, server=moto_server)), ADA, now=NOW)
    (left,) = erasure.left
    assert left.key == "user_data/ada/.claude/kept"
    assert "AccessDenied" in left.reason
    assert "user_data/ada/.claude/free" not in dict(versions_of(moto, name))


def test_a_store_without_versions_is_erased_by_its_plain_list(
    rclone_server: Server, settings_for: MakeSettings
) -> None:
    outside = client(rclone_server)
    outside.create_bucket(Bucket="no-versions")
    for key in ("user_data/ada/.claude/a", "user_data/ada/.claude/b/c", "user_data/bob/.claude/a"):
        outside.put_object(Bucket="no-versions", Key=key, Body=b"x")
    store = Store.connect(settings_for("no-versions", server=rclone_server))
    assert not inventory(store, ADA).lists_versions
    erasure = erase(store, ADA, now=NOW)
    assert (erasure.tally.objects, erasure.left) == (2, ())
    assert set(keys_of(outside, "no-versions")) == {ADA.tombstone, "user_data/bob/.claude/a"}
    outside.close()


def test_a_server_that_does_not_look_at_the_prefix_costs_nobody_else_anything(
    versioned: str,
    settings_for: MakeSettings,
    moto_server: Server,
    moto: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for key in ("user_data/ada/.claude/a", "user_data/bob/.claude/a"):
        moto.put_object(Bucket=versioned, Key=key, Body=b"x")
        moto.create_multipart_upload(Bucket=versioned, Key=key)
    send = Connection.send_signed

    def without_prefix(
        self: Connection, what: str, operation: str, method: str, key: str, query: str = "", **more: Any
    ) -> Any:
        if operation in ("ListObjectVersions", "ListMultipartUploads"):
            query = query.replace("prefix=user_data%2Fada%2F&", "")
        return send(self, what, operation, method, key, query, **more)

    monkeypatch.setattr(Connection, "send_signed", without_prefix)
    erasure = erase(Store.connect(settings_for(versioned, server=moto_server)), ADA, now=NOW)
    assert (erasure.tally.objects, erasure.tally.uploads, erasure.left) == (1, 1, ())
    assert ("user_data/bob/.claude/a", False) in versions_of(moto, versioned)
    uploads = moto.list_multipart_uploads(Bucket=versioned)["Uploads"]
    assert [upload["Key"] for upload in uploads] == ["user_data/bob/.claude/a"]


def test_what_a_store_lists_without_a_version_goes_too(
    bucket: str, settings_for: MakeSettings, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.connect(settings_for(bucket))
    for key in ("a", "hidden"):
        s3.put_object(Bucket=bucket, Key=ADA.object(key), Body=b"x")
    page = store.version_page

    def hiding(prefix: str, after: Any = None) -> Any:
        seen = page(prefix, after)
        return replace(seen, versions=tuple(v for v in seen.versions if "hidden" not in v.key))

    monkeypatch.setattr(store, "version_page", hiding)
    assert erase(store, ADA, now=NOW).left == ()
    assert keys_of(s3, bucket) == [ADA.tombstone]


def test_ten_thousand_and_one_keys_go(bucket: str, settings_for: MakeSettings, s3: Any) -> None:
    store = Store.connect(settings_for(bucket))

    def put(number: int) -> None:
        store.put(ADA.object(f"{number % 100}/{number}"), b"", condition=IfAbsent(), metadata={})

    with ThreadPoolExecutor(32) as threads:
        list(threads.map(put, range(10_001)))
    erasure = erase(store, ADA, now=NOW)
    assert (erasure.tally.objects, erasure.left) == (10_001, ())
    assert keys_of(s3, bucket) == [ADA.tombstone]


# -- again, cut off, disturbed


def test_it_is_idempotent_and_a_new_beginning_can_be_forgotten_again(
    bucket: str, settings_for: MakeSettings, s3: Any
) -> None:
    store = Store.connect(settings_for(bucket))
    s3.put_object(Bucket=bucket, Key=ADA.object("a"), Body=b"x")
    first = erase(store, ADA, now=NOW)
    known = tombstones.read(store, ADA)
    second = erase(store, ADA, now=NOW + timedelta(days=1))
    assert (second.already, second.forgotten_at) == (True, first.forgotten_at)
    assert tombstones.read(store, ADA) == known
    s3.put_object(Bucket=bucket, Key=ADA.object("b"), Body=b"x")
    third = erase(store, ADA, now=NOW + timedelta(days=2))
    assert (third.already, third.left) == (False, ())
    assert tombstones.read(store, ADA) != known


def test_an_erasing_that_was_cut_off_is_finished_by_the_next(
    bucket: str, settings_for: MakeSettings, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.connect(settings_for(bucket))
    for number in range(5):
        s3.put_object(Bucket=bucket, Key=ADA.object(str(number)), Body=b"x")
    remove = store.remove_versions

    def cut_off(versions: Any) -> Any:
        remove(list(versions)[:2])
        raise StoreUnreachable("the line went dead")

    monkeypatch.setattr(store, "remove_versions", cut_off)
    with pytest.raises(StoreUnreachable):
        erase(store, ADA, now=NOW)
    assert ADA.tombstone in keys_of(s3, bucket), "the tombstone comes first"
    assert len(keys_of(s3, bucket)) == 4
    monkeypatch.undo()
    assert erase(store, ADA, now=NOW).left == ()
    assert keys_of(s3, bucket) == [ADA.tombstone]


def test_what_somebody_writes_meanwhile_goes_too(bucket: str, settings_for: MakeSettings, s3: Any) -> None:
    store = Store.connect(settings_for(bucket))
    s3.put_object(Bucket=bucket, Key=ADA.object("a"), Body=b"x")
    late = iter([ADA.object("late"), ADA.object("later")])

    def disturb(count: int) -> None:
        if key := next(late, None):
            s3.put_object(Bucket=bucket, Key=key, Body=b"x")

    assert erase(store, ADA, now=NOW, removed=disturb).left == ()
    assert keys_of(s3, bucket) == [ADA.tombstone]


def test_a_store_that_only_says_that_it_removed_is_not_believed(
    bucket: str, settings_for: MakeSettings, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.connect(settings_for(bucket))
    s3.put_object(Bucket=bucket, Key=ADA.object("a"), Body=b"x")

    def pretend(versions: list[Version]) -> dict[Version, str]:
        return {}

    monkeypatch.setattr(store, "remove_versions", pretend)
    (left,) = erase(store, ADA, now=NOW).left
    assert left.reason == "the store said that it was removed, and still shows it"


# -- the tombstone


def forgotten(pod: Pod) -> Erasure:
    return erase(pod.store, ADA, now=NOW)


def test_an_older_ledger_uploads_nothing_and_says_what_to_do(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    pod.append("projects/-w/s.jsonl", "one\n")
    pod.backup()
    forgotten(pod)
    pod.append("projects/-w/s.jsonl", "two\n")
    pod.write("settings.json", "{}")
    with pod.open() as workspace:
        for _ in range(2):
            with pytest.raises(UserForgotten, match="a new pod begins anew"):
                backup_home(workspace)
        with pytest.raises(UserForgotten):
            Flusher(workspace).flush()
    assert keys_of(s3, bucket) == [ADA.tombstone]
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1, "said once, not at each interval"
    assert "was forgotten on 2026-01-02T03:04:05+00:00" in errors[0]


def test_a_pod_that_ends_writes_no_end_mark_into_an_area_that_was_forgotten(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    pod.append("projects/-w/s.jsonl", "one\n")
    with pod.open() as workspace:
        flusher = Flusher(workspace)
        assert flusher.flush().durable
        forgotten(pod)
        assert flusher.flush().durable, "a flush with nothing to send asks nothing"
        with pytest.raises(UserForgotten):
            flusher.say_ended()
    assert keys_of(s3, bucket) == [ADA.tombstone]


def test_who_knows_that_its_user_was_forgotten_calls_nothing_durable_though_it_has_nothing_to_send(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    pod.write("plans/a.md", "one", mtime_ns=T0)
    pod.backup()
    forgotten(pod)
    pod.write("plans/b.md", "two")
    with pytest.raises(UserForgotten):
        pod.backup()
    (pod.home / "plans/b.md").unlink()
    with pytest.raises(UserForgotten):
        pod.backup()
    s3.delete_object(Bucket=bucket, Key=ADA.tombstone)
    assert pod.backup().durable


def test_who_knows_that_its_user_was_forgotten_calls_nothing_durable_though_the_bucket_is_away_in_the_end(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    pod.write("plans/a.md", "one", mtime_ns=T0)
    pod.backup()
    forgotten(pod)
    pod.write("plans/b.md", "two")

    async def nobody(*_: object) -> Any:
        raise AssertionError("the workspace is open already")

    with pod.open() as workspace:
        with pytest.raises(UserForgotten):
            backup_home(workspace)
        (pod.home / "plans/b.md").unlink()
        operations = Operations("ada", pod.settings, nobody)
        operations.workspace = workspace
        books = Books("ada")
        ending = Ending(
            operations, Flushing(operations, books, Observers(), nobody, print, Drain(1)), books, nobody
        )

        async def ended() -> BackupResult:
            async def away() -> BackupResult:
                return backup_failed("ada", StoreUnreachable("no answer"))

            last = asyncio.create_task(away())
            await last
            return await ending.outcome(last)

        assert not asyncio.run(ended()).durable


def test_what_was_only_flushed_and_then_deleted_is_not_put_into_an_area_that_was_forgotten(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    pod.write("plans/a.md", "one", mtime_ns=T0)
    pod.backup()
    forgotten(pod)
    pod.write("plans/b.md", "two")
    with pod.open() as workspace:
        Flusher(workspace).flush()
        (pod.home / "plans/b.md").unlink()
        backup_home(workspace)
        with pytest.raises(UserForgotten):
            backup_home(workspace)
    assert not objects(s3, bucket)


def test_a_tombstone_that_was_taken_away_stops_nobody(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    pod.write("settings.json", "{}")
    pod.backup()
    forgotten(pod)
    pod.write("settings.json", '{"v": 2}')
    with pytest.raises(UserForgotten):
        pod.backup()
    s3.delete_object(Bucket=bucket, Key=ADA.tombstone)
    assert pod.backup().durable
    with pod.open() as workspace:
        assert Flusher(workspace).flush().durable


def test_a_fresh_ledger_made_after_the_tombstone_works_normally(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    old, new, next_one = pods(settings_for, bucket, tmp_path, 3)
    old.start()
    old.write("settings.json", "{}")
    old.backup()
    forgotten(old)
    assert new.start().action == "fresh"
    new.write("CLAUDE.md", "a new beginning", mtime_ns=T0)
    assert new.backup().durable
    next_one.start()
    next_one.write("plans/p.md", "more")
    assert next_one.backup().durable
    assert objects(s3, bucket) == {"CLAUDE.md": b"a new beginning", "plans/p.md": b"more"}
    old.write("settings.json", '{"v": 2}')
    with pytest.raises(UserForgotten):
        old.backup()
    forgotten(new)
    new.write("CLAUDE.md", "again")
    with pytest.raises(UserForgotten):
        new.backup()


def test_a_pod_whose_first_upload_was_cut_off_does_not_finish_it_after_the_tombstone(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1, concurrency=1)
    for number in range(4):
        pod.write(f"plans/{number}.md", "x")
    asked = iter(range(100))
    pod.start(stop=lambda: next(asked) >= 2)
    assert objects(s3, bucket)
    with pod.open() as workspace:
        workspace.ledger.set_header(replace(workspace.ledger.header, restored=False, compared=False))
    forgotten(pod)
    with pytest.raises(UserForgotten):
        pod.start()
    assert keys_of(s3, bucket) == [ADA.tombstone]


def test_a_tombstone_asked_for_by_an_attempt_that_failed_takes_nothing_back_from_the_next(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, fault_proxy: FaultProxy
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1, endpoint=fault_proxy.endpoint)
    pod.write("CLAUDE.md", "x")
    held, released = threading.Event(), threading.Event()

    def hold(exchange: Exchange) -> None:
        held.set()
        released.wait(30)
        exchange.answer(exchange.ask_server())

    before = set(threading.enumerate())
    fault_proxy.on("GET", hold, part=ADA.tombstone)
    fault_proxy.on("GET", faults.answer(403, "SignatureDoesNotMatch"), part="journal", times=None)
    with pod.open() as workspace:
        with pytest.raises(CredentialsRefused):
            initial_sync(workspace)
        assert held.wait(30)
        left = [one for one in threading.enumerate() if one not in before and one.name == "beside"]
        fault_proxy.clear()
        assert initial_sync(workspace).action == "uploaded"
        assert workspace.ledger.header.restored
        released.set()
        for thread in left:
            thread.join(30)
        assert workspace.ledger.header.restored


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"garbage", b'{"version": "2.0", "id": "x", "forgotten_at": "y"}']
)
def test_a_tombstone_that_cannot_be_read_lets_restore_and_holds_uploads(
    data: bytes, bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    s3.put_object(Bucket=bucket, Key=ADA.object("CLAUDE.md"), Body=b"there")
    s3.put_object(Bucket=bucket, Key=ADA.tombstone, Body=data)
    assert pod.start().action == "restored"
    pod.write("settings.json", "{}")
    with pytest.raises(FormatError):
        pod.backup()
    assert "settings.json" not in objects(s3, bucket)


def test_the_next_minor_format_is_read(bucket: str, settings_for: MakeSettings, s3: Any) -> None:
    data = b'{"version": "1.1", "id": "i", "forgotten_at": "t", "new": 1}'
    assert tombstones.decoded(data, "k") == tombstones.Tombstone("i", "t")
    again = tombstones.decoded(tombstones.encoded(tombstones.Tombstone("i", "t")), "k")
    assert again == tombstones.Tombstone("i", "t")
