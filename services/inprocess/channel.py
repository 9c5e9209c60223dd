"""What a stub is given, and how it finds the handler."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Never, Self, TypeAlias
from weakref import WeakSet

import grpc

from services.inprocess.call import Call, StreamCall, UnaryCall
from services.inprocess.metadata import Metadatum, Pairs, received

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class InProcessChannel(grpc.aio.Channel):
    """A channel to handlers in this process.

    `register` gets an object that takes handlers as a `grpc.aio.Server` does, and is
    called once, here. The interceptors see every call, the first one first. Belongs
    to the event loop in which it is made.
    """

    def __init__(
        self,
        register: Callable[[grpc.aio.Server], None],
        *,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    ) -> None:
        registrar = _Registrar()
        register(registrar)
        self._registrar = registrar
        self._interceptors = tuple(interceptors)
        self._calls: WeakSet[Call] = WeakSet()
        self._handlers_closing: set[asyncio.Task[None]] = set()
        self._closed = asyncio.Event()

    # What stubs use.

    def unary_unary(self, method: str, *_: Any, **__: Any) -> UnaryMethod:
        """The method, to be called with a request. Serializers are not needed."""
        return UnaryMethod(self, method)

    def unary_stream(self, method: str, *_: Any, **__: Any) -> StreamMethod:
        """The method, to be called with a request. Serializers are not needed."""
        return StreamMethod(self, method)

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
        """Takes no more calls, gives those under way `grace` seconds, cancels the rest.

        Returns when every handler that was stopped has cleaned up.
        """
        self._closed.set()
        if grace and (calls := [call for call in self._calls if not call.done()]):
            ends = [asyncio.ensure_future(call.code()) for call in calls if call.started]
            if ends:
                await asyncio.wait(ends, timeout=grace)
            for end in ends:
                end.cancel()
        for call in list(self._calls):
            call.cancel()
        while self._handlers_closing:
            await asyncio.wait(self._handlers_closing)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """READY until the channel is closed, SHUTDOWN then."""
        del try_to_connect
        connectivity = grpc.ChannelConnectivity
        return connectivity.SHUTDOWN if self._closed.is_set() else connectivity.READY

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Returns once the state is another one."""
        if self.get_state() is last_observed_state:
            await self._closed.wait()

    async def channel_ready(self) -> None:
        """Returns at once. UsageError where the channel is closed."""
        self.check_open()

    # What calls use.

    def check_open(self) -> None:
        """UsageError where the channel is closed."""
        if self._closed.is_set():
            raise grpc.aio.UsageError("Channel is closed.")

    async def find(self, method: str, metadata: tuple[Metadatum, ...]) -> Handler | None:
        """The handler that the interceptors leave, or None."""
        details = HandlerCallDetails(method, metadata)
        if not self._interceptors:
            return self._registrar.find(details)
        return await self._intercept(iter(self._interceptors), details)

    def opened(self, call: Call) -> None:
        """The call exists. It is held weakly."""
        self._calls.add(call)

    def closing(self, handler: asyncio.Task[None]) -> None:
        """A handler is being stopped. It is held until it has."""
        self._handlers_closing.add(handler)
        handler.add_done_callback(self._handlers_closing.discard)

    async def _intercept(
        self,
        interceptors: Iterator[grpc.aio.ServerInterceptor],
        details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        interceptor = next(interceptors, None)
        if interceptor is None:
            return self._registrar.find(details)
        following: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]
        following = partial(self._intercept, interceptors)
        return await interceptor.intercept_service(following, details)


@dataclass(slots=True)
class HandlerCallDetails:
    """What interceptors and generic handlers are told about a call."""

    method: str
    """Such as `/pomogator.models.v1.ModelService/ListModels`."""
    invocation_metadata: tuple[tuple[str, str | bytes], ...]
    """The caller's."""


class _Registrar(grpc.aio.Server):
    """Takes handlers as a server does, and nothing else."""

    def __init__(self) -> None:
        self._methods: dict[str, Handler] = {}
        self._generic: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(
        self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]
    ) -> None:
        self._generic.extend(generic_rpc_handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Handler]
    ) -> None:
        for name, handler in method_handlers.items():
            self._methods[f"/{service_name}/{name}"] = handler

    def find(self, details: Any) -> Handler | None:
        """The handler of the method: a registered one, else what a generic one says."""
        handler = self._methods.get(details.method)
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
        """There is nothing to start."""

    async def stop(self, grace: float | None) -> None:
        """There is nothing to stop: the channel is closed instead."""

    async def wait_for_termination(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109
        del timeout
        raise grpc.aio.UsageError("Nothing listens in process.")


class UnaryMethod(grpc.aio.UnaryUnaryMultiCallable[Any, Any]):
    """A method with one answer, as stubs call it."""

    def __init__(self, channel: InProcessChannel, method: str) -> None:
        self._channel = channel
        self._method = method

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Pairs | None = None,
        credentials: grpc.CallCredentials | None = None,
        **_: Any,
    ) -> UnaryCall:
        """A call, which begins when it is awaited. Takes no credentials, as an insecure channel."""
        _refuse_credentials(credentials)
        self._channel.check_open()
        return UnaryCall(self._channel, self._method, request, timeout, received(metadata))


class StreamMethod(grpc.aio.UnaryStreamMultiCallable[Any, Any]):
    """A method with a stream of answers, as stubs call it."""

    def __init__(self, channel: InProcessChannel, method: str) -> None:
        self._channel = channel
        self._method = method

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Pairs | None = None,
        credentials: grpc.CallCredentials | None = None,
        **_: Any,
    ) -> StreamCall:
        """A call, which begins when it is iterated. No credentials, as an insecure channel."""
        _refuse_credentials(credentials)
        self._channel.check_open()
        return StreamCall(self._channel, self._method, request, timeout, received(metadata))


class _Refused:
    def __init__(self, method: str) -> None:
        self._method = method

    def __call__(self, *_: Any, **__: Any) -> Never:
        raise NotImplementedError(f"{self._method}: requests do not stream in process.")


class RefusedStreamUnary(_Refused, grpc.aio.StreamUnaryMultiCallable[Any, Any]):
    """Refuses to be called."""


class RefusedStreamStream(_Refused, grpc.aio.StreamStreamMultiCallable[Any, Any]):
    """Refuses to be called."""


def _refuse_credentials(credentials: grpc.CallCredentials | None) -> None:
    if credentials is not None:
        raise grpc.aio.UsageError("Call credentials are only valid on secure channels.")
