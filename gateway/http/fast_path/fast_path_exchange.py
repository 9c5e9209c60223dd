"""Exchange of a request that came over the fast path."""

from __future__ import annotations

from gateway.errors import ApiError
from gateway.http.call_options import SentHeaders
from gateway.http.endpoint import Endpoint
from gateway.http.exchange import Exchange
from gateway.http.reply import Reply
from gateway.overload.body_budget import BodyMemory


class FastPathExchange(Exchange):
    """Exchange whose body has arrived whole, or will not arrive: then it is the error."""

    __slots__ = ("_body", "endpoint")

    def __init__(
        self,
        endpoint: Endpoint,
        sent: SentHeaders,
        reply: Reply,
        body: bytes | ApiError,
        memory: BodyMemory | None = None,
    ) -> None:
        """The connection releases `memory`."""
        super().__init__(sent, reply, {})
        self.memory = memory
        self.endpoint = endpoint
        self._body = body

    async def body(self) -> bytes:
        """Return the body without waiting, and drop it: it is not kept while the answer streams."""
        if isinstance(self._body, ApiError):
            raise self._body
        body, self._body = self._body, b""
        return body
