"""Forms of request headers, which REST and gRPC callers (in metadata) send alike."""

from __future__ import annotations

import hmac
import re
from random import getrandbits

# https://www.rfc-editor.org/rfc/rfc9110#section-11.1: a scheme has no case.
_BEARER = re.compile(r"bearer +(\S+) *", re.IGNORECASE)
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")

_IDEMPOTENCY_KEY = re.compile(r"[\x20-\x7e]{1,255}")


def new_request_id() -> str:
    """Return an ID that no other request has. It is no secret, so the kernel is not asked."""
    return f"req-{getrandbits(128):032x}"


def request_id_or_new(given: str | None) -> str:
    """The caller's ID of its request, if it is fit for logs, or a new one."""
    return given if given is not None and _REQUEST_ID.fullmatch(given) else new_request_id()


def is_idempotency_key(text: str) -> bool:
    """Whether it has 1 to 255 printable ASCII characters."""
    return _IDEMPOTENCY_KEY.fullmatch(text) is not None


def bearer_token(authorization: str | None) -> str | None:
    """The token of `Authorization: Bearer <token>`; None where the header has another form."""
    match = _BEARER.fullmatch(authorization or "")
    return match[1] if match else None


def unchecked_token(authorization: str) -> str:
    """The last word of the header, to tell callers apart before it is checked.

    A wrong form is refused later, and every request pays for this.
    """
    return authorization.rstrip().rpartition(" ")[2]


def has_bearer_token(authorization: str | None, expected: str) -> bool:
    """Whether the header carries this token. The time that it takes tells nothing about it."""
    given = (bearer_token(authorization) or "").encode("utf-8", "surrogateescape")
    return hmac.compare_digest(given, expected.encode())
