"""Forms of request headers, which REST and gRPC callers (in metadata) send alike."""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from random import getrandbits
from time import time
from typing import Protocol

import msgspec

from services.common.json_errors import NOT_JSON

# https://www.rfc-editor.org/rfc/rfc9110#section-11.1: a scheme has no case.
_BEARER = re.compile(r"bearer +(\S+) *", re.IGNORECASE)
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")

_IDEMPOTENCY_KEY = re.compile(r"[\x20-\x7e]{1,255}")

SESSION_HEADERS: Sequence[str] = (
    "x-session-id",
    "x-claude-code-session-id",
    "session-id",  # Codex
    "x-session-affinity",  # opencode
)
"""Headers that may name the session of a request; the first of them counts."""
SESSION_CHARS_MAX = 255
"""The most characters of a session's ID. A longer one is ignored."""

_USER_CHARS_MAX = 4_096
"""The longest `user` in which a session is looked for."""
_SESSION_IN_USER = re.compile(r"user_.*_session_([0-9a-f-]{8,64})")
"""The form of Claude Code's `metadata.user_id` before it became a JSON object."""


class _User(msgspec.Struct):
    session_id: str = ""


_USER = msgspec.json.Decoder(_User)


class _Headers(Protocol):
    def get(self, name: str, /) -> str | None: ...


def new_request_id() -> str:
    """Return an ID that no other request has. It is no secret, so the kernel is not asked.

    It begins with the time: an index of random IDs costs a page for each row of the call log.
    """
    return f"req-{int(time() * 1000) << 80 | getrandbits(80):032x}"


def request_id_or_new(given: str | None) -> str:
    """The caller's ID of its request, if it is fit for logs, or a new one."""
    return sent_request_id(given) or new_request_id()


def sent_request_id(given: str | None) -> str:
    """The caller's ID of its request, if it is fit for logs, or an empty string."""
    return given if given is not None and _REQUEST_ID.fullmatch(given) else ""


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


def session_id(headers: _Headers, user: str = "", prompt_cache_key: str = "") -> str:
    """Return the session of a request by its headers, or else by its body; empty: none is named.

    Callers choose these names: they tell the sessions of one account apart and prove nothing.
    """
    return session_of_headers(headers) or session_of_body(user, prompt_cache_key)


def session_of_headers(headers: _Headers) -> str:
    """Return the session that the headers of a request name; empty: they name none."""
    for name in SESSION_HEADERS:
        if (given := headers.get(name)) and _is_session_id(given):
            return given
    return ""


def session_of_body(user: str, prompt_cache_key: str) -> str:
    """Return the session that the body of a request names; empty: it names none."""
    if user and (given := _session_of_user(user)):
        return given
    return prompt_cache_key if prompt_cache_key and _is_session_id(prompt_cache_key) else ""


def _is_session_id(text: str) -> bool:
    return 0 < len(text) <= SESSION_CHARS_MAX and text.isprintable()


def _session_of_user(user: str) -> str:
    """Return the session within Claude Code's `metadata.user_id`; empty for another `user`."""
    if len(user) > _USER_CHARS_MAX:
        return ""
    if match := _SESSION_IN_USER.fullmatch(user):
        return match[1]
    if not user.startswith("{"):
        return ""
    try:
        given = _USER.decode(user).session_id
    except NOT_JSON:
        return ""
    return given if _is_session_id(given) else ""
