"""Which keys verify what, and what is no key at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.api.identity import Verifier
from sidecar.api.keys import of_secret
from sidecar.api.refusals import TokenRefused
from sidecar.errors import SettingsError
from tests.api.serving import settings
from tests.api.signing import SECRET, Signer, bearer, jwk_of, pem_of, user_of


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
async def test_an_rsa_key_verifies_its_family(pem: dict[str, Any], signer: Signer, algorithm: str) -> None:
    assert await user_of(pem, bearer(signer.token("ben", algorithm=algorithm))) == "ben"


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_a_secret_verifies_its_family(secret: dict[str, Any], signer: Signer, algorithm: str) -> None:
    assert await user_of(secret, bearer(signer.token("ben", key=SECRET, algorithm=algorithm))) == "ben"


@pytest.mark.parametrize(("kid", "algorithm"), [("r1", "RS256"), ("e1", "ES256"), ("d1", "EdDSA")])
@pytest.mark.parametrize("named", [True, False])
async def test_a_key_set_verifies_with_and_without_a_key_id(
    jwks: dict[str, Any], signer: Signer, kid: str, algorithm: str, named: bool
) -> None:
    key = {"r1": signer.rsa, "e1": signer.ec, "d1": signer.ed}[kid]
    token = signer.token("ben", key=key, algorithm=algorithm, headers={"kid": kid} if named else None)
    assert await user_of(jwks, bearer(token)) == "ben"


async def test_a_certificate_serves_as_a_public_key(signer: Signer, tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    file.write_bytes(certificate(signer.rsa))
    given = {"user_id": None, "jwt_public_key_file": str(file)}
    assert await user_of(given, bearer(signer.token("ben"))) == "ben"


@pytest.mark.parametrize(
    ("variable", "content", "words"),
    [
        ("jwt_public_key_file", b"nothing", "neither a public key nor a certificate"),
        ("jwt_public_key_file", b"-----BEGIN PRIVATE KEY-----\n", "private key"),
        ("jwt_jwks_file", b"{}", "no JWK set"),
        ("jwt_jwks_file", b"[]", "no JWK set"),
        ("jwt_jwks_file", b'{"keys": []}', "none of its keys"),
        ("jwt_jwks_file", b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', "none of its keys"),
        ("jwt_jwks_file", b'{"keys": [{"kty": "RSA", "n": 1, "e": []}, 7]}', "none of its keys"),
        ("jwt_secret_file", b"short", "shorter than 32 bytes"),
        ("jwt_secret_file", b"", "shorter than 32 bytes"),
    ],
)
def test_a_file_that_holds_no_key_is_fatal_at_start(
    tmp_path: Path, variable: str, content: bytes, words: str
) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        Verifier.from_settings(settings(user_id=None, **{variable: str(file)}))
    assert words in str(caught.value) and str(file) in str(caught.value)


def test_a_public_key_is_never_taken_for_a_secret(signer: Signer, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        Verifier.from_settings(settings(user_id=None, jwt_secret_file=signer.public_pem_file(tmp_path)))
    assert "key pair" in str(caught.value)


def test_an_rsa_key_that_is_too_short_is_fatal_at_start(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    file = tmp_path / "key.pem"
    file.write_bytes(pem_of(rsa.generate_private_key(public_exponent=65537, key_size=1024)))
    with pytest.raises(SettingsError):
        Verifier.from_settings(settings(user_id=None, jwt_public_key_file=str(file)))


@pytest.mark.parametrize("name", ["HS256", "none", "None", "RS257"])
def test_an_algorithm_that_the_keys_cannot_have_is_fatal_at_start(pem: dict[str, Any], name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Verifier.from_settings(settings(**pem, jwt_algorithms=("RS256", name)))
    assert "CLAUDE_SIDECAR_JWT_ALGORITHMS" in str(caught.value)


def test_algorithms_of_which_no_key_has_one_are_fatal_at_start(pem: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        Verifier.from_settings(settings(**pem, jwt_algorithms=("ES256",)))


async def test_algorithms_can_be_narrowed(pem: dict[str, Any], signer: Signer) -> None:
    given = {**pem, "jwt_algorithms": ("PS256",)}
    assert await user_of(given, bearer(signer.token("ben", algorithm="PS256"))) == "ben"
    with pytest.raises(TokenRefused):
        await user_of(given, bearer(signer.token("ben", algorithm="RS256")))


async def test_a_key_that_names_its_algorithm_verifies_no_other(signer: Signer, tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [jwk_of(signer.rsa, "r1", alg="PS256")]}))
    given = {"user_id": None, "jwt_jwks_file": str(file)}
    assert await user_of(given, bearer(signer.token("ben", algorithm="PS256"))) == "ben"
    with pytest.raises(TokenRefused) as caught:
        await user_of(given, bearer(signer.token("ben", algorithm="RS256")))
    assert caught.value.reason == "algorithm"


async def test_a_key_for_encryption_verifies_nothing(signer: Signer, tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    keys = [jwk_of(signer.rsa, "r1", use="enc"), jwk_of(signer.ec, "e1")]
    file.write_text(json.dumps({"keys": keys}))
    with pytest.raises(TokenRefused) as caught:
        await user_of({"user_id": None, "jwt_jwks_file": str(file)}, bearer(signer.token("ben")))
    assert caught.value.reason in ("algorithm", "unknown_key")


def test_no_key_shows_the_secret_that_it_is() -> None:
    shown = f"{of_secret(b'not to be shown ' * 4)}"
    assert "HS256" in shown
    assert "not to be shown" not in shown


def test_a_short_secret_has_only_the_algorithms_it_is_long_enough_for(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("x" * 40)
    with pytest.raises(SettingsError):
        Verifier.from_settings(settings(user_id=None, jwt_secret_file=str(file), jwt_algorithms=("HS512",)))


@pytest.mark.parametrize("url", ["file:///etc/keys", "not a url", "https://", "http://[::1", "ftp://x/keys"])
def test_a_key_set_url_that_is_none_is_fatal_at_start(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Verifier.from_settings(settings(user_id=None, jwt_jwks_url=url))
    assert "CLAUDE_SIDECAR_JWT_JWKS_URL" in str(caught.value)


def certificate(key: Any) -> bytes:
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "issuer")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM)
