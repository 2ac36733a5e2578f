"""Whose request it is: the fixed user, or the one that a verified token names.

Every token that does not hold gets one and the same answer; the log says why, and never holds the token.
jwt (and with it OpenSSL, 9 MiB) is imported by the first token that must be verified: a pod with a fixed
user never pays for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from sidecar.api import tokens
from sidecar.api.key_sources import FileKeys, KeySource, KeysWanted, RemoteKeys
from sidecar.api.keys import ASYMMETRIC, HMAC_BYTES, Key, allowed, of_jwks, of_pem, of_secret
from sidecar.api.refusals import IdentityUnavailable, OtherUser, Refusal, TokenMissing, TokenRefused
from sidecar.errors import SettingsError
from sidecar.logs import log
from sidecar.settings import Settings

SAID_AGAIN_SECONDS = 60.0
"""A reason for refusing tokens is a WARNING once in this time, and DEBUG between: the agent can send many."""


class Demands(Struct, frozen=True):
    """What a token must hold besides its signature."""

    algorithms: frozenset[str]
    issuer: str | None
    audience: str | None
    leeway_seconds: float


class Verifier:
    """Answers whose request it is. `from_settings` makes one."""

    def __init__(
        self,
        settings: Settings,
        source: KeySource | None,
        demands: Demands,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fixed = settings.user_id
        self._claim = settings.jwt_claim
        self._header = settings.jwt_header
        self._source = source
        self._demands = demands
        self._clock = clock
        self._said: dict[str, float] = {}
        self._tell_refused: Callable[[str], None] = lambda reason: None
        self._tell_unavailable: Callable[[], None] = lambda: None

    @classmethod
    def from_settings(cls, settings: Settings, clock: Callable[[], float] = time.monotonic) -> Verifier:
        """The verifier that `settings` ask for.

        Raises
        ------
        SettingsError: neither a fixed user nor a source of keys, or a source that cannot be used.
        """
        source, possible = _source(settings, clock) if settings.jwt_verify else (None, frozenset())
        if source is None and settings.user_id is None:
            if settings.jwt_verify:
                raise SettingsError(
                    "nobody says whose .claude this is: there is neither a fixed user nor a source of keys",
                    "set CLAUDE_SIDECAR_USER_ID, or one of CLAUDE_SIDECAR_JWT_JWKS_URL, _JWT_JWKS_FILE,"
                    " _JWT_PUBLIC_KEY_FILE and _JWT_SECRET_FILE",
                )
            log.warning(
                "CLAUDE_SIDECAR_JWT_VERIFY is false: tokens are NOT verified, and whoever reaches the API can"
                " be any user. Use it only behind a gateway that verified them."
            )
        algorithms = allowed(possible, settings.jwt_algorithms) if source else frozenset()
        if isinstance(source, FileKeys):
            source.demand(algorithms)
        demands = Demands(algorithms, settings.jwt_issuer, settings.jwt_audience, settings.jwt_leeway_seconds)
        return cls(settings, source, demands, clock)

    def tell(self, refused: Callable[[str], None], unavailable: Callable[[], None]) -> None:
        """Who counts: `refused` gets the reason of each token that does not hold."""
        self._tell_refused, self._tell_unavailable = refused, unavailable

    async def user_of(self, headers: Mapping[str, str]) -> str:
        """The user of the request with `headers`.

        Raises
        ------
        TokenMissing, TokenRefused (401), OtherUser (403), IdentityUnavailable (503: our failure).
        """
        user = await self.user_if_any(headers)
        if user is None:
            raise TokenMissing(self._header)
        return user

    async def user_if_any(self, headers: Mapping[str, str]) -> str | None:
        """As `user_of`, and None where no user is fixed and no token came."""
        try:
            return await self._user_with_fresh_keys(headers)
        except IdentityUnavailable:
            self._tell_unavailable()
            raise

    def user_now(self, headers: Mapping[str, str]) -> str | None:
        """As `user_if_any` with what is at hand, without waiting; None also where that does not settle it."""
        try:
            return self._user(headers)
        except (KeysWanted, Refusal):
            return None

    async def close(self) -> None:
        """End what runs in the background."""
        if self._source is not None:
            await self._source.close()

    async def _user_with_fresh_keys(self, headers: Mapping[str, str]) -> str | None:
        try:
            return self._user(headers)
        except KeysWanted:
            if self._source is not None:
                await self._source.refresh()
        try:
            return self._user(headers)
        except KeysWanted:
            raise IdentityUnavailable("the key set was not there in time") from None

    def _user(self, headers: Mapping[str, str]) -> str | None:
        try:
            return self._user_or_refusal(headers)
        except TokenRefused as refusal:
            self._tell_refused(refusal.reason)
            self._say(refusal)
            raise

    def _user_or_refusal(self, headers: Mapping[str, str]) -> str | None:
        token = tokens.found(headers, self._header)
        if token is None:
            return self._fixed
        if self._source is not None:
            user = self._verified(token, self._source)
        elif self._fixed is None:
            user = tokens.user_in(tokens.unverified_claims(token), self._claim)
        else:
            return self._unless_another_is_named(token, self._fixed)
        if self._fixed not in (None, user):
            raise OtherUser
        return user

    def _unless_another_is_named(self, token: str, fixed: str) -> str:
        """`fixed`: without keys a token proves nothing, but one that names another was sent astray."""
        try:
            named = tokens.user_in(tokens.unverified_claims(token), self._claim)
        except TokenRefused:
            return fixed  # an API key, or a token of some other kind: none of our business
        if named != fixed:
            raise OtherUser
        return fixed

    def _verified(self, token: str, source: KeySource) -> str:
        head = tokens.head_of(token)
        if head.algorithm not in self._demands.algorithms:
            raise TokenRefused("algorithm", "its algorithm is not one of those allowed here")
        keys = source.candidates(head.kid)
        if not keys:
            raise TokenRefused("unknown_key", "no key here has its key id")
        fitting = [key for key in keys if head.algorithm in key.algorithms]
        if not fitting:
            raise TokenRefused("algorithm", "its key is not for its algorithm")
        return tokens.user_in(_claims(token, fitting, head.algorithm, self._demands), self._claim)

    def _say(self, refusal: TokenRefused) -> None:
        now = self._clock()
        quiet = now - self._said.get(refusal.reason, float("-inf")) < SAID_AGAIN_SECONDS
        if not quiet:
            self._said[refusal.reason] = now
        (log.debug if quiet else log.warning)(
            "A token was refused: %s",
            refusal.detail,
            extra={"fields": {"reason": refusal.reason}},
        )


def _claims(token: str, keys: list[Key], algorithm: str, demands: Demands) -> dict[str, Any]:
    """The claims of `token`, verified by one of `keys`."""
    for key in keys[:-1]:
        try:
            return _decoded(token, key, algorithm, demands)
        except TokenRefused as refusal:
            if refusal.reason != "signature":
                raise
    return _decoded(token, keys[-1], algorithm, demands)


def _decoded(token: str, key: Key, algorithm: str, demands: Demands) -> dict[str, Any]:
    import jwt

    try:
        return jwt.decode(
            token,
            key.material,
            algorithms=[algorithm],
            issuer=demands.issuer,
            audience=demands.audience,
            leeway=demands.leeway_seconds,
            options={
                "require": ["exp"],
                "verify_aud": demands.audience is not None,
                "verify_iss": demands.issuer is not None,
                "verify_sub": False,  # the claim that names the user is checked by its own name
                "verify_jti": False,
                "enforce_minimum_key_length": True,
            },
        )
    except jwt.PyJWTError as problem:
        raise _refusal(problem) from None


def _refusal(problem: Exception) -> TokenRefused:
    """`problem` as one of our own words; PyJWT's sentences can quote the token."""
    import jwt

    if isinstance(problem, jwt.MissingRequiredClaimError):
        word = {"exp": "no_expiry", "iss": "issuer", "aud": "audience"}.get(problem.claim, "malformed")
        return TokenRefused(word, f"it has no claim {problem.claim}")
    # The order matters: a bad signature is a kind of DecodeError.
    for kind, word, detail in (
        (jwt.InvalidSignatureError, "signature", "its signature is not by a key that is known here"),
        (jwt.ExpiredSignatureError, "expired", "it has expired"),
        (jwt.ImmatureSignatureError, "not_yet_valid", "it is not valid yet"),
        (jwt.InvalidIssuerError, "issuer", "its issuer is another"),
        (jwt.InvalidAudienceError, "audience", "its audience is another"),
    ):
        if isinstance(problem, kind):
            return TokenRefused(word, detail)
    return TokenRefused("malformed", f"it cannot be read ({type(problem).__name__})")


