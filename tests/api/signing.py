"""Whoever issues tokens, whoever forges them, and the user that they then are."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from sidecar.api.identity import Verifier
from tests.api.serving import settings

SECRET = "a secret of sixty-four bytes and more, so that HS512 can have it, too."


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def by_hand(header: dict[str, Any], claims: Any, signature: bytes = b"") -> str:
    """A token put together without any library's good manners."""
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return ".".join((b64(json.dumps(header).encode()), b64(payload), b64(signature)))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def user_of(given: dict[str, Any], headers: dict[str, str]) -> str:
    return await Verifier.from_settings(settings(**given)).user_of(headers)


class Signer:
    """Keys and the tokens they sign."""

    def __init__(self) -> None:
        self.rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.ed = ed25519.Ed25519PrivateKey.generate()
        self.other_rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def public_pem(self) -> bytes:
        return pem_of(self.rsa)

    def public_pem_file(self, directory: Path) -> str:
        file = directory / "key.pem"
        file.write_bytes(self.public_pem)
        return str(file)

    def jwks(self, **kids: Any) -> bytes:
        """A key set of the pairs in `kids`; by default RSA as ``r1``, EC as ``e1``, Ed25519 as ``d1``."""
        pairs = kids or {"r1": self.rsa, "e1": self.ec, "d1": self.ed}
        return json.dumps({"keys": [jwk_of(pair, kid) for kid, pair in pairs.items()]}).encode()

    def token(
        self,
        user: Any = "ada",
        *,
        key: Any = None,
        algorithm: str = "RS256",
        headers: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A token of `user` for five minutes; a claim given as None is left out."""
        body = {"sub": user, "exp": time.time() + 300, **claims}
        body = {name: value for name, value in body.items() if value is not None}
        return jwt.encode(body, key or self.rsa, algorithm=algorithm, headers=headers)


def pem_of(pair: Any) -> bytes:
    return bytes(
        pair.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def jwk_of(pair: Any, kid: str, **more: Any) -> dict[str, Any]:
    kinds = {rsa.RSAPrivateKey: "RS256", ec.EllipticCurvePrivateKey: "ES256"}
    name = next((name for kind, name in kinds.items() if isinstance(pair, kind)), "EdDSA")
    algorithm: Any = jwt.get_algorithm_by_name(name)
    return {**algorithm.to_jwk(pair.public_key(), as_dict=True), "kid": kid, "use": "sig", **more}
