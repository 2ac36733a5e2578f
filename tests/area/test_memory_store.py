"""The bucket in memory keeps what the real stores are held to, so that what is proven on it holds on them."""

from __future__ import annotations

import inspect
import io
from typing import Any

import pytest

from sidecar.area.objects import IfAbsent, IfMatch
from sidecar.area.store import Store
from sidecar.errors import ConditionFailed, ObjectArchived, ObjectMissing, StoreUnreachable
from tests.area import test_listing, test_store
from tests.area.conftest import Remote
from tests.sync.memory_store import Crash, Fate, Lie, MemoryBucket, MemoryStore, Refused

A_SERVER = {"behind", "bucket", "fault_proxy", "rclone_server", "remote_on", "s3", "settings_for"}


def _conformance(*modules: Any) -> dict[str, Any]:
    """The tests of the real stores that need nothing but a store: they run here with the fixtures below."""
    return {
        name: test
        for module in modules
        for name, test in vars(module).items()
        if name.startswith("test_") and A_SERVER.isdisjoint(inspect.signature(test).parameters)
    }


globals().update(_conformance(test_store, test_listing))


class Outside:
    """The calls of boto3 that the conformance tests make, on a bucket in memory."""

    def __init__(self, bucket: MemoryBucket) -> None:
        self._bucket = bucket

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, StorageClass: str = "") -> dict[str, str]:
        etag = self._bucket.put(Key, Body)
        if StorageClass:
            self._bucket.archive(Key)
        return {"ETag": etag}

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        version = self._bucket.objects[Key]
        return {"Body": io.BytesIO(version.body), "ContentType": version.content_type}

    def delete_object(self, *, Bucket: str, Key: str) -> None:
        self._bucket.delete(Key)

    def list_objects_v2(self, *, Bucket: str, Prefix: str) -> dict[str, Any]:
        return {"Contents": [{"Key": info.key} for info in self._bucket.listed(Prefix)]}


@pytest.fixture
def memory() -> MemoryBucket:
    return MemoryBucket()


@pytest.fixture
def store(memory: MemoryBucket) -> MemoryStore:
    return MemoryStore(memory)


@pytest.fixture(params=["guarded", "as moto answers", "opaque ETags"])
def guarded(request: pytest.FixtureRequest) -> Remote:
    bucket = MemoryBucket(missing_answer=412, opaque_etags=request.param == "opaque ETags")
    return Remote("memory", bucket.name, MemoryStore(bucket), Outside(bucket), None)


@pytest.fixture
def moto_remote(guarded: Remote) -> Remote:
    return guarded


@pytest.fixture(params=["memory", "rclone"])
def remote(request: pytest.FixtureRequest) -> Remote:
    bucket = MemoryBucket(missing_answer=412, honours_conditions=request.param != "rclone")
    made = Remote(request.param, bucket.name, MemoryStore(bucket), Outside(bucket), None)
    if request.param == "rclone":
        made.store.probe_conditions("p/own/")
    return made


# What a sync never asks for: versions and uploads (erasing), directories (all users), probes and listeners.
NOT_MODELLED = {
    "connect",
    "version_page",
    "unfinished_uploads",
    "remove_versions",
    "abort_upload",
    "probe_conditional_delete",
    "children",
    "listen",
    "weaker_guard",
    "carried",
    "moved_at",
    "credentials_end_at",
    "renew_credentials",
}


def test_it_has_the_methods_of_the_real_store_and_no_others() -> None:
    def interface(kind: type) -> dict[str, Any]:
        return {
            name: list(inspect.signature(value).parameters) if callable(value) else property
            for name, value in vars(kind).items()
            if not name.startswith("_") and name not in NOT_MODELLED
        }

    assert interface(MemoryStore) == interface(Store)


def test_a_condition_on_a_version_that_is_gone_is_answered_as_aws_does(
    memory: MemoryBucket, store: MemoryStore
) -> None:
    # 404, where others say 412: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
    with pytest.raises(ObjectMissing):
        store.put("p/a", b"x", condition=IfMatch('"gone"'), metadata={})
    with pytest.raises(Refused):
        memory.put("p/a", b"x", condition=IfMatch('"gone"'))
    assert not memory.objects


def test_a_key_listed_by_the_bytes_of_its_name_and_times_are_whole_seconds(memory: MemoryBucket) -> None:
    memory.clock = 5.9
    for key in ("p/é", "p/z", "p/A", "p/a/b", "p/a"):
        memory.put(key, b"x")
    assert [info.key for info in memory.listed("p/")] == ["p/A", "p/a", "p/a/b", "p/z", "p/é"]
    assert {info.modified for info in memory.listed("p/")} == {5.0}


