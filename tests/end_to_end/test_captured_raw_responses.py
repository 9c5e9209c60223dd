"""Recorded answers of OpenAI's Responses through the raw lane: byte for byte.

The recordings are not part of the project: POMOGATOR_CAPTURES names the folder that holds them. The
model's name in the head and the end of an answer is that of the request; nothing follows the end.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.config import ChannelConfig
from services.domain.events import Finished, RawContent
from services.errors import UpstreamError
from services.providers.openai_responses import RAW_LANE
from tests.services.providers.openai_responses.test_captured_answers import (
    SLICINGS,
    Case,
    body,
    cases,
    randomly,
)
from tests.stand.gateway import TRANSPORTS, Gateway, running
from tests.stand.messages_stand import document as script_of
from tests.stand.messages_stand import streamed
from tests.stand.responses_stand import RAW_TARGET, head_of
from tests.stand.upstream import FakeUpstream, Script

MODEL = "house/model"


def is_complete(data: bytes) -> bool:
    """Whether a recorded answer has its end."""
    if data[:1] == b"{":
        return json.loads(data).get("status") not in ("queued", "in_progress")
    return b"event: response.completed" in data or b"event: response.incomplete" in data


def told(data: bytes) -> bytes:
    """Return a recorded answer as callers get it."""
    if data[:1] == b"{":
        return _with_model(data, json.loads(data))
    told = b""
    for block in data.split(b"\n\n"):
        event = json.loads(block.partition(b"data: ")[2] or b"{}")
        told += _with_model(block, event.get("response", {})) + b"\n\n"
        if event.get("type") in ("response.completed", "response.incomplete"):
            break
    return told


def _with_model(data: bytes, response: Any) -> bytes:
    """Bytes with another name of the model; no other text in a recorded response is like it."""
    if "model" not in response:
        return data
    for form in ('"model":"%s"', '"model": "%s"'):
        own = (form % response["model"]).encode()
        if own in data:
            assert data.count(own) == 1
            return data.replace(own, (form % MODEL).encode())
    raise AssertionError(data[:200])


@pytest.mark.parametrize("slicing", SLICINGS)
@pytest.mark.parametrize("case", cases(streamed=True))
def test_streams_pass_byte_for_byte_in_every_slicing(case: Case, slicing: str) -> None:
    """Events are whole, and the usage follows them."""
    data = body(case)
    assert is_complete(data)
    reader = RAW_LANE.decoder(RAW_TARGET, streamed=True).reader()
    events = []
    for piece in SLICINGS[slicing](data):
        found, failure = reader.feed(piece)
        assert failure is None
        events += found
        if reader.complete:
            break
    passed = b"".join(event.data for event in events if isinstance(event, RawContent))
    assert passed == told(data)
    assert isinstance(events[-1], Finished)
    assert events[-1].usage is not None


@pytest.mark.parametrize("case", cases(streamed=False))
def test_documents_pass_byte_for_byte(case: Case) -> None:
    """The usage is beside them. An answer without an end is a failure."""
    data = body(case)
    decoder = RAW_LANE.decoder(RAW_TARGET, streamed=False)
    if not is_complete(data):
        with pytest.raises(UpstreamError):
            decoder.whole(data)
        return
    answer = decoder.whole(data)
    assert answer.raw_body == told(data)
    counts = json.loads(data).get("usage") or {"total_tokens": 0}
    assert (answer.usage is None) == (not counts["total_tokens"])


@dataclass(frozen=True)
class Stand:
    """A gateway over a provider that plays recordings."""

    gateway: Gateway
    upstream: FakeUpstream


@pytest.fixture(params=TRANSPORTS)
async def stand(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stand]:
    """The gateway, with its edge in the same process and apart."""
    async with FakeUpstream() as upstream:
        channel = ChannelConfig(
            name="o", dialect="openai-responses", base_url=upstream.url, models={MODEL: "gpt-5"}
        )
        async with running(tmp_path, channel, transport=request.param) as gateway:
            yield Stand(gateway, upstream)


@pytest.mark.parametrize("streams", [False, True])
async def test_recorded_answers_pass_through_the_gateway(stand: Stand, streams: bool) -> None:
    """The sockets are real."""
    url, headers = f"{stand.gateway.base_url}/responses", head_of(stand.gateway.key)
    script: Script = ()
    stand.upstream.play(lambda _: script)
    for parameter in cases(streamed=streams):
        if parameter.marks:
            pytest.skip("POMOGATOR_CAPTURES is not set")
        data = body(parameter.values[0])
        if not is_complete(data):
            continue
        script = streamed(*randomly(data)) if streams else script_of(data)
        asked = {"model": MODEL, "input": "Hi.", "stream": streams, "store": False}
        async with stand.gateway.http.post(url, json=asked, headers=headers) as response:
            assert response.status == 200, parameter.id
            assert await response.read() == told(data), parameter.id
