"""Exchange: one request with a body and its reply, whichever way the request came.

Ordinary requests come over `gateway.http.fast_path`, all others through aiohttp's router. Either
way a `Reply` writes the answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from gateway.config import EdgeConfig
from gateway.http.body import read_body
from gateway.http.body_admission import BodyAdmission
from gateway.http.call_options import SentHeaders
from gateway.http.cors import CORS
from gateway.http.middleware import OUTCOME, REQUEST_ID, STARTED
from gateway.http.reply import ClientWriter, Reply
from gateway.overload.body_budget import BodyMemory


class Exchange(ABC):
    """A request and its reply, for a handler of `gateway.surfaces`."""

    __slots__ = ("memory", "outcome", "reply", "sent")

    def __init__(self, sent: SentHeaders, reply: Reply, outcome: dict[str, object]) -> None:
        self.memory: BodyMemory | None = None
        """The body's share of the budget; None for a small body, which is not counted."""
        self.sent = sent
        """The request's headers."""
        self.reply = reply
        self.outcome = outcome
        """Fields of the access log beside the status."""

    @abstractmethod
    async def body(self) -> bytes:
        """Return the whole body, once. ApiError where it does not arrive or is refused."""


class RoutedExchange(Exchange):
    """Exchange of a request that came through aiohttp's router and the error border."""

    __slots__ = ("_admission", "_config", "_request")

    def __init__(
        self, request: web.Request, config: EdgeConfig, admission: BodyAdmission, caller: str
    ) -> None:
        """`caller` is the unchecked key, which tells callers apart for admission."""
        cors = request.app.get(CORS)
        reply = Reply(
            cast("ClientWriter", request.protocol),
            request[REQUEST_ID],
            request[STARTED],
            keep_alive=request.keep_alive,
            http_1_0=request.version < HttpVersion11,
            fields=cors.fields(request.headers.get("Origin")) if cors else "",
        )
        sent = SentHeaders(headers=request.headers, caller=caller)
        super().__init__(sent, reply, request[OUTCOME])
        self._request = request
        self._config = config
        self._admission = admission

    async def body(self) -> bytes:
        """Read the body, then check admission for its call. A large body needs a known key."""
        caller = self.sent.caller
        if self._admission.needs_key(self._request.content_length, caller):
            await self._admission.known_keys.require(caller, self.reply.request_id)
        self.memory = self._admission.memory(caller)
        body = await read_body(self._request, self._config, self.memory)
        if error := self._admission.calls.admit(caller):
            raise error
        return body


class AlreadySentResponse(web.StreamResponse):
    """Response for aiohttp after a `Reply` has sent the answer: aiohttp sends nothing itself."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(status=reply.status)
        self._keep_alive = reply.keep_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002
        """Do nothing: the head is sent."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: the end is sent."""
