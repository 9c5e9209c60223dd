"""What is said of the service's health, to those who ask once and those who watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.listener import listening
from services.telemetry.vitals import Vitals

Status = health_pb2.HealthCheckResponse
GRACE_S = 600.0
"""What a call that runs would be given; nobody waits so long here."""


def watching(channel: grpc.aio.Channel) -> AsyncIterator[health_pb2.HealthCheckResponse]:
    """What a balancer is told."""
    watch = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return aiter(watch(health_pb2.HealthCheckRequest()))


async def test_who_watches_does_not_hold_up_the_end() -> None:
    """Told that nothing is served any more, they are let go; so is who only then comes."""
    vitals = Vitals()

    def register(server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(vitals, server)

    async with asyncio.timeout(60), AsyncExitStack() as stack:
        address = await stack.enter_async_context(
            listening(register, "127.0.0.1:0", grace_s=GRACE_S)
        )
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        early = watching(channel)
        assert (await anext(early)).status == Status.SERVING
        await vitals.set("", Status.NOT_SERVING)
        assert (await anext(early)).status == Status.NOT_SERVING
        await vitals.set("", Status.SERVING)
        assert (await anext(early)).status == Status.SERVING

        await vitals.enter_graceful_shutdown()

        assert [each.status async for each in early] == [Status.NOT_SERVING]
        assert [each.status async for each in watching(channel)] == [Status.NOT_SERVING]


async def test_who_leaves_is_forgotten() -> None:
    """A balancer that hangs up leaves nothing behind."""
    vitals = Vitals()

    def register(server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(vitals, server)

    before = asyncio.all_tasks()
    async with listening(register, "127.0.0.1:0", grace_s=0) as address:
        async with grpc.aio.insecure_channel(address) as channel:
            assert (await anext(watching(channel))).status == Status.SERVING
        async with asyncio.timeout(60):
            while any("Watch" in str(each) for each in asyncio.all_tasks() - before):  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # Nothing announces it.
