"""Local channel: gRPC to servicers of this process, over a Unix socket of its own.

For methods that an edge in the same process transcodes, and for commands that open the state
themselves: a call costs half a millisecond. Completions pass without gRPC
(`services.serving.core_backend`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc

from services.rpc.listener import UNIX, listening

# The socket is on this machine: never use an HTTP proxy.
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


@asynccontextmanager
async def local_channel(
    register: Callable[[grpc.aio.Server], None],
    *,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    path: Path | None = None,
) -> AsyncIterator[grpc.aio.Channel]:
    """Serve and open a channel. The socket, for its owner alone, is `path` or a temporary file.

    Raises OSError where the socket cannot be made.
    """
    async with AsyncExitStack() as stack:
        if path is None:
            folder = stack.enter_context(TemporaryDirectory(prefix="pomogator-"))
            path = Path(folder) / "rpc.sock"
        listener = listening(register, f"{UNIX}{path}", interceptors=interceptors, grace_s=0.0)
        bound = await stack.enter_async_context(listener)
        yield await stack.enter_async_context(grpc.aio.insecure_channel(bound, options=_OPTIONS))
