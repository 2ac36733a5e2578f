"""Whose request it is: fixed users, verified tokens, and a table of forged ones."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.api.identity import Verifier
from sidecar.api.refusals import OtherUser, Refusal, TokenMissing, TokenRefused
from sidecar.errors import SettingsError
from tests.api.serving import settings
from tests.api.signing import Signer, b64, bearer, by_hand, jwk_of, unb64, user_of

Said = Callable[[], list[str]]


async def test_a_fixed_user_needs_no_token() -> None:
    assert await user_of({}, {}) == "ada"


@pytest.mark.parametrize("prefix", ["Bearer ", "bearer ", "BEARER  ", ""])
async def test_the_token_comes_with_or_without_bearer(
    pem: dict[str, Any], signer: Signer, prefix: str
) -> None:
    assert await user_of(pem, {"authorization": prefix + signer.token("ben")}) == "ben"


async def test_the_header_is_the_one_that_was_set(pem: dict[str, Any], signer: Signer) -> None:
    given = {**pem, "jwt_header": "X-User-Token"}
    assert await user_of(given, {"x-user-token": signer.token("ben")}) == "ben"
    with pytest.raises(TokenMissing):
        await user_of(given, bearer(signer.token("ben")))


@pytest.mark.parametrize(
    ("claim", "claims"),
    [
        ("email", {"email": "ben"}),
        ("act.user.id", {"act": {"user": {"id": "ben"}}}),
        ("https://example.com/user.id", {"https://example.com/user.id": "ben"}),
    ],
)
async def test_the_claim_is_found_by_name_or_by_its_dots(
    pem: dict[str, Any], signer: Signer, claim: str, claims: dict[str, Any]
) -> None:
    token = signer.token("somebody else", **claims)
    assert await user_of({**pem, "jwt_claim": claim}, bearer(token)) == "ben"


async def test_issuer_and_audience_that_fit_are_accepted(pem: dict[str, Any], signer: Signer) -> None:
    given = {**pem, "jwt_issuer": "https://issuer.example", "jwt_audience": "agents"}
    token = signer.token("ben", iss="https://issuer.example", aud=["others", "agents"])
    assert await user_of(given, bearer(token)) == "ben"


async def test_an_audience_that_nobody_asked_for_does_not_matter(pem: dict[str, Any], signer: Signer) -> None:
    assert await user_of(pem, bearer(signer.token("ben", aud="others", iss="anybody"))) == "ben"


async def test_leeway_forgives_clocks(pem: dict[str, Any], signer: Signer) -> None:
    late = signer.token("ben", exp=time.time() - 5)
    assert await user_of({**pem, "jwt_leeway_seconds": 30.0}, bearer(late)) == "ben"
    with pytest.raises(TokenRefused):
        await user_of({**pem, "jwt_leeway_seconds": 2.0}, bearer(late))


async def test_a_fixed_user_may_send_a_token_of_their_own(pem: dict[str, Any], signer: Signer) -> None:
    given = {**pem, "user_id": "ada"}
    assert await user_of(given, bearer(signer.token("ada"))) == "ada"
    with pytest.raises(OtherUser) as refusal:
        await user_of(given, bearer(signer.token("ben")))
    assert refusal.value.status == 403


async def test_without_keys_a_fixed_user_refuses_only_a_token_that_names_another(signer: Signer) -> None:
    assert await user_of({}, bearer(signer.token("ada"))) == "ada"
    assert await user_of({}, bearer("sk-an-api-key-of-somebody")) == "ada"
    assert await user_of({}, bearer(signer.token(None, foo=1))) == "ada"
    with pytest.raises(OtherUser):
        await user_of({}, bearer(signer.token("ben")))


async def test_verification_can_be_left_to_a_gateway_and_that_is_said_loudly(
    signer: Signer, said: Said
) -> None:
    verifier = Verifier.from_settings(settings(user_id=None, jwt_verify=False))
    assert any(line.startswith("WARNING") and "NOT verified" in line for line in said())
    forged = by_hand({"alg": "none"}, {"sub": "ben"})
    assert await verifier.user_of(bearer(forged)) == "ben"
    with pytest.raises(TokenRefused):
        await verifier.user_of(bearer("no token at all"))
    with pytest.raises(TokenRefused):
        await verifier.user_of(bearer(by_hand({"alg": "none"}, {"sub": "../ada"})))


async def test_no_token_is_told_apart_from_a_bad_one(pem: dict[str, Any]) -> None:
    for headers in ({}, {"Authorization": ""}, {"Authorization": "Bearer "}, {"Authorization": "Basic eDp5"}):
        with pytest.raises(TokenMissing) as refusal:
            await user_of(pem, headers)
        assert refusal.value.status == 401
        assert refusal.value.headers["WWW-Authenticate"] == "Bearer"


def hs_with(key: bytes, header: dict[str, Any], claims: dict[str, Any]) -> str:
    unsigned = by_hand(header, claims).rpartition(".")[0]
    return f"{unsigned}.{b64(hmac.digest(key, unsigned.encode(), 'sha256'))}"


def good(**claims: Any) -> dict[str, Any]:
    return {"sub": "ben", "exp": time.time() + 300, **claims}


def relabelled(token: str, header: dict[str, Any]) -> str:
    """`token` under another header, its signature kept."""
    _, payload, signature = token.split(".")
    return f"{b64(json.dumps(header).encode())}.{payload}.{signature}"


# Each with the reason that the log gives. Where a case needs keys it takes them from the signer.
FORGED: dict[str, tuple[str, Callable[[Signer], str]]] = {
    "HS256 by the public key in PEM": (
        "algorithm",
        lambda s: hs_with(s.public_pem, {"alg": "HS256"}, good()),
    ),
    "HS256 by the public key in PEM, with kid": (
        "algorithm",
        lambda s: hs_with(s.public_pem, {"alg": "HS256", "kid": "r1"}, good()),
    ),
    "HS256 by nothing": ("algorithm", lambda s: hs_with(b"", {"alg": "HS256"}, good())),
    "alg none": ("algorithm", lambda s: by_hand({"alg": "none"}, good())),
    "alg None": ("algorithm", lambda s: by_hand({"alg": "None"}, good())),
    "alg nOnE": ("algorithm", lambda s: by_hand({"alg": "nOnE"}, good())),
    "alg none with a signature": ("algorithm", lambda s: by_hand({"alg": "none"}, good(), b"x" * 256)),
    "alg rs256 in small letters": ("algorithm", lambda s: relabelled(s.token("ben"), {"alg": "rs256"})),
    "alg a list": ("algorithm", lambda s: by_hand({"alg": ["RS256"]}, good())),
    "alg null": ("algorithm", lambda s: by_hand({"alg": None}, good())),
    "no alg": ("algorithm", lambda s: by_hand({"typ": "JWT"}, good())),
    "ES256 on the RSA key": (
        "algorithm",
        lambda s: by_hand({"alg": "ES256", "kid": "r1"}, good(), b"x" * 64),
    ),
    "empty signature": ("signature", lambda s: s.token("ben").rpartition(".")[0] + "."),
    "another's key": ("signature", lambda s: s.token("ben", key=s.other_rsa)),
    "another's key under our key id": (
        "signature",
        lambda s: s.token("ben", key=s.other_rsa, headers={"kid": "r1"}),
    ),
    "one byte of the payload changed": ("signature", lambda s: tampered(s.token("ben"))),
    "two signatures' halves": ("signature", lambda s: s.token("ben")[:-8] + s.token("cy")[-8:]),
    "a jwk of the forger's": (
        "signature",
        lambda s: s.token("ben", key=s.other_rsa, headers={"jwk": jwk_of(s.other_rsa, "r1")}),
    ),
    "a jku of the forger's": (
        "signature",
        lambda s: s.token("ben", key=s.other_rsa, headers={"jku": "http://127.0.0.1:1/keys"}),
    ),
    "an x5u of the forger's": (
        "signature",
        lambda s: s.token("ben", key=s.other_rsa, headers={"x5u": "http://127.0.0.1:1/cert"}),
    ),
    "an x5c of the forger's": (
        "signature",
        lambda s: s.token("ben", key=s.other_rsa, headers={"x5c": ["MIIB"]}),
    ),
    "crit": ("crit", lambda s: s.token("ben", headers={"crit": ["exp"]})),
    "crit b64": ("crit", lambda s: by_hand({"alg": "RS256", "b64": False, "crit": ["b64"]}, good())),
    "crit empty": ("crit", lambda s: s.token("ben", headers={"crit": []})),
    "b64 false": ("malformed", lambda s: by_hand({"alg": "RS256", "b64": False}, good())),
    "kid a path": ("unknown_key", lambda s: s.token("ben", headers={"kid": "../../../dev/null"})),
    "kid SQL": ("unknown_key", lambda s: s.token("ben", headers={"kid": "x' UNION SELECT 'k' --"})),
    "kid unknown": ("unknown_key", lambda s: s.token("ben", headers={"kid": "r2"})),
    "kid empty": ("unknown_key", lambda s: s.token("ben", headers={"kid": ""})),
    "kid huge": ("kid", lambda s: s.token("ben", headers={"kid": "k" * 5000})),
    "kid a number": ("kid", lambda s: by_hand({"alg": "RS256", "kid": 1}, good())),
    "kid a list": ("kid", lambda s: by_hand({"alg": "RS256", "kid": ["r1"]}, good())),
    "huge": ("too_large", lambda s: s.token("ben", more="x" * 20_000)),
    "no text in it": ("malformed", lambda s: "...."),
    "two parts": ("malformed", lambda s: "e30.e30"),
    "five parts: encrypted": ("malformed", lambda s: "e30.e30.e30.e30.e30"),
    "not base64": ("malformed", lambda s: "e30!.e30.e30"),
    "not ASCII": ("malformed", lambda s: "é30.e30.e30"),
    "header no JSON": ("malformed", lambda s: f"{b64(b'not json')}.e30.e30"),
    "header no object": ("malformed", lambda s: f"{b64(b'[1]')}.e30.e30"),
    "header deeply nested": ("malformed", lambda s: f"{b64(b'[' * 5000)}.e30.e30"),
    "payload no object": ("malformed", lambda s: signed(s, b"[1]")),
    "payload deeply nested": ("malformed", lambda s: signed(s, b"[" * 5000)),
    "payload no UTF-8": ("malformed", lambda s: signed(s, b"\xff\xfe")),
    "expired by a second": ("expired", lambda s: s.token("ben", exp=int(time.time()) - 1)),
    "expired for ever": ("expired", lambda s: s.token("ben", exp=0)),
    "exp no number": ("malformed", lambda s: s.token("ben", exp="soon")),
    "exp infinite": ("malformed", lambda s: signed(s, b'{"sub":"ben","exp":1e999}')),
    "no exp": ("no_expiry", lambda s: s.token("ben", exp=None)),
    "nbf in the future": ("not_yet_valid", lambda s: s.token("ben", nbf=time.time() + 60)),
    "iat in the future": ("not_yet_valid", lambda s: s.token("ben", iat=time.time() + 60)),
    "wrong issuer": ("issuer", lambda s: s.token("ben", iss="https://forger.example", aud="agents")),
    "issuer a list": ("issuer", lambda s: signed(s, with_iss(["https://issuer.example"]))),
    "no issuer": ("issuer", lambda s: s.token("ben", aud="agents")),
    "wrong audience": ("audience", lambda s: s.token("ben", iss="https://issuer.example", aud="others")),
    "audience nested": ("audience", lambda s: s.token("ben", iss="https://issuer.example", aud=[["agents"]])),
    "no audience": ("audience", lambda s: s.token("ben", iss="https://issuer.example")),
    "no such claim": ("claim_missing", lambda s: proper(s, None)),
    "claim a number": ("claim_not_text", lambda s: proper(s, 7)),
    "claim a list": ("claim_not_text", lambda s: proper(s, ["ben"])),
    "claim an object": ("claim_not_text", lambda s: proper(s, {"id": "ben"})),
    "claim true": ("claim_not_text", lambda s: proper(s, True)),
    "claim a path": ("user_id", lambda s: proper(s, "../ada")),
    "claim with a slash": ("user_id", lambda s: proper(s, "ada/x")),
    "claim with a NUL": ("user_id", lambda s: proper(s, "ada\x00")),
    "claim with a newline": ("user_id", lambda s: proper(s, "ada\nben")),
    "claim empty": ("user_id", lambda s: proper(s, "")),
    "claim too long": ("user_id", lambda s: proper(s, "x" * 257)),
}


def with_iss(issuer: Any) -> bytes:
    return json.dumps(good(iss=issuer, aud="agents")).encode()


def proper(signer: Signer, user: Any) -> str:
    return signer.token(user, iss="https://issuer.example", aud="agents")


def signed(signer: Signer, payload: bytes) -> str:
    """A token whose signature is right and whose payload is what no library would write."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    unsigned = f"{b64(json.dumps({'alg': 'RS256'}).encode())}.{b64(payload)}"
    signature = signer.rsa.sign(unsigned.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{unsigned}.{b64(signature)}"


def tampered(token: str) -> str:
    header, payload, signature = token.split(".")
    claims = json.loads(unb64(payload))
    return f"{header}.{b64(json.dumps({**claims, 'sub': 'root'}).encode())}.{signature}"


@pytest.mark.parametrize("name", FORGED)
async def test_a_forged_token_is_refused_for_its_own_reason_with_one_same_answer(
    name: str, jwks: dict[str, Any], signer: Signer, said: Said
) -> None:
    reason, make = FORGED[name]
    token = make(signer)
    bound = {"jwt_issuer": "https://issuer.example", "jwt_audience": "agents"}
    demands = bound if reason in ("issuer", "audience", "claim_missing", "claim_not_text", "user_id") else {}
    with pytest.raises(TokenRefused) as caught:
        await user_of({**jwks, **demands}, bearer(token))
    assert caught.value.reason == reason
    assert caught.value.status == 401
    assert caught.value.as_dict() == TokenRefused("any", "any").as_dict()
    lines = [line for line in said() if "A token was refused" in line]
    assert lines and lines[0].startswith("WARNING")
    assert all(len(part) < 8 or part not in line for line in said() for part in token.split("."))


@pytest.mark.parametrize("name", [n for n in FORGED if FORGED[n][0] in ("algorithm", "signature")])
async def test_what_a_key_set_refuses_a_public_key_refuses_too(
    name: str, pem: dict[str, Any], signer: Signer
) -> None:
    with pytest.raises(TokenRefused):
        await user_of(pem, bearer(FORGED[name][1](signer)))


@pytest.mark.parametrize("algorithm", ["none", "None", "RS256"])
async def test_a_secret_verifies_nothing_but_hmac(
    secret: dict[str, Any], signer: Signer, algorithm: str
) -> None:
    token = signer.token("ben") if algorithm == "RS256" else by_hand({"alg": algorithm}, good())
    with pytest.raises(TokenRefused) as caught:
        await user_of(secret, bearer(token))
    assert caught.value.reason == "algorithm"


async def test_the_same_reason_is_a_warning_once_a_minute_and_debug_between(
    pem: dict[str, Any], signer: Signer, said: Said
) -> None:
    now = [0.0]
    verifier = Verifier.from_settings(settings(**pem), clock=lambda: now[0])
    for second in (0, 1, 59, 61):
        now[0] = float(second)
        with pytest.raises(Refusal):
            await verifier.user_of(bearer(signer.token("ben", exp=1)))
    levels = [line.split(":")[0] for line in said() if "refused" in line]
    assert levels == ["WARNING", "DEBUG", "DEBUG", "WARNING"]


async def test_two_different_tokens_in_one_request_are_refused(pem: dict[str, Any], signer: Signer) -> None:
    with pytest.raises(TokenRefused):
        await user_of(pem, {"Authorization": signer.token("ada"), "authorization": signer.token("ben")})


def test_nobody_to_serve_is_fatal_at_start() -> None:
    with pytest.raises(SettingsError) as caught:
        Verifier.from_settings(settings(user_id=None))
    assert "CLAUDE_SIDECAR_USER_ID" in caught.value.hint
