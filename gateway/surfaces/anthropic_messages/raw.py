"""Raw requests: the fields that the edge reads where the service may pass a request on as it is."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct
from multidict import MultiMapping

from gateway.errors import invalid
from gateway.surfaces.anthropic_messages.messages_request import MessagesRequest
from gateway.surfaces.json_fields import boolean, text
from gateway.surfaces.raw_body import ABSENT, NULLS, body_members
from services.common.json_errors import NOT_JSON
from services.domain.prompt_count import PromptCountRequest
from services.domain.raw_request import RawRequest
from services.domain.spec import ChatCompletionSpec

BETA_HEADER = "anthropic-beta"
"""The header with features of Anthropic's API that are not generally available."""
VERSION_HEADER = "anthropic-version"


class _Metadata(Struct):
    user_id: str | None = None


_METADATA = msgspec.json.Decoder(_Metadata)

_STOPS = msgspec.json.Decoder(list[str])


def decode_raw(body: bytes, headers: MultiMapping[str]) -> MessagesRequest:
    """Return a request whose body is read as far as the edge needs it.

    Raises ApiError: it is not one. The status is 4xx, whatever the bytes.
    """
    fields = _members(body, "model", "max_tokens", "messages")
    stream = fields.get("stream", ABSENT)
    return MessagesRequest(
        spec=ChatCompletionSpec(
            model=text("model", fields["model"]),
            user=_user(fields["metadata"]) if "metadata" in fields else "",
        ),
        raw=_raw_request(body, headers, fields),
        stream=stream not in NULLS and boolean("stream", stream),
        stops=_stops(fields["stop_sequences"]) if "stop_sequences" in fields else (),
    )


def decode_raw_prompt(body: bytes, headers: MultiMapping[str]) -> PromptCountRequest:
    """Return a request for the tokens of a prompt, read as far as the edge needs it.

    Raises ApiError: it is not one. The status is 4xx, whatever the bytes.
    """
    fields = _members(body, "model", "messages")
    return PromptCountRequest(
        spec=ChatCompletionSpec(model=text("model", fields["model"])),
        raw=_raw_request(body, headers, fields),
    )


def _members(body: bytes, *required: str) -> Mapping[str, Raw]:
    fields = body_members(body)
    for name in required:
        if fields.get(name, ABSENT) in NULLS:
            raise invalid(name, f"{name}: Field required")
    return fields


def _raw_request(body: bytes, headers: MultiMapping[str], fields: Mapping[str, Raw]) -> RawRequest:
    return RawRequest(
        api="anthropic_messages", body=body, headers=_headers(headers), members=fields
    )


def _headers(headers: MultiMapping[str]) -> Mapping[str, str]:
    sent: dict[str, str] = {}
    if VERSION_HEADER in headers:
        sent[VERSION_HEADER] = headers[VERSION_HEADER]
    if BETA_HEADER in headers:
        sent[BETA_HEADER] = ",".join(headers.getall(BETA_HEADER))
    return sent


def _user(metadata: Raw) -> str:
    """Return the end user, whose name may have the session."""
    try:
        return _METADATA.decode(metadata).user_id or ""
    except NOT_JSON:
        return ""


def _stops(sequences: Raw) -> list[str]:
    """Return the stop sequences; none where they have another form, which the service refuses."""
    try:
        return _STOPS.decode(sequences)
    except NOT_JSON:
        return []
