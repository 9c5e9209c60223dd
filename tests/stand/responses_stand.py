"""Answers and requests of OpenAI's Responses as bytes, for what passes as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from services.capabilities import CapabilityOverrides, lookup
from services.config import ChannelConfig
from services.providers.base import Target
from tests.stand.billing_stand import MODEL, BillingStand

UPSTREAM_MODEL = "gpt-5.6-terra"
RESPONSES: Mapping[str, Any] = {
    "dialect": "openai-responses",
    "models": {MODEL: UPSTREAM_MODEL},
}
"""Keys of a channel that speaks the API."""

_HEAD = (
    '"id":"resp_theirs","object":"response","created_at":1,"status":"%s","error":null,'
    r'"instructions":"Be \"brief\".","model":"gpt-5.6-terra-2026", "output":[%s],'
    '"store":false,"future":{"model":"gpt-5.6-terra-2026"},"usage":%s'
)
_USAGE = (
    '{"input_tokens":11,"input_tokens_details":{"cached_tokens":4},"output_tokens":5,'
    '"output_tokens_details":{"reasoning_tokens":0},"total_tokens":16}'
)
_SEARCH = '{"id":"ws_1","type":"web_search_call","status":"completed","action":{"type":"search"}}'
_OTHER = '{"id":"nm_1","type":"newly_made","of":[1]}'
_MESSAGE = (
    '{"id":"msg_1","type":"message","role":"assistant","status":"completed","content":[{"type":'
    r'"output_text","text":"Gr\u00fc\u00dfGr\u00fc\u00df","annotations":[{"type":"odd"}]}]}'
)


def frame(data: str) -> bytes:
    """One event as the provider sends it."""
    name = json.loads(data)["type"]
    return f"event: {name}\ndata: {data}\n\n".encode()


def _response(kind: str, number: int, *, output: str = "", usage: str = "null") -> bytes:
    status = "in_progress" if kind == "created" else kind
    head = _HEAD % (status, output, usage)
    return frame(f'{{"type":"response.{kind}","response":{{{head}}},"sequence_number":{number}}}')


def _done(index: int, item: str, number: int) -> bytes:
    return frame(
        f'{{"type":"response.output_item.done","output_index":{index},"item":{item},'
        f'"sequence_number":{number}}}'
    )


HEAD = _response("created", 0) + _response("in_progress", 1)
PING = b'event: keepalive\ndata: {"type":"keepalive","sequence_number":2}\n\n'
BEGIN = (
    frame(
        '{"type":"response.output_item.added","output_index":0,"item":'
        '{"id":"nm_1","type":"newly_made"},"sequence_number":3}'
    )
    + frame('{"type":"response.newly_made.searching","output_index":0,"sequence_number":4}')
    + _done(0, _OTHER, 5)
)
"""An item of a type that no version knows."""
PIECE = frame(
    '{"type":"response.output_text.delta","output_index":1,"content_index":0,"item_id":"msg_1",'
    r'"delta":"Gr\u00fc\u00df", "obfuscation":"x9","sequence_number":6}'
)
FINAL = _done(1, _MESSAGE, 8)
END = FINAL + _response("completed", 9, output=f"{_OTHER},{_MESSAGE}", usage=_USAGE)
STREAM = HEAD + BEGIN + PIECE + PING + PIECE + END
"""A whole stream."""
SEARCHED = _done(2, _SEARCH, 8) + _response(
    "completed", 9, output=f"{_OTHER},{_MESSAGE},{_SEARCH}", usage=_USAGE
)
"""The end of a stream with a search."""

ERROR = frame(
    '{"type":"error","code":"server_error","message":"Out of order.","sequence_number":7}'
)


def failed(code: str, message: str = "Out of the ordinary.") -> bytes:
    """The event of a failed response."""
    error = f'"error":{{"code":"{code}","message":"{message}"}}'
    head = (_HEAD % ("failed", "", "null")).replace('"error":null', error)
    return frame(f'{{"type":"response.failed","response":{{{head}}},"sequence_number":7}}')


def document(*items: str) -> bytes:
    """A whole answer."""
    output = ", ".join((_OTHER, _MESSAGE, *items))
    return ("{ " + _HEAD % ("completed", output, _USAGE) + "}\n").encode()


DOCUMENT = document()
DOCUMENT_WITH_SEARCH = document(_SEARCH)


def told(body: bytes) -> bytes:
    """An answer of the provider as callers get it: with the public name of its model."""
    own = b'"model":"gpt-5.6-terra-2026", "output"'
    return body.replace(own, f'"model":"{MODEL}", "output"'.encode())


def request_body(*, stream: bool, more: str = "", stored: str = '"store":false,') -> bytes:
    """A request with odd spacing and members that no version knows."""
    flag = "true" if stream else "false"
    return (
        '{"input":[{"role":"user", "content":"Hello","model":"none"}],'
        f'"stream":{flag},"max_output_tokens":20,{stored}{more}"model" : "{MODEL}"}}'
    ).encode()


def head_of(key: str) -> dict[str, str]:
    """The headers of a request."""
    return {"authorization": f"Bearer {key}", "content-type": "application/json"}


async def ask(
    stand: BillingStand, key: str, body: bytes, **headers: str
) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and body of an answer."""
    sent = head_of(key)
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    url = f"{stand.gateway.base_url}/responses"
    async with stand.gateway.http.post(url, data=body, headers=sent) as response:
        return response.status, response.headers, await response.read()


RAW_TARGET = Target(
    channel=ChannelConfig(name="a", dialect="openai-responses", models={MODEL: UPSTREAM_MODEL}),
    model=UPSTREAM_MODEL,
    public_model=MODEL,
    capabilities=lookup(UPSTREAM_MODEL, CapabilityOverrides(), dialect="openai-responses"),
)
"""The model at a channel, for a caller without a limit."""
