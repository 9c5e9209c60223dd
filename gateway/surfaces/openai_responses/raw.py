"""Raw requests: the fields that the edge reads where the service may pass a request on as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from gateway.errors import invalid
from gateway.surfaces.json_fields import boolean, text
from gateway.surfaces.openai_responses.responses_request import ResponsesRequest
from gateway.surfaces.raw_body import ABSENT, NULLS, body_members
from services.common.json_errors import NOT_JSON
from services.domain.raw_request import RawRequest
from services.domain.spec import ChatCompletionSpec

_STRING = msgspec.json.Decoder(str)
_NAMES = frozenset({"user", "safety_identifier", "prompt_cache_key"})


def decode_raw(body: bytes) -> ResponsesRequest:
    """Return a request whose body is read as far as the edge needs it.

    Raises ApiError: it is not one. The status is 4xx, whatever the bytes.
    """
    fields = body_members(body)
    model, stream = fields.get("model", ABSENT), fields.get("stream", ABSENT)
    if model in NULLS or fields.get("input", ABSENT) in NULLS:
        missing = "model" if model in NULLS else "input"
        raise invalid(missing, f"Missing required parameter: `{missing}`.")
    return ResponsesRequest(
        spec=ChatCompletionSpec(
            model=text("model", model), **(_names(fields) if _NAMES & fields.keys() else {})
        ),
        raw=RawRequest(api="openai_responses", body=body, members=fields),
        stream=stream not in NULLS and boolean("stream", stream),
    )


def _names(fields: Mapping[str, Raw]) -> dict[str, Any]:
    """Return the fields of a spec that may tell the session."""
    return {
        "user": _name(fields, "user") or _name(fields, "safety_identifier"),
        "prompt_cache_key": _name(fields, "prompt_cache_key"),
    }


def _name(fields: Mapping[str, Raw], name: str) -> str:
    """Return a name that may tell the session; empty where it has another form."""
    if name not in fields:
        return ""
    try:
        return _STRING.decode(fields[name])
    except NOT_JSON:
        return ""
