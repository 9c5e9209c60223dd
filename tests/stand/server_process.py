"""A server program that a test runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def running_server(port: int, *command: str) -> AsyncIterator[None]:
    """Run a program, from the moment that it listens on this port of 127.0.0.1."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(10):
            while not await _listens(port):
                assert process.returncode is None
                await asyncio.sleep(0.01)  # It does not tell when it listens.
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            # tinyproxy misses a signal that comes just before it waits for a connection.
            process.kill()
            await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    writer.close()
    return True
