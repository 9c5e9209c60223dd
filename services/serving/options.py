"""How `pomogator serve` was told to run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LINKS = ("rest", "grpc", "ops", "ops-rest", "metrics", "target")
"""What can be plain text, by option."""

METRICS = "127.0.0.1:9090"
"""Where metrics are served if nobody says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """Files in PEM. A key's is given exactly where its certificate's is."""

    certificate: Path | None = None
    """The chain that listeners on TCP present. None: they are plain text."""
    key: Path | None = None
    client_ca: Path | None = None
    """Who vouches for callers over gRPC and for operators, who then need a certificate."""
    target_ca: Path | None = None
    """Who vouches for the service. None: it is plain text."""
    target_certificate: Path | None = None
    """The chain that the edge presents to the service."""
    target_key: Path | None = None
    insecure: frozenset[str] = frozenset()
    """Of `LINKS`, those on which plain text may leave the machine."""


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
    ops_rest: str
    """REST for operators: `HOST:PORT`. Empty: nowhere."""
    metrics: str | None
    """Prometheus' metrics and the probes: `HOST:PORT`, always plain text. Empty: nowhere.
    None: `METRICS`, if that is free."""
    shutdown_delay_s: float
    """How long new calls are still taken then, while balancers learn that none should come."""
    drain_timeout_s: float
    """How long running calls may go on after the server was told to stop."""
    only: Literal["rest", "grpc"] | None
    """Run only the edge, or only the service. None: both, in this process."""
    watch_config: bool
    """Whether the configuration is read anew whenever its file changes."""
    reflection: bool
    """Whether gRPC reflection tells what there is."""
    target: str | None
    """With `only="rest"`: where the service is, as gRPC names it."""
    tls: TlsOptions
    """Who the server is, and whom it trusts."""
