"""Authorization by certificate, with real certificates on real sockets."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as chat_grpc
from pomogator.models.v1 import model_service_pb2 as pb
from pomogator.models.v1 import model_service_pb2_grpc as pb_grpc
from pomogator.relay.v1 import relay_service_pb2 as relay
from pomogator.relay.v1 import relay_service_pb2_grpc as relay_grpc

from gateway.rpc.service_channel import open_channel
from services.common.tls import ListenerTls, TargetTls
from services.rpc.client_authorizer import RELAY, ClientAuthorizer, Table
from services.rpc.health_service import HealthService
from services.rpc.listener import listening
from tests.services.common.test_tls_grpc import pair
from tests.services.rpc.test_listener import Models
from tests.stand.certificates import NAME, Certificates
from tests.stand.service import CountingChat

SHOP, EDGE, STRANGER = "shop.web.svc", "edge.pomogator.svc", "stranger.svc"
MODELS = pb.DESCRIPTOR.services_by_name["ModelService"].full_name
CHAT = "pomogator.chat.v1.ChatCompletionService"
STREAM = f"{CHAT}/StreamChatCompletion"
TABLE = {f"{MODELS}/GetModel": (SHOP,), STREAM: (EDGE,), "*": ("admin.svc",)}


class Completions(CountingChat):
    """Streams one message to every client."""

    async def CreateChatCompletion(  # noqa: N802
        self,
        request: chat.CreateChatCompletionRequest,  # noqa: ARG002
        context: Any,  # noqa: ARG002
    ) -> chat.CreateChatCompletionResponse:
        """An empty answer."""
        return chat.CreateChatCompletionResponse()

    async def StreamChatCompletion(  # noqa: N802
        self,
        request: chat.StreamChatCompletionRequest,  # noqa: ARG002
        context: Any,  # noqa: ARG002
    ) -> AsyncIterator[chat.StreamChatCompletionResponse]:
        """One message."""
        yield chat.StreamChatCompletionResponse()


class Relays(relay_grpc.RelayServiceServicer):
    """Sends one message to every client."""

    async def Relay(  # noqa: N802
        self,
        request_iterator: AsyncIterator[relay.RelayRequest],  # noqa: ARG002
        context: Any,  # noqa: ARG002
    ) -> AsyncIterator[relay.RelayResponse]:
        """One message."""
        yield relay.RelayResponse()


def register(server: grpc.aio.Server) -> None:
    """Add the services that the tests call."""
    pb_grpc.add_ModelServiceServicer_to_server(Models(), server)
    chat_grpc.add_ChatCompletionServiceServicer_to_server(Completions(), server)
    relay_grpc.add_RelayServiceServicer_to_server(Relays(), server)
    health_pb2_grpc.add_HealthServicer_to_server(HealthService(), server)


class Listener:
    """A listener, its authority, and clients with any names."""

    def __init__(self, files: Certificates, address: str, table: list[Table]) -> None:
        self.files = files
        self.table = table
        self._address = address

    @asynccontextmanager
    async def named_client(self, *names: str, **of: Any) -> AsyncIterator[Client]:
        """A client with a certificate of these names; `of` may have the issuer and the expiry."""
        issued = self.files.issue(names[0], of.pop("issuer", None), *names, **of)
        tls = TargetTls(ca=self.files.ca, **pair(issued))
        async with self.client(tls) as client:
            yield client

    @asynccontextmanager
    async def client(self, tls: TargetTls | None) -> AsyncIterator[Client]:
        """A client with these credentials."""
        options = (("grpc.ssl_target_name_override", NAME),)
        async with open_channel(self._address, tls=tls, extra_options=options) as channel:
            yield Client(channel)


class Client:
    """Makes calls, and returns the names of their status codes."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self.details = ""

    async def get(self) -> str:
        """Call a method with one answer."""
        return await self._outcome(pb_grpc.ModelServiceStub(self._channel).GetModel(
            pb.GetModelRequest(model="m"), timeout=10))  # fmt: skip

    async def list(self) -> str:
        """Call another method of the same service."""
        return await self._outcome(pb_grpc.ModelServiceStub(self._channel).ListModels(
            pb.ListModelsRequest(), timeout=10))  # fmt: skip

    async def stream(self) -> str:
        """Call a method with a stream of answers."""
        stub = chat_grpc.ChatCompletionServiceStub(self._channel)
        call = stub.StreamChatCompletion(chat.StreamChatCompletionRequest(), timeout=10)
        return await self._outcome(anext(aiter(call)))

    async def relay(self) -> str:
        """Open a relay."""
        return await self._outcome(relay_grpc.RelayServiceStub(self._channel).Relay().read())

    async def health(self) -> str:
        """Call the health service as probes do."""
        check = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        return await self._outcome(check(health_pb2.HealthCheckRequest(), timeout=10))

    async def reflection(self) -> str:
        """Call server reflection."""
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(self._channel)  # type: ignore[arg-type]
        wanted = reflection_pb2.ServerReflectionRequest(list_services="")
        return await self._outcome(anext(aiter(stub.ServerReflectionInfo(iter([wanted])))))

    async def _outcome(self, answer: Any) -> str:
        try:
            await answer
        except grpc.aio.AioRpcError as error:
            self.details = error.details() or ""
            return error.code().name
        return "OK"


