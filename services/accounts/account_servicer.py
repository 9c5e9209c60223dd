"""AccountService, for operators."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol, TypeVar

from pomogator.accounts.v1 import account_service_pb2 as pb
from pomogator.accounts.v1 import account_service_pb2_grpc as pb_grpc

from services.accounts.account_messages import found_account
from services.accounts.audit_trail import audited, operator_origin
from services.accounts.key_views import view_of_account
from services.accounts.proto_fields import NANO_MAX, account_name, in_range, valid_request_id
from services.clock import Clock
from services.domain.error_reason import ErrorReason
from services.errors import Failure, invalid
from services.rpc.call_context import Context
from services.rpc.paging import Page
from services.storage.accounts import (
    Account,
    account_by_name,
    credit_account,
    ensure_account,
    list_accounts,
    set_markup,
)
from services.storage.base import Database, Transaction

T = TypeVar("T")

MARKUP_BP_MAX = 1_000_000
MUTABLE_FIELDS = ["markup_basis_points"]


class Withdraw(Protocol):
    """Writes a withdrawal."""

    async def __call__(
        self, account: str, amount: int, write: Callable[[], Coroutine[Any, Any, T]], /
    ) -> T:
        """Keep calls of this process from taking the amount that `write` withdraws."""
        ...


async def no_calls_run(
    _account: str, _amount: int, write: Callable[[], Coroutine[Any, Any, T]], /
) -> T:
    """Only write: this process runs no calls."""
    return await write()


class AccountServicer(pb_grpc.AccountServiceServicer):
    """Opens, lists, changes and credits accounts."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        withdraw: Withdraw = no_calls_run,
        audit_keep_ms: int = 0,
    ) -> None:
        """`audit_keep_ms` is the retention of entries of the audit log; 0: no limit."""
        self._keep_ms = audit_keep_ms
        self._database = database
        self._clock = clock
        self._withdraw = withdraw

    async def CreateAccount(
        self, request: pb.CreateAccountRequest, context: Context
    ) -> pb.CreateAccountResponse:
        """Open an account."""
        name = account_name(request.account)
        in_range("credit_nano_usd", request.credit_nano_usd, 0)
        in_range("markup_basis_points", request.markup_basis_points, 0, MARKUP_BP_MAX)
        create = partial(_create, request, name, self._now_ms())
        account = await self._change(context, "CreateAccount", name, create)
        return pb.CreateAccountResponse(account=found_account(account))

    async def GetAccount(
        self, request: pb.GetAccountRequest, _context: Context
    ) -> pb.GetAccountResponse:
        """Return an account."""
        account = await self._database.read(account_by_name, account_name(request.account))
        return pb.GetAccountResponse(account=found_account(account))

    async def ListAccounts(
        self, request: pb.ListAccountsRequest, _context: Context
    ) -> pb.ListAccountsResponse:
        """List accounts, oldest first."""
        page = Page.of(request.page_size, request.page_token, "ListAccounts")
        found = await self._database.read(list_accounts, page.limit, page.after)
        shown, token = page.cut(
            found, map(found_account, found), lambda each: (each.created_ms, each.name)
        )
        return pb.ListAccountsResponse(accounts=shown, next_page_token=token)

    async def UpdateAccount(
        self, request: pb.UpdateAccountRequest, context: Context
    ) -> pb.UpdateAccountResponse:
        """Change the terms of an account."""
        name = account_name(request.account.account)
        if list(request.update_mask.paths) != MUTABLE_FIELDS:
            raise invalid(
                "update_mask",
                "update_mask must be markup_basis_points, the only field that can be changed",
            )
        markup = in_range(MUTABLE_FIELDS[0], request.account.markup_basis_points, 0, MARKUP_BP_MAX)
        update = partial(set_markup, name, markup)
        account = await self._change(context, "UpdateAccount", name, update)
        return pb.UpdateAccountResponse(account=found_account(account))

    async def CreditAccount(
        self, request: pb.CreditAccountRequest, context: Context
    ) -> pb.CreditAccountResponse:
        """Credit or debit an account, once per request ID."""
        name = account_name(request.account)
        amount = in_range("amount_nano_usd", request.amount_nano_usd, -NANO_MAX)
        if not amount:
            raise invalid("amount_nano_usd", "amount_nano_usd must not be 0")
        valid_request_id(request.request_id)

        async def credit() -> Account | None:
            change = partial(credit_account, name, amount, request.request_id, self._now_ms())
            return await self._change(context, "CreditAccount", name, change)

        account = await (credit() if amount > 0 else self._withdraw(name, -amount, credit))
        return pb.CreditAccountResponse(account=found_account(account))

    async def _change(
        self, context: Context, method: str, name: str, change: Callable[[], Transaction[T]]
    ) -> T:
        """Make a change, with its entry in the audit log."""
        method = f"AccountService.{method}"
        origin = operator_origin(context, method, self._now_ms(), self._keep_ms)
        return await self._database.write(audited, origin, view_of_account(name), change)

    def _now_ms(self) -> int:
        return round(self._clock.time() * 1000)


def _create(
    request: pb.CreateAccountRequest, name: str, now_ms: int
) -> Transaction[Account | None]:
    made = yield from ensure_account(
        name, now_ms, unlimited=request.unlimited, markup_bp=request.markup_basis_points
    )
    if not made:
        raise Failure(
            ErrorReason.ALREADY_EXISTS, "An account with this name exists already.", param="account"
        )
    yield from credit_account(name, request.credit_nano_usd, f"opening:{name}", now_ms)
    return (yield from account_by_name(name))
