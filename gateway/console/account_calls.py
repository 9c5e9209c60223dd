"""Account calls: what the console asks the service with a tenant's key."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime
from typing import NamedTuple, TypeVar

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from pomogator.usage.v1 import usage_service_pb2 as pb
from pomogator.usage.v1.usage_service_pb2_grpc import UsageServiceStub

from gateway.rpc.call_metadata import call_metadata
from gateway.rpc.status_mapping import to_api_error

TIMEOUT_S = 15.0
_PAGE_SIZE = 1000

T = TypeVar("T")


class Caller(NamedTuple):
    """A tenant whose page asks."""

    key: str
    request_id: str

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata of its calls."""
        return call_metadata(self.key, self.request_id)


class AccountCalls:
    """Calls over a channel to the public services. All raise ApiError."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._usage = UsageServiceStub(channel)

    async def balance(self, caller: Caller) -> pb.Balance:
        """Return the balance of the key's account."""
        request = pb.GetBalanceRequest()
        call = self._usage.GetBalance(request, metadata=caller.metadata, timeout=TIMEOUT_S)
        return (await answered(call, caller.request_id)).balance

    async def key_usage(self, caller: Caller) -> pb.KeyUsage:
        """Return limits and usage of the key."""
        request = pb.GetKeyUsageRequest()
        call = self._usage.GetKeyUsage(request, metadata=caller.metadata, timeout=TIMEOUT_S)
        return (await answered(call, caller.request_id)).key_usage

    async def daily_usage(
        self, caller: Caller, since: datetime, *, by_model: bool = False
    ) -> list[pb.UsageSum]:
        """Return the sums of the account's calls since then, oldest day first."""
        start = Timestamp()
        start.FromDatetime(since)
        grouping = pb.USAGE_GROUPING_UNSPECIFIED if by_model else pb.USAGE_GROUPING_DAY
        found: list[pb.UsageSum] = []
        token = ""
        while True:
            request = pb.ListUsageRequest(
                start_time=start, group_by=grouping, page_size=_PAGE_SIZE, page_token=token
            )
            call = self._usage.ListUsage(request, metadata=caller.metadata, timeout=TIMEOUT_S)
            page = await answered(call, caller.request_id)
            found.extend(page.usage)
            token = page.next_page_token
            if not token:
                return found


async def answered(call: Awaitable[T], request_id: str) -> T:
    """Return the answer of a call. Raise ApiError where it fails."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise to_api_error(error, request_id) from None
