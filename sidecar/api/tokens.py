"""Taking a token apart, before anything in it is believed.

Only what is needed to find the key is read here: ``alg`` and ``kid``. Headers that name a key or a place to
fetch one (``jku``, ``x5u``, ``jwk``, ``x5c``) are never looked at. ``crit`` is refused: we know no extension.
Format: https://www.rfc-editor.org/rfc/rfc7515 and rfc7519.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from sidecar.api.refusals import TokenRefused
from sidecar.names import user_id_problem

MOST_BYTES = 16 * 1024
"""A token is 1 to 8 KiB; with many groups in it, more. Proxies cut headers at 8 to 64 KiB."""
MOST_KID_CHARACTERS = 256


class TokenHead(Struct, frozen=True):
    """What a token says of its own signature, not verified."""

    algorithm: str
    kid: str | None


def found(headers: Mapping[str, str], name: str) -> str | None:
    """The token in header `name`, with or without ``Bearer``; None where there is none.

    Another scheme (``Basic …``) in ``Authorization`` is somebody else's credential: no token.

    Raises
    ------
    TokenRefused: two different tokens in one request.
    """
    values = {value.strip() for key, value in headers.items() if key.lower() == name.lower()}
    values.discard("")
    if not values:
        return None
    if len(values) > 1:
        raise TokenRefused("two_tokens", "the request carries two tokens")
    scheme, _, rest = values.pop().partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip() or None
    return None if rest else scheme


def head_of(token: str) -> TokenHead:
    """The head of `token`.

    Raises
    ------
    TokenRefused: it cannot be a token, or one that we may not accept.
    """
    header = _decoded(_parts(token)[0], "header")
    if "crit" in header:
        raise TokenRefused("crit", "it demands an extension (crit)")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str):
        raise TokenRefused("algorithm", "it names no algorithm")
    if kid is not None and (not isinstance(kid, str) or len(kid) > MOST_KID_CHARACTERS):
        raise TokenRefused("kid", "its key id is not a short text")
    return TokenHead(algorithm, kid)


def unverified_claims(token: str) -> dict[str, Any]:
    """The claims of `token` as they stand: for pods behind a gateway that verified them, and no others."""
    return _decoded(_parts(token)[1], "payload")


def user_in(claims: Mapping[str, Any], claim: str) -> str:
    """The user that `claim` names. A claim by that very name comes first; else its dots descend.

    Raises
    ------
    TokenRefused: no such claim, not a text, or a text that cannot be a user id.
    """
    value: Any = claims.get(claim)
    if value is None:
        value = claims
        for part in claim.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    if value is None:
        raise TokenRefused("claim_missing", f"it has no claim {claim}")
    if not isinstance(value, str):
        raise TokenRefused("claim_not_text", f"its claim {claim} is not a text")
    if problem := user_id_problem(value):
        raise TokenRefused("user_id", f"its claim {claim} cannot be a user id: {problem}")
    return value


def _parts(token: str) -> list[str]:
    if len(token) > MOST_BYTES:
        raise TokenRefused("too_large", f"it is larger than {MOST_BYTES} bytes")
    parts = token.split(".")
    if len(parts) != 3 or not token.isascii():
        raise TokenRefused("malformed", "it does not have the three parts of a signed token")
    return parts


def _decoded(part: str, name: str) -> dict[str, Any]:
    import orjson

    try:
        value = orjson.loads(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        raise TokenRefused("malformed", f"its {name} is not JSON in base64url") from None
    if not isinstance(value, dict):
        raise TokenRefused("malformed", f"its {name} is not a JSON object")
    return value
