"""Core in the process of the edge: what ends a call ends it once, and says why.

Each stream has an idempotency key, whose release in the database takes a moment here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.backend import Backend
from gateway.errors import ApiError
from gateway.rpc.grpc_backend import GrpcBackend
from gateway.rpc.relay_backend import RelayBackend
from gateway.rpc.relay_links import RelayLinks
from gateway.rpc.service_channel import open_channel
from services.completions import pipeline as completion_pipeline
from services.domain.call_options import CallOptions
from services.domain.conversation import Message, TextPart
from services.domain.error_reason import ErrorReason
from services.domain.events import Batch
from services.domain.spec import ChatCompletionSpec, CompletionRequest
from services.rpc.listener import listening
from services.serving.core_backend import CoreBackend
from services.storage.idempotency import release
from tests.stand.gateway import Gateway
from tests.stand.held_provider import MODEL, audited_charges, held_gateway

RELEASE_S = 0.3
DEADLINE_S = 0.5
REQUEST = CompletionRequest(
    spec=ChatCompletionSpec(
        model=MODEL, messages=[Message(role="user", content=[TextPart(text="Hello")])]
    )
)


@dataclass
class SlowRelease:
    """A backend, in front of a service that releases idempotency keys slowly."""

    backend: Backend
    gateway: Gateway

    def stream(self, deadline_s: float = DEADLINE_S) -> AsyncGenerator[Batch, None]:
        """Begin a call with an idempotency key."""
        call = CallOptions(
            key=self.gateway.key, request_id="r", deadline_s=deadline_s, idempotency_key="order-1"
        )
        return self.backend.stream(REQUEST, call, {})


@pytest.fixture(params=["core", "grpc", "relay"])
async def slow(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SlowRelease]:
    async with held_gateway(tmp_path, "in-process") as (gateway, upstream, provider):
        provider.goes_on.clear()
        _slow_down(gateway, monkeypatch)
        async with _backend(gateway, request.param) as backend:
            yield SlowRelease(backend, gateway)
        await asyncio.sleep(RELEASE_S)
        assert upstream.busy == 0
    await audited_charges(tmp_path)


def _slow_down(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    database = gateway.service.completions.pipeline._idempotency._database
    write = database.write

    async def wait(transaction: Any, *args: Any) -> Any:
        if transaction is release:
            await asyncio.sleep(RELEASE_S)
        return await write(transaction, *args)

    monkeypatch.setattr(database, "write", wait)


@asynccontextmanager
async def _backend(gateway: Gateway, kind: str) -> AsyncIterator[Backend]:
    service = gateway.service
    async with AsyncExitStack() as stack:
        if kind == "core":
            channel = await stack.enter_async_context(service.channel())
            yield CoreBackend(service, channel)
        else:
            listener = listening(service.register, "127.0.0.1:0", grace_s=0)
            address = await stack.enter_async_context(listener)
            channel = await stack.enter_async_context(open_channel(address))
            if kind == "grpc":
                yield GrpcBackend(channel)
                return
            links = await stack.enter_async_context(RelayLinks(channel).searching())
            channel.get_state(try_to_connect=True)
            while links.choose() is None:  # noqa: ASYNC110 - the first link takes milliseconds
                await asyncio.sleep(0.01)
            yield RelayBackend(channel, links)


async def test_a_reader_that_returns_after_the_deadline_learns_of_it(slow: SlowRelease) -> None:
    """Also while the call is being closed."""
    async with aclosing(slow.stream()) as batches:
        await anext(batches)
        await asyncio.sleep(DEADLINE_S + RELEASE_S / 3)
        with pytest.raises(ApiError) as refused:
            await anext(batches)

    assert refused.value.reason == ErrorReason.DEADLINE


@pytest.mark.parametrize("after_s", [DEADLINE_S - RELEASE_S / 3, DEADLINE_S + RELEASE_S / 3])
async def test_a_reader_that_is_cancelled_near_the_deadline_is_cancelled(
    slow: SlowRelease, after_s: float
) -> None:
    """The deadline passes while it leaves, or it leaves while the deadline ends the call."""
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))

    async def read() -> None:
        async with aclosing(slow.stream()) as batches:
            async for _ in batches:
                await asyncio.sleep(60)

    reader = asyncio.create_task(read())
    await asyncio.sleep(after_s)
    reader.cancel()
    await asyncio.wait({reader})
    await asyncio.sleep(RELEASE_S)

    assert reader.cancelled()
    assert faults == []


async def test_a_fault_has_one_message(slow: SlowRelease, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without gRPC."""

    def fail(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(completion_pipeline, "validate", fail)

    with pytest.raises(ApiError) as fault:
        async with aclosing(slow.stream()) as batches:
            await anext(batches)

    assert fault.value.reason == ErrorReason.INTERNAL
    assert str(fault.value) == "The gateway failed. Please report request r."


async def test_a_key_that_cannot_be_checked_is_not_accepted(
    slow: SlowRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of the request, which came first, is then the answer."""

    async def fail(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(slow.gateway.service.keyring, "authenticate", fail)

    assert not await slow.backend.check_key(slow.gateway.key, "r")


@pytest.mark.parametrize("is_read", [True, False])
async def test_a_drain_ends_streams_at_its_timeout(slow: SlowRelease, is_read: bool) -> None:
    """Whether the next batch is awaited then or later. The reader's task is not cancelled."""
    async with aclosing(slow.stream(30.0)) as batches:
        await anext(batches)
        draining = asyncio.create_task(slow.backend.drain(0.05))
        if not is_read:
            await draining
        with pytest.raises(ApiError) as ended:
            await anext(batches)
        await draining

    assert ended.value.reason == ErrorReason.SHUTTING_DOWN


async def test_a_drain_ends_whole_answers_at_its_timeout(slow: SlowRelease) -> None:
    """Their callers are to repeat them."""
    call = CallOptions(key=slow.gateway.key, request_id="r", deadline_s=30.0)
    asking = asyncio.create_task(slow.backend.whole(REQUEST, call, {}))
    while not slow.gateway.service.calls.live:  # noqa: ASYNC110 - it has begun in milliseconds
        await asyncio.sleep(0.01)
    await slow.backend.drain(0.05)
    with pytest.raises(ApiError) as ended:
        await asking

    assert ended.value.reason == ErrorReason.SHUTTING_DOWN
    assert ended.value.retry_after_s == 1


async def test_a_drain_waits_for_calls_of_its_backend_alone(slow: SlowRelease) -> None:
    """Those of another backend of the service go on."""
    async with _backend(slow.gateway, "core") as other, aclosing(slow.stream(30.0)) as batches:
        await anext(batches)
        await other.drain(30.0)
        draining = asyncio.create_task(slow.backend.drain(30.0))
        await asyncio.sleep(0.05)
        assert not draining.done()
        await batches.aclose()
        await draining


async def test_a_reader_that_leaves_during_a_drain_is_cancelled(slow: SlowRelease) -> None:
    """The drain does not take back the cancellation of its task."""

    async def read() -> None:
        async with aclosing(slow.stream(30.0)) as batches:
            async for _ in batches:
                pass

    reader = asyncio.create_task(read())
    while not slow.gateway.service.calls.live:  # noqa: ASYNC110 - it has begun in milliseconds
        await asyncio.sleep(0.01)
    reader.cancel()
    await slow.backend.drain(0)
    await asyncio.wait({reader})

    assert reader.cancelled()
