"""A TLS proxy before a store: the stores that tests install are built without TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]

SSL_REQUEST = bytes.fromhex("00000008 04d2162f")
"""PostgreSQL's SSLRequest: https://www.postgresql.org/docs/current/protocol-flow.html."""


@asynccontextmanager
async def tls_proxy(
    connect: Connect, tls: ssl.SSLContext, *, asked: bytes = b""
) -> AsyncIterator[int]:
    """Accepts TLS at a port, and relays the bytes to the connection that `connect` opens.

    With `asked` clients must begin with it, are answered `S`, and speak TLS from then on;
    who begins otherwise is not served.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here = asyncio.current_task()
        assert here is not None
        tasks.add(here)
        try:
            # A client that does not trust the certificate, or has left, is not served.
            with suppress(OSError, asyncio.IncompleteReadError):
                if asked:
                    if await reader.readexactly(len(asked)) != asked:
                        return
                    writer.write(b"S")
                    await writer.start_tls(tls)
                await _relay(reader, writer, *await connect())
        finally:
            tasks.discard(here)
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=None if asked else tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    inner_reader: asyncio.StreamReader,
    inner_writer: asyncio.StreamWriter,
) -> None:
    ways = [
        asyncio.create_task(_pass(reader, inner_writer)),
        asyncio.create_task(_pass(inner_reader, writer)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        inner_writer.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
