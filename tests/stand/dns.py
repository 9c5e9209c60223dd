"""A name server with one name, as a cluster's DNS has for a headless service.

async with FakeDns(["127.0.0.1"]) as dns:
    target = dns.target("pomogator-grpc:50051")
    dns.addresses = ["127.0.0.2"]
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Self

_A = 1
_TTL_S = 5


class FakeDns(asyncio.DatagramProtocol):
    """Answers every question with its addresses (RFC 1035, section 4)."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = list(addresses)
        """The current IPv4 addresses."""
        self._transport: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=("127.0.0.1", 0)
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._transport is not None
        self._transport.close()

    def target(self, name: str) -> str:
        """A gRPC target that is resolved here: `dns://authority/host:port`."""
        assert self._transport is not None
        host, port = self._transport.get_extra_info("sockname")
        return f"dns://{host}:{port}/{name}"

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answers a question. There are no IPv6 addresses."""
        end = data.index(b"\0", 12) + 5  # The name ends with a zero; type and class follow.
        question = data[12:end]
        (kind,) = struct.unpack_from("!H", question, len(question) - 4)
        found = self.addresses if kind == _A else []
        head = struct.pack("!2sHHHHH", data[:2], 0x8180, 1, len(found), 0, 0)
        answers = (
            struct.pack("!HHHIH4s", 0xC00C, _A, 1, _TTL_S, 4, bytes(map(int, each.split("."))))
            for each in found
        )
        assert self._transport is not None
        self._transport.sendto(head + question + b"".join(answers), addr)
