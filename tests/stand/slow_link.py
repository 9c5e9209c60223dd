"""A relay that delays every byte and every end, as a long link does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


@asynccontextmanager
async def slow_link(target: tuple[str, int], delay_s: float) -> AsyncIterator[int]:
    """Listen at a port, and pass everything on to `target`, `delay_s` later each way."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*target)
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(_pass_on(source, sink, delay_s))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float
) -> None:
    """Pass on all bytes, and then the end of the connection, which the kernel would not delay."""
    loop = asyncio.get_running_loop()
    try:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                loop.call_later(delay_s, writer.write, data)
        await asyncio.sleep(delay_s)
    finally:
        writer.close()
