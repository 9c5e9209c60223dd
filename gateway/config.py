"""Limits and times of the REST edge, and the tables of the configuration file that it reads."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from services.common.config_tables import (
    BODY_BYTES_MAX,
    CONNECTIONS_MAX,
    BoundsConfig,
    ConfigError,
    EdgeTableConfig,
    TracesConfig,
)
from services.common.image_format import IMAGE_BYTES_MAX, IMAGES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeConfig:
    """Limits and times of the REST edge. The defaults suit production."""

    body_bytes_max: int = BODY_BYTES_MAX
    """The largest request body. Larger ones are refused before they are read."""
    body_memory_bytes_max: int = 0
    """The most memory that large bodies may take at a time. 0: a share of the container's."""
    body_timeout_s: float = 30.0
    """The most time from the first to the last byte of a body."""
    body_stall_s: float = 10.0
    """The most time for `body_stall_bytes` of a body."""
    body_stall_bytes: int = 10 * 1024
    """The fewest bytes that have to arrive in every `body_stall_s`: 1 KiB/s by default."""
    images_max: int = IMAGES_MAX
    """The most pictures in one request."""
    image_bytes_max: int = IMAGE_BYTES_MAX
    """The most bytes that all pictures of one request may have, decoded."""
    deadline_s: float = 1800.0
    """The longest deadline of a call, and the deadline where the client sets none."""
    first_event_wait_s: float = 10.0
    """How long a stream waits for its first event before it starts with status 200."""
    keep_alive_s: float = 10.0
    """How long a stream may be silent before it sends a keep-alive comment."""
    connections_max: int = CONNECTIONS_MAX
    """The most open connections, within `CONNECTION_DESCRIPTORS_SHARE` of the process's file
    descriptors. Further ones get 503 with Retry-After."""
    write_timeout_s: float = 60.0
    """How long a client may leave a full buffer unread before its connection closes."""
    headers_timeout_s: float = 15.0
    """How long the TLS handshake may take, and the head of a request from its first byte to its
    last."""
    idle_timeout_s: float = 75.0
    """How long a connection may be idle before it is closed: longer than load balancers keep idle
    connections. The timeout shrinks while connections run short."""
    trusted_proxies: Sequence[str] = ()
    """Networks of proxies whose headers name the client."""
    cors_origins: Sequence[str] = ()
    """Origins whose web pages may read answers, or `*`."""
    console: bool = False
    """Whether the console is at `/console`."""
    console_secret: str = field(default="", repr=False)
    """Seals the sessions of the console. Edges with the same secret accept each other's."""
    public_url: str = ""
    """Base URL for clients, without a path. Empty: as a request names it."""
    public_grpc: str = ""
    """The gRPC listener for clients, HOST:PORT. Empty: no such listener is known."""
    send_buffer_bytes: int = 64 * 1024
    """Size of the kernel's buffer of bytes that a client has not read yet (SO_SNDBUF)."""
    write_buffer_bytes: int = 16 * 1024
    """Size of the process's buffer beyond that: above it, a stream waits for the client."""
    readiness_timeout_s: float = 1.0
    """How long the service may take to answer whether it is ready."""
    shutdown_delay_s: float = 0.0
    """How long the edge accepts requests after readiness turned false: load balancers send some
    until they notice."""
    drain_timeout_s: float = 600.0
    """How long requests in flight may take to end after that."""


class EdgeTables(msgspec.Struct, frozen=True, kw_only=True):
    """Tables of the configuration file that an edge reads. The others are the service's."""

    bounds: BoundsConfig = BoundsConfig()
    edge: EdgeTableConfig = EdgeTableConfig()
    traces: TracesConfig = TracesConfig()


def load_tables(path: Path | None) -> EdgeTables:
    """Read the edge's tables from `path`; without a file every key has its default.

    Raises ConfigError. Keys of other tables are not checked: `pomogator check` does that.
    """
    if path is None:
        return EdgeTables()
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), EdgeTables)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from None
