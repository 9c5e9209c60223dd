"""Random gRPC requests to every method of every service: whatever they are, none is a fault.

    python -m tests.nightly.grpc_requests [--cases 100000] [--seed N]

Fields are at their bounds, enums unknown, oneofs unset, and some bytes are no message. No call ends
with INTERNAL or UNKNOWN, or without a status, also in a relay; the log has no error, and the books
are right.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from pomogator.accounts.v1 import (
    account_service_pb2,
    audit_service_pb2,
    key_service_pb2,
    ledger_service_pb2,
)
from pomogator.calls.v1 import call_service_pb2
from pomogator.chat.v1 import chat_completion_service_pb2
from pomogator.embeddings.v1 import embedding_service_pb2
from pomogator.models.v1 import model_service_pb2
from pomogator.operations.v1 import operations_service_pb2
from pomogator.relay.v1 import relay_service_pb2
from pomogator.tenants.v1 import tenant_service_pb2
from pomogator.usage.v1 import usage_service_pb2

from services.common.call_names import STRUCTS_HEADER
from services.common.contract.relay_codec import structs_version
from tests.nightly import generated_cases
from tests.nightly.grpc_targets import request_bytes, struct_frames
from tests.stand.gateway import Transport
from tests.stand.listeners_stand import (
    EMBEDDING_MODEL,
    MODELS,
    ListenersStand,
    listeners_stand,
    open_account,
)
from tests.stand.operators import Operators

CALLERS: Sequence[Any] = (
    *(chat_completion_service_pb2,) * 4,
    *(embedding_service_pb2, model_service_pb2, usage_service_pb2, tenant_service_pb2),
    *(call_service_pb2, relay_service_pb2),
)
OPERATORS: Sequence[Any] = (
    *(account_service_pb2, audit_service_pb2, key_service_pb2, ledger_service_pb2),
    *(call_service_pb2, operations_service_pb2),
)
FAULTS = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})
FAULT_NUMBERS = frozenset(code.value[0] for code in FAULTS)
STRUCTS_SHARE = 0.7
"""Share of requests to the relay that are structs, as of an edge of the same release."""
ANSWER_TIMEOUT_S = 20.0
ROUND = 100
METADATA: Sequence[tuple[str, Sequence[str | bytes]]] = (
    ("x-request-id", ("", "r-1", "x" * 300)),
    ("idempotency-key", ("k-1", "k-2", "", "x" * 300)),
    ("x-pomogator-timeout", ("5", "NaN", "-1", "1e999", "0", "")),
    ("x-pomogator-tags", ("a=b", "=", "a=b,a=c", "," * 300)),
    ("x-pomogator-surface", ("chat", "odd", "messages")),
    ("x-pomogator-operator", ("ann", "")),
    ("x-pomogator-content", ("none", "odd")),
    ("x-pomogator-instance", ("i",)),
    ("traceparent", ("00-" + "1" * 32 + "-" + "1" * 16 + "-01", "x")),
    ("grpc-status-details-bin", (b"\xff",)),
    ("authorization", ("Bearer a", "", "Basic x")),
)


class Attack:
    """Sends requests, and checks how the calls end."""

    def __init__(self, stand: ListenersStand, seed: int) -> None:
        self._stand = stand
        self._chance = random.Random(seed)  # noqa: S311 - no secret
        self._key_id = self._secret = ""
        self._account = ""
        self._seen = ["a"]
        self.became: Counter[str] = Counter()
        self.faults: list[str] = []

    async def run(self, cases: int) -> None:
        """Send as many requests, and check what they leave."""
        for number in range(cases):
            if number % ROUND == 0:
                await self._renew(number // ROUND)
            await self._one()
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            books = await Operators(self._stand.operators).settled()
        self.faults += [f"ledger: {finding}" for finding in books.findings]

    async def _renew(self, number: int) -> None:
        self._account = f"acme-{number}"
        self._key_id, self._secret = await open_account(self._stand, self._account)
        enable = self._stand.operators.unary_unary(
            "/pomogator.operations.v1.OperationsService/EnableChannel",
            operations_service_pb2.EnableChannelRequest.SerializeToString,
            operations_service_pb2.EnableChannelResponse.FromString,
        )
        for channel in (*(name.removeprefix("house/") for name in MODELS), "embed"):
            await enable(operations_service_pb2.EnableChannelRequest(channel=channel))

    async def _one(self) -> None:
        chance = self._chance
        is_caller = chance.random() < 0.6
        module = chance.choice(CALLERS if is_caller else OPERATORS)
        services = module.DESCRIPTOR.services_by_name.values()
        method = chance.choice([each for service in services for each in service.methods])
        channel = self._stand.public if is_caller else self._stand.operators
        metadata = self._metadata(is_caller=is_caller)
        if method.name == "Relay" and chance.random() < STRUCTS_SHARE:
            sent = [struct_frames(chance, self._names())]
            metadata.append((STRUCTS_HEADER, structs_version()))
        else:
            sent = [request_bytes(method, chance, self._names())] * 2
        data = sent[0]
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                answers = await _call(channel, method, sent, metadata)
            self._learn(method, answers)
            if method.name == "Relay":
                self._check_frames(method, data, answers)
            became = "OK"
        except grpc.aio.AioRpcError as error:
            became = error.code().name
            if error.code() in FAULTS:
                self._find(method, data, f"{became}: {error.details()}")
        except TimeoutError:
            became = "late"
            self._find(method, data, "no answer in time")
        self.became[f"{method.name} {became}"] += 1
        while self._stand.log.faults:
            self._find(method, data, f"logged: {self._stand.log.faults.pop()}")

    def _find(self, method: MethodDescriptor, data: bytes, fault: str) -> None:
        self.faults.append(f"{method.name}: {fault}\n  sent {data[:1500]!r}")

    def _check_frames(self, method: MethodDescriptor, data: bytes, answers: list[bytes]) -> None:
        for answer in answers:
            for frame in relay_service_pb2.RelayResponse.FromString(answer).frames:
                if frame.ended:
                    self.became[f"relayed call {frame.failure.code}"] += 1
                if frame.failure.code in FAULT_NUMBERS:
                    self._find(method, data, f"in a frame: {frame.failure.message}")

    def _learn(self, method: MethodDescriptor, answers: Sequence[bytes]) -> None:
        for each in answers[:1]:
            found = GetMessageClass(method.output_type).FromString(each)
            for field, value in found.ListFields():
                if field.name in {"next_page_token", "id", "call_id"} and value:
                    self._seen.append(value)
        del self._seen[:-50]

    def _metadata(self, *, is_caller: bool) -> list[tuple[str, str | bytes]]:
        chance = self._chance
        found: list[tuple[str, str | bytes]] = []
        if is_caller and chance.random() < 0.97:
            found.append(("authorization", f"Bearer {self._secret}"))
        if chance.random() < 0.3:
            name, values = chance.choice(METADATA)
            found += [(name, chance.choice(values)) for _ in range(chance.choice((1, 1, 2)))]
        return found

    def _names(self) -> dict[str, list[str]]:
        models = [*MODELS, EMBEDDING_MODEL]
        return {
            "account": [self._account, "acme-0"],
            "key_id": [self._key_id] if self._chance.random() < 0.1 else ["key-0", "a"],
            "model": models,
            "models": models,
            "channel": [*(name.removeprefix("house/") for name in MODELS), "embed"],
            "page_token": ["", *self._seen],
            "call_id": self._seen,
            "authorization": [f"Bearer {self._secret}", "Bearer a"],
        }


async def _call(
    channel: Any, method: MethodDescriptor, sent: Sequence[bytes], metadata: Any
) -> list[bytes]:
    """Return the answers to a message, or to all where the method takes more than one."""
    data = sent[0]
    path = f"/{method.containing_service.full_name}/{method.name}"
    if method.client_streaming:

        async def requests() -> AsyncIterator[bytes]:
            for each in sent:
                yield each

        call = channel.stream_stream(path)(requests(), metadata=metadata)
        return [answer async for answer in call]
    if method.server_streaming:
        return [answer async for answer in channel.unary_stream(path)(data, metadata=metadata)]
    return [await channel.unary_unary(path)(data, metadata=metadata)]


async def attack(cases: int, seed: int, transport: Transport, database_url: str = "") -> Attack:
    """Send as many requests to a new service."""
    with tempfile.TemporaryDirectory(prefix="pomogator-grpc-") as directory:
        async with listeners_stand(Path(directory), transport, database_url) as stand:
            run = Attack(stand, seed)
            await run.run(cases)
            return run


def check_cases(cases: int, seed: int) -> Mapping[str, int]:
    """Send as many requests, over each transport. Return how many calls of a method ended how."""
    return generated_cases.over_each_transport(attack, cases, seed)


if __name__ == "__main__":
    generated_cases.run(check_cases, __doc__)
