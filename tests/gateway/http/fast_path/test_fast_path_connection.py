from __future__ import annotations

import asyncio
import gc
from pathlib import Path

from gateway.config import EdgeConfig
from gateway.http.fast_path.fast_path import RequestHead
from gateway.http.fast_path.fast_path_connection import KEPT_HEAD_BYTES_MAX
from tests.gateway.conftest import KEY, Edge, LimitedBackend, running_edge, scripted_channel
from tests.gateway.http.raw import BODY, read_answer
from tests.stand import service
from tests.stand.service import ScriptedService

OTHER_BODY = BODY + b" " * 100


def request(body: bytes, more: bytes = b"") -> bytes:
    """A request with these further headers."""
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n"
        b"Content-Length: %d\r\n%b\r\n%b" % (KEY.encode(), len(body), more, body)
    )


def kept_heads() -> list[int]:
    """Sizes of the heads that connections keep."""
    gc.collect()
    return sorted(each.body_start for each in gc.get_objects() if isinstance(each, RequestHead))


async def test_only_a_small_head_is_kept_for_the_next_request(edge: Edge) -> None:
    """Clients without a key could otherwise make each idle connection hold some 16 KB."""
    edge.script.answer = service.answer()
    before = kept_heads()
    large = b"X-Large: %b\r\n" % (b"x" * KEPT_HEAD_BYTES_MAX)
    reader, writer = await asyncio.open_connection(edge.host, edge.port)
    try:
        for more, kept in ((b"", 1), (large, 0), (b"", 1)):
            writer.write(request(BODY, more))
            answer = await read_answer(reader)
            assert answer is not None
            assert answer.status == 200
            await asyncio.sleep(0)
            assert len(kept_heads()) == len(before) + kept
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_large_head_is_not_kept_of_a_call_that_is_not_admitted(
    script: ScriptedService, config: EdgeConfig, tmp_path: Path
) -> None:
    """It is refused without a task, in the moment in which memory counts most."""
    async with (
        scripted_channel(script, "direct", tmp_path) as channel,
        running_edge(script, channel, config, LimitedBackend(channel, lambda _: 1.0)) as edge,
    ):
        before = kept_heads()
        reader, writer = await asyncio.open_connection(edge.host, edge.port)
        try:
            writer.write(request(BODY, b"X-Large: %b\r\n" % (b"x" * KEPT_HEAD_BYTES_MAX)))
            answer = await read_answer(reader)
            assert answer is not None
            assert answer.status == 503
            assert kept_heads() == before
        finally:
            writer.close()
            await writer.wait_closed()


async def test_each_request_of_a_connection_has_its_own_options_and_id(edge: Edge) -> None:
    """Those of the request before it count only where all headers are the same."""
    edge.script.answer = service.answer()
    reader, writer = await asyncio.open_connection(edge.host, edge.port)
    ids = set()
    try:
        for more in (b"", b"Idempotency-Key: a\r\n", b"Idempotency-Key: b\r\n", b""):
            for body in (BODY, OTHER_BODY):
                writer.write(request(body, more))
                answer = await read_answer(reader)
                assert answer is not None
                assert answer.status == 200
                ids.add(answer.headers["x-request-id"])
        keys = [each.get("idempotency-key", "") for each in edge.script.metadata]
    finally:
        writer.close()
        await writer.wait_closed()
    assert len(ids) == 8
    assert keys == ["", "", "a", "a", "b", "b", "", ""]
