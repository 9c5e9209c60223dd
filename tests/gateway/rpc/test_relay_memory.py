"""Memory of a relayed call while its answer is awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.rpc.grpc_backend import GrpcBackend
from services.domain.spec import CompletionRequest
from tests.gateway.rpc.relay_stand import ScriptedCore, linked, stream_text, whole_text
from tests.stand.polling import until


class WatchedBytes(bytes):
    """Bytes that tell when they are freed."""

    freed: list[int] = []  # noqa: RUF012 - of all

    def __del__(self) -> None:
        self.freed.append(len(self))


@pytest.mark.parametrize(("prompt", "read"), [("wait", whole_text), ("pause", stream_text)])
async def test_an_encoded_request_is_freed_before_its_answer_comes(
    prompt: str, read: Callable[[GrpcBackend, str], Awaitable[str]]
) -> None:
    """It may be large and the answer take minutes: each call would hold its request for as long."""
    core = ScriptedCore()
    async with linked(core) as stand:
        link = stand.links.choose()
        assert link is not None
        encode, sizes = link.codec.encode_request, list[int]()

        def watched(request: CompletionRequest) -> bytes:
            encoded = encode(request)
            sizes.append(len(encoded))
            return WatchedBytes(encoded)

        link.codec = link.codec._replace(encode_request=watched)
        WatchedBytes.freed.clear()

        reading = asyncio.ensure_future(read(stand.backend, prompt))
        await until(lambda: core.asked)
        await until(lambda: WatchedBytes.freed, timeout_s=5)

        assert WatchedBytes.freed == sizes
        assert not reading.done()
        core.goes_on.set()
        assert await reading == prompt
