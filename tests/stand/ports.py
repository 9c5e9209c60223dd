"""TCP ports of a test's own."""

from __future__ import annotations

import atexit
import socket
from contextlib import ExitStack

_RESERVED = ExitStack()
atexit.register(_RESERVED.close)


def free_ports(count: int) -> list[int]:
    """Distinct ports that a program of this test can listen at, on any IPv4 address.

    Until this process ends the kernel gives them to no other program that asks for any port, nor
    to a connection: a bound socket holds each. It does not listen, so that connections are refused,
    and a program that names the port and sets `SO_REUSEADDR`, as servers do, can take it.
    """
    return [free_port() for _ in range(count)]


def free_port() -> int:
    """One such port."""
    reservation = _RESERVED.enter_context(socket.socket())
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reservation.bind(("0.0.0.0", 0))  # noqa: S104 - Nothing listens.
    port: int = reservation.getsockname()[1]
    return port
