"""Every recorded exchange with Anthropic passes byte for byte, however its stream is sliced."""

from __future__ import annotations

import base64
import zlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from services.config import ChannelConfig
from tests.end_to_end import captures
from tests.stand.gateway import TRANSPORTS, Gateway, Transport, running

CASES = {case["id"]: case for case in captures.load() if case["protocol"] == "anthropic"}
ANSWERED = {name: case for name, case in CASES.items() if case["kind"] != "error"}
SLICINGS = ("whole", "event", "line", "random:7", "fixed:97")

pytestmark = pytest.mark.skipif(not captures.CAPTURES, reason=captures.WHY_SKIPPED)


@pytest.fixture(scope="module", params=TRANSPORTS)
async def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    """A gateway with a channel for every case and slicing, which has the provider's name."""
    transport: Transport = request.param
    async with captures.replaying() as url:
        channels = [
            ChannelConfig(
                name=f"{case['id']}-{slicing}",
                dialect="anthropic",
                base_url=f"{url}/opt/slice={slicing}/case/{case['id']}/v1",
                models={f"{case['id']}-{slicing}": f"{case['id']}-{slicing}"},
            )
            for case in CASES.values()
            for slicing in SLICINGS
        ]
        state = tmp_path_factory.mktemp("state")
        async with running(state, *channels, transport=transport) as gateway:
            yield gateway


@pytest.mark.parametrize("case_id", sorted(ANSWERED))
async def test_an_answer_is_byte_equal(gateway: Gateway, case_id: str) -> None:
    """The document, or the stream in every slicing."""
    case = ANSWERED[case_id]
    streamed = case["kind"] == "stream"
    for slicing in SLICINGS if streamed else ("whole",):
        status, body = await _post(gateway, f"{case_id}-{slicing}", _request(case))
        assert status == 200
        assert body == _recorded(case), slicing


def _request(case: Mapping[str, Any]) -> dict[str, Any]:
    asked = case["request"].get("json") or {"messages": [{"role": "user", "content": "Hi"}]}
    return {"max_tokens": 1_024, **asked, "stream": case["kind"] == "stream"}


def _recorded(case: Mapping[str, Any]) -> bytes:
    """The body of the answer, without its compression."""
    response = case["response"]
    body: bytes = response["body"].encode()
    if response["body_encoding"] == "base64":
        body = base64.b64decode(response["body"])
    body = zlib.decompress(body, wbits=31) if body.startswith(b"\x1f\x8b") else body
    # Some recordings lack the blank line after the last event, which its clients need.
    return body.rstrip(b"\n") + b"\n\n" if case["kind"] == "stream" else body


async def _post(gateway: Gateway, model: str, body: Mapping[str, Any]) -> tuple[int, bytes]:
    url = f"{gateway.base_url}/messages"
    async with gateway.http.post(url, json={**body, "model": model}) as answer:
        return answer.status, await answer.read()
