"""A gRPC listener: access to its socket, reflection, credentials of operators."""

from __future__ import annotations

import secrets
import socket
import stat
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pomogator.models.v1 import model_service_pb2 as pb
from pomogator.models.v1 import model_service_pb2_grpc as pb_grpc

from services.accounts.credential import OperatorCredential
from services.rpc.listener import listening

SERVICE = pb.DESCRIPTOR.services_by_name["ModelService"].full_name


class Models(pb_grpc.ModelServiceServicer):
    """Answers every caller."""

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:  # noqa: ARG002, N802
        """The model that was asked for."""
        return pb.GetModelResponse(model=pb.Model(name=request.model))

    async def ListModels(  # noqa: N802
        self,
        request: pb.ListModelsRequest,  # noqa: ARG002
        context: Any,  # noqa: ARG002
    ) -> pb.ListModelsResponse:
        """An empty list."""
        return pb.ListModelsResponse()


def register(server: grpc.aio.Server) -> None:
    """Add the service."""
    pb_grpc.add_ModelServiceServicer_to_server(Models(), server)


async def ask(address: str, *metadata: tuple[str, str]) -> str:
    """The name of a model, asked for at `address`."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = pb_grpc.ModelServiceStub(channel)
        answer = await stub.GetModel(pb.GetModelRequest(model="m"), metadata=metadata)
    return answer.model.name


async def test_only_its_owner_may_open_a_socket(tmp_path: Path) -> None:
    """The file has mode 0600, and is removed with the server."""
    path = tmp_path / "new" / "ops.sock"
    async with listening(register, f"unix:{path}", grace_s=0) as bound:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await ask(bound) == "m"

    assert not path.exists()


async def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    """A socket that a dead server left behind does not keep a server from starting."""
    path = tmp_path / "ops.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))

    async with listening(register, f"unix:{path}", grace_s=0) as bound:
        assert await ask(bound) == "m"


async def test_an_address_that_is_taken_is_an_error() -> None:
    """Raised before anything is served."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"^cannot listen on {address}: Address already in use$"):
            async with listening(register, address):
                pass


async def names(address: str) -> list[str]:
    """The services that reflection lists."""
    wanted = reflection_pb2.ServerReflectionRequest(list_services="")
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
        async for answer in stub.ServerReflectionInfo(iter([wanted])):
            return [service.name for service in answer.list_services_response.service]
    return []


async def test_reflection_is_off_by_default() -> None:
    """Without `reflected` the method does not exist."""
    async with listening(register, "127.0.0.1:0", reflected=[SERVICE], grace_s=0) as bound:
        assert SERVICE in await names(bound)

    async with listening(register, "127.0.0.1:0", grace_s=0) as bound:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await names(bound)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_operators_need_their_token() -> None:
    """Without it, or with another, calls are refused with UNAUTHENTICATED."""
    token = secrets.token_hex(16)
    guards = [OperatorCredential(token)]
    async with listening(register, "127.0.0.1:0", interceptors=guards, grace_s=0) as bound:
        assert await ask(bound, ("authorization", f"Bearer {token}")) == "m"
        for metadata in ([], [("authorization", "Bearer " + "0" * 32)]):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await ask(bound, *metadata)
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_short_token_is_refused() -> None:
    """An empty one, too: it would let every caller in."""
    for token in ("", "short"):
        with pytest.raises(ValueError, match="at least 32"):
            OperatorCredential(token)
