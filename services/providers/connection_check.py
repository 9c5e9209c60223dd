"""Check of connections: whether the address of every channel can be reached, without a request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from services.config import ChannelConfig, Config
from services.providers.http import HttpClient, HttpError, HttpErrorKind, Proxies, Url

WRONG_LOGIN = ("is '401", "is '407")
"""Answers of a proxy to a wrong password, in the words of the tunnel."""

VERIFY_FAILED = "certificate verify failed"
"""OpenSSL's words for a certificate that is not trusted."""


class ConnectionResult(NamedTuple):
    """The result for one channel."""

    channel: str
    """The channel's name."""
    address: str
    """Its base URL."""
    failure: str
    """Cause of a missing connection, in the words of the system or of TLS. Empty: there is one."""
    permanent: bool = False
    """Whether the failure stays until an operator mends its cause."""
    forwarder: str = ""
    """The proxy that was reached instead, since it forwards requests in plain text one by one."""


async def check_connections(config: Config, proxies: Proxies) -> Sequence[ConnectionResult]:
    """Connect to the address of each channel, with its certificates and over its proxy.

    Local models have no address before they run, and are left out.
    """
    http = HttpClient(proxies=proxies)
    try:
        channels = [channel for channel in config.channels if channel.base_url]
        return await asyncio.gather(*(_check(http, channel, proxies) for channel in channels))
    finally:
        await http.close()


async def _check(http: HttpClient, channel: ChannelConfig, proxies: Proxies) -> ConnectionResult:
    named = (channel.name, channel.base_url)
    try:
        url = Url.parse(channel.base_url).with_tls(channel.tls)
        await http.connect(url, timeout_s=channel.connect_timeout_s)
    except HttpError as error:
        return ConnectionResult(*named, error.cause, permanent=_is_permanent(error))
    except ValueError as error:
        return ConnectionResult(*named, str(error), permanent=True)
    proxy = None if url.origin.secure else proxies.to(url.origin)
    return ConnectionResult(*named, "", forwarder=proxy.address if proxy else "")


def _is_permanent(error: HttpError) -> bool:
    if error.kind is HttpErrorKind.PROXY:
        return any(answer in str(error) for answer in WRONG_LOGIN)
    return error.kind is HttpErrorKind.BAD_REQUEST or VERIFY_FAILED in str(error)