def test_a_part_makes_another_etag_than_the_md5_of_the_whole(memory: MemoryBucket) -> None:
    small, large = MemoryStore(memory), MemoryStore(memory, single_put_bytes=4)
    assert small.put("p/a", b"12345678", condition=IfAbsent(), metadata={}).count("-") == 0
    assert large.put("p/b", b"12345678", condition=IfAbsent(), metadata={}).endswith('-4"')


@pytest.mark.parametrize(
    ("fate", "arrives"), [(Fate.UNREACHABLE, False), (Fate.LOST, True), (Fate.LATE, False)]
)
def test_an_outcome_that_stays_unknown_is_an_outage(
    memory: MemoryBucket, store: MemoryStore, fate: Fate, arrives: bool
) -> None:
    store.fates = [fate]
    with pytest.raises(StoreUnreachable):
        store.put("p/a", b"x", condition=IfAbsent(), metadata={})
    assert ("p/a" in memory.objects) == arrives


def test_an_answer_that_was_lost_is_cleared_up_by_the_mark_of_the_write(
    memory: MemoryBucket, store: MemoryStore
) -> None:
    store.fates = [Fate.CLEARED]
    etag = store.put("p/a", b"x", condition=IfAbsent(), metadata={})
    assert memory.objects["p/a"].etag == etag

    def outside(what: str) -> None:
        if what.startswith("look"):
            memory.put("p/b", b"theirs")

    slow = MemoryStore(memory, pass_point=outside)
    slow.fates = [Fate.CLEARED]
    with pytest.raises(ConditionFailed):
        slow.put("p/b", b"ours", condition=IfAbsent(), metadata={})
    assert memory.objects["p/b"].body == b"theirs"


def test_a_late_write_or_deletion_is_asked_for_its_condition_when_it_arrives(
    memory: MemoryBucket, store: MemoryStore
) -> None:
    etag = memory.put("p/a", b"one")
    store.fates = [Fate.LATE, Fate.LATE]
    with pytest.raises(StoreUnreachable):
        store.put("p/a", b"late", condition=IfMatch(etag), metadata={})
    with pytest.raises(StoreUnreachable):
        store.delete("p/a", if_match=etag)
    memory.put("p/a", b"two")
    memory.deliver()
    memory.deliver()
    assert memory.objects["p/a"].body == b"two"
    store.fates = [Fate.LATE]
    with pytest.raises(StoreUnreachable):
        store.put("p/b", b"late", condition=IfAbsent(), metadata={})
    memory.deliver()
    assert memory.objects["p/b"].body == b"late"


def test_a_crash_ends_the_request_before_or_after_it_took_effect(memory: MemoryBucket) -> None:
    for number, when in enumerate(("before", "after")):

        def kill(what: str, when: str = when) -> None:
            if what.startswith(f"{when} put"):
                raise Crash

        with pytest.raises(Crash):
            MemoryStore(memory, pass_point=kill).put(f"p/{number}", b"x", condition=IfAbsent(), metadata={})
    assert set(memory.objects) == {"p/1"}


def test_a_listing_can_lie_about_one_key(memory: MemoryBucket, store: MemoryStore) -> None:
    old = memory.put("p/a", b"one")
    memory.put("p/a", b"two")
    memory.put("p/b", b"x")
    store.lies = {"p/a": Lie.STALE, "p/b": Lie.LACKING}
    assert {key: info.etag for key, info in store.list("p/").objects.items()} == {"p/a": old}
    store.lies = {"p/a": Lie.TWICE}
    assert set(store.list("p/").objects) == {"p/a", "p/b"}


def test_a_storm_of_refusals_and_an_outage_write_nothing(memory: MemoryBucket, store: MemoryStore) -> None:
    store.fates = [Fate.REFUSED, Fate.REFUSED]
    for _ in range(2):
        with pytest.raises(ConditionFailed):
            store.put("p/a", b"x", condition=IfAbsent(), metadata={})
    store.outage = True
    for call in (lambda: store.list("p/"), lambda: store.head("p/a"), lambda: store.open("p/a")):
        with pytest.raises(StoreUnreachable):
            call()
    assert not memory.objects


def test_a_body_is_of_the_version_that_was_opened_and_resumes_only_that(
    memory: MemoryBucket, store: MemoryStore
) -> None:
    memory.put("p/a", b"one")
    with store.open("p/a") as download:
        memory.put("p/a", b"two")
        assert download.read() == b"one"
        store.fates = [Fate.CLEARED]
        with pytest.raises(ConditionFailed):
            download.read()
    memory.archive("p/a")
    with pytest.raises(ObjectArchived):
        store.open("p/a")
