"""Account calls: usage of a tenant's account, in as many pages as it has."""

from __future__ import annotations

from datetime import datetime

from pomogator.usage.v1 import usage_service_pb2 as pb
from pomogator.usage.v1.usage_service_pb2_grpc import UsageServiceStub

from gateway.console.askers import TenantAsker, ask

_PAGE_SIZE = 1000


async def daily_usage(
    stub: UsageServiceStub, asker: TenantAsker, since: datetime, *, by_model: bool = False
) -> list[pb.UsageSum]:
    """Return the sums of the account's calls since then, oldest day first. Raise ApiError."""
    grouping = pb.USAGE_GROUPING_UNSPECIFIED if by_model else pb.USAGE_GROUPING_DAY
    request = pb.ListUsageRequest(group_by=grouping, page_size=_PAGE_SIZE)
    request.start_time.FromDatetime(since)
    found: list[pb.UsageSum] = []
    while True:
        page = await ask(stub.ListUsage, request, asker)
        found.extend(page.usage)
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token
