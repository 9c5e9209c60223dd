"""Bodies that are JSON up to one string, at every API: refused, whatever was read before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.stand import held_provider
from tests.stand.gateway import TRANSPORTS

MESSAGES: Any = [{"role": "user", "content": "Hello"}]
JSON = {"Content-Type": "application/json"}
BODIES: dict[str, Any] = {
    "/v1/chat/completions": {"messages": MESSAGES, "user": "u"},
    "/v1/completions": {"prompt": "Hello", "user": "u"},
    "/v1/embeddings": {"input": "Hello", "user": "u"},
    "/v1/messages": {"max_tokens": 9, "messages": MESSAGES, "metadata": {"user_id": "u"}},
    "/v1/messages/count_tokens": {"messages": MESSAGES},
    "/v1/responses": {"input": "Hello", "user": "u", "stream": False},
    "/v1/responses/input_tokens": {"input": "Hello"},
}
FAULTS = (b"\xff", b"\\ud800", b"\\q", b"\x01", b"\xed\xa0\x80")
"""Bytes that are not UTF-8, half a surrogate pair, an escape and a character that are not JSON."""


def faulty(path: str) -> Iterator[bytes]:
    """The body of a request with each fault at the start of each string."""
    body = json.dumps({"model": held_provider.MODEL, **BODIES[path]}).encode()
    places = [at + 1 for at, byte in enumerate(body) if byte == ord('"')][::2]
    for at in places:
        for fault in FAULTS:
            yield body[:at] + fault + body[at:]


async def test_an_unreadable_string_is_the_callers_fault(tmp_path: Path) -> None:
    """Never the gateway's: with an error in the API's form, on every path through the gateway."""
    for transport in TRANSPORTS:
        async with held_provider.held_gateway(tmp_path / transport, transport) as (gateway, _, _):
            for path in BODIES:
                for body in faulty(path):
                    async with gateway.http.post(
                        gateway.url + path, data=body, headers=JSON
                    ) as response:
                        answer = await response.json()
                        assert response.status == 400, (path, body, answer)
                        assert answer["error"]["message"]
