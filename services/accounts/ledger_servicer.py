"""LedgerService, for operators."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from pomogator.accounts.v1 import ledger_service_pb2 as pb
from pomogator.accounts.v1 import ledger_service_pb2_grpc as pb_grpc

from services.accounts.proto_fields import account_name, int64, not_found, time_range_ms, timestamp
from services.rpc.call_context import Context
from services.rpc.paging import Page
from services.storage.accounts import account_by_name
from services.storage.audit import Audit, audit
from services.storage.base import Database, T, Transaction
from services.storage.reports import ModelUsage, Transfer, list_transfers, usage_by_model

AuditCalls: TypeAlias = Callable[[], Awaitable[Audit]]


class LedgerServicer(pb_grpc.LedgerServiceServicer):
    """Reports usage, lists transfers and verifies the ledger."""

    def __init__(self, database: Database, audit_calls: AuditCalls | None = None) -> None:
        """`audit_calls` compares the call log with the database. None: there is no log."""
        self._database = database
        self._audit_calls = audit_calls

    async def ReportUsage(
        self, request: pb.ReportUsageRequest, _context: Context
    ) -> pb.ReportUsageResponse:
        """Sum up the usage of an account by model."""
        name = account_name(request.account)
        report = usage_by_model(name, *time_range_ms(request))
        found = await self._database.read(_for_account, name, report)
        return pb.ReportUsageResponse(models=[_usage(usage) for usage in found])

    async def ListTransfers(
        self, request: pb.ListTransfersRequest, _context: Context
    ) -> pb.ListTransfersResponse:
        """List the transfers of an account, oldest first."""
        name = account_name(request.account)
        page = Page.of(request.page_size, request.page_token, "ListTransfers", name)
        listing = list_transfers(name, page.limit, page.after)
        found = await self._database.read(_for_account, name, listing)
        shown, token = page.cut(
            found, map(_transfer, found), lambda each: (each.created_ms, each.id)
        )
        return pb.ListTransfersResponse(transfers=shown, next_page_token=token)

    async def VerifyLedger(
        self, _request: pb.VerifyLedgerRequest, _context: Context
    ) -> pb.VerifyLedgerResponse:
        """Check the consistency of the ledger, and of the call log with it."""
        found = [await self._database.read(audit)]
        if self._audit_calls is not None:
            found.append(await self._audit_calls())
        return pb.VerifyLedgerResponse(
            counts={name: count for each in found for name, count in each.counts.items()},
            findings=[finding for each in found for finding in each.findings],
        )


def _for_account(name: str, report: Transaction[T]) -> Transaction[T]:
    if (yield from account_by_name(name)) is None:
        raise not_found("account", "There is no account with this name.")
    return (yield from report)


def _usage(usage: ModelUsage) -> pb.ModelUsage:
    return pb.ModelUsage(
        model=usage.model,
        call_count=usage.calls,
        prompt_token_count=int64(usage.prompt_tokens),
        completion_token_count=int64(usage.completion_tokens),
        thinking_token_count=int64(usage.thinking_tokens),
        cache_read_token_count=int64(usage.cache_read_tokens),
        cache_write_token_count=int64(usage.cache_write_tokens),
        charge_nano_usd=int64(usage.charge),
    )


def _transfer(transfer: Transfer) -> pb.Transfer:
    return pb.Transfer(
        transfer_id=transfer.id,
        amount_nano_usd=transfer.amount,
        create_time=timestamp(transfer.created_ms),
    )
