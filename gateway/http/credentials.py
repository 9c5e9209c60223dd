"""Credentials of a request: the API key, and the header that carries it.

Nothing here decides whether a key is valid: that is for the service. A key that cannot be one of
ours is refused without a call.
"""

from __future__ import annotations

from collections.abc import Sequence

from multidict import MultiMapping

from gateway.errors import ApiError
from services.common.key_format import PREFIX, well_formed
from services.common.request_headers import bearer_token, unchecked_token
from services.domain.error_reason import ErrorReason

AUTHORIZATION = "Authorization"
"""The header whose value is `Bearer` and the key. Any other credential header holds the key
alone."""

BEARER_ONLY = (AUTHORIZATION,)
_BEARER = "Bearer "


def api_key(headers: MultiMapping[str], credential_headers: Sequence[str] = BEARER_ONLY) -> str:
    """Return the caller's key, from the first of `credential_headers` that the request has.

    Raises ApiError: the header is missing or repeated, or its value cannot be one of our keys.
    """
    for name in credential_headers:
        values = headers.getall(name, ())
        if values:
            key = bearer_token(values[0]) if name == AUTHORIZATION else values[0]
            if key is None or len(values) > 1 or not well_formed(key):
                raise _refusal("the header does not have the form of a key", name)
            return key
    raise _refusal("the request has none", credential_headers[0])


def _refusal(fault: str, header: str) -> ApiError:
    value = f"{_BEARER if header == AUTHORIZATION else ''}{PREFIX}..."
    message = f"Invalid API key: {fault}. Send one key in the header `{header}: {value}`."
    return ApiError(ErrorReason.INVALID_API_KEY, message)


def unchecked_key(
    headers: MultiMapping[str], credential_headers: Sequence[str] = BEARER_ONLY
) -> str:
    """Return the key as it was sent, to tell callers apart before it is checked; "" without one."""
    for name in credential_headers:
        value = headers.get(name)
        if value is not None:
            return unchecked_token(value)
    return ""
