"""The load of a process, as operators see it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as chat_grpc
from pomogator.operations.v1 import operations_service_pb2 as pb
from pomogator.operations.v1 import operations_service_pb2_grpc as pb_grpc

from services.overload.load_shedder import FixedMemoryUse
from services.overload.thresholds import QUEUE_WAIT_S, TURN_LATE_S
from services.serving.server import open_service
from tests.services.operations.test_servicer import Source, config, spec


async def test_an_idle_process_refuses_nothing(tmp_path: Path) -> None:
    """Its limit is that of the configuration, and its loop turns have been observed."""
    bounds = config().bounds
    async with (
        open_service(config(), tmp_path, {}) as service,
        service.operators_channel() as channel,
    ):
        stub = pb_grpc.OperationsServiceStub(channel)
        while not (load := await stub.GetLoad(pb.GetLoadRequest())).loop_turns.HasField("latest"):  # noqa: ASYNC110 - a sample tells
            await asyncio.sleep(0.01)

    assert not load.overloaded
    assert load.in_flight_call_count == 0
    assert load.calls_max == load.calls_max_normal == bounds.calls_max
    assert load.calls_max_when_late == bounds.calls_max_when_late
    assert load.loop_turns.threshold.ToNanoseconds() == TURN_LATE_S * 1e9
    assert load.queue_waits.threshold.ToNanoseconds() == QUEUE_WAIT_S * 1e9
    assert not load.queue_waits.HasField("latest")
    assert (load.memory_used_share, load.memory_short, dict(load.refusals)) == (0, False, {})


async def test_refusals_are_counted_by_reason(tmp_path: Path) -> None:
    """Here of calls while memory is short."""
    memory = FixedMemoryUse(used_share=0.96, is_short=True)
    async with (
        open_service(Source().config, tmp_path, {}, memory=memory) as service,
        service.operators_channel() as operators,
        service.channel() as channel,
    ):
        key = await service.key_maker.make_first()
        completions = chat_grpc.ChatCompletionServiceStub(channel)
        for _ in range(2):
            call = completions.CreateChatCompletion(
                chat.CreateChatCompletionRequest(spec=spec()),
                metadata=[("authorization", f"Bearer {key}")],
            )
            assert (await call.code()).name == "UNAVAILABLE"
        load = await pb_grpc.OperationsServiceStub(operators).GetLoad(pb.GetLoadRequest())

    assert dict(load.refusals) == {"OVERLOADED": 2}
    assert load.memory_short
    assert load.memory_used_share == 0.96
    assert load.queue_waits.HasField("latest")
