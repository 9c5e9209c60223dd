"""Tables of the configuration file that the service and an edge apart both read."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated

import msgspec

BODY_BYTES_MAX = 32 * 2**20
CONNECTIONS_MAX = 20_000

Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[!-.0-~]+")
"""As browsers send it: printable ASCII without a slash after the host."""
_HOST_PORT = re.compile(r"[!-.0-~]+:[0-9]{1,5}")


class ConfigError(Exception):
    """The configuration cannot be used. The message names the file, the key and the reason."""


class BoundsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[bounds]`: the most that one process accepts. Excess calls get 503 with Retry-After."""

    calls_max: Count = 2000
    """In-flight calls of a service. An excess call is refused before its key is looked up."""
    calls_max_when_late: Count = 256
    """In-flight calls of a service while its event loop is late without a break. The right number
    depends on how fast the streams are: deploy/README.md, "Capacity"."""
    body_bytes_max: Annotated[int, msgspec.Meta(ge=1024, le=BODY_BYTES_MAX)] = BODY_BYTES_MAX
    """The largest request body that an edge accepts."""
    body_memory_bytes_max: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Memory for the bodies of all requests of an edge at a time, at four bytes for each byte until
    it is decoded, then two. One key may use half. 0: seven tenths of the container's memory limit,
    or without one of the machine's memory."""
    connections_max: Count = CONNECTIONS_MAX
    """Clients' connections to an edge, and at most two fifths of its file descriptors."""


class EdgeTableConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[edge]`: how an edge deals with clients and the proxies in front of it."""

    headers_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 15.0
    """How long the TLS handshake may take, and the head of a request from its first byte to its
    last."""
    idle_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 75.0
    """How long a connection may be idle before a request. It must be longer than the load balancer
    keeps idle connections, which otherwise answers some calls with 502: nginx and AWS' balancers
    keep them for 60 s, Google's for 600 s. Shorter while connections run short."""

    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of the proxies in front, such as `10.0.0.0/8`. Their `X-Forwarded-For`
    or `Forwarded` says whose failed authentications the throttle counts. Without any, it counts
    those of the proxy."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose web pages may read answers, such as `https://app.example`, or `*`. None: no
    CORS."""
    console: bool = False
    """Serve the console at `/console` of the REST API, for browsers of tenants."""
    public_url: str = ""
    """Base URL of the REST API for clients, such as `https://api.example`, which the console shows.
    Empty: the address under which the browser has called the edge."""
    public_grpc: str = ""
    """gRPC listener for clients, such as `grpc.example:443`, which the console shows. Empty:
    that of the process, if it has one on TCP."""

    def __post_init__(self) -> None:
        """Refuse what is neither a network nor an origin."""
        for network in self.trusted_proxies:
            try:
                ip_network(network)
            except ValueError as error:
                raise ValueError(f"trusted_proxies: {error}") from None
        for origin in self.cors_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                message = f"cors_origins: {origin!r} is not `*` or an origin: scheme://host[:port]"
                raise ValueError(message)
        if self.public_url and not _ORIGIN.fullmatch(self.public_url):
            raise ValueError(f"public_url: {self.public_url!r} is not scheme://host[:port]")
        if self.public_grpc and not _HOST_PORT.fullmatch(self.public_grpc):
            raise ValueError(f"public_grpc: {self.public_grpc!r} is not host:port")


class TracesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[traces]`: where spans go. Needs the extra `otel`. OpenTelemetry's variables override it."""

    endpoint: str = ""
    """OTLP/gRPC collector, `http://HOST:PORT` or `https://…`. Empty: no traces, unless
    OTEL_EXPORTER_OTLP_ENDPOINT names a collector."""
    ratio: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    """Share of calls that are traced where the caller has not decided (OTEL_TRACES_SAMPLER)."""
