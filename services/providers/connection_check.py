"""Check of connections: whether the address of every channel can be reached, without a request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

from services.config import Config
from services.providers.http import HttpClient, HttpError, Proxies, Url


class ConnectionResult(NamedTuple):
    """The result for one channel."""

    channel: str
    """The channel's name."""
    address: str
    """Its base URL."""
    failure: str
    """Why there is no connection: the words of the system or of TLS. Empty: there is one."""
    forwarder: str = ""
    """The proxy that was reached instead, since it forwards requests in plain text one by one."""


async def check_connections(config: Config, proxies: Proxies) -> AsyncIterator[ConnectionResult]:
    """Connect to the address of each channel in turn, with its certificates and over its proxy.

    Local models have no address before they run, and are left out.
    """
    http = HttpClient(proxies=proxies)
    try:
        for channel in config.channels:
            if channel.base_url:
                failure = forwarder = ""
                try:
                    url = Url.parse(channel.base_url).with_tls(channel.tls)
                    await http.connect(url, timeout_s=channel.connect_timeout_s)
                    proxy = None if url.origin.secure else proxies.to(url.origin)
                    forwarder = proxy.address if proxy else ""
                except HttpError as error:
                    failure = error.cause
                except ValueError as error:
                    failure = str(error)
                yield ConnectionResult(channel.name, channel.base_url, failure, forwarder)
    finally:
        await http.close()
