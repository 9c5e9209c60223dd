"""One request for a completion and the way its answer goes, however it came.

An ordinary one comes by `gateway.http.fast_path.fast_path`, any other one by aiohttp's router.
Either way the answer is written by a `Reply`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from multidict import MultiMapping

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.http.body import read_body
from gateway.http.credentials import unchecked_key
from gateway.http.middleware import OUTCOME, REQUEST_ID, STARTED
from gateway.http.reply import Link, Reply
from gateway.overload.admission_check import AdmissionCheck


class Exchange(ABC):
    """What a handler of completions sees."""

    __slots__ = ("headers", "outcome", "reply")

    def __init__(
        self, headers: MultiMapping[str], reply: Reply, outcome: dict[str, object]
    ) -> None:
        self.headers = headers
        """The request's. Names have no case."""
        self.reply = reply
        """Takes the answer."""
        self.outcome = outcome
        """What the access log shall say beside the status."""

    @abstractmethod
    async def body(self) -> bytes:
        """The request's body, whole, once. ApiError where it does not come, or may not."""


class Received(Exchange):
    """One whose body has come, or else will not come any more."""

    __slots__ = ("_body",)

    def __init__(self, headers: MultiMapping[str], reply: Reply, body: bytes | ApiError) -> None:
        super().__init__(headers, reply, {})
        self._body = body

    async def body(self) -> bytes:
        """The body, at once. It is handed over: while the answer streams, nobody keeps it."""
        if isinstance(self._body, ApiError):
            raise self._body
        body, self._body = self._body, b""
        return body


class Routed(Exchange):
    """One that came through aiohttp's router and the border."""

    __slots__ = ("_admission", "_config", "_request")

    def __init__(self, request: web.Request, config: EdgeConfig, admission: AdmissionCheck) -> None:
        reply = Reply(
            cast("Link", request.protocol),
            request[REQUEST_ID],
            request[STARTED],
            keep_alive=request.keep_alive,
            http_1_0=request.version < HttpVersion11,
        )
        super().__init__(request.headers, reply, request[OUTCOME])
        self._request = request
        self._config = config
        self._admission = admission

    async def body(self) -> bytes:
        """The body, once everything else was found right, and where its call has room."""
        body = await read_body(self._request, self._config)
        if error := self._admission.admit(unchecked_key(self.headers)):
            raise error
        return body


class Sent(web.StreamResponse):
    """Tells aiohttp what a `Reply` has sent, so that it sends nothing itself."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(status=reply.status)
        self._keep_alive = reply.keep_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002
        """Nothing is left to be done."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to be done."""
