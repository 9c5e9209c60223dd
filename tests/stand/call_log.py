"""The call log of a running gateway, as callers and operators read it."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pomogator.calls.v1 import call_service_pb2 as pb
from pomogator.calls.v1 import call_service_pb2_grpc as pb_grpc

from tests.stand.billing_stand import BillingStand, bearer
from tests.stand.response import ReadResponse


@dataclass(frozen=True, slots=True)
class CallLogStand:
    """Clients of the log."""

    stand: BillingStand
    operators: pb_grpc.CallServiceStub
    callers: pb_grpc.CallServiceStub

    async def all_calls(self, **filters: Any) -> Sequence[pb.Call]:
        """Return the calls that operators see, newest first."""
        listed = await self.operators.ListCalls(pb.ListCallsRequest(page_size=1000, **filters))
        return listed.calls

    async def get(self, key: str, path: str, **query: str) -> tuple[int, Any]:
        """Return status and JSON of a document for a key."""
        url = f"{self.stand.gateway.base_url}{path}"
        async with self.stand.gateway.http.get(url, headers=bearer(key), params=query) as answer:
            return answer.status, await answer.json()

    async def text(self, key: str, method: str = "export", **query: str) -> tuple[str, str]:
        """Return media type and text of an export for a key."""
        url = f"{self.stand.gateway.base_url}/calls:{method}"
        async with self.stand.gateway.http.get(url, headers=bearer(key), params=query) as answer:
            assert answer.status == 200
            return answer.content_type, await answer.text()


def answer_id(answer: ReadResponse) -> str:
    """Return the ID of an answer, whole or streamed."""
    first = answer.events[0] if answer.streamed else answer.json
    found: str = first["id"]
    return found


def rows_of(text: str) -> Sequence[Mapping[str, str]]:
    """Return the rows of a CSV text."""
    return list(csv.DictReader(io.StringIO(text)))


@asynccontextmanager
async def call_log_stand(stand: BillingStand) -> AsyncIterator[CallLogStand]:
    """Open clients of the log of a gateway."""
    service = stand.gateway.service
    async with service.channel() as callers, service.operators_channel() as operators:
        yield CallLogStand(
            stand, pb_grpc.CallServiceStub(operators), pb_grpc.CallServiceStub(callers)
        )
