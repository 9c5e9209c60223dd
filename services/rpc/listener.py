"""A gRPC server that listens on a TCP address or a Unix socket."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc

from services.common.addresses import ListenError, listen_error, split_address
from services.common.call_names import COMPLETIONS
from services.common.tls import ListenerTls
from services.rpc.accept_batch import accepting_in_batches, register_handlers
from services.rpc.failure_border import RPCS_MAX, FailureBorder
from services.rpc.large_requests import REQUEST_BYTES_MAX, LargeRequests
from services.rpc.reflection import add_reflection

UNIX = "unix:"

RECEIVED_BYTES_MAX = REQUEST_BYTES_MAX + 16 * 2**20
"""The largest message that gRPC receives. Those over `REQUEST_BYTES_MAX` get a status of ours, and
larger ones the status of gRPC."""
ACCEPTED_MAX = RPCS_MAX + 1000
"""The most calls that gRPC accepts at a time, without completions that are accepted in batches.
Those over `RPCS_MAX` get a status of ours, and others the status of gRPC."""

CONNECTIONS_MAX = 4000
"""The most connections of one listener."""
CONNECTIONS_SHARE = 0.2
"""The share of the process's file descriptors that connections of one listener may take."""

LAST_STATUS_S = 1.0
"""The most time at the end of a shutdown in which calls that are still in flight get a status."""
LAST_STATUS_SHARE = 0.2
"""The largest share of the time of a shutdown for that."""

PING_INTERVAL_MIN_MS = 1_000
"""The shortest interval between keep-alive pings of a client."""
PING_INTERVAL_MS = 10_000
PING_TIMEOUT_MS = 5_000

OPTIONS = (
    ("grpc.max_receive_message_length", RECEIVED_BYTES_MAX),
    ("grpc.max_send_message_length", REQUEST_BYTES_MAX),
    ("grpc.max_concurrent_streams", 2000),
    # An unread stream would otherwise be buffered up to megabytes ahead of its reader.
    ("grpc.http2.bdp_probe", 0),
    # Callers may ping every two seconds while a model reasons and the stream is silent.
    ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MIN_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    # Calls of a client that is frozen or out of reach end soon, since answers cost money.
    ("grpc.keepalive_time_ms", PING_INTERVAL_MS),
    ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
    ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
    ("grpc.http2.max_pings_without_data", 0),
    # A client that connects and sends nothing is disconnected.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.so_reuseport", 0),
    # Clients look for new replicas only when a connection ends. Calls in flight may end first.
    ("grpc.max_connection_age_ms", 600_000),
    ("grpc.max_connection_age_grace_ms", 1_860_000),
)


@asynccontextmanager
async def listening(  # noqa: PLR0913 - all that a listener is made of
    register: Callable[[grpc.aio.Server], None],
    address: str,
    *,
    reflected: Sequence[str] = (),
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    tls: ListenerTls | None = None,
    grace_s: float = 30.0,
    large_requests: LargeRequests | None = None,
) -> AsyncIterator[str]:
    """Serve over gRPC at `HOST:PORT` or `unix:PATH`; yield the address with the actual port.

    Connections beyond `CONNECTIONS_MAX`, or a fifth of the process's descriptors, are closed.
    On exit calls in flight have `grace_s` to end. `reflected` names the services that server
    reflection lists; without any there is no reflection. `interceptors` run between
    `FailureBorder` and the handlers. Without `tls` the listener is plain
    text; a Unix socket always is. `large_requests` checks key and memory of large requests.

    Raises OSError where the address is taken, or the files of `tls` cannot be used.
    """
    border = FailureBorder(large_requests)
    chain = [border, *interceptors]
    server = grpc.aio.server(
        interceptors=chain,
        options=[*OPTIONS, ("grpc.max_allowed_incoming_connections", _connections_max())],
        maximum_concurrent_rpcs=ACCEPTED_MAX,
    )
    handlers = register_handlers(register, server)
    completions = {path: handlers[path] for path in handlers if path.startswith(COMPLETIONS)}
    if reflected:
        add_reflection(reflected, server)
    bound = _bind(server, address, tls)
    await server.start()
    async with accepting_in_batches(server, completions, chain):
        try:
            yield bound
        finally:
            await _stop(server, border, grace_s)
            if bound.startswith(UNIX):
                _remove(bound)


async def _stop(server: grpc.aio.Server, border: FailureBorder, grace_s: float) -> None:
    """Let calls in flight end by themselves; before gRPC cuts the rest, end it with a status."""
    stopping = asyncio.ensure_future(server.stop(grace_s))
    last_s = min(LAST_STATUS_S, grace_s * LAST_STATUS_SHARE)
    _, running = await asyncio.wait({stopping}, timeout=grace_s - last_s)
    if running and last_s:
        border.end_calls()
    await stopping


def _connections_max() -> int:
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return max(1, min(CONNECTIONS_MAX, int(CONNECTIONS_SHARE * descriptors)))


def _bind(server: grpc.aio.Server, address: str, tls: ListenerTls | None) -> str:
    try:
        if not address.startswith(UNIX):
            if tls is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, tls.grpc_credentials())
            return f"{address.rpartition(':')[0]}:{port}"
        return _bind_socket(server, Path(address.removeprefix(UNIX)))
    except RuntimeError as error:
        raise _listen_error(address) from error


def _listen_error(address: str) -> ListenError:
    """Return the error with the system's reason, which gRPC does not tell: that of a bind again."""
    if not address.startswith(UNIX):
        host, port = split_address(address)
        try:
            family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind) as again:
                again.bind(place)
        except OSError as error:
            return listen_error(address, error)
    return ListenError(f"cannot listen on {address}")


def _bind_socket(server: grpc.aio.Server, path: Path) -> str:
    """Bind a socket with mode 0600 from its creation: that permission is its authentication."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()
    before = os.umask(0o177)
    try:
        server.add_insecure_port(f"{UNIX}{path}")
    finally:
        os.umask(before)
    return f"{UNIX}{path}"


def _remove(bound: str) -> None:
    Path(bound.removeprefix(UNIX)).unlink(missing_ok=True)