@pytest.fixture
async def listener(tmp_path: Path) -> AsyncIterator[Listener]:
    files = Certificates(tmp_path)
    table: list[Table] = [TABLE]
    authorizer = ClientAuthorizer(lambda: table[0])
    tls = ListenerTls(**pair(files.issue("server")), client_ca=files.ca)
    async with listening(
        register, "127.0.0.1:0", interceptors=[authorizer], reflected=[MODELS], tls=tls, grace_s=0
    ) as address:
        yield Listener(files, address, table)


@pytest.mark.parametrize(
    ("names", "may"),
    [
        ([SHOP], {"get": "OK", "list": "-", "stream": "-", "reflection": "-", "health": "OK"}),
        ([EDGE], {"get": "-", "list": "-", "stream": "OK", "reflection": "-", "health": "OK"}),
        (["x.svc", SHOP, EDGE], {"get": "OK", "list": "-", "stream": "OK", "health": "OK"}),
        (["admin.svc"], {"get": "OK", "list": "OK", "stream": "OK", "reflection": "OK"}),
        ([STRANGER], {"get": "-", "list": "-", "stream": "-", "reflection": "-", "health": "-"}),
    ],
)
async def test_names_decide_which_methods_a_client_may_call(
    listener: Listener, names: list[str], may: Mapping[str, str]
) -> None:
    """Any name of the certificate counts; every name of the table may call the health service."""
    async with listener.named_client(*names) as client:
        for method, expected in may.items():
            outcome = await getattr(client, method)()
            assert outcome == expected.replace("-", "PERMISSION_DENIED"), method


@pytest.mark.parametrize(
    ("table", "may"),
    [
        ({f"{CHAT}/*": (EDGE,)}, True),
        ({f"{CHAT}/CreateChatCompletion": (EDGE,), STREAM: (EDGE,)}, True),
        ({STREAM: (EDGE,)}, False),
        ({RELAY: (EDGE,), f"{MODELS}/*": (EDGE,)}, False),
    ],
)
async def test_a_client_that_may_make_completions_may_open_a_relay(
    listener: Listener, table: Table, may: bool
) -> None:
    """Both whole and streamed ones, since a relay carries both."""
    listener.table[0] = table
    async with listener.named_client(EDGE) as client:
        assert await client.relay() == ("OK" if may else "PERMISSION_DENIED")


async def test_a_refusal_names_the_method(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """For the client; the log has the certificate's names, too."""
    async with listener.named_client(STRANGER) as client:
        with caplog.at_level(logging.WARNING, "services.rpc.client_authorizer"):
            await client.get()

    assert client.details == f"No name in the caller's certificate may call {MODELS}/GetModel."
    (record,) = caplog.records
    assert record.message == "client.refused"
    told = vars(record)
    assert (told["method"], told["names"]) == (f"{MODELS}/GetModel", [STRANGER])


async def test_an_untrusted_client_cannot_connect(listener: Listener) -> None:
    """No certificate, an expired one, or one of another authority with the right name."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    for of in ({"issuer": trustme.CA()}, {"not_after": yesterday}):
        async with listener.named_client(SHOP, **of) as client:
            assert await client.get() == "UNAVAILABLE"
    for tls in (TargetTls(ca=listener.files.ca), None):
        async with listener.client(tls) as client:
            assert await client.get() == "UNAVAILABLE"


async def test_a_new_table_counts_from_the_next_call_on(listener: Listener) -> None:
    """On existing connections, too; with an empty table every trusted client may call."""
    async with listener.named_client(SHOP) as client:
        assert await client.get() == "OK"
        listener.table[0] = {f"{MODELS}/*": (EDGE,)}
        assert await client.get() == "PERMISSION_DENIED"
        listener.table[0] = {}
        assert (await client.get(), await client.stream()) == ("OK", "OK")


def with_uri(authority: trustme.CA, uri: str, key_path: Path) -> bytes:
    """A workload's certificate, whose name is a URI; its key is written to the path."""
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    signer: Any = load_pem_private_key(authority.private_key_pem.bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(issuer.subject, x509.Name([]), key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=True
        )
    )
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)


async def test_uris_are_names(tmp_path: Path) -> None:
    """Workloads are told apart by their SPIFFE identities."""
    files = Certificates(tmp_path)
    spiffe = "spiffe://cluster.local/ns/web/sa/shop"
    tls = ListenerTls(**pair(files.issue("server")), client_ca=files.ca)
    authorizer = ClientAuthorizer(lambda: {"*": (spiffe,)})
    async with listening(
        register, "127.0.0.1:0", interceptors=[authorizer], tls=tls, grace_s=0
    ) as address:
        listener = Listener(files, address, [])
        key = tmp_path / "shop.key"
        certificate = files.write("shop.pem", with_uri(files.authority, spiffe, key))
        shown = TargetTls(ca=files.ca, certificate=certificate, key=key)
        async with listener.client(shown) as client:
            assert await client.get() == "OK"
        async with listener.named_client(SHOP) as client:
            assert await client.get() == "PERMISSION_DENIED"
