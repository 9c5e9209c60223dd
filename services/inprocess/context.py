"""One call, as its handler sees it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Never

import grpc

from services.inprocess.metadata import Metadatum, Pairs, received

_log = logging.getLogger(__name__)


class Context(grpc.aio.ServicerContext[Any, Any]):
    """The servicer context of one call.

    Keeps what the handler has said about the call's end until the call ends. Its
    fields have their first values in the class: most calls never change most.
    """

    aborted: grpc.aio.AbortError | None = None
    """Raised by `abort`. It stands, even if the handler goes on."""
    initial: tuple[Metadatum, ...] | None = None
    """The initial metadata, once it was sent."""
    trailing: tuple[Metadatum, ...] = ()
    """The trailing metadata so far."""
    over = False
    """Whether the call has its outcome."""
    on_initial: Callable[[], None] | None = None
    """Called when initial metadata was sent."""
    on_write: Callable[[Any], Awaitable[None]] | None = None
    """Takes the messages of a handler that writes."""
    _code: grpc.StatusCode | None = None
    _details = ""
    _callbacks: tuple[Callable[[], None], ...] = ()

    def __init__(self, metadata: tuple[Metadatum, ...], deadline: float | None) -> None:
        self.metadata = metadata
        self._deadline = deadline

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Pairs = (),
    ) -> Never:
        """Ends the call. Raises `grpc.aio.AbortError`, which handlers let pass."""
        if self.aborted is not None:
            raise grpc.aio.UsageError("Abort already called!")
        if code is grpc.StatusCode.OK:
            raise grpc.aio.UsageError("Expecting non-ok status code.")
        self.aborted = grpc.aio.AbortError("Locally aborted.")
        self._code = code
        self._details = details or self._details
        self.trailing = received(trailing_metadata) or self.trailing
        raise self.aborted

    async def abort_with_status(self, status: grpc.Status) -> Never:
        """Ends the call with this code, these details and this trailing metadata."""
        await self.abort(status.code, status.details, tuple(status.trailing_metadata or ()))

    async def send_initial_metadata(self, initial_metadata: Pairs) -> None:
        """Sends the initial metadata, once and before the first message."""
        if self.initial is not None:
            raise grpc.aio.UsageError("Send initial metadata failed: already sent")
        self.initial = received(initial_metadata)
        if self.on_initial is not None:
            self.on_initial()

    def settle_initial(self) -> tuple[Metadatum, ...]:
        """The initial metadata. Whoever has sent none by now has sent empty ones."""
        if self.initial is None:
            self.initial = ()
        return self.initial

    def set_trailing_metadata(self, trailing_metadata: Pairs) -> None:
        """Sets what the caller gets with the status."""
        self.trailing = received(trailing_metadata)

    def trailing_metadata(self) -> Any:
        """What was set so far: a tuple, as over a wire."""
        return self.trailing

    def invocation_metadata(self) -> Any:
        """The caller's metadata: a tuple of entries with `key` and `value`."""
        return self.metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        """Sets the status with which the call ends when the handler does."""
        self._code = code

    def code(self) -> grpc.StatusCode:
        """What was set so far; None where nothing was, as over a wire."""
        return self._code  # type: ignore[return-value]

    @property
    def final_code(self) -> grpc.StatusCode:
        """The code of a handler that ends now."""
        return self._code or grpc.StatusCode.OK

    def is_fine(self) -> bool:
        """Whether a handler that ends now has said nothing about its end."""
        return not (self.aborted or self._code or self._details or self.trailing)

    def set_details(self, details: str) -> None:
        """Sets the text that goes with the code."""
        self._details = details

    def details(self) -> str:
        """What was set so far."""
        return self._details

    async def read(self) -> Never:
        """Refused: there is one request, and the handler has it."""
        raise grpc.aio.UsageError("The request does not stream.")

    async def write(self, message: Any) -> None:
        """Hands a message to the reader, for handlers that do not yield."""
        if self.aborted is not None:
            raise self.aborted
        if self.on_write is None:
            raise grpc.aio.UsageError("Only a coroutine that streams its answer writes.")
        await self.on_write(message)

    def set_compression(self, compression: grpc.Compression) -> None:
        """Without effect: there is nothing to compress."""

    def disable_next_message_compression(self) -> None:
        """Without effect: there is nothing to compress."""

    def peer(self) -> str:
        """Always `inproc`."""
        return "inproc"

    def peer_identities(self) -> Iterable[bytes] | None:
        """None: nobody is authenticated by the transport."""
        return None

    def peer_identity_key(self) -> str | None:
        """None: nobody is authenticated by the transport."""
        return None

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Empty: nobody is authenticated by the transport."""
        return {}

    def time_remaining(self) -> float:
        """Seconds to the deadline, at least 0; None without one, as over a wire."""
        if self._deadline is None:
            return None  # type: ignore[return-value]
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Calls back with this context once the handler has ended."""
        self._callbacks += (partial(callback, self),)

    def cancelled(self) -> bool:
        """Whether the handler set CANCELLED. No news of the caller, as over a wire."""
        return self._code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        """Whether the call has its status."""
        return self.over or self.aborted is not None

    def handler_ended(self) -> None:
        """Calls the callbacks, once."""
        self.over = True
        callbacks, self._callbacks = self._callbacks, ()
        for callback in callbacks:
            try:
                callback()
            except Exception:  # noqa: BLE001 - an observer's fault is not the call's
                _log.exception("inprocess.callback_failed")
