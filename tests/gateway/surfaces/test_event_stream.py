from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as chat

from gateway.config import EdgeConfig
from tests.gateway.conftest import KEY, Edge
from tests.stand import service

BODY = b'{"model":"m","messages":[],"stream":true}'
ASK = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (KEY.encode(), len(BODY), BODY)
)
LARGE = "x" * 16_384


class Endless:
    """Endless steps of a stream, counted."""

    taken = 0

    def __iter__(self) -> Iterator[list[chat.ChatCompletionChunk]]:
        yield [service.started()]
        while True:
            self.taken += 1
            yield [service.text(LARGE)]


@pytest.fixture
def config() -> EdgeConfig:
    """An edge with a short write timeout."""
    return EdgeConfig(write_timeout_s=0.2, drain_timeout_s=0.1)


async def test_a_client_that_does_not_read_is_cut_off(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    """The buffer and the wait are bounded. The call ends, too."""
    steps = Endless()
    edge.script.steps = steps
    with caplog.at_level(logging.INFO, "gateway.access"):
        _, writer = await asyncio.open_connection(edge.host, edge.port, limit=1024)
        writer.write(ASK)
        try:
            await asyncio.wait_for(edge.script.closed.wait(), 10)
        finally:
            writer.transport.abort()
    assert steps.taken * len(LARGE) < 16 * 1024 * 1024
    (line,) = [record for record in caplog.records if record.getMessage() == "request.ended"]
    assert vars(line)["status"] == 499
