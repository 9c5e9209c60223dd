"""How `pomogator serve` was told to run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Where the server listens, remembers, and reads what it serves."""

    config_path: Path | None
    """The configuration. None: the shipped default."""
    state: Path
    """The directory of whatever outlives the process."""
    rest: str
    """The edge: `HOST:PORT`."""
    grpc: str
    """The public gRPC services: `HOST:PORT` or `unix:PATH`."""
    ops: str
    """The operators' services: `HOST:PORT` or `unix:PATH`."""
    only: Literal["rest", "grpc"] | None
    """Run only the edge, or only the service. None: both, in this process."""
    target: str | None
    """With `only="rest"`: where the service is, as gRPC names it."""
