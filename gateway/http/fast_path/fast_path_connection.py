"""Client connection with the fast path for ordinary requests, around aiohttp's parser.

A connection stays on the fast path (`gateway.http.fast_path.fast_path`) until a request arrives
that is not ordinary. aiohttp gets that request and all later ones: its parser may be in the middle
of a message from then on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from contextvars import copy_context
from typing import cast

from aiohttp import web

from gateway.errors import ApiError, internal
from gateway.http.body import IncomingBody, body_timeout
from gateway.http.client_connection import DISCARD_TIMEOUT_S, ClientConnection, ListenerState
from gateway.http.fast_path.fast_path import FastPath, FastPathExchange, RequestHead
from gateway.http.known_keys import KEY_FIRST_BYTES
from gateway.overload.body_budget import BodyMemory
from gateway.overload.refusals import refused_call
from gateway.telemetry.request_observer import CLIENT_CLOSED, cut_off
from services.common.request_headers import new_request_id

KEPT_HEAD_BYTES_MAX = 2048
"""The largest head that a connection keeps until its next request; those of SDKs have half."""

# Bytes that may arrive before the answer to the request before them has ended. Beyond it reading
# pauses.
_PIPELINED_BYTES_MAX = 64 * 1024

_log = logging.getLogger("gateway")


class FastPathConnection(ClientConnection):
    """One client's connection."""

    __slots__ = (
        "_body",
        "_fast_path",
        "_head",
        "_in_flight_bytes",
        "_is_cut_off",
        "_is_ordinary",
        "_memory",
        "_pipeline_paused",
        "_pipelined",
        "_started",
        "_task",
    )

    def __init__(
        self, server: web.Server, state: ListenerState, fast_path: FastPath, **kwargs: object
    ) -> None:
        super().__init__(server, state, **kwargs)
        self._fast_path = fast_path
        self._is_ordinary = True
        """False once the connection is aiohttp's."""
        self._task: asyncio.Task[None] | None = None
        """The task that answers a request."""
        self._body: IncomingBody | None = None
        self._in_flight_bytes = 0
        """Size of the body whose request is being answered."""
        self._memory: BodyMemory | None = None
        """Of a body that arrives, or whose request is being answered; None: it is not counted."""
        self._head: RequestHead | None = None
        """Of the last request, unless it was large."""
        self._started = 0.0
        self._pipelined = b""
        """Bytes that arrived during an answer: further requests, or parts of them."""
        self._pipeline_paused = False
        self._is_cut_off = False
        """A shutdown cuts off the request that is being answered."""

    def connection_lost(self, exc: BaseException | None) -> None:
        """Cancel the request that is being answered: the client is gone."""
        super().connection_lost(exc)
        self._pipelined = b""
        if self._body is not None:
            self._body.cancel()
        if self._task is not None:
            self._task.cancel()
        # A task that has not begun yet will not do it.
        self._release_memory()

    @property
    def held_bytes(self) -> int:
        """Bytes in memory for this client: of its requests, and of answers it has not read."""
        arrived = 0 if self._body is None else self._body.size
        return super().held_bytes + arrived + self._in_flight_bytes + len(self._pipelined)

    @property
    def _idle(self) -> bool:
        return self._task is None and self._body is None and super()._idle

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        if self._discards or not self._is_ordinary:
            super().data_received(data)
        elif self._force_close:
            return
        elif self._task is not None:
            self._pipelined += data
            self._bound_pipeline()
        elif self._body is not None:
            self._feed_body(data)
        elif not self._close:
            self._begin_request(data)

    def _begin_request(self, data: bytes) -> None:
        fast_path = self._fast_path
        head = fast_path.read(data, self._head)
        size = len(data)
        if head is None or (head.body_end > size and not fast_path.may_wait(head)):
            # For good: aiohttp's parser may be in the middle of a message from now on.
            self._is_ordinary, self._head = False, None
            self._bound_pipeline()
            super().data_received(data)
            return
        self._head = head
        self._started = time.perf_counter()
        start, end = head.body_start, head.body_end
        if end > size:
            self._begin_body(head, data[start:])
            return
        if end < size:
            self._pipelined = data[end:]
        if end - start > KEY_FIRST_BYTES:
            self._memory = fast_path.admission.memory(head.caller)
            if error := self._memory.add(end - start):
                self._answer(head, error)
                return
        self._answer(head, data[start:end])

    def _begin_body(self, head: RequestHead, data: bytes) -> None:
        """Wait for the rest of a body that begins with `data`."""
        admission = self._fast_path.admission
        if error := admission.admit_body():
            self._give_up_body(error)
            return
        self._memory = admission.memory(head.caller)
        length = head.body_end - head.body_start
        self._body = IncomingBody(length, self._state.config, self._give_up_body)
        self._feed_body(data)

    def _feed_body(self, data: bytes) -> None:
        body = cast("IncomingBody", self._body)
        if self._memory is not None and (error := self._memory.add(len(data))):
            body.cancel()
            self._give_up_body(error)
            return
        rest = body.feed(data)
        if rest is not None:
            self._body = None
            self._pipelined = rest
            self._answer(cast("RequestHead", self._head), body.whole())

    def _give_up_body(self, error: ApiError | None = None) -> None:
        """Answer with `error`, or else the body's timeout, and read no more of the body."""
        self._body = None
        self._discards = True
        self._answer(cast("RequestHead", self._head), error or body_timeout())

    def _answer(self, head: RequestHead, body: bytes | ApiError) -> None:
        if head.body_start > KEPT_HEAD_BYTES_MAX:
            self._head = None
        fast_path, keep_alive = self._fast_path, not self._discards
        exchange = FastPathExchange(
            self,
            head.request_id or new_request_id(),
            self._started,
            keep_alive=keep_alive,
            sent=head,
            target=head.endpoint,
            arrived=body,
            memory=self._memory,
        )
        if self._state.cors is not None:
            exchange.fields = self._state.cors.fields(head.headers.get("Origin"))
        # Clients that pipeline requests or leave too much unread wait in a task.
        at_once = keep_alive and not self._pipelined and not self._paused
        if at_once and (wait_s := fast_path.admission.call_limit(head.caller)) is not None:
            copy_context().run(self._refuse, exchange, refused_call(wait_s))
            return
        admitted = at_once or self._discards
        self._in_flight_bytes = 0 if isinstance(body, ApiError) else len(body)
        self._task = self._loop.create_task(self.serve(exchange, admitted=admitted))

    async def serve(self, exchange: FastPathExchange, *, admitted: bool) -> None:
        """Answer one request, with an error if it is not admitted or its handler fails.

        Errors and access lines are as in the border, `gateway.http.middleware`.
        """
        fast_path, headers = self._fast_path, exchange.sent.headers
        fast_path.observer.begin(exchange, headers)
        status, keep_alive = CLIENT_CLOSED, False
        try:
            try:
                if not admitted:
                    fast_path.admission.check_call(exchange.sent.caller)
                stream = await exchange.target.handle(exchange)
                if stream is not None:
                    await stream
            except ApiError as error:
                _send_error(exchange, fast_path.throttle.throttled(error, self.remote, headers))
            except ConnectionError:
                raise
            except Exception:  # noqa: BLE001 - a border: clients get an internal error
                _log.exception("request.failed", extra={"request_id": exchange.request_id})
                _send_error(exchange, internal(exchange.request_id))
            status = exchange.status
            # A client that reads none of its answers, even refusals, gets no more of them.
            if self.writing_paused:
                await self.drained()
            keep_alive = exchange.keep_alive
        except ConnectionError:
            pass  # The client is gone.
        finally:
            if status == CLIENT_CLOSED and self._is_cut_off:
                status = cut_off(exchange.outcome, exchange.begun_at)
            try:
                fast_path.observer.end(exchange, status, exchange.begun_at)
            finally:
                self._continue_after_answer(keep_alive=keep_alive)

    def _refuse(self, exchange: FastPathExchange, error: ApiError) -> None:
        """Refuse a call that is not admitted: at once, without another loop turn."""
        observer = self._fast_path.observer
        observer.begin(exchange, exchange.sent.headers)
        try:
            _send_error(exchange, error)
        except ConnectionError:
            return  # The client is gone.
        finally:
            observer.end(exchange, exchange.status or CLIENT_CLOSED, exchange.begun_at)
        self._continue_after_answer(keep_alive=exchange.keep_alive)

    def _release_memory(self) -> None:
        if self._memory is not None:
            self._memory.release()
            self._memory = None

    def _continue_after_answer(self, *, keep_alive: bool) -> None:
        """Continue with pipelined requests, or close the connection."""
        self._task = None
        self._in_flight_bytes = 0
        if self._memory is not None:
            self._release_memory()
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self._discards:
            # The rest of the body is read, so that the client sees the answer.
            self._loop.call_later(DISCARD_TIMEOUT_S, self.force_close)
        elif not keep_alive or self._close or self._force_close:
            self.force_close()
        else:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
            if waiting := self._pipelined:
                self._pipelined = b""
                self.data_received(waiting)
                self._bound_pipeline()

    def _bound_pipeline(self) -> None:
        """Stop reading while too many pipelined bytes wait, and read again afterwards."""
        pause = len(self._pipelined) > _PIPELINED_BYTES_MAX
        if pause is self._pipeline_paused or self.transport is None:
            return
        self._pipeline_paused = pause
        if pause:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    @property
    def remote(self) -> str:
        """The address that the client comes from; empty: it has none."""
        name = self.peername
        return str(name[0]) if isinstance(name, tuple) else ""

    def _process_keepalive(self) -> None:
        # aiohttp does not know about requests on the fast path: to it the connection is idle.
        if self._task is not None or self._body is not None:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's
        """Wait for a request that arrives or is being answered, then cancel it."""
        if self._body is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._body.over.wait(), timeout)
        task = self._task
        if task is not None:
            self._force_close = True
            if self._stream_is_behind:
                self._note_cut_off()
                self.cut()
            await asyncio.wait({task}, timeout=timeout)
            self._note_cut_off()
            task.cancel()
            await asyncio.wait({task}, timeout=timeout)
        await super().shutdown(timeout)

    def _note_cut_off(self) -> None:
        self._is_cut_off = True
        super()._note_cut_off()


def _send_error(exchange: FastPathExchange, error: ApiError) -> None:
    if exchange.status:
        raise ConnectionAbortedError("the request failed after its answer had begun")
    exchange.outcome["code"] = error.code
    exchange.keep_alive = exchange.keep_alive and not error.row.closes
    exchange.send(*exchange.target.render_error(error, exchange.request_id))
