"""URL of a PostgreSQL database: hosts and parameters, as libpq reads them.

The driver reads most parameters itself. A parameter that neither the driver nor libpq knows is a
setting of the server, such as `search_path`, and the server refuses those that it does not know.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import (
    SplitResult,
    parse_qsl,
    quote,
    unquote,
    urlencode,
    urlsplit,
    urlunsplit,
)

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
SEVERAL_TIMEOUT_S = 2.0
"""Default timeout of a connection to the only host, and to one of several."""

PORT = 5432

IGNORED = frozenset(
    {
        "channel_binding",
        "client_encoding",
        "gssdelegation",
        "gssencmode",
        "hostaddr",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "load_balance_hosts",
        "max_protocol_version",
        "min_protocol_version",
        "replication",
        "require_auth",
        "requirepeer",
        "requiressl",
        "sslcertmode",
        "sslcompression",
        "sslcrldir",
        "sslkeylogfile",
        "sslsni",
        "tcp_user_timeout",
    }
)
"""Parameters of libpq that have no effect here. Dead peers are found by timeouts and a heartbeat
instead of TCP keep-alive."""

DEMANDS: Mapping[str, frozenset[str]] = {
    "channel_binding": frozenset({"require"}),
    "gssencmode": frozenset({"require"}),
    "require_auth": frozenset(),
    "requirepeer": frozenset(),
    "sslcertmode": frozenset({"require"}),
}
"""Ignored parameters that ask for more security than the driver has, with the values that do. No
value: all. `sslmode=verify-full` gives the protection against a machine in the middle."""

Host = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresUrl:
    """Parsed URL."""

    dsn: str
    """URL for the driver, without the parameters that are handled here."""
    hosts: tuple[Host, ...]
    """Hosts, or folders of Unix sockets, in the order of the URL. Empty: the driver's default."""
    target: str | None
    """`target_session_attrs`. With several hosts `read-write` by default, since others refuse all
    that the gateway does. None: any."""
    connect_timeout_s: float
    """Timeout of a connection to one host."""


def parse_url(text: str) -> PostgresUrl:
    """Parse a URL. Raise ValueError if it is not valid; the message may contain its password.

    Log ignored parameters that ask for security.
    """
    url, authority = split_url(text)
    query = dict(parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query)))
    login, _, netloc = authority.rpartition("@")
    hosts = tuple(read_hosts(query.pop("host", "") or netloc, query.pop("port", "")))
    target = query.pop("target_session_attrs", None) or ("read-write" if len(hosts) > 1 else None)
    timeout_s = max(0.0, float(query.pop("connect_timeout", "") or 0))
    for name in IGNORED & query.keys():
        value = query.pop(name)
        if name in DEMANDS and (not DEMANDS[name] or value in DEMANDS[name]):
            extra = {"parameter": f"{name}={value}", "remedy": "sslmode=verify-full"}
            log.warning("database_parameter.ignored", extra=extra)
    if name := query.pop("fallback_application_name", ""):
        query.setdefault("application_name", name)
    if query.get("sslrootcert") == "system":
        query["sslrootcert"] = ssl.get_default_verify_paths().cafile or "system"
        query.setdefault("sslmode", "verify-full")
    settings = urlencode(query, quote_via=quote)
    default_s = CONNECT_TIMEOUT_S if len(hosts) < 2 else SEVERAL_TIMEOUT_S
    return PostgresUrl(
        # The driver takes the first @ for the end of the password, libpq the last.
        dsn=urlunsplit(url._replace(netloc=_quoted(login), query=settings)),
        hosts=hosts,
        target=target,
        connect_timeout_s=timeout_s or default_s,
    )


def split_url(text: str) -> tuple[SplitResult, str]:
    """Split a URL into its parts without the authority, and the authority: login and hosts.

    `urlsplit` alone refuses a list of hosts with an IPv6 address behind the first
    (https://github.com/python/cpython/issues/105704).
    """
    scheme, separator, rest = text.partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    return urlsplit(scheme + separator + rest[len(authority) :]), authority


def _quoted(login: str) -> str:
    return f"{login.replace('@', '%40')}@" if login else ""


def read_hosts(hosts: str, ports: str = "") -> Iterator[Host]:
    """Yield the hosts of a list such as `a:5432,[::1],/run/postgresql`. One port serves all."""
    names = [unquote(each) for each in hosts.split(",") if each]
    listed = ports.split(",") if ports else []
    if len(listed) > 1 and len(listed) != len(names):
        raise ValueError(ports)
    for index, name in enumerate(names):
        default = int(listed[index % len(listed)] or PORT) if listed else PORT
        host, colon, port = name.rpartition(":")
        if name.startswith("/") or not colon or name.endswith("]"):
            host, port = name, ""
        yield host.strip("[]"), int(port) if port else default
