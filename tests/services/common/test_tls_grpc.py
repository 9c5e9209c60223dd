from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.rpc.service_channel import open_channel
from services.common.tls import ListenerTls, TargetTls
from services.rpc.health_service import HealthService
from services.rpc.listener import listening
from tests.stand.certificates import NAME, Certificates


@pytest.fixture
def files(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@asynccontextmanager
async def server(tls: ListenerTls) -> AsyncIterator[str]:
    """Serve the health service; give its address."""

    def register(server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(HealthService(), server)

    async with listening(register, "127.0.0.1:0", tls=tls, grace_s=0) as bound:
        yield bound


async def ask(address: str, tls: TargetTls | None) -> int:
    """The health that the server at the address, which the client expects to be `NAME`, reports."""
    options = (("grpc.ssl_target_name_override", NAME),)
    async with open_channel(address, tls=tls, extra_options=options) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer = await check(health_pb2.HealthCheckRequest(), timeout=10)
        status: int = answer.status
        return status


async def test_clients_need_a_certificate_of_the_authority(files: Certificates) -> None:
    """Clients with another one or none are refused, and plain text, too."""
    tls = ListenerTls(**pair(files.issue("server")), client_ca=files.ca)
    stranger = files.issue("stranger", trustme.CA())
    async with server(tls) as address:
        assert await ask(address, TargetTls(ca=files.ca, **pair(files.issue("edge"))))
        for other in (TargetTls(ca=files.ca), TargetTls(ca=files.ca, **pair(stranger)), None):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await ask(address, other)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_new_connections_get_the_replaced_certificate(files: Certificates) -> None:
    """A half-written file changes nothing."""
    tls = ListenerTls(**pair(files.issue("server")))
    successor = trustme.CA()
    new_ca = files.write("new-ca.pem", successor.cert_pem.bytes())
    async with server(tls) as address:
        assert await ask(address, TargetTls(ca=files.ca))
        files.write("server.pem", b"-----BEGIN CERT")
        assert await ask(address, TargetTls(ca=files.ca))
        files.issue("server", successor)
        assert await ask(address, TargetTls(ca=new_ca))
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(address, TargetTls(ca=files.ca))


async def test_a_wrong_pair_is_refused_at_the_start(files: Certificates) -> None:
    """A key of another certificate is an error before anything is served."""
    certificate, _ = files.issue("one")
    _, key = files.issue("two")

    with pytest.raises(OSError, match="no certificate and its key"):
        ListenerTls(certificate=certificate, key=key).grpc_credentials()


def pair(paths: Sequence[Path]) -> dict[str, Path]:
    """Certificate and key, as arguments."""
    certificate, key = paths
    return {"certificate": certificate, "key": key}


def test_keys_are_in_no_representation(files: Certificates) -> None:
    """Nothing that was read from the key's file is shown."""
    tls = ListenerTls(**pair(files.issue("server")))
    shown = f"{tls!r} {tls.grpc_credentials()!r} {tls._read_configuration()!r}"

    for line in tls.key.read_text().splitlines()[1:-1]:
        assert line not in shown
