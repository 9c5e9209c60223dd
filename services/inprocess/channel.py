"""The channel of stubs, which finds the handler of each call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Never, Self
from weakref import ref

import grpc
import msgspec

from services.inprocess.call import Handler, InProcessCall
from services.inprocess.metadata import Metadatum, Pairs, received
from services.inprocess.stream import StreamCall
from services.inprocess.unary import UnaryCall


class InProcessChannel(grpc.aio.Channel):
    """A channel to handlers in this process.

    `register` gets an object that takes handlers as a `grpc.aio.Server` does, and is
    called once, here. The interceptors see every call, in their order. With
    `by_method` they decide by the method alone: they see each method that has a handler
    once. The channel belongs to the event loop in which it is made.
    """

    def __init__(
        self,
        register: Callable[[grpc.aio.Server], None],
        *,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        by_method: bool = False,
    ) -> None:
        self.by_method = by_method
        handlers = _HandlerRegistry()
        register(handlers)
        self._handlers = handlers
        self._interceptors = tuple(interceptors)
        self._calls: dict[int, ref[InProcessCall]] = {}
        self._handlers_closing: set[asyncio.Task[None]] = set()
        self._closed = asyncio.Event()

    # Methods for stubs.

    def unary_unary(self, method: str, *_: Any, **__: Any) -> UnaryStubMethod:
        """Return a method with one answer. Serializers are ignored."""
        return UnaryStubMethod(self, method)

    def unary_stream(self, method: str, *_: Any, **__: Any) -> StreamStubMethod:
        """Return a method with one answer. Serializers are ignored."""
        return StreamStubMethod(self, method)

    def stream_unary(self, method: str, *_: Any, **__: Any) -> RefusedStreamUnary:
        """A method that refuses to be called: requests do not stream in process."""
        return RefusedStreamUnary(method)

    def stream_stream(self, method: str, *_: Any, **__: Any) -> RefusedStreamStream:
        """A method that refuses to be called: requests do not stream in process."""
        return RefusedStreamStream(method)

    # What owners use.

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Refuse new calls, give those in flight `grace` seconds, cancel the rest.

        Returns when every handler that was stopped has cleaned up.
        """
        self._closed.set()
        if grace and (ends := [call.code() for call in self._open_calls() if call.started]):
            tasks = [asyncio.ensure_future(end) for end in ends]
            for late in (await asyncio.wait(tasks, timeout=grace))[1]:
                late.cancel()
        for call in self._open_calls():
            call.cancel()
        while self._handlers_closing:
            await asyncio.wait(self._handlers_closing)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return READY, or SHUTDOWN once the channel is closed."""
        del try_to_connect
        connectivity = grpc.ChannelConnectivity
        return connectivity.SHUTDOWN if self._closed.is_set() else connectivity.READY

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Return when the state has changed."""
        if self.get_state() is last_observed_state:
            await self._closed.wait()

    async def channel_ready(self) -> None:
        """Return at once. Raises UsageError if the channel is closed."""
        self.check_open()

    # Methods for calls.

    def check_open(self) -> None:
        """Raise UsageError if the channel is closed."""
        if self._closed.is_set():
            raise grpc.aio.UsageError("Channel is closed.")

    def known_handler(self, path: str) -> Handler | None:
        """Return the handler of this method, unless interceptors decide about it."""
        return None if self._interceptors else self._handlers.methods.get(path)

    async def find(self, path: str, metadata: tuple[Metadatum, ...]) -> Handler | None:
        """Return the handler behind the interceptors, or None."""
        details = HandlerCallDetails(path, metadata)
        return await self._intercept(iter(self._interceptors), details)

    def opened(self, call: InProcessCall) -> None:
        """Note a new call, by a weak reference."""
        self._calls[id(call)] = ref(call)

    def ended(self, call: InProcessCall) -> None:
        """Note that a call has its outcome, or will never start."""
        self._calls.pop(id(call), None)

    def closing(self, handler: asyncio.Task[None]) -> None:
        """Keep a reference to a task that stops a handler."""
        self._handlers_closing.add(handler)
        handler.add_done_callback(self._handlers_closing.discard)

    def _open_calls(self) -> list[InProcessCall]:
        found = [reference() for reference in self._calls.values()]
        return [call for call in found if call is not None]

    async def _intercept(
        self,
        interceptors: Iterator[grpc.aio.ServerInterceptor],
        details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        interceptor = next(interceptors, None)
        if interceptor is None:
            return self._handlers.find(details)
        following: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]
        following = partial(self._intercept, interceptors)
        return await interceptor.intercept_service(following, details)


