"""A gRPC server on a socket: who may open it, and what it tells about itself."""

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
    """Answers everybody."""

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:  # noqa: ARG002, N802
        """The model that was asked for."""
        return pb.GetModelResponse(model=pb.Model(name=request.model))

    async def ListModels(  # noqa: N802
        self,
        request: pb.ListModelsRequest,  # noqa: ARG002
        context: Any,  # noqa: ARG002
    ) -> pb.ListModelsResponse:
        """None."""
        return pb.ListModelsResponse()


def register(server: grpc.aio.Server) -> None:
    """Adds the service."""
    pb_grpc.add_ModelServiceServicer_to_server(Models(), server)


async def ask(address: str, *metadata: tuple[str, str]) -> str:
    """The name of a model, asked for at `address`."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = pb_grpc.ModelServiceStub(channel)
        answer = await stub.GetModel(pb.GetModelRequest(model="m"), metadata=metadata)
    return answer.model.name


async def test_a_socket_is_its_owners_alone(tmp_path: Path) -> None:
    """Nobody else may open the file, and it is gone when the server is."""
    path = tmp_path / "new" / "ops.sock"
    async with listening(register, f"unix:{path}", grace_s=0) as bound:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await ask(bound) == "m"

    assert not path.exists()


async def test_what_a_dead_server_left_is_replaced(tmp_path: Path) -> None:
    """A socket that nobody listens on does not keep a server from starting."""
    path = tmp_path / "ops.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))

    async with listening(register, f"unix:{path}", grace_s=0) as bound:
        assert await ask(bound) == "m"


async def test_an_address_that_is_taken_is_an_error() -> None:
    """It is told before anything is served."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match="cannot listen"):
            async with listening(register, address):
                pass


async def names(address: str) -> list[str]:
    """What reflection tells."""
    wanted = reflection_pb2.ServerReflectionRequest(list_services="")
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
        async for answer in stub.ServerReflectionInfo(iter([wanted])):
            return [service.name for service in answer.list_services_response.service]
    return []


async def test_reflection_tells_only_where_it_is_asked_for() -> None:
    """Without the flag the method does not exist."""
    async with listening(register, "127.0.0.1:0", reflected=[SERVICE], grace_s=0) as bound:
        assert SERVICE in await names(bound)

    async with listening(register, "127.0.0.1:0", grace_s=0) as bound:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await names(bound)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_operators_need_their_token() -> None:
    """Without it, or with another, nothing is done; with it, everything."""
    token = secrets.token_hex(16)
    guards = [OperatorCredential(token)]
    async with listening(register, "127.0.0.1:0", guards=guards, grace_s=0) as bound:
        assert await ask(bound, ("authorization", f"Bearer {token}")) == "m"
        for metadata in ([], [("authorization", "Bearer " + "0" * 32)]):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await ask(bound, *metadata)
            assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_token_that_could_be_guessed_is_refused() -> None:
    """An empty one too: it would let everybody in."""
    for token in ("", "short"):
        with pytest.raises(ValueError, match="at least 32"):
            OperatorCredential(token)
