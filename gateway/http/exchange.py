"""Exchange: one request with a body and its reply, whichever way the request came.

Ordinary requests come over `gateway.http.fast_path`, all others through aiohttp's router. Either
way a `Reply` writes the answer.
"""

from __future__ import annotations

from typing import cast

import msgspec
from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from gateway.config import EdgeConfig
from gateway.errors import ApiError
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

    arrived: bytes | ApiError = b""
    """The body, or the error because of which it did not arrive. Taken when it is decoded: it is
    not kept while the answer streams."""


def routed_exchange(request: web.Request, caller: str) -> Exchange:
    """Return the exchange of a request that came through aiohttp's router and the error border.

    `caller` is the unchecked key, which tells callers apart for admission.
    """
    cors = request.app.get(CORS)
    return Exchange(
        cast("ClientWriter", request.protocol),
        request[REQUEST_ID],
        request[STARTED],
        keep_alive=request.keep_alive,
        http_1_0=request.version < HttpVersion11,
        fields=cors.fields(request.headers.get("Origin")) if cors else "",
        sent=SentHeaders(headers=request.headers, caller=caller),
        outcome=request[OUTCOME],
    )


async def receive_body(
    exchange: Exchange, request: web.Request, config: EdgeConfig, admission: BodyAdmission
) -> None:
    """Read the body of such a request, then check admission for its call.

    Raises ApiError: the body does not arrive or is refused, or a large body has no valid key.
    """
    caller = exchange.sent.caller
    if admission.needs_key(request.content_length, caller):
        await admission.known_keys.require(caller, exchange.request_id)
    exchange.memory = admission.memory(caller)
    exchange.arrived = await read_body(request, config, exchange.memory)
    admission.check_call(caller)


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
