"""UsageService, for callers: balance and usage of the account of their key.

The key alone determines the account. No request names one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from pomogator.usage.v1 import usage_service_pb2 as pb
from pomogator.usage.v1 import usage_service_pb2_grpc as pb_grpc

from services.accounts.paging import START, Page
from services.accounts.proto_fields import invalid, not_found, time_range_ms
from services.admission.keyring import Caller, Keyring
from services.rpc.failure_border import Context, metadata_of
from services.storage.accounts import account_by_name
from services.storage.base import Database
from services.storage.reports import Grouping, UsageSum, usage_sums

GROUPINGS: Mapping[pb.UsageGrouping.ValueType, Grouping] = {
    pb.USAGE_GROUPING_UNSPECIFIED: Grouping.DAY_AND_MODEL,
    pb.USAGE_GROUPING_MODEL: Grouping.MODEL,
    pb.USAGE_GROUPING_DAY: Grouping.DAY,
}

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class UsageServicer(pb_grpc.UsageServiceServicer):
    """Reports the balance and usage of the caller's account."""

    def __init__(self, keyring: Keyring, database: Database) -> None:
        self._keyring = keyring
        self._database = database
        # A report reads all calls of its time range, about a microsecond each, on the thread
        # that also looks up keys. One at a time, so a lookup waits for at most one report.
        self._one_report = asyncio.Semaphore(1)

    async def GetBalance(
        self, _request: pb.GetBalanceRequest, context: Context
    ) -> pb.GetBalanceResponse:
        """Return the balance of the caller's account."""
        caller = await self._caller(context)
        account = await self._database.read(account_by_name, caller.account)
        if account is None:
            raise not_found("", "The account of this key does not exist any more.")
        return pb.GetBalanceResponse(
            balance=pb.Balance(
                account=account.name,
                unlimited=account.unlimited,
                balance_nano_usd=account.posted,
                held_nano_usd=account.held,
                available_nano_usd=account.posted - account.held,
            )
        )

    async def ListUsage(
        self, request: pb.ListUsageRequest, context: Context
    ) -> pb.ListUsageResponse:
        """Return the usage of the caller's account by day and model."""
        caller = await self._caller(context)
        grouping = GROUPINGS.get(request.group_by)
        if grouping is None:
            raise invalid("group_by", "group_by must be USAGE_GROUPING_MODEL or USAGE_GROUPING_DAY")
        page = Page.of(request.page_size, request.page_token)
        span = time_range_ms(request)
        async with self._one_report:
            found = await self._database.read(
                usage_sums, caller.account, grouping, span, page.limit, page.after
            )
        shown = page.items(found)
        last = (shown[-1].day, shown[-1].usage.model) if shown else START
        return pb.ListUsageResponse(
            usage=[_message(each, grouping) for each in shown],
            next_page_token=page.next_token(found, last),
        )

    async def _caller(self, context: Context) -> Caller:
        return await self._keyring.authenticate(metadata_of(context).get("authorization"))


def _message(found: UsageSum, grouping: Grouping) -> pb.UsageSum:
    usage = found.usage
    day = EPOCH + timedelta(days=found.day)
    return pb.UsageSum(
        model=usage.model,
        day="" if grouping is Grouping.MODEL else day.date().isoformat(),
        request_count=usage.calls,
        prompt_token_count=usage.prompt_tokens,
        completion_token_count=usage.completion_tokens,
        thinking_token_count=usage.thinking_tokens,
        cache_read_token_count=usage.cache_read_tokens,
        cache_write_token_count=usage.cache_write_tokens,
        cost_nano_usd=usage.charge,
    )
