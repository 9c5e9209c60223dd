"""Bodies of requests that the service may pass on as they are."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Raw

from gateway.errors import ApiError
from gateway.http.strict_json import parse, refuse_invalid_utf8, refuse_too_many_values
from services.common.json_places import members
from services.domain.error_reason import ErrorReason

ABSENT = Raw()
NULLS = (ABSENT, Raw(b"null"))
"""Members without a value: absent, or `null`."""


def body_members(body: bytes) -> Mapping[str, Raw]:
    """Return the members of a body.

    Raises ApiError: it is no JSON object in UTF-8, has a name twice, or too many values.
    """
    refuse_too_many_values(body)
    refuse_invalid_utf8(body)
    try:
        return members(body)
    except ValueError:
        parse(body)  # Raises an error that names the fault.
        raise ApiError(ErrorReason.INVALID_JSON, "The body cannot be read.") from None
