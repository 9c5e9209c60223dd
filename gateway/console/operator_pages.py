"""Operator pages: accounts with their keys, and the ledger."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import grpc
from aiohttp import web
from google.protobuf.field_mask_pb2 import FieldMask
from pomogator.accounts.v1 import account_service_pb2 as accounts
from pomogator.accounts.v1 import key_service_pb2 as keys
from pomogator.accounts.v1 import ledger_service_pb2 as ledger
from pomogator.accounts.v1.account_service_pb2_grpc import AccountServiceStub
from pomogator.accounts.v1.key_service_pb2_grpc import KeyServiceStub
from pomogator.accounts.v1.ledger_service_pb2_grpc import LedgerServiceStub

from gateway.console.askers import ask, operator_of
from gateway.console.call_log_pages import CALLS
from gateway.console.form_fields import Fields, unknown_action
from gateway.console.key_terms import KeyTerms, overlap_of
from gateway.console.pages import AUDIT, Entry, Pages, redirect
from gateway.console.visit import Visit
from gateway.errors import invalid

ACCOUNTS = "/console/accounts"
CHANNELS = "/console/channels"
CONFIGURATION = "/console/configuration"
EXPLAIN = "/console/explain"
LIMITS = "/console/limits"
LIVE_CALLS = "/console/live-calls"
LOAD = "/console/load"
LEDGER = "/console/ledger"

OPERATOR_ENTRIES: Sequence[Entry] = (
    Entry(ACCOUNTS, "nav.accounts", "a"),
    Entry(CHANNELS, "nav.channels", "c"),
    Entry(LIMITS, "nav.limits", "i"),
    Entry(LOAD, "nav.load", "d"),
    Entry(LIVE_CALLS, "nav.live_calls", "v"),
    Entry(CALLS, "nav.calls", "o"),
    Entry(EXPLAIN, "nav.explain", "e"),
    Entry(CONFIGURATION, "nav.configuration", "f"),
    Entry(AUDIT, "nav.audit", "u"),
    Entry(LEDGER, "nav.ledger", "l"),
)

PAGE_SIZE = 100
USAGE_DAYS = 30
VERIFY_TIMEOUT_S = 120.0
"""Verification reads the whole ledger."""

LEDGER_COUNTS: Mapping[str, str] = {
    "accounts": "ledger.accounts",
    "transfers": "ledger.transfers",
    "settled": "ledger.settled",
    "voided": "ledger.voided",
    "recovered": "ledger.recovered",
    "held": "ledger.held",
}
CALL_LOG_COUNTS: Mapping[str, str] = {
    "calls": "ledger.calls",
    "holds_without_call": "ledger.holds_without_call",
}
"""Counts of a verification of the ledger and the call log, with the names of their texts."""
UNREADABLE = "call_log_unreadable"
"""Count of a verification that could not read the call log."""


class OperatorPages:
    """Pages for a session of an operator."""

    def __init__(self, pages: Pages, channel: grpc.aio.Channel) -> None:
        """`channel` leads to the operators' services, which trust its holder."""
        self._pages = pages
        self._accounts = AccountServiceStub(channel)
        self._keys = KeyServiceStub(channel)
        self._ledger = LedgerServiceStub(channel)

    async def accounts(self, visit: Visit) -> web.Response:
        """A page of accounts."""
        token = visit.request.query.get("after", "")
        request = accounts.ListAccountsRequest(page_size=PAGE_SIZE, page_token=token)
        listed = await ask(self._accounts.ListAccounts, request, operator_of(visit))
        return self._pages.render(visit, "accounts", listed=listed)

    async def open_account(self, visit: Visit, form: Mapping[str, str]) -> web.Response:
        """Open an account."""
        fields = Fields(form)
        name = fields.text("account")
        request = accounts.CreateAccountRequest(
            account=name,
            credit_nano_usd=fields.nano_usd("credit_usd") or 0,
            unlimited=fields.checked("unlimited"),
        )
        await ask(self._accounts.CreateAccount, request, operator_of(visit))
        return redirect(_account_path(name))

    async def account(self, visit: Visit) -> web.Response:
        """An account: its terms, usage and keys."""
        return await self._account(visit)

    async def _account(
        self, visit: Visit, secret: str = "", key_id: str = "", *, made_before: bool = False
    ) -> web.Response:
        """Show the account, and a secret that was made by this request."""
        name, asker = visit.request.match_info["account"], operator_of(visit)
        token = visit.request.query.get("after", "")
        terms = accounts.GetAccountRequest(account=name)
        listing = keys.ListKeysRequest(account=name, page_size=PAGE_SIZE, page_token=token)
        report = ledger.ReportUsageRequest(account=name)
        report.start_time.FromDatetime(datetime.now(UTC) - timedelta(days=USAGE_DAYS))
        return self._pages.render(
            visit,
            "account",
            account=(await ask(self._accounts.GetAccount, terms, asker)).account,
            listed=await ask(self._keys.ListKeys, listing, asker),
            usage=(await ask(self._ledger.ReportUsage, report, asker)).models,
            usage_days=USAGE_DAYS,
            path_of_account=_account_path(name),
            once_id=secrets.token_hex(16),
            secret=secret,
            key_id=key_id,
            made_before=made_before,
            now_s=int(datetime.now(UTC).timestamp()),
        )

    async def change_account(self, visit: Visit, form: Mapping[str, str]) -> web.Response:
        """Credit an account, or change its markup."""
        name, fields = visit.request.match_info["account"], Fields(form)
        match fields.text("action"):
            case "credit":
                amount = fields.nano_usd("amount_usd")
                if not amount:
                    raise invalid("amount_usd", "`amount_usd` must be an amount other than 0.")
                credit_id = fields.text("credit_id") or fields.text("once_id")
                credit = accounts.CreditAccountRequest(
                    account=name, amount_nano_usd=amount, request_id=credit_id
                )
                await ask(self._accounts.CreditAccount, credit, operator_of(visit))
            case "markup":
                points = fields.basis_points("markup_percent")
                change = accounts.UpdateAccountRequest(
                    account=accounts.Account(account=name, markup_basis_points=points),
                    update_mask=FieldMask(paths=["markup_basis_points"]),
                )
                await ask(self._accounts.UpdateAccount, change, operator_of(visit))
            case _:
                raise unknown_action()
        return redirect(_account_path(name))

    async def change_keys(self, visit: Visit, form: Mapping[str, str]) -> web.Response:
        """Create, rotate or revoke a key. A new secret is on this page alone."""
        name, fields = visit.request.match_info["account"], Fields(form)
        asker, key_id = operator_of(visit), fields.text("key_id")
        match fields.text("action"):
            case "create":
                terms = KeyTerms.of(fields)
                new = keys.CreateKeyRequest(
                    account=name,
                    display_name=terms.display_name,
                    scope=terms.scope,
                    request_id=fields.text("once_id"),
                )
                made = await ask(self._keys.CreateKey, new, asker)
                is_old = not made.secret
                return await self._account(visit, made.secret, made.key.key_id, made_before=is_old)
            case "change":
                display_name, scope, changed = KeyTerms.of(fields)
                key = keys.Key(key_id=key_id, display_name=display_name, scope=scope)
                change = keys.UpdateKeyRequest(key=key, update_mask=changed)
                await ask(self._keys.UpdateKey, change, asker)
            case "rotate":
                rotation = keys.RotateKeyRequest(key_id=key_id, overlap=overlap_of(fields))
                secret = (await ask(self._keys.RotateKey, rotation, asker)).secret
                return await self._account(visit, secret, key_id)
            case "revoke":
                await ask(self._keys.RevokeKey, keys.RevokeKeyRequest(key_id=key_id), asker)
            case _:
                raise unknown_action()
        return redirect(_account_path(name))

    async def ledger(self, visit: Visit) -> web.Response:
        """Offer to verify the ledger."""
        return self._pages.render(visit, "ledger", result=None)

    async def verify(self, visit: Visit, _: Mapping[str, str]) -> web.Response:
        """Verify the ledger."""
        request = ledger.VerifyLedgerRequest()
        asker = operator_of(visit)
        result = await ask(self._ledger.VerifyLedger, request, asker, VERIFY_TIMEOUT_S)
        return self._pages.render(
            visit,
            "ledger",
            result=result,
            groups=_count_groups(result.counts),
            unreadable=UNREADABLE in result.counts,
        )


def _count_groups(
    counts: Mapping[str, int],
) -> Sequence[tuple[str, Sequence[tuple[str, str, int]]]]:
    """Return the counts of a verification with the texts of their names, by what was verified."""
    of_log = [
        (name, text, counts[name]) for name, text in CALL_LOG_COUNTS.items() if name in counts
    ]
    of_ledger = [(name, text, counts[name]) for name, text in LEDGER_COUNTS.items()]
    known = {*CALL_LOG_COUNTS, *LEDGER_COUNTS, UNREADABLE}
    of_ledger += [(name, "", counts[name]) for name in sorted(counts) if name not in known]
    return [("nav.ledger", of_ledger), ("nav.calls", of_log)]


def _account_path(name: str) -> str:
    return f"{ACCOUNTS}/{quote(name, safe='')}"
