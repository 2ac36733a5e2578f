"""What the metrics are told: one answer for each request, and the bytes of its body."""

from collections.abc import Callable

import pytest

from sidecar.area.objects import IfAbsent
from sidecar.area.store import Store
from sidecar.area.traffic import Listener
from sidecar.errors import ObjectMissing
from sidecar.settings import Settings


def test_each_request_is_told_once_however_many_chunks_its_body_has(
    bucket: str, settings_for: Callable[..., Settings]
) -> None:
    store = Store.connect(settings_for(bucket))
    store.list("p/")
    answered: list[tuple[str, str]] = []
    moved: list[tuple[str, int, int]] = []
    store.listen(
        Listener(
            lambda operation, seconds, kind: answered.append((operation, kind)),
            lambda operation, sent, received: moved.append((operation, sent, received)),
        )
    )
    body = bytes(3 * 1024 * 1024)
    store.put("p/a", body, condition=IfAbsent(), metadata={})
    with store.open("p/a") as download:
        assert sum(len(chunk) for chunk in download.chunks(64 * 1024)) == len(body)
    with pytest.raises(ObjectMissing), store.open("p/b"):
        pass
    assert answered == [("put", ""), ("get", ""), ("get", "object_missing")]
    assert sum(sent for _, sent, _ in moved) == len(body)
    assert sum(received for _, _, received in moved) == len(body)
