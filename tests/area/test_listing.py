"""Foreign keys, huge areas, and listings that lie: all is listed, or it is said why not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sidecar.area.store import Store
from sidecar.errors import ObjectArchived, StoreError, StoreUnreachable
from sidecar.settings import Settings
from tests import faults
from tests.area.conftest import Remote
from tests.fault_proxy import Exchange
from tests.servers import FaultProxy, ServerProcess


@pytest.fixture(params=["weed", "moto"])
def remote(request: pytest.FixtureRequest, remote_on: Callable[[str], Remote]) -> Remote:
    return remote_on(request.param)


@pytest.fixture
def moto_remote(remote_on: Callable[[str], Remote]) -> Remote:
    return remote_on("moto")


def skipped(store: Store, prefix: str = "p/") -> dict[str, str]:
    return {skip.key: skip.reason for skip in store.list(prefix).skipped}


@pytest.mark.parametrize("exact", [False, True])
def test_a_marker_is_skipped_and_an_empty_file_is_not(remote: Remote, exact: bool) -> None:
    for key in ("p/config/", "p/config/settings.json", "p/lonely/", "p/empty", "p/config2"):
        remote.write(key, b"" if key.endswith(("/", "empty")) else b"x")
    listing = remote.store.list("p/", exact=exact)
    assert set(listing.objects) == {"p/config/settings.json", "p/empty", "p/config2"}
    assert listing.objects["p/empty"].size == 0
    assert {skip.key: skip.reason for skip in listing.skipped} == {
        "p/config/": "a marker, not a file",
        "p/lonely/": "a marker, not a file",
    }


def test_a_marker_beside_an_empty_file_of_its_name_leaves_the_file(moto_remote: Remote) -> None:
    moto_remote.write("p/config/", b"")
    moto_remote.write("p/config", b"")
    assert set(moto_remote.store.list("p/").objects) == {"p/config"}


def test_many_empty_files_are_told_from_markers(remote: Remote) -> None:
    for number in range(20):
        remote.write(f"p/{number}/marker/", b"")
        remote.write(f"p/{number}/__init__.py", b"")
    listing = remote.store.list("p/")
    assert set(listing.objects) == {f"p/{number}/__init__.py" for number in range(20)}
    assert len(listing.skipped) == 20


def test_a_file_beside_a_directory_of_its_name_is_listed_with_it(remote: Remote) -> None:
    for key in ("p/a", "p/a/b", "p/a/b/c"):
        remote.write(key)
    assert set(remote.store.list("p/").objects) == {"p/a", "p/a/b", "p/a/b/c"}


def test_a_marker_with_content_is_found_by_the_exact_listing(moto_remote: Remote) -> None:
    moto_remote.write("p/marker/", b"with content")
    listing = moto_remote.store.list("p/", exact=True)
    assert not listing.objects
    assert [skip.key for skip in listing.skipped] == ["p/marker/"]


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("p/a//b", "an empty part, '.' or '..' in the name"),
        ("p/a/../b", "an empty part, '.' or '..' in the name"),
        ("p/./b", "an empty part, '.' or '..' in the name"),
        ("p/tab\tname", "a control character in the name"),
        ("p/escape\x1b[0m", "a control character in the name"),
        ("p/bell\x07", "a control character in the name"),
        ("p/back\\slash", "a backslash in the name"),
        ("p/" + "long" * 64, "a part of the name longer than 255 bytes"),
    ],
)
def test_one_foreign_key_is_named_and_hides_nothing(moto_remote: Remote, key: str, reason: str) -> None:
    moto_remote.write("p/before")
    moto_remote.write(key)
    moto_remote.write("p/z after + %2F ü")
    assert set(moto_remote.store.list("p/").objects) == {"p/before", "p/z after + %2F ü"}
    assert skipped(moto_remote.store) == {key: reason}
    moto_remote.store.check_bucket("p/")


def test_an_archived_object_is_named_where_the_listing_shows_it(moto_remote: Remote) -> None:
    moto_remote.write("p/a")
    moto_remote.write("p/old", b"x", StorageClass="GLACIER")
    listing = moto_remote.store.list("p/", exact=True)
    assert set(listing.objects) == {"p/a"}
    assert listing.skipped[0].reason == "in the archived storage class GLACIER"


def test_an_archived_object_cannot_be_opened_and_says_why(moto_remote: Remote) -> None:
    moto_remote.write("p/old", b"x", StorageClass="GLACIER")
    assert "p/old" in moto_remote.store.list("p/").objects
    with pytest.raises(ObjectArchived, match="p/old"):
        moto_remote.store.open("p/old")


def test_ten_thousand_and_one_keys_are_all_listed(
    remote_on: Callable[[str], Remote], rclone_server: ServerProcess
) -> None:
    remote = remote_on("rclone")
    assert rclone_server.directory is not None
    for number in range(10_001):
        path = rclone_server.directory / remote.bucket / "p" / str(number % 7) / f"{number:05}"
        if number < 7:
            path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    wanted = {f"p/{number % 7}/{number:05}" for number in range(10_001)}
    assert set(remote.store.list("p/").objects) == wanted
    assert set(remote.store.list("p/", exact=True).objects) == wanted


@pytest.fixture
def behind(
    bucket: str, s3: Any, fault_proxy: FaultProxy, settings_for: Callable[..., Settings]
) -> Iterator[Store]:
    """A store behind the proxy, in whose area there are the keys p/a and p/b."""
    for key in ("p/a", "p/b"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    yield Store.connect(settings_for(bucket, endpoint=fault_proxy.endpoint), outage_seconds=3)


@pytest.mark.parametrize(
    "fault",
    [
        faults.cut_body(100),
        faults.half_close(100),
        faults.reset_before(),
        faults.throttle(),
        faults.with_body(lambda body: body[: len(body) // 2]),
        faults.answer(500, "InternalError"),
        faults.with_body(lambda _: b"<Error><Code>InternalError</Code></Error>"),
        faults.with_body(lambda _: b""),
    ],
    ids=["cut", "half close", "reset", "throttled", "half the XML", "500", "200 with an error", "no body"],
)
@pytest.mark.parametrize("exact", [False, True])
def test_a_listing_that_breaks_is_made_again(
    behind: Store, fault_proxy: FaultProxy, fault: Any, exact: bool
) -> None:
    fault_proxy.on("GET", fault, part="list-type")
    assert set(behind.list("p/", exact=exact).objects) == {"p/a", "p/b"}


def test_a_key_that_is_listed_twice_stands_once(behind: Store, fault_proxy: FaultProxy) -> None:
    fault_proxy.on("GET", faults.with_listed_twice(), part="list-type", times=None)
    assert set(behind.list("p/").objects) == {"p/a", "p/b"}
    assert set(behind.list("p/", exact=True).objects) == {"p/a", "p/b"}


LOGIN_PAGE = b"<html><head><title>Log in</title></head><body>Console</body></html>"
BUCKETS = b"<ListAllMyBucketsResult><Owner/><Buckets/></ListAllMyBucketsResult>"


@pytest.mark.parametrize("body", [LOGIN_PAGE, BUCKETS, b"", b"hello", b"{}"])
@pytest.mark.parametrize("exact", [False, True])
def test_an_answer_that_is_not_a_listing_is_never_an_empty_area(
    behind: Store, fault_proxy: FaultProxy, body: bytes, exact: bool
) -> None:
    def as_page(response: faults.Response) -> None:
        response.status, response.body = 200, body

    fault_proxy.on("*", faults.rewrite(as_page), times=None)
    with pytest.raises(StoreError):
        behind.within(0).list("p/", exact=exact)
    for ask in (behind.check_bucket, behind.head, behind.open):
        with pytest.raises(StoreError, match="AWS_ENDPOINT_URL"):
            ask("p/a")


def test_a_missing_page_is_never_a_missing_object(behind: Store, fault_proxy: FaultProxy) -> None:
    def as_page(response: faults.Response) -> None:
        response.status, response.body = 404, LOGIN_PAGE

    fault_proxy.on("*", faults.rewrite(as_page), times=None)
    with pytest.raises(StoreError, match="404 without saying what is missing"):
        behind.head("p/a")
    with pytest.raises(StoreError, match="AWS_ENDPOINT_URL"):
        behind.open("p/a")


def test_a_full_page_that_may_have_lost_its_successor_is_listed_exactly(
    bucket: str, s3: Any, fault_proxy: FaultProxy, settings_for: Callable[..., Settings]
) -> None:
    wanted = {f"p/{number:04}" for number in range(1001)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: s3.put_object(Bucket=bucket, Key=key, Body=b"x"), wanted))
    without_token = faults.with_body(lambda body: body.replace(b"NextContinuationToken", b"Lost"))
    store = Store.connect(settings_for(bucket, endpoint=fault_proxy.endpoint), outage_seconds=0)
    fault_proxy.on("GET", without_token, part="list-type")
    assert set(store.list("p/").objects) == wanted
    fault_proxy.on("GET", without_token, part="list-type", times=None)
    with pytest.raises(StoreError, match="goes on, but not where"):
        store.list("p/")


def test_where_nothing_is_expected_both_questions_are_on_their_way_at_once(
    behind: Store, fault_proxy: FaultProxy
) -> None:
    both = threading.Barrier(2)

    def meet(exchange: Exchange) -> None:
        both.wait(timeout=30)
        faults.pass_on()(exchange)

    fault_proxy.on("GET", meet, part="list-type", times=2)
    assert not behind.list("q/", expected=False).objects
    assert len(fault_proxy.seen("GET", "list-type")) == 2


def test_the_second_question_is_for_one_page_only(
    bucket: str, s3: Any, fault_proxy: FaultProxy, settings_for: Callable[..., Settings]
) -> None:
    wanted = {f"p/{number:04}" for number in range(1001)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: s3.put_object(Bucket=bucket, Key=key, Body=b"x"), wanted))
    store = Store.connect(settings_for(bucket, endpoint=fault_proxy.endpoint))
    assert set(store.list("p/", expected=False).objects) == wanted
    for asking in threading.enumerate():
        if asking.name == "beside":
            asking.join(30)
    assert len(fault_proxy.seen("GET", "continuation-token")) == 1


def test_an_empty_area_is_empty_also_for_one_who_asks_twice(behind: Store) -> None:
    assert not behind.list("q/").objects
    assert not behind.list("q/", exact=True).objects
    behind.check_bucket("q/")


def test_an_outage_during_a_listing_is_an_outage(behind: Store, fault_proxy: FaultProxy) -> None:
    fault_proxy.down()
    with pytest.raises(StoreUnreachable) as caught:
        behind.within(0.3).list("p/")
    assert caught.value.outage
