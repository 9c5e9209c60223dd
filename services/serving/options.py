"""Options of `pomogator serve`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

LINKS = ("rest", "grpc", "ops", "ops-rest", "console", "metrics", "target")
"""Links that can be plain text, by option."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """Files in PEM. A key is given exactly where its certificate is."""

    certificate: Path | None = None
    """The chain that listeners on TCP present. None: they are plain text."""
    key: Path | None = None
    client_ca: Path | None = None
    """CA of gRPC callers and operators, who then need a certificate."""
    insecure: frozenset[str] = frozenset()
    """Of `LINKS`, those on which plain text may leave the machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Addresses, state directory and configuration of the server."""

    config_path: Path | None
    """The configuration. None: the shipped default."""
    dialects: Collection[str]
    """Names of dialects that channels may use."""
    state: Path
    """Directory of all that outlives the process."""
    grpc_only: bool
    """Leave the REST API to edges in other processes."""
    workers: int
    """Number of edges in processes of their own, on one port. 0: the edge is in this process."""
    rest: str
    """REST API: `HOST:PORT`."""
    grpc: str
    """Public gRPC services: `HOST:PORT` or `unix:PATH`."""
    ops: str
    """Operators' gRPC services: `HOST:PORT` or `unix:PATH`."""
    ops_rest: str
    """Operators' REST API: `HOST:PORT`. Empty: nowhere."""
    console: str
    """Console: `HOST:PORT`. Empty: nowhere."""
    metrics: str | None
    """Prometheus metrics and probes, plain text: `HOST:PORT`. Empty: nowhere. None: the default
    address, if it is free."""
    shutdown_delay_s: float
    """Time in which new calls are accepted after readiness turned false, while balancers notice."""
    drain_timeout_s: float
    """Time that in-flight calls have to end after that."""
    watch_config: bool
    """Reload the configuration whenever its file changes."""
    reflection: bool
    """Serve gRPC reflection."""
    print_first_key: bool
    """Print the key of the first start also where standard output is no terminal."""
    tls: TlsOptions
    """Certificates of the listeners."""
