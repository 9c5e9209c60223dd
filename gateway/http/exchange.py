"""Exchange: one request with a body and its reply, whichever way the request came.

Ordinary requests come over `gateway.http.fast_path`, all others through aiohttp's router. Either
way a `Reply` writes the answer.
"""

from __future__ import annotations

from typing import Self, cast

import msgspec
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


class Exchange(Reply, eq=False, kw_only=True):
    """A request and its reply, for a handler of `gateway.surfaces`."""

    sent: SentHeaders
    """The request's headers."""
    outcome: dict[str, object] = msgspec.field(default_factory=dict)
    """Fields of the access log beside the status."""
    memory: BodyMemory | None = None
    """The body's share of the budget; None for a small body, which is not counted."""

    async def body(self) -> bytes:
        """Return the whole body, once. ApiError where it does not arrive or is refused."""
        raise NotImplementedError


class RoutedExchange(Exchange, eq=False, kw_only=True):
    """Exchange of a request that came through aiohttp's router and the error border."""

    request: web.Request
    config: EdgeConfig
    admission: BodyAdmission

    @classmethod
    def of(
        cls, request: web.Request, config: EdgeConfig, admission: BodyAdmission, caller: str
    ) -> Self:
        """`caller` is the unchecked key, which tells callers apart for admission."""
        cors = request.app.get(CORS)
        return cls(
            cast("ClientWriter", request.protocol),
            request[REQUEST_ID],
            request[STARTED],
            keep_alive=request.keep_alive,
            http_1_0=request.version < HttpVersion11,
            fields=cors.fields(request.headers.get("Origin")) if cors else "",
            sent=SentHeaders(headers=request.headers, caller=caller),
            outcome=request[OUTCOME],
            request=request,
            config=config,
            admission=admission,
        )

    async def body(self) -> bytes:
        """Read the body, then check admission for its call. A large body needs a known key."""
        caller, admission = self.sent.caller, self.admission
        if admission.needs_key(self.request.content_length, caller):
            await admission.known_keys.require(caller, self.request_id)
        self.memory = admission.memory(caller)
        body = await read_body(self.request, self.config, self.memory)
        if error := admission.calls.admit(caller):
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