class HandlerCallDetails(msgspec.Struct):
    """Method and metadata of a call, for interceptors and generic handlers."""

    method: str
    """Such as `/pomogator.models.v1.ModelService/ListModels`."""
    invocation_metadata: tuple[tuple[str, str | bytes], ...]
    """The caller's metadata."""


class _HandlerRegistry(grpc.aio.Server):
    """Registry of handlers with the interface of a server."""

    def __init__(self) -> None:
        self.methods: dict[str, Handler] = {}
        self._generic: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(
        self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]
    ) -> None:
        self._generic.extend(generic_rpc_handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Handler]
    ) -> None:
        for name, handler in method_handlers.items():
            self.methods[f"/{service_name}/{name}"] = handler

    def find(self, details: Any) -> Handler | None:
        """Return the registered handler of the method, else that of a generic handler."""
        handler = self.methods.get(details.method)
        if handler is not None:
            return handler
        found = (generic.service(details) for generic in self._generic)
        return next((handler for handler in found if handler is not None), None)

    def add_insecure_port(self, address: str) -> int:
        raise grpc.aio.UsageError(f"Nothing listens in process: {address}")

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        del server_credentials
        raise grpc.aio.UsageError(f"Nothing listens in process: {address}")

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self, grace: float | None) -> None:
        """Do nothing: the channel is closed instead."""

    async def wait_for_termination(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109
        del timeout
        raise grpc.aio.UsageError("Nothing listens in process.")


class ChannelMethod:
    """A method of the channel, as its calls use it."""

    def __init__(self, channel: InProcessChannel, path: str) -> None:
        self.path = path
        self.handler = channel.known_handler(path)
        self._channel = channel
        self.opened = channel.opened
        self.ended = channel.ended
        self.closing = channel.closing
        self._check_open = channel.check_open

    async def find(self, metadata: tuple[Metadatum, ...]) -> Handler | None:
        """Return the handler of a call with this metadata, or None."""
        handler = await self._channel.find(self.path, metadata)
        if self._channel.by_method:
            self.handler = handler
        return handler

    def _check(self, credentials: grpc.CallCredentials | None) -> None:
        self._check_open()
        if credentials is not None:
            raise grpc.aio.UsageError("Call credentials are only valid on secure channels.")


class UnaryStubMethod(ChannelMethod, grpc.aio.UnaryUnaryMultiCallable[Any, Any]):
    """A method with one answer, as stubs use it."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Pairs | None = None,
        credentials: grpc.CallCredentials | None = None,
        **_: Any,
    ) -> UnaryCall:
        """Return a call, which starts when it is awaited. Refuses credentials of calls."""
        self._check(credentials)
        return UnaryCall(self, request, timeout, received(metadata))


class StreamStubMethod(ChannelMethod, grpc.aio.UnaryStreamMultiCallable[Any, Any]):
    """A method with a stream of answers, as stubs use it."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Pairs | None = None,
        credentials: grpc.CallCredentials | None = None,
        **_: Any,
    ) -> StreamCall:
        """Return a call, which starts when it is iterated. Refuses credentials of calls."""
        self._check(credentials)
        return StreamCall(self, request, timeout, received(metadata))


class _Refused:
    def __init__(self, method: str) -> None:
        self._method = method

    def __call__(self, *_: Any, **__: Any) -> Never:
        raise NotImplementedError(f"{self._method}: requests do not stream in process.")


class RefusedStreamUnary(_Refused, grpc.aio.StreamUnaryMultiCallable[Any, Any]):
    """Raises NotImplementedError."""


class RefusedStreamStream(_Refused, grpc.aio.StreamStreamMultiCallable[Any, Any]):
    """Raises NotImplementedError."""
