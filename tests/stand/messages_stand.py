"""Answers and requests of Anthropic's Messages as bytes, for what passes as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.stand.billing_stand import MODEL, BillingStand
from tests.stand.upstream import CUT, SSE_HEAD, Script, answer, chunk

UPSTREAM_MODEL = "claude-sonnet-4-5"
ANTHROPIC: Mapping[str, Any] = {
    "dialect": "anthropic",
    "models": {MODEL: UPSTREAM_MODEL},
}
"""Keys of a channel that speaks the API."""

USAGE = {"input_tokens": 7, "cache_read_input_tokens": 4, "output_tokens": 5}
"""In tokens the usage of `tests.stand.billing_stand`."""

_HEAD = (
    '{"type":"message_start","message":{"id":"msg_01Theirs","type":"message","role":"assistant",'
    '"model":"claude-sonnet-4-5",  "content":[],"future":{"model":"claude-sonnet-4-5"},'
    '"usage":{"input_tokens":7,"cache_read_input_tokens":4,"output_tokens":1}}}'
)
_OTHER = '{"type":"content_block_start","index":0,"content_block":{"type":"newly_made","of":[1]}}'
_BEGIN = '{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}'
_TEXT = r'{"type":"text_delta","text":"Gr\u00fc\u00df"}'
_PIECE = f'{{"type":"content_block_delta","index":1, "delta":{_TEXT}}}'
_END = (
    '{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
    '"usage":{"output_tokens":5}}'
)


def frame(data: str) -> bytes:
    """One event as the provider sends it."""
    name = json.loads(data)["type"]
    return f"event: {name}\ndata: {data}\n\n".encode()


PING = b'event: ping\ndata: {"type": "ping"}\n\n'
START = frame(_HEAD) + PING + frame(_OTHER) + frame('{"type":"content_block_stop","index":0}')
"""The start of an answer, up to a block of an unknown type."""
BEGIN = frame(_BEGIN)
PIECE = frame(_PIECE)
END = (
    frame('{"type":"content_block_stop","index":1}')
    + frame(_END)
    + frame('{"type":"message_stop"}')
)
STREAM = START + BEGIN + PIECE + PING + PIECE + END
"""A whole stream."""

OVERLOADED = frame('{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}')

DOCUMENT = (
    b'{"id": "msg_01Theirs","type":"message","role":"assistant","model": "claude-sonnet-4-5",'
    b'"content":[{"type":"newly_made"},{"type":"text","text":"Gr\\u00fc\\u00df"}],"stop_reason":'
    b'"end_turn","usage":{"input_tokens":7,"cache_read_input_tokens":4,"output_tokens":5}}\n'
)
"""A whole answer."""


def streamed(*pieces: bytes) -> Script:
    """The provider's script that sends these pieces of a stream, and ends the connection."""
    return [SSE_HEAD, *(chunk(piece) for piece in pieces), b"0\r\n\r\n", CUT]


def broken(*pieces: bytes) -> Script:
    """The script of a stream that is cut after these pieces."""
    return [SSE_HEAD, *(chunk(piece) for piece in pieces), CUT]


def document(body: bytes = DOCUMENT, status: int = 200) -> Script:
    """The script of a whole answer."""
    return [answer(body, status, **{"content-type": "application/json"})]


def told(body: bytes) -> bytes:
    """An answer of the provider as callers get it: with the public name of its model."""
    for before in (b'"assistant","model":"', b'"assistant","model": "'):
        body = body.replace(before + UPSTREAM_MODEL.encode(), before + MODEL.encode())
    return body


def request_body(*, stream: bool, more: str = "") -> bytes:
    """A request with odd spacing and members that no version knows."""
    flag = "true" if stream else "false"
    return (
        f'{{"messages":[{{"role":"user", "content":"Hello","model":"none"}}],"stream":{flag},'
        f'"max_tokens":20,{more}"model":"{MODEL}"}}'
    ).encode()


async def ask(
    stand: BillingStand, key: str, body: bytes, **headers: str
) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and body of an answer."""
    sent = {"x-api-key": key, "content-type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    url = f"{stand.gateway.base_url}/messages"
    async with stand.gateway.http.post(url, data=body, headers=sent) as response:
        return response.status, response.headers, await response.read()
