"""Addresses of listeners and targets: HOST:PORT, `unix:PATH`, gRPC's targets."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager

PORT_MAX = 2**16 - 1

_LISTS = ("ipv4", "ipv6")
"""Schemes of gRPC targets that list addresses with commas between them:
https://github.com/grpc/grpc/blob/master/doc/naming.md."""


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT, where an IPv6 address stands in brackets.

    Raises ValueError: it has another form, or the port is too large.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > PORT_MAX:
        raise ValueError(f"expected HOST:PORT, not {address!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def join_address(host: str, port: int) -> str:
    """Return HOST:PORT: the reverse of `split_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_local(address: str) -> bool:
    """Whether what is sent to HOST:PORT, `unix:PATH` or a gRPC target stays on this machine."""
    if address.startswith("unix:"):
        return True
    scheme, _, listed = address.partition(":")
    if scheme in _LISTS:
        return all(is_local(each) for each in listed.split(","))
    host = address.rpartition(":")[0].rpartition("/")[2].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ListenError(OSError):
    """An address cannot be listened on. The text has the address and the system's reason."""


@contextmanager
def naming_option(option: str) -> Iterator[None]:
    """Add to the ListenError of a listener the option that sets its address."""
    try:
        yield
    except ListenError as error:
        raise ListenError(f"{error}; choose another address with {option}") from error


def listen_error(address: str, error: OSError) -> ListenError:
    """Return the error for an address that `error` kept a server from listening on.

    Its text is the system's, without the number and the repetitions in that of asyncio.
    """
    if error.errno is not None and error.errno > 0:
        reason = os.strerror(error.errno)
    else:
        reason = error.strerror or str(error)  # The number is negative for an unknown name.
    return ListenError(f"cannot listen on {address}: {reason}")
