from __future__ import annotations

import errno
import socket

import pytest

from services.common.addresses import is_local, join_address, listen_error, split_address


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("[::1]:0", "::1", 0),
        ("localhost:65535", "localhost", 65535),
    ],
)
def test_an_address_is_split_and_joined(address: str, host: str, port: int) -> None:
    """Brackets are IPv6's."""
    assert split_address(address) == (host, port)
    assert join_address(host, port) == address


@pytest.mark.parametrize(
    "address",
    [
        *("", "8080", ":8080", "a", "a:", "a:b", "h:-1", "h:+1", "h: 1", "h:1 ", "h:0x1"),
        *("localhost:65536", "localhost:99999999999", "unix:", "dns:///x:1:y"),
    ],
)
def test_another_form_is_no_address(address: str) -> None:
    """Host and port are both needed, and too large a port would come out as another one."""
    with pytest.raises(ValueError, match="expected HOST:PORT, not"):
        split_address(address)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1:80", True),
        ("127.8.8.8:80", True),
        ("[::1]:80", True),
        ("localhost:80", True),
        ("unix:/run/s", True),
        ("0.0.0.0:80", False),
        ("[::]:80", False),
        ("10.0.0.1:80", False),
        ("localhost.example:80", False),
        (":80", False),
        ("dns:///127.0.0.1:80", True),
        ("dns:///pomogator-grpc:80", False),
        ("ipv4:127.0.0.1:80,127.0.0.2:81", True),
        ("ipv4:127.0.0.1:80,10.0.0.1:80", False),
        ("ipv6:[::1]:80,[::1]:81", True),
        ("ipv4:", False),
    ],
)
def test_only_loopback_and_unix_sockets_are_local(address: str, local: bool) -> None:
    """Each address of a list has to be."""
    assert is_local(address) is local


def test_an_error_of_listening_has_the_systems_words() -> None:
    """Without asyncio's repetition of the address; for an unknown name, the resolver's words."""
    taken = OSError(errno.EADDRINUSE, "error while attempting to bind on address ('::1', 80)")
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert str(listen_error("[::1]:80", taken)) == (
        "cannot listen on [::1]:80: Address already in use"
    )
    assert str(listen_error("x:80", unknown)) == (
        "cannot listen on x:80: Name or service not known"
    )
