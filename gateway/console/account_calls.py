"""Account calls: requests of the console to UsageService, with a tenant's key."""

from __future__ import annotations

from datetime import datetime

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from pomogator.usage.v1 import usage_service_pb2 as pb
from pomogator.usage.v1.usage_service_pb2_grpc import UsageServiceStub

from gateway.console.askers import TenantAsker, ask

_PAGE_SIZE = 1000


class AccountCalls:
    """Calls over a channel to the public services. All raise ApiError."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._usage = UsageServiceStub(channel)

    async def balance(self, asker: TenantAsker) -> pb.Balance:
        """Return the balance of the key's account."""
        request = pb.GetBalanceRequest()
        return (await ask(self._usage.GetBalance, request, asker)).balance

    async def key_usage(self, asker: TenantAsker) -> pb.KeyUsage:
        """Return limits and usage of the key."""
        request = pb.GetKeyUsageRequest()
        return (await ask(self._usage.GetKeyUsage, request, asker)).key_usage

    async def daily_usage(
        self, asker: TenantAsker, since: datetime, *, by_model: bool = False
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
            page = await ask(self._usage.ListUsage, request, asker)
            found.extend(page.usage)
            token = page.next_page_token
            if not token:
                return found
