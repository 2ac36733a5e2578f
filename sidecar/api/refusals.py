"""The answers that are not 200, as errors that carry their HTTP status.

Refusal                        status  kind
├── BadRequest                 400     bad_request            a parameter or a body that cannot be meant
├── TokenMissing               401     token_missing          no fixed user and no token
├── TokenRefused               401     token_refused          a token that does not hold; the log says why
├── OtherUser                  403     other_user             a token of another user than the pod's
├── PathUnknown                404     not_found
├── MethodUnknown              405     method_not_allowed     with Allow
├── BodySlow                   408     body_slow              the body did not come in time
├── SecondUser                 409     second_user            the home already serves somebody
├── BodyLarge                  413     body_large
├── Broken                     500     internal               a fault of ours; the log holds it
├── Busy                       503     busy                   too much at once
└── IdentityUnavailable        503     identity_unavailable   we cannot check tokens now: our failure
"""

from __future__ import annotations

from sidecar.errors import SidecarError


class Refusal(SidecarError):
    """The root: ``status`` is the HTTP status, ``headers`` go into the answer."""

    status = 400
    closes = False
    """Whether the connection ends with the answer: the rest of the request is not wanted."""

    @property
    def headers(self) -> dict[str, str]:
        return {}

    def as_dict(self) -> dict[str, str]:
        """The body of every answer that is an error."""
        return {"error": self.message, "kind": self.kind, "hint": self.hint}


class BadRequest(Refusal):
    kind = "bad_request"


class TokenMissing(Refusal):
    kind = "token_missing"
    status = 401

    def __init__(self, header: str) -> None:
        super().__init__(
            f"the request carries no token in {header}",
            f"send {header}: Bearer <token>, or give the pod a fixed user by CLAUDE_SIDECAR_USER_ID",
        )

    @property
    def headers(self) -> dict[str, str]:
        # https://www.rfc-editor.org/rfc/rfc6750#section-3
        return {"WWW-Authenticate": "Bearer"}


class TokenRefused(Refusal):
    """One answer for every token that does not hold: a forger learns nothing from it.

    Parameters
    ----------
    reason: one word of a fixed set, for the metric.
    detail: half a sentence for the log; nothing in it comes from the token.
    """

    kind = "token_refused"
    status = 401

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__("the token was not accepted", "the log of the sidecar says why")
        self.reason = reason
        self.detail = detail

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": 'Bearer error="invalid_token"'}


class OtherUser(Refusal):
    kind = "other_user"
    status = 403

    def __init__(self) -> None:
        super().__init__(
            "the token is of another user than this pod's",
            "send this user's requests to a pod of their own, or unset CLAUDE_SIDECAR_USER_ID",
        )


class FromAPage(Refusal):
    """A browser's request: a page on the web must not reach the loopback of whoever looks at it."""

    kind = "from_a_page"
    status = 403

    def __init__(self) -> None:
        super().__init__(
            "the request comes from a web page, or names a host that is not this one",
            "call the API from the agent's container, at 127.0.0.1 or localhost, without an Origin header",
        )


class PathUnknown(Refusal):
    kind = "not_found"
    status = 404

    def __init__(self, known: tuple[str, ...]) -> None:
        super().__init__("there is nothing under this path", "this listener answers: " + " ".join(known))


class MethodUnknown(Refusal):
    kind = "method_not_allowed"
    status = 405

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__("this path does not take that method", "use " + " or ".join(allowed))
        self.allowed = allowed

    @property
    def headers(self) -> dict[str, str]:
        return {"Allow": ", ".join(self.allowed)}


class BodySlow(Refusal):
    kind = "body_slow"
    status = 408
    closes = True

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the body did not come within {seconds:g} s", "send it at once")


class SecondUser(Refusal):
    kind = "second_user"
    status = 409

    def __init__(self) -> None:
        super().__init__(
            "this home already serves another user",
            "put {user_id} into CLAUDE_SIDECAR_HOME to give each user a home of their own,"
            " or run one pod for each user",
        )


class BodyLarge(Refusal):
    kind = "body_large"
    status = 413
    closes = True

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the body is larger than {limit_bytes} bytes", "send less")


class Broken(Refusal):
    kind = "internal"
    status = 500

    def __init__(self) -> None:
        super().__init__("the sidecar failed on this request", "its log says why; please report it")


class Busy(Refusal):
    kind = "busy"
    status = 503

    def __init__(self) -> None:
        super().__init__("too many users are being synced at once", "try again in a few seconds")

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": "2"}


class IdentityUnavailable(Refusal):
    kind = "identity_unavailable"
    status = 503

    def __init__(self, detail: str) -> None:
        super().__init__(
            "the token cannot be checked now: the key set could not be read",
            "look whether CLAUDE_SIDECAR_JWT_JWKS_URL answers from this pod; the next request tries again",
        )
        self.detail = detail

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": "2"}
