"""UsageService, for callers: balance and usage of the account of their key.

The key alone determines the account. No request names one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from pomogator.usage.v1 import usage_service_pb2 as pb
from pomogator.usage.v1 import usage_service_pb2_grpc as pb_grpc

from services.accounts.key_reports import KeyReports, key_usage
from services.accounts.proto_fields import int64, not_found, time_range_ms
from services.admission.keyring import Caller, Keyring
from services.errors import invalid
from services.rpc.call_context import Context, metadata_of
from services.rpc.paging import Page
from services.storage.account_sums import credits_of
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

    def __init__(self, keyring: Keyring, database: Database, reports: KeyReports) -> None:
        self._keyring = keyring
        self._database = database
        self._reports = reports
        self._one_report = reports.one_at_a_time

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
        found = await self._reports.of(caller.key_id)
        if found is None:
            raise not_found("", "This key does not exist any more.")
        return pb.GetKeyUsageResponse(key_usage=key_usage(found))

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
        shown, token = page.cut(
            found,
            (_message(each, grouping) for each in found),
            lambda each: (each.day, each.usage.model),
        )
        return pb.ListUsageResponse(usage=shown, next_page_token=token)

    async def _caller(self, context: Context) -> Caller:
        return await self._keyring.authenticate(metadata_of(context).get("authorization"))


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
