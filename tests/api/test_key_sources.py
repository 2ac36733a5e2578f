"""Where keys come from, and what happens while they cannot be had."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sidecar.api import key_sources
from sidecar.api.identity import Verifier
from sidecar.api.refusals import IdentityUnavailable, TokenRefused
from tests.api.serving import Api, settings
from tests.api.signing import Signer, bearer, jwk_of

Serve = Callable[..., Awaitable[Api]]
Said = Callable[[], list[str]]


class Issuer:
    """An endpoint that gives a key set, or what it is told to give instead."""

    def __init__(self, document: bytes) -> None:
        self.document = self.good = document
        self.fetches = 0
        self.status = 200
        self.headers: dict[str, str] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.fetches += 1
        await self.gate.wait()
        if request.path == "/elsewhere":
            return web.Response(body=self.good)
        return web.Response(status=self.status, body=self.document, headers=self.headers)


@pytest.fixture
async def issuer(signer: Signer) -> AsyncIterator[Issuer]:
    issuer = Issuer(signer.jwks())
    application = web.Application()
    application.router.add_get("/{any:.*}", issuer.answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    issuer.url = f"http://127.0.0.1:{port}/keys"
    yield issuer
    await runner.cleanup()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def verifier(issuer: Issuer, clock: Clock) -> AsyncIterator[Verifier]:
    made = Verifier.from_settings(settings(user_id=None, jwt_jwks_url=issuer.url), clock=clock)
    yield made
    await made.close()


async def test_the_key_set_is_fetched_once_however_many_ask(
    verifier: Verifier, issuer: Issuer, signer: Signer
) -> None:
    token = signer.token("ben", headers={"kid": "r1"})
    users = await asyncio.gather(*(verifier.user_of(bearer(token)) for _ in range(50)))
    assert users == ["ben"] * 50
    assert await verifier.user_of(bearer(token)) == "ben"
    assert issuer.fetches == 1


async def test_an_unknown_key_id_fetches_again_but_not_more_often_than_the_floor(
    verifier: Verifier, issuer: Issuer, signer: Signer, clock: Clock
) -> None:
    await verifier.user_of(bearer(signer.token("ben", headers={"kid": "r1"})))
    issuer.document = signer.jwks(r1=signer.rsa, r2=signer.other_rsa)
    rotated = bearer(signer.token("ben", key=signer.other_rsa, headers={"kid": "r2"}))
    with pytest.raises(TokenRefused) as caught:
        await verifier.user_of(rotated)
    assert (caught.value.reason, issuer.fetches) == ("unknown_key", 1)
    clock.now += key_sources.FLOOR_SECONDS
    assert await verifier.user_of(rotated) == "ben"
    for n in range(50):
        with pytest.raises(TokenRefused):
            await verifier.user_of(bearer(signer.token("ben", headers={"kid": f"forged-{n}"})))
    assert issuer.fetches == 2


async def test_an_endpoint_that_went_away_leaves_the_known_keys(
    verifier: Verifier, issuer: Issuer, signer: Signer, clock: Clock, said: Said
) -> None:
    known = bearer(signer.token("ben", headers={"kid": "r1"}))
    await verifier.user_of(known)
    issuer.status = 500
    clock.now += 10 * key_sources.MAX_AGE_SECONDS
    for _ in range(3):
        assert await verifier.user_of(known) == "ben"
        clock.now += key_sources.FLOOR_SECONDS + 1
        await asyncio.sleep(0.02)
    assert len([line for line in said() if "could not be fetched" in line]) == 1
    # A token that only a fresh set could settle is our failure now, not a forgery.
    with pytest.raises(IdentityUnavailable):
        await verifier.user_of(bearer(signer.token("ben", headers={"kid": "r9"})))


async def test_an_old_key_set_is_fetched_again_without_anybody_waiting(
    verifier: Verifier, issuer: Issuer, signer: Signer, clock: Clock
) -> None:
    known = bearer(signer.token("ben", headers={"kid": "r1"}))
    await verifier.user_of(known)
    issuer.gate.clear()
    issuer.document = signer.jwks(r2=signer.other_rsa)
    clock.now += key_sources.MAX_AGE_SECONDS + 1
    assert await verifier.user_of(known) == "ben"
    issuer.gate.set()
    while True:
        try:
            await verifier.user_of(known)
        except TokenRefused as refusal:
            assert refusal.reason == "unknown_key"
            break
        await asyncio.sleep(0.005)
    assert issuer.fetches == 2


@pytest.mark.parametrize(
    ("status", "document", "headers"),
    [
        (503, b"{}", {}),
        (302, b"", {"Location": "/elsewhere"}),
        (200, b"no JSON", {}),
        (200, b'{"keys": []}', {}),
        (200, b"the key set, with white space up to one byte too many", {}),
        (200, json.dumps({"keys": [{"kty": "oct", "k": "AAAA", "kid": "r1"}]}).encode(), {}),
    ],
)
async def test_a_first_fetch_that_brings_nothing_is_our_failure_and_is_tried_again(
    verifier: Verifier,
    issuer: Issuer,
    signer: Signer,
    clock: Clock,
    status: int,
    document: bytes,
    headers: dict[str, str],
) -> None:
    issuer.status, issuer.document, issuer.headers = status, document, headers
    if b"too many" in document:
        issuer.document = issuer.good.ljust(key_sources.MOST_BYTES + 1)
    token = bearer(signer.token("ben", headers={"kid": "r1"}))
    for _ in range(5):
        with pytest.raises(IdentityUnavailable) as caught:
            await verifier.user_of(token)
    assert (caught.value.status, caught.value.kind) == (503, "identity_unavailable")
    assert issuer.fetches == 1
    issuer.status, issuer.document, issuer.headers = 200, signer.jwks(), {}
    clock.now += key_sources.RETRY_SECONDS
    assert await verifier.user_of(token) == "ben"


async def test_an_endpoint_that_does_not_answer_is_given_up_in_time(
    verifier: Verifier, issuer: Issuer, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_sources, "FETCH_SECONDS", 0.1)
    issuer.gate.clear()
    with pytest.raises(IdentityUnavailable):
        await verifier.user_of(bearer(signer.token("ben")))
    issuer.gate.set()


async def test_a_forged_token_does_not_even_fetch(verifier: Verifier, issuer: Issuer, signer: Signer) -> None:
    from tests.api.signing import by_hand

    for token in (by_hand({"alg": "none"}, {"sub": "ben"}), signer.token("ben", headers={"kid": "k" * 999})):
        with pytest.raises(TokenRefused):
            await verifier.user_of(bearer(token))
    assert issuer.fetches == 0


async def test_a_place_that_a_token_names_is_never_asked(
    verifier: Verifier, issuer: Issuer, signer: Signer
) -> None:
    headers = {"jku": issuer.url + "/forged", "x5u": issuer.url + "/forged", "kid": "r1"}
    with pytest.raises(TokenRefused):
        await verifier.user_of(bearer(signer.token("ben", key=signer.other_rsa, headers=headers)))
    assert issuer.fetches == 1  # the one of our own set


async def test_a_cold_key_set_is_200_and_failed_at_invocations_and_says_so_elsewhere(
    serve: Serve, issuer: Issuer, signer: Signer
) -> None:
    issuer.status = 500
    api = await serve(settings(user_id=None, jwt_jwks_url=issuer.url))
    token = signer.token("ben")
    first = await api.post("/invocations", token=token)
    assert (first.status, first.body["action"], first.body["kind"]) == (200, "failed", "identity_unavailable")
    assert (first.body["user_id"], first.body["synced"]) == ("", False)
    restore = await api.post("/v1/restore", token=token)
    assert (restore.status, restore.body["kind"]) == (502, "identity_unavailable")
    sync = await api.post("/v1/sync?wait=durable", token=token)
    assert (sync.status, sync.body["kind"]) == (503, "identity_unavailable")


# -- files


async def test_a_key_file_is_read_again_when_kubernetes_swaps_it(signer: Signer, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for directory, pair in ((old, signer.rsa), (new, signer.other_rsa)):
        directory.mkdir()
        (directory / "jwks.json").write_bytes(signer.jwks(r1=pair))
    current = tmp_path / "..data"
    current.symlink_to(old)
    given: dict[str, Any] = {"user_id": None, "jwt_jwks_file": str(tmp_path / "..data" / "jwks.json")}
    verifier = Verifier.from_settings(settings(**given))
    assert await verifier.user_of(bearer(signer.token("ben"))) == "ben"
    swap = tmp_path / "..data_tmp"
    swap.symlink_to(new)
    swap.rename(current)
    assert await verifier.user_of(bearer(signer.token("ben", key=signer.other_rsa))) == "ben"
    with pytest.raises(TokenRefused):
        await verifier.user_of(bearer(signer.token("ben")))


async def test_a_key_file_that_breaks_leaves_the_known_keys_and_is_said_once(
    signer: Signer, tmp_path: Path, said: Said
) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(signer.jwks())
    verifier = Verifier.from_settings(settings(user_id=None, jwt_jwks_file=str(file)))
    file.write_text("half a docu")
    token = bearer(signer.token("ben"))
    for _ in range(3):
        assert await verifier.user_of(token) == "ben"
    assert len([line for line in said() if "cannot be read again" in line]) == 1
    file.unlink()
    for _ in range(3):
        assert await verifier.user_of(token) == "ben"
    assert len([line for line in said() if "cannot be read again" in line]) == 2
    file.write_bytes(json.dumps({"keys": [jwk_of(signer.other_rsa, "r1")]}).encode())
    with pytest.raises(TokenRefused):
        await verifier.user_of(token)
