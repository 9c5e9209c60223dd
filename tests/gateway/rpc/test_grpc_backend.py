from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import grpc
import pytest
from pomogator.models.v1 import model_service_pb2 as models

from gateway.errors import ApiError
from gateway.rpc import grpc_backend
from gateway.rpc.grpc_backend import GrpcBackend
from services.domain.call_options import CallOptions
from services.domain.events import Started
from services.domain.spec import ChatCompletionSpec, CompletionRequest
from services.rpc.local_channel import local_channel
from tests.gateway.conftest import KEY, scripted_channel
from tests.stand import service
from tests.stand.service import Fault, Pause, ScriptedModels, ScriptedService, fail


@pytest.mark.parametrize("transport", ["direct", "tcp"])
async def test_a_key_that_passes_the_services_check_is_valid(
    transport: str, tmp_path: Path
) -> None:
    """The service checks the key first, and then finds no model without a name."""
    async with scripted_channel(ScriptedService(), transport, tmp_path) as channel:
        assert await GrpcBackend(channel).check_key(KEY, "req-1")


@pytest.mark.parametrize(
    ("code", "reason", "refused"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY", True),
        (grpc.StatusCode.UNAUTHENTICATED, "KEY_REVOKED", True),
        (grpc.StatusCode.UNAVAILABLE, "AUTH_UNAVAILABLE", False),
        (grpc.StatusCode.UNIMPLEMENTED, "", False),
    ],
)
async def test_only_the_services_refusal_makes_a_key_invalid(
    monkeypatch: pytest.MonkeyPatch, code: grpc.StatusCode, reason: str, refused: bool
) -> None:
    """A service that cannot check a key never makes it invalid."""

    async def get_model(
        _self: ScriptedModels, _request: models.GetModelRequest, context: object
    ) -> models.GetModelResponse:
        await fail(context, Fault(code=code, reason=reason))  # type: ignore[arg-type]
        raise AssertionError

    monkeypatch.setattr(ScriptedModels, "GetModel", get_model)
    async with local_channel(ScriptedService().register) as channel:
        if refused:
            with pytest.raises(ApiError) as error:
                await GrpcBackend(channel).check_key(KEY, "req-1")
            assert error.value.status == 401
        else:
            assert not await GrpcBackend(channel).check_key(KEY, "req-1")


async def test_a_service_that_cannot_be_reached_refuses_no_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lookup ends in time."""
    monkeypatch.setattr(grpc_backend, "KEY_CHECK_TIMEOUT_S", 0.2)
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        assert not await GrpcBackend(channel).check_key(KEY, "req-1")


CALL = CallOptions(key=KEY, request_id="req-1", deadline_s=30)
REQUEST = CompletionRequest(spec=ChatCompletionSpec(model="m"))
EACH = pytest.mark.parametrize("transport", ["direct", "tcp"])


@EACH
async def test_a_cancelled_task_ends_its_call(transport: str, tmp_path: Path) -> None:
    """The service sees the cancellation at once."""
    pause = Pause()
    script = ScriptedService(answer=pause)
    async with scripted_channel(script, transport, tmp_path) as channel:
        asking = asyncio.create_task(GrpcBackend(channel).whole(REQUEST, CALL, {}))
        await pause.reached.wait()
        asking.cancel()
        await asyncio.wait_for(script.cancelled.wait(), 5)
        with pytest.raises(asyncio.CancelledError):
            await asking


@EACH
async def test_closing_a_stream_ends_its_call(transport: str, tmp_path: Path) -> None:
    """The headers are there with the first batch, and an empty message is no batch."""
    script = ScriptedService(
        steps=[[], [service.started()], [service.text("a")]],
        initial_metadata=[("x-ratelimit-limit-requests", "60"), ("x-secret", "s")],
    )
    async with scripted_channel(script, transport, tmp_path) as channel:
        headers: dict[str, str] = {}
        async with aclosing(GrpcBackend(channel).stream(REQUEST, CALL, headers)) as batches:
            (event,) = await anext(batches)
        await asyncio.wait_for(script.closed.wait(), 5)
    assert isinstance(event, Started)
    assert headers == {"x-ratelimit-limit-requests": "60"}


async def test_calls_of_a_closed_channel_are_to_be_repeated(tmp_path: Path) -> None:
    """The edge shuts down, or has a channel with another certificate."""
    pause = Pause()
    script = ScriptedService(answer=pause)
    async with scripted_channel(script, "tcp", tmp_path) as channel:
        asking = asyncio.create_task(GrpcBackend(channel).whole(REQUEST, CALL, {}))
        await pause.reached.wait()
        await channel.close()
        with pytest.raises(ApiError) as failed:
            await asking
    assert failed.value.code == "server_shutting_down"
