"""The keys that tokens are verified with, each with the algorithms that it may be used for.

The algorithms come from the key, never from a token: a public key verifies no HMAC, whatever a token says.
``none`` is in no list. https://www.rfc-editor.org/rfc/rfc8725#section-3.1
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from sidecar.errors import SettingsError

RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
ASYMMETRIC = RSA | frozenset(CURVES.values()) | {"EdDSA"}
# A secret is at least as long as the hash: https://www.rfc-editor.org/rfc/rfc7518#section-3.2
HMAC_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}

MOST_KEYS = 100
RSA_BITS = 2048
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})


class Key(Struct, frozen=True):
    """One key. ``kid`` is None where the source names none."""

    kid: str | None
    algorithms: frozenset[str]
    material: Any

    def __repr__(self) -> str:
        return f"Key({self.kid!r}, {sorted(self.algorithms)})"  # the material may be the shared secret


class KeysUnusable(ValueError):
    """A source that holds no key we can use: half a sentence that says why."""


def of_jwks(document: bytes) -> tuple[Key, ...]:
    """The public signature keys of a JWK set (RFC 7517); others in it are passed over.

    Raises
    ------
    KeysUnusable: no JWK set, or none of its keys can be used.
    """
    import orjson

    try:
        listed = orjson.loads(document)["keys"]
    except (ValueError, TypeError, KeyError):
        raise KeysUnusable("it is no JWK set: a JSON object with a list named keys") from None
    if not isinstance(listed, list) or len(listed) > MOST_KEYS:
        raise KeysUnusable(f"its keys are not a list of at most {MOST_KEYS}")
    keys = tuple(key for jwk in listed if isinstance(jwk, dict) and (key := _of_jwk(jwk)) is not None)
    if not keys:
        raise KeysUnusable(
            "none of its keys is a public key for signatures (RSA from 2048 bits, EC, Ed25519)"
        )
    return keys


def of_pem(pem: bytes) -> tuple[Key, ...]:
    """The public key of a PEM block: a public key or a certificate.

    Raises
    ------
    KeysUnusable: not one of these, or a private key.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE KEY" in pem:
        raise KeysUnusable("it is a private key; give the public one")
    try:
        if b"BEGIN CERTIFICATE" in pem:
            material: Any = x509.load_pem_x509_certificate(pem).public_key()
        else:
            material = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise KeysUnusable("it is neither a public key nor a certificate in PEM") from None
    algorithms = _algorithms_of(material)
    if not algorithms:
        raise KeysUnusable("its key is not RSA of 2048 bits and more, EC P-256 to P-521, or Ed25519")
    return (Key(None, algorithms, material),)


def of_secret(secret: bytes) -> tuple[Key, ...]:
    """The shared secret of a file; one line end behind it is not part of it.

    Raises
    ------
    KeysUnusable: too short, or in truth a public key.
    """
    material = secret.removesuffix(b"\n").removesuffix(b"\r")
    if b"-----BEGIN" in material or material.startswith(b"ssh-"):
        raise KeysUnusable(
            "it is half of a key pair, not a secret; that goes to CLAUDE_SIDECAR_JWT_PUBLIC_KEY_FILE"
        )
    algorithms = frozenset(name for name, least in HMAC_BYTES.items() if len(material) >= least)
    if not algorithms:
        raise KeysUnusable("it is shorter than 32 bytes, the least for HS256")
    return (Key(None, algorithms, material),)


def allowed(possible: Iterable[str], wanted: tuple[str, ...]) -> frozenset[str]:
    """The algorithms in force: those of `wanted` (empty: all) that the source of keys can have.

    Raises
    ------
    SettingsError: one is wanted that the source can never have.
    """
    possible = frozenset(possible)
    if strange := [name for name in wanted if name not in possible]:
        raise SettingsError(
            f"CLAUDE_SIDECAR_JWT_ALGORITHMS names {strange[0]!r}, which this source of keys cannot verify",
            f"give some of {', '.join(sorted(possible))}, or unset it",
        )
    return frozenset(wanted) or possible


def _of_jwk(jwk: dict[str, Any]) -> Key | None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from jwt import PyJWK, PyJWTError

    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    if jwk.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    public = {name: value for name, value in jwk.items() if name not in _PRIVATE_MEMBERS and name != "alg"}
    try:
        material = PyJWK(public).key
    except (PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    algorithms = _algorithms_of(material)
    if "alg" in jwk:
        algorithms &= {jwk["alg"]} if isinstance(jwk["alg"], str) else set()
    kid = jwk.get("kid")
    return Key(kid if isinstance(kid, str) else None, algorithms, material) if algorithms else None


def _algorithms_of(material: Any) -> frozenset[str]:
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

    if isinstance(material, rsa.RSAPublicKey):
        return RSA if material.key_size >= RSA_BITS else frozenset()
    if isinstance(material, ec.EllipticCurvePublicKey):
        return frozenset({CURVES[material.curve.name]} if material.curve.name in CURVES else ())
    if isinstance(material, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return frozenset({"EdDSA"})
    return frozenset()
