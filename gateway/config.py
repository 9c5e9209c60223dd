"""Limits and times of the REST edge, and the tables of the configuration file that it reads."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from services.common.config_tables import BoundsConfig, ConfigError, TracesConfig
from services.common.images import IMAGE_BYTES_MAX, IMAGES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeConfig:
    """Limits and times of the REST edge. The defaults suit production."""

    body_bytes_max: int = 32 * 1024 * 1024
    """The largest request body. Larger ones are refused before they are read."""
    body_timeout_s: float = 30.0
    """How long a body may take to arrive in all."""
    body_stall_s: float = 10.0
    """How long `body_stall_bytes` of a body may take."""
    body_stall_bytes: int = 10 * 1024
    """What has to arrive in every `body_stall_s`: 1 KiB/s by default."""
    images_max: int = IMAGES_MAX
    """The most pictures in one request."""
    image_bytes_max: int = IMAGE_BYTES_MAX
    """The most bytes that the pictures of one request may decode to, together."""
    deadline_s: float = 1800.0
    """How long a call may take where the client does not say."""
    first_event_wait_s: float = 10.0
    """How long a stream waits for its first event before it commits to status 200."""
    keep_alive_s: float = 10.0
    """After how much silence a stream says that it is alive."""
    connections_max: int = 20_000
    """The most clients at a time, and no more than two fifths of the process's descriptors. One
    more is told to come back."""
    write_timeout_s: float = 60.0
    """How long a client may leave a full buffer unread before it is cut off."""
    idle_timeout_s: float = 15.0
    """How long a connection may be idle, or send headers, before it is closed."""
    send_buffer_bytes: int = 64 * 1024
    """The kernel's share of what a client has not read yet (SO_SNDBUF)."""
    write_buffer_bytes: int = 16 * 1024
    """Our share of it: above this, the stream waits for the client."""
    readiness_timeout_s: float = 1.0
    """How long the service may take to say that it is ready."""
    shutdown_delay_s: float = 0.0
    """How long the edge still takes requests after it was told to stop, and says that it is not
    ready: until then balancers may send some."""
    drain_timeout_s: float = 600.0
    """How long running requests may go on after the edge was told to stop."""


class EdgeTables(msgspec.Struct, frozen=True, kw_only=True):
    """Tables of the configuration file that an edge reads. The others are the service's."""

    bounds: BoundsConfig = BoundsConfig()
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
