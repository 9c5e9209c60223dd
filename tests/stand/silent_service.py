"""A gRPC service in a process of its own, for tests that freeze it.

`python -m tests.stand.silent_service` prints where it listens, and serves until it is
killed. `/silent/Stream` says its process's ID and then nothing; `/silent/Ask` answers;
`/silent/Busy` keeps Python's lock for as many milliseconds as the request says.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc

from services.rpc.listener import listening

PYTHON = ctypes.PyDLL(None)
"""The C library, whose functions are called without releasing Python's global lock."""


async def stream(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
    """Sends its process's ID, and then nothing."""
    yield b"%d" % os.getpid()
    await asyncio.Event().wait()


async def ask(_request: bytes, _context: Any) -> bytes:
    """Answers."""
    return b"here"


async def busy(request: bytes, _context: Any) -> bytes:
    """Blocks this process for as many milliseconds as the request says."""
    PYTHON.usleep(int(request) * 1000)
    return b"done"


def register(server: grpc.aio.Server) -> None:
    """Adds the methods."""
    handlers: dict[str, Any] = {
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
        "Ask": grpc.unary_unary_rpc_method_handler(ask),
        "Busy": grpc.unary_unary_rpc_method_handler(busy),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("silent", handlers)])


async def main() -> None:
    """Serves until cancelled."""
    async with listening(register, "127.0.0.1:0") as bound:
        print(bound, flush=True)  # noqa: T201
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
