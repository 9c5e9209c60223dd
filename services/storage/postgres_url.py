"""URL of a PostgreSQL database: hosts and parameters, as libpq reads them.

The driver reads most parameters itself. A parameter that neither the driver nor libpq knows is a
setting of the server, such as `search_path`, and the server refuses those that it does not know.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from services.common.addresses import join_address
from services.storage.postgres_parameters import (
    SYSTEM,
    UrlError,
    check_parameters,
    drop_ignored,
    read_timeout,
)

CONNECT_TIMEOUT_S = 5.0
SEVERAL_TIMEOUT_S = 2.0
"""Default timeout of a connection to the only host, and to one of several."""

PORT = 5432

DEFAULT_ADDRESS = "localhost"
"""Address in messages where the URL names no host: the driver tries sockets, too."""

ESCAPES = "in a password, / ? # and % are written %2F %3F %23 and %25"

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
    unmet: tuple[str, ...]
    """Parameters that ask for more security than the driver has, with their values."""

    @property
    def address(self) -> str:
        """Hosts and the database's name, without a login."""
        hosts = ",".join(host_address(host) for host in self.hosts) or DEFAULT_ADDRESS
        return hosts + urlsplit(self.dsn).path


def parse_url(text: str) -> PostgresUrl:
    """Parse a URL. Raise UrlError if it is not valid, or names files that cannot be read."""
    try:
        url, authority = split_url(text)
        query = dict(parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query)))
    except ValueError:  # Its text may be a part of the password.
        raise UrlError(f"must be postgresql://…, parameters NAME=VALUE; {ESCAPES}") from None
    login, _, netloc = authority.rpartition("@")
    hosts = tuple(read_hosts(query.pop("host", "") or netloc, query.pop("port", "")))
    timeout_s = read_timeout(query.pop("connect_timeout", ""))
    unmet = drop_ignored(query)
    check_parameters(query)
    target = query.pop("target_session_attrs", None) or ("read-write" if len(hosts) > 1 else None)
    if name := query.pop("fallback_application_name", ""):
        query.setdefault("application_name", name)
    if query.get("sslrootcert") == SYSTEM:
        query["sslrootcert"] = _system_certificates()
        query.setdefault("sslmode", "verify-full")
    settings = urlencode(query, quote_via=quote)
    default_s = CONNECT_TIMEOUT_S if len(hosts) < 2 else SEVERAL_TIMEOUT_S
    return PostgresUrl(
        # The driver takes the first @ for the end of the password, libpq the last.
        dsn=urlunsplit(url._replace(netloc=_quoted(login), query=settings)),
        hosts=hosts,
        target=target,
        connect_timeout_s=timeout_s or default_s,
        unmet=unmet,
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


def host_address(host: Host) -> str:
    """Return the address of a host for operators."""
    name, port = host
    return name if name.startswith("/") else join_address(name or DEFAULT_ADDRESS, port)


def read_hosts(hosts: str, ports: str = "") -> Iterator[Host]:
    """Yield the hosts of a list such as `a:5432,[::1],/run/postgresql`. One port serves all."""
    names = [unquote(each) for each in hosts.split(",") if each]
    listed = ports.split(",") if ports else []
    if len(listed) > 1 and len(listed) != len(names):
        raise UrlError(f"port: there are {len(listed)} ports for {len(names)} hosts")
    for index, name in enumerate(names):
        default = _port(listed[index % len(listed)]) if listed else PORT
        host, colon, port = name.rpartition(":")
        if name.startswith("/") or not colon or name.endswith("]"):
            host, port = name, ""
        if host.startswith("[") != host.endswith("]"):
            raise UrlError("host: an IPv6 address is written [::1]")
        yield host.strip("[]"), _port(port) if port else default


def _system_certificates() -> str:
    path = ssl.get_default_verify_paths().cafile
    if path is None:
        raise UrlError(f"sslrootcert: {SYSTEM}: this machine has none; set SSL_CERT_FILE")
    return path


def _port(text: str) -> int:
    """Return a port. The error does not show the text, which may be a part of the password."""
    if not text:
        return PORT
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65536):
        raise UrlError(f"port: must be a whole number from 1 to 65535; {ESCAPES}")
    return int(text)
