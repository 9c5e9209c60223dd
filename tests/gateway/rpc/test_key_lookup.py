from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from pomogator.models.v1 import model_service_pb2 as models

from gateway.errors import ApiError
from gateway.rpc import key_lookup
from gateway.rpc.key_lookup import ServiceKeyLookup
from services.inprocess import InProcessChannel
from tests.gateway.conftest import KEY, scripted_channel
from tests.stand.service import Fault, ScriptedModels, ScriptedService, fail


@pytest.mark.parametrize("transport", ["in-process", "tcp"])
async def test_a_key_that_passes_the_services_check_is_valid(
    transport: str, tmp_path: Path
) -> None:
    """The model without a name does not exist: that is said after the check of the key."""
    async with scripted_channel(ScriptedService(), transport, tmp_path) as channel:
        assert await ServiceKeyLookup(channel)(KEY, "req-1")


@pytest.mark.parametrize(
    ("code", "reason", "refused"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY", True),
        (grpc.StatusCode.UNAUTHENTICATED, "KEY_REVOKED", True),
        (grpc.StatusCode.UNAVAILABLE, "AUTH_UNAVAILABLE", False),
        (grpc.StatusCode.UNIMPLEMENTED, "", False),
    ],
)
async def test_only_the_services_word_refuses_a_key(
    monkeypatch: pytest.MonkeyPatch, code: grpc.StatusCode, reason: str, refused: bool
) -> None:
    """A service that does not say whether a key is valid never makes it invalid."""

    async def get_model(
        _self: ScriptedModels, _request: models.GetModelRequest, context: object
    ) -> models.GetModelResponse:
        await fail(context, Fault(code=code, reason=reason))  # type: ignore[arg-type]
        raise AssertionError

    monkeypatch.setattr(ScriptedModels, "GetModel", get_model)
    async with InProcessChannel(ScriptedService().register) as channel:
        if refused:
            with pytest.raises(ApiError) as error:
                await ServiceKeyLookup(channel)(KEY, "req-1")
            assert error.value.status == 401
        else:
            assert not await ServiceKeyLookup(channel)(KEY, "req-1")


async def test_a_service_that_cannot_be_reached_refuses_no_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lookup ends in time."""
    monkeypatch.setattr(key_lookup, "LOOKUP_TIMEOUT_S", 0.2)
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        assert not await ServiceKeyLookup(channel)(KEY, "req-1")
