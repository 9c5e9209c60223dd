"""Request IDs of completions over gRPC: callers find their call in the log."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RequestInfo
from google.rpc.status_pb2 import Status
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as pb_grpc
from pomogator.chat.v1 import content_pb2

from services.rpc.local_channel import local_channel
from tests.stand import held_provider


@pytest.mark.parametrize("method", ["CreateChatCompletion", "StreamChatCompletion"])
async def test_answers_and_failures_tell_the_request_id(
    method: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer in the initial metadata, a failure in RequestInfo; both are in the call's line."""
    caplog.set_level(logging.INFO)
    async with (
        held_provider.held_gateway(tmp_path) as (gateway, _, _),
        local_channel(gateway.service.register) as channel,
    ):
        key = ("authorization", f"Bearer {gateway.key}")
        stub: Any = getattr(pb_grpc.ChatCompletionServiceStub(channel), method)

        answered = stub(request(method), metadata=(key,))
        await (answered.read() if hasattr(answered, "read") else answered)
        told = dict(await answered.initial_metadata())["x-request-id"]
        own = stub(request(method), metadata=(key, ("x-request-id", "mine")))
        await (own.read() if hasattr(own, "read") else own)
        assert "x-request-id" not in dict(await own.initial_metadata())
        refused = stub(request(method, model="unheard-of"), metadata=(key,))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await (refused.read() if hasattr(refused, "read") else refused)
        answered.cancel()
        own.cancel()

    trailers = dict(raised.value.trailing_metadata() or ())
    info = RequestInfo()
    assert Status.FromString(trailers["grpc-status-details-bin"]).details[-1].Unpack(info)
    lines = {vars(line).get("request_id") for line in caplog.records}
    assert {told, "mine", info.request_id} <= lines


def request(method: str, model: str = held_provider.MODEL) -> Any:
    """A request of the method for a model."""
    kind = pb.DESCRIPTOR.message_types_by_name[f"{method}Request"]
    made: Any = getattr(pb, kind.name)()
    made.spec.model = model
    made.spec.messages.add(role=content_pb2.ROLE_USER).content.add(text="Hello")
    return made
