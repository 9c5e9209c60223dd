"""Fields of operators' and callers' requests, each with values at and beyond its bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from pomogator.accounts.v1 import (
    account_service_pb2,
    audit_service_pb2,
    key_service_pb2,
    ledger_service_pb2,
)
from pomogator.calls.v1 import call_service_pb2
from pomogator.operations.v1 import operations_service_pb2
from pomogator.tenants.v1 import tenant_service_pb2
from pomogator.usage.v1 import usage_service_pb2

from tests.stand.billing_stand import NANO, billing_stand

OPERATORS = (
    account_service_pb2,
    audit_service_pb2,
    key_service_pb2,
    ledger_service_pb2,
    call_service_pb2,
    operations_service_pb2,
)
CALLERS = (call_service_pb2, tenant_service_pb2, usage_service_pb2)

REFUSALS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
    }
)

VALUES: Mapping[int, Sequence[object]] = {
    FieldDescriptor.TYPE_STRING: (
        *("\0", "x\0y", "x" * 10_000, "%", "_", "*"),
        *("'; DROP TABLE keys; --", "\u202e\U0001f4a5"),
    ),
    FieldDescriptor.TYPE_BYTES: (b"\xff",),
    FieldDescriptor.TYPE_INT32: (-(2**31), -1, 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), -1, 2**63 - 1),
    FieldDescriptor.TYPE_ENUM: (99, -1),
    FieldDescriptor.TYPE_DOUBLE: (float("nan"), float("inf"), -1.0),
    FieldDescriptor.TYPE_BOOL: (True,),
}
TIMES = ((2**62, 0), (-(2**62), 0), (253_402_300_799, 999_999_999), (0, 2**31 - 1), (0, -1))


def hostile(kind: Any, depth: int = 3) -> Iterator[Message]:
    """Yield messages of a kind, each with one field that has a hostile value."""
    if kind in {Timestamp, Duration}:
        yield from (kind(seconds=seconds, nanos=nanos) for seconds, nanos in TIMES)
        return
    for field in kind.DESCRIPTOR.fields:
        inner = field.message_type
        if inner is None:
            values: Iterator[object] = iter(VALUES[field.type])
        elif depth and not inner.GetOptions().map_entry:
            values = hostile(GetMessageClass(inner), depth - 1)
        else:
            continue
        for value in values:
            yield kind(**{field.name: [value, value] if field.is_repeated else value})


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The services of one kind of callers."""

    channel: grpc.aio.Channel
    modules: Sequence[Any]
    metadata: Sequence[tuple[str, str]]
    names: Mapping[str, str]
    """Values of fields without which a method looks at no other field."""

    def methods(self) -> Iterator[MethodDescriptor]:
        """Yield all methods."""
        for module in self.modules:
            for service in module.DESCRIPTOR.services_by_name.values():
                yield from service.methods

    def requests(self, method: MethodDescriptor) -> Iterator[Message]:
        """Yield an empty request, and hostile ones."""
        kind = GetMessageClass(method.input_type)
        for request in [kind(), *hostile(kind)]:
            fields = kind.DESCRIPTOR.fields_by_name
            for name, value in self.names.items():
                if name in fields and fields[name].message_type is None:
                    setattr(request, name, getattr(request, name) or value)
            yield request

    async def call(self, method: MethodDescriptor, request: Message) -> None:
        """Call a method, and read its answer. Raise AioRpcError."""
        path = f"/{method.containing_service.full_name}/{method.name}"
        serializers = (
            GetMessageClass(method.input_type).SerializeToString,
            GetMessageClass(method.output_type).FromString,
        )
        if method.server_streaming:
            call = self.channel.unary_stream(path, *serializers)
            async for _ in call(request, metadata=self.metadata):
                pass
        else:
            await self.channel.unary_unary(path, *serializers)(request, metadata=self.metadata)


@pytest.fixture
async def sides(tmp_path: Path, each_database_url: str) -> AsyncIterator[Sequence[Side]]:
    """Callers and operators of a gateway, in each database."""
    async with billing_stand(tmp_path, database_url=each_database_url) as stand:
        service = stand.gateway.service
        secret = await stand.open_account("acme", NANO)
        own = await stand.make_key("acme", administers_account=True)
        await stand.ask(secret)
        async with service.channel() as public, service.operators_channel() as operators:
            yield (
                Side(
                    channel=public,
                    modules=CALLERS,
                    metadata=(("authorization", f"Bearer {own.secret}"),),
                    names={"key_id": own.key.key_id},
                ),
                Side(
                    channel=operators,
                    modules=OPERATORS,
                    metadata=(),
                    names={"account": "acme", "channel": "house", "request_id": "r"},
                ),
            )


async def test_no_value_of_a_field_is_a_fault(sides: Sequence[Side]) -> None:
    """Each is accepted or refused: no method fails, and no store takes it for an outage."""
    faults = []
    for side in sides:
        for method in side.methods():
            if method.name in {"RevokeKey", "RotateKey"} and side is sides[0]:
                continue  # It would end the caller's own key.
            for request in side.requests(method):
                try:
                    await side.call(method, request)
                except grpc.aio.AioRpcError as error:
                    if error.code() not in REFUSALS:
                        faults.append((method.full_name, str(request)[:200], error.details()))

    assert faults == []