def _source(settings: Settings, clock: Callable[[], float]) -> tuple[KeySource | None, frozenset[str]]:
    """The source of keys that `settings` name, and the algorithms that its keys can have."""
    if settings.jwt_jwks_url:
        return RemoteKeys(_checked_url(settings.jwt_jwks_url), clock), ASYMMETRIC
    if settings.jwt_jwks_file:
        return FileKeys("CLAUDE_SIDECAR_JWT_JWKS_FILE", settings.jwt_jwks_file, of_jwks), ASYMMETRIC
    if settings.jwt_public_key_file:
        return FileKeys(
            "CLAUDE_SIDECAR_JWT_PUBLIC_KEY_FILE", settings.jwt_public_key_file, of_pem
        ), ASYMMETRIC
    if settings.jwt_secret_file:
        secret = FileKeys("CLAUDE_SIDECAR_JWT_SECRET_FILE", settings.jwt_secret_file, of_secret)
        return secret, frozenset(HMAC_BYTES)
    return None, frozenset()


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host:
        raise SettingsError(
            "CLAUDE_SIDECAR_JWT_JWKS_URL is not a URL", "give https://HOST/PATH of the provider's key set"
        )
    if parts.scheme == "http" and host not in ("localhost", "127.0.0.1", "::1"):
        log.warning("CLAUDE_SIDECAR_JWT_JWKS_URL is not https: who can change its answers can be any user")
    return url
