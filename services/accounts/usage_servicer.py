"""UsageService, for callers: balance and usage of the account of their key.

The key alone determines the account. No request names one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from pomogator.usage.v1 import usage_service_pb2 as pb
from pomogator.usage.v1 import usage_service_pb2_grpc as pb_grpc

from services.accounts.proto_fields import int64, invalid, not_found, time_range_ms, timestamp
from services.admission.keyring import Caller, Keyring
from services.clock import Clock
from services.rpc.call_context import Context, metadata_of
from services.rpc.paging import START, Page
from services.storage.account_sums import KeyCharges, PeriodStarts, credits_of, key_charges
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

    def __init__(self, keyring: Keyring, database: Database, clock: Clock) -> None:
        self._keyring = keyring
        self._database = database
        self._clock = clock
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

    async def GetKeyUsage(
        self, _request: pb.GetKeyUsageRequest, context: Context
    ) -> pb.GetKeyUsageResponse:
        """Return limits and usage of the caller's key."""
        caller = await self._caller(context)
        now = datetime.fromtimestamp(self._clock.time(), UTC)
        async with self._one_report:
            found = await self._database.read(
                key_charges, caller.key_id, _period_starts(now), f"{now:%Y-%m}"
            )
        if found is None:
            raise not_found("", "This key does not exist any more.")
        return pb.GetKeyUsageResponse(key_usage=_key_usage(found))

    async def GetCredits(
        self, _request: pb.GetCreditsRequest, context: Context
    ) -> pb.GetCreditsResponse:
        """Return what the caller's account was credited and charged."""
        caller = await self._caller(context)
        async with self._one_report:
            found = await self._database.read(credits_of, caller.account)
        if found is None:
            raise not_found("", "The account of this key does not exist any more.")
        return pb.GetCreditsResponse(
            credits=pb.Credits(
                total_credit_nano_usd=int64(found.credited),
                total_charge_nano_usd=int64(found.charged),
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
        span = time_range_ms(request)
        list_name = ("ListUsage", caller.account, grouping.name, span)
        page = Page.of(request.page_size, request.page_token, *list_name)
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


def _period_starts(now: datetime) -> PeriodStarts:
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    week = day - timedelta(days=day.weekday())
    return PeriodStarts(
        total=0,
        day=round(day.timestamp() * 1000),
        week=round(week.timestamp() * 1000),
        month=round(day.replace(day=1).timestamp() * 1000),
    )


def _key_usage(found: KeyCharges) -> pb.KeyUsage:
    key, scope = found.key, found.key.scope
    limit = scope.monthly_nano_usd
    return pb.KeyUsage(
        key_id=key.id,
        account=key.account,
        display_name=key.display_name,
        prefix=key.prefix,
        expire_time=None if scope.expire_ms is None else timestamp(scope.expire_ms),
        requests_per_minute=scope.rpm,
        monthly_limit_nano_usd=limit,
        monthly_remaining_nano_usd=None if limit is None else max(0, limit - found.budget_used),
        total_nano_usd=int64(found.total),
        daily_nano_usd=int64(found.day),
        weekly_nano_usd=int64(found.week),
        monthly_nano_usd=int64(found.month),
    )


def _message(found: UsageSum, grouping: Grouping) -> pb.UsageSum:
    usage = found.usage
    day = EPOCH + timedelta(days=found.day)
    return pb.UsageSum(
        model=usage.model,
        day="" if grouping is Grouping.MODEL else day.date().isoformat(),
        request_count=usage.calls,
        prompt_token_count=int64(usage.prompt_tokens),
        completion_token_count=int64(usage.completion_tokens),
        thinking_token_count=int64(usage.thinking_tokens),
        cache_read_token_count=int64(usage.cache_read_tokens),
        cache_write_token_count=int64(usage.cache_write_tokens),
        cost_nano_usd=int64(usage.charge),
    )
