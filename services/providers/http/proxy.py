"""Forward proxies: HTTPS_PROXY, HTTP_PROXY and NO_PROXY, as curl and Go read them.

TLS goes through a tunnel (CONNECT, RFC 9110, section 9.3.6), so that the proxy sees only the name
of the server. Requests in plain text are sent to the proxy itself, with their whole URL.
"""

from __future__ import annotations

import asyncio
import socket
from base64 import b64encode
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from services.common.addresses import is_local, join_address
from services.providers.http.errors import HttpError, HttpErrorKind
from services.providers.http.request import Origin

ANSWER_MAX = 16 * 1024
"""Bytes of the answer to CONNECT."""
PORT = 3128
"""Port of a proxy whose URL has none."""
AUTHENTICATION_REQUIRED = 407


class Proxy(NamedTuple):
    """One proxy."""

    host: str
    port: int
    fields: str
    """The line with its credentials, or nothing."""

    @classmethod
    def parse(cls, text: str) -> Proxy:
        """Parse `http://[USER:PASSWORD@]HOST[:PORT]`; the scheme may be missing.

        Raises ValueError, without the URL, which may hold a password.
        """
        url = urlsplit(text if "://" in text else f"http://{text}")
        if url.scheme != "http" or not url.hostname or not text.isascii() or not text.isprintable():
            raise ValueError("must be http://[USER:PASSWORD@]HOST[:PORT]")
        fields = ""
        if url.username is not None:
            pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
            fields = f"proxy-authorization: Basic {b64encode(pair.encode()).decode()}\r\n"
        return cls(url.hostname, url.port or PORT, fields)

    @property
    def address(self) -> str:
        """HOST:PORT, for messages."""
        return join_address(self.host, self.port)

    async def tunnel(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, origin: Origin
    ) -> None:
        """Make `sock`, which is connected to the proxy, a connection to `origin`.

        Raises HttpError (PROXY).
        """
        target = join_address(origin.host, origin.port)
        request = f"CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n{self.fields}\r\n"
        await loop.sock_sendall(sock, request.encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = await loop.sock_recv(sock, 4096)
            answer += data
            if not data or len(answer) > ANSWER_MAX:
                raise HttpError(HttpErrorKind.PROXY, "no answer to CONNECT")
        line, _, _ = answer.partition(b"\r\n")
        version, _, status = line.decode("latin-1").partition(" ")
        if not version.startswith("HTTP/1.") or not status.startswith("2"):
            # The phrase is the proxy's, and short: it tells what the status does not.
            text = "".join(char for char in status[:80] if char.isprintable())
            raise HttpError(HttpErrorKind.PROXY, f"the answer to CONNECT is {text!r}")
        if not answer.endswith(b"\r\n\r\n"):
            raise HttpError(HttpErrorKind.PROXY, "more than an answer to CONNECT")


class Proxies:
    """The proxies of the environment, and the hosts that are reached without them."""

    def __init__(
        self, *, https: Proxy | None = None, http: Proxy | None = None, excluded: str = ""
    ) -> None:
        """`excluded` is a list as in NO_PROXY: hosts and domains, addresses and networks, `*`."""
        self._https = https
        self._http = http
        self._excluded: Sequence[str] = [
            entry for part in excluded.lower().split(",") if (entry := part.strip())
        ]

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Proxies:
        """Return the proxies that variables name, in small letters or, without those, in capitals.

        Raises ValueError, with the variable's name and without its value.
        """
        return cls(
            https=_variable(env, "https_proxy"),
            http=_variable(env, "http_proxy"),
            excluded=env.get("no_proxy") or env.get("NO_PROXY", ""),
        )

    def to(self, origin: Origin) -> Proxy | None:
        """Return the proxy for connections to `origin`. None: they are direct.

        Connections within this machine always are.
        """
        proxy = self._https if origin.secure else self._http
        if proxy is None or is_local(join_address(origin.host, origin.port)):
            return None
        return None if any(_matches(entry, origin) for entry in self._excluded) else proxy


def _variable(env: Mapping[str, str], name: str) -> Proxy | None:
    for each in (name, name.upper()):
        if text := env.get(each, "").strip():
            try:
                return Proxy.parse(text)
            except ValueError as error:
                raise ValueError(f"{each}: {error}") from None
    return None


def _matches(entry: str, origin: Origin) -> bool:
    """Whether an entry of NO_PROXY covers the origin."""
    if entry == "*":
        return True
    host = origin.host.lower()
    try:
        return ip_address(host) in ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass  # One of them is a name.
    name, _, port = entry.rpartition(":")
    if port.isdecimal():
        if int(port) != origin.port:
            return False
        entry = name.strip("[]")
    domain = entry.removeprefix("*").removeprefix(".")
    return host == domain or host.endswith(f".{domain}")
