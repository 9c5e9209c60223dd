from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping

import pytest

from gateway.config import EdgeConfig
from gateway.http.exchange import AlreadySentResponse
from gateway.http.reply import Reply
from tests.gateway.conftest import Edge
from tests.gateway.http.test_reply import RecordingWriter
from tests.gateway.surfaces.test_completion_handler import ASKED, STREAMED, URL, events
from tests.gateway.surfaces.test_event_stream import Endless
from tests.stand import service
from tests.stand.service import Pause


async def in_chunks(asked: Mapping[str, object]) -> AsyncIterator[bytes]:
    """Yield a body without a declared length, which aiohttp's router serves."""
    body = json.dumps(asked).encode()
    yield body[:10]
    yield body[10:]


def reply(*, keep_alive: bool = True) -> Reply:
    """A reply to a connection that only records."""
    return Reply(RecordingWriter(), "req-1", time.perf_counter(), keep_alive=keep_alive)


@pytest.mark.parametrize("keep_alive", [True, False])
async def test_aiohttp_knows_the_answer_that_was_sent(*, keep_alive: bool) -> None:
    """It gets the status, and whether the connection may be used again."""
    answered = reply(keep_alive=keep_alive)
    answered.send(200, b"{}", {})
    sent = AlreadySentResponse(answered)
    assert (sent.status, sent.keep_alive) == (200, keep_alive)


class TestRoutedByAiohttp:
    """Requests that are not ordinary get the same answers."""

    pytestmark = pytest.mark.parametrize("edge", ["direct", "tcp"], indirect=True)

    @pytest.fixture
    def config(self) -> EdgeConfig:
        """An edge with a short write timeout."""
        return EdgeConfig(write_timeout_s=0.2, drain_timeout_s=0.1)

    async def test_a_whole_answer_has_all_headers(self, edge: Edge) -> None:
        """It has those of the error border and those of the service."""
        edge.script.answer = service.answer()
        edge.script.initial_metadata = [("x-ratelimit-limit-requests", "60")]
        headers = {"X-Request-Id": "mine-1", "Content-Type": "application/json"}
        async with edge.http.post(URL, data=in_chunks(ASKED), headers=headers) as response:
            assert (await response.json())["object"] == "chat.completion"
        assert response.headers["x-request-id"] == "mine-1"
        assert response.headers["x-ratelimit-limit-requests"] == "60"
        assert response.headers["Server"] == "pomogator"

    async def test_a_stream_is_whole_and_logged(
        self, edge: Edge, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It has one access line."""
        edge.script.steps = [
            [service.started(), service.text("a")],
            [service.choice_finished(), service.finished()],
        ]
        with caplog.at_level(logging.INFO, "gateway.access"):
            async with edge.http.post(
                URL, data=in_chunks(STREAMED), headers={"Content-Type": "application/json"}
            ) as response:
                assert events(await response.text())[-1] == "[DONE]"
        (line,) = [record for record in caplog.records if record.getMessage() == "request.ended"]
        fields = vars(line)
        assert (fields["status"], fields["stream"], fields["path"]) == (200, True, URL)

    async def test_a_failure_has_its_status(self, edge: Edge) -> None:
        """It has a JSON body."""
        async with edge.http.post(
            URL, data=in_chunks({"model": "m"}), headers={"Content-Type": "application/json"}
        ) as response:
            assert (await response.json())["error"]["param"] == "messages"
        assert response.status == 400

    async def test_a_client_that_leaves_cancels_the_call(self, edge: Edge) -> None:
        """The client disconnects in the middle of a stream."""
        pause = Pause()
        edge.script.steps = [[service.started()], pause]
        async with edge.http.post(
            URL, data=in_chunks(STREAMED), headers={"Content-Type": "application/json"}
        ) as response:
            await pause.reached.wait()
            response.close()
        await asyncio.wait_for(edge.script.cancelled.wait(), 5)

    async def test_a_client_that_does_not_read_is_cut_off(
        self, edge: Edge, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The buffer and the wait are bounded. The log does not call the request malformed."""
        caplog.set_level(logging.INFO, "gateway.access")
        steps = Endless()
        edge.script.steps = steps
        body = json.dumps(STREAMED).encode()
        key = edge.http.headers["Authorization"].encode()
        head = b"POST %b HTTP/1.1\r\nHost: a\r\nAuthorization: %b\r\n" % (URL.encode(), key)
        _, writer = await asyncio.open_connection(edge.host, edge.port, limit=1024)
        writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        try:
            await asyncio.wait_for(edge.script.closed.wait(), 10)
        finally:
            writer.transport.abort()
        assert steps.taken < 1000
        lines = [line.getMessage() for line in caplog.records if line.name == "gateway.access"]
        assert lines == ["request.ended"]
