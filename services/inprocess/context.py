"""A call as its handler sees it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Never

import grpc

from services.inprocess.metadata import Metadatum, Pairs, received

_log = logging.getLogger(__name__)


class InProcessContext(grpc.aio.ServicerContext[Any, Any]):
    """The servicer context of one call.

    Keeps the status that the handler has set until the call ends. The initial values of
    its fields are in the class: most calls change few of them.
    """

    aborted: grpc.aio.AbortError | None = None
    """Raised by `abort`. It stays, even if the handler goes on."""
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
        """End the call. Raises `grpc.aio.AbortError`, which handlers must not catch."""
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
        """End the call with this code, these details and this trailing metadata."""
        await self.abort(status.code, status.details, tuple(status.trailing_metadata or ()))

    async def send_initial_metadata(self, initial_metadata: Pairs) -> None:
        """Send the initial metadata, once and before the first message."""
        if self.initial is not None:
            raise grpc.aio.UsageError("Send initial metadata failed: already sent")
        self.initial = received(initial_metadata)
        if self.on_initial is not None:
            self.on_initial()

    def settle_initial(self) -> tuple[Metadatum, ...]:
        """Return the initial metadata; if none was sent, it is empty from now on."""
        if self.initial is None:
            self.initial = ()
        return self.initial

    def set_trailing_metadata(self, trailing_metadata: Pairs) -> None:
        """Set the metadata that the caller gets with the status."""
        self.trailing = received(trailing_metadata)

    def trailing_metadata(self) -> Any:
        """Return the trailing metadata so far: a tuple, as over a socket."""
        return self.trailing

    def invocation_metadata(self) -> Any:
        """Return the caller's metadata: a tuple of entries with `key` and `value`."""
        return self.metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the status code of the call at the end of the handler."""
        self._code = code

    def code(self) -> grpc.StatusCode:
        """Return the code that was set; None without one, as over a socket."""
        return self._code  # type: ignore[return-value]

    @property
    def final_code(self) -> grpc.StatusCode:
        """The code of a handler that ends now."""
        return self._code or grpc.StatusCode.OK

    def is_fine(self) -> bool:
        """Whether the handler has set no status so far."""
        return not (self.aborted or self._code or self._details or self.trailing)

    def set_details(self, details: str) -> None:
        """Set the text of the status."""
        self._details = details

    def details(self) -> str:
        """Return the text that was set."""
        return self._details

    async def read(self) -> Never:
        """Refused: there is one request, and the handler has it."""
        raise grpc.aio.UsageError("The request does not stream.")

    async def write(self, message: Any) -> None:
        """Pass a message to the reader, for handlers that do not yield."""
        if self.aborted is not None:
            raise self.aborted
        if self.on_write is None:
            raise grpc.aio.UsageError("Only a coroutine that streams its answer writes.")
        await self.on_write(message)

    def set_compression(self, compression: grpc.Compression) -> None:
        """Do nothing: there is nothing to compress."""

    def disable_next_message_compression(self) -> None:
        """Do nothing: there is nothing to compress."""

    def peer(self) -> str:
        """Return `inproc`."""
        return "inproc"

    def peer_identities(self) -> Iterable[bytes] | None:
        """Return None: the transport authenticates no caller."""
        return None

    def peer_identity_key(self) -> str | None:
        """Return None: the transport authenticates no caller."""
        return None

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Return nothing: the transport authenticates no caller."""
        return {}

    def time_remaining(self) -> float:
        """Return the seconds to the deadline, at least 0; None without one, as over a socket."""
        if self._deadline is None:
            return None  # type: ignore[return-value]
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back with this context when the handler has ended."""
        self._callbacks += (partial(callback, self),)

    def cancelled(self) -> bool:
        """Whether the handler set CANCELLED. It says nothing of the caller, as over a socket."""
        return self._code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        """Whether the call has its status."""
        return self.over or self.aborted is not None

    def handler_ended(self) -> None:
        """Call the callbacks, once."""
        self.over = True
        callbacks, self._callbacks = self._callbacks, ()
        for callback in callbacks:
            try:
                callback()
            except Exception:  # noqa: BLE001 - an observer's fault is not the call's
                _log.exception("rpc.callback_failed")
