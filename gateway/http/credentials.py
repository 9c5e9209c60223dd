"""Credentials of a request: the API key, and the header that carries it.

Nothing here decides whether a key is valid: that is for the service. A key that cannot be one of
ours is refused without a call.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from multidict import MultiMapping
from pomogator.chat.v1 import error_reason_pb2 as reasons

from gateway.errors import ApiError
from services.common.key_format import well_formed

AUTHORIZATION = "Authorization"
"""The header whose value is `Bearer` and the key. Any other credential header holds the key
alone."""

BEARER_ONLY = (AUTHORIZATION,)

_BEARER = re.compile(r"bearer +(\S+) *", re.IGNORECASE)
_KEY = re.compile(r"(\S+)")


def api_key(headers: MultiMapping[str], credential_headers: Sequence[str] = BEARER_ONLY) -> str:
    """Return the caller's key, from the first of `credential_headers` that the request has.

    Raises:
        ApiError: the header is missing or repeated, or its value cannot be one of our keys.
    """
    for name in credential_headers:
        values = headers.getall(name, ())
        if values:
            key = _only(values, _BEARER if name == AUTHORIZATION else _KEY)
            if key is None or not well_formed(key):
                break
            return key
    raise ApiError(reasons.ERROR_REASON_INVALID_API_KEY, "Invalid API key")


def bearer_token(headers: MultiMapping[str]) -> str | None:
    """Return the token of `Authorization: Bearer`, or None without exactly one of that form."""
    return _only(headers.getall(AUTHORIZATION, ()), _BEARER)


def unchecked_key(
    headers: MultiMapping[str], credential_headers: Sequence[str] = BEARER_ONLY
) -> str:
    """Return the key as it was sent, to tell callers apart before it is checked; "" without one."""
    for name in credential_headers:
        value = headers.get(name)
        if value is not None:
            return value.rstrip().rpartition(" ")[2]
    return ""


def _only(values: Sequence[str], form: re.Pattern[str]) -> str | None:
    """Return what `form` finds in the header's value, or None if it came more than once."""
    match = form.fullmatch(values[0]) if len(values) == 1 else None
    return match[1] if match else None
