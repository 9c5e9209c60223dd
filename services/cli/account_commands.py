"""Commands about accounts, their usage and the ledger."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping

from pomogator.accounts.v1 import account_service_pb2 as pb
from pomogator.accounts.v1 import ledger_service_pb2 as ledger

from services.cli.operator_client import AUDIT_TIMEOUT_S, operators
from services.cli.output import CommandError, say, say_table, show_time, show_usd

PAGE_SIZE = 1000


async def create_account(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Create an account."""
    request = pb.CreateAccountRequest(
        account=arguments.name, credit_nano_usd=arguments.credit, unlimited=arguments.unlimited
    )
    async with operators(arguments, env) as service:
        answer = await service.ask(service.accounts.CreateAccount, request)
    _say_account(answer.account)


async def credit_account(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Credit an account, once for each request ID."""
    request = pb.CreditAccountRequest(
        account=arguments.name, amount_nano_usd=arguments.usd, request_id=arguments.request_id
    )
    async with operators(arguments, env) as service:
        answer = await service.ask(service.accounts.CreditAccount, request)
    _say_account(answer.account)


async def show_account(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Print the balance of an account."""
    async with operators(arguments, env) as service:
        request = pb.GetAccountRequest(account=arguments.name)
        answer = await service.ask(service.accounts.GetAccount, request)
    _say_account(answer.account)


async def list_accounts(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Print all accounts, oldest first."""
    rows = []
    request = pb.ListAccountsRequest(page_size=PAGE_SIZE)
    async with operators(arguments, env) as service:
        while True:
            answer = await service.ask(service.accounts.ListAccounts, request)
            rows += [_row(account) for account in answer.accounts]
            if not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
    say_table(("ACCOUNT", "USD", "HELD", "UNLIMITED", "MARKUP", "OPENED"), rows)


def _row(account: pb.Account) -> tuple[str, ...]:
    return (
        account.account,
        show_usd(account.balance_nano_usd),
        show_usd(account.held_nano_usd),
        "yes" if account.unlimited else "no",
        f"{account.markup_basis_points / 100:g} %",
        show_time(account.create_time),
    )


async def report_usage(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Print the usage of an account, by model."""
    request = ledger.ReportUsageRequest(account=arguments.account, start_time=arguments.since)
    async with operators(arguments, env) as service:
        answer = await service.ask(service.ledger.ReportUsage, request, AUDIT_TIMEOUT_S)
    rows = [
        (
            usage.model,
            str(usage.call_count),
            str(usage.prompt_token_count),
            str(usage.completion_token_count),
            show_usd(usage.charge_nano_usd),
        )
        for usage in answer.models
    ]
    total = sum(usage.charge_nano_usd for usage in answer.models)
    calls = sum(usage.call_count for usage in answer.models)
    rows.append(("TOTAL", str(calls), "", "", show_usd(total)))
    say_table(("MODEL", "CALLS", "PROMPT TOKENS", "COMPLETION TOKENS", "USD"), rows)


async def verify_ledger(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Audit the ledger and print what it has. Fails if there are findings."""
    async with operators(arguments, env) as service:
        request = ledger.VerifyLedgerRequest()
        answer = await service.ask(service.ledger.VerifyLedger, request, AUDIT_TIMEOUT_S)
    for name, count in sorted(answer.counts.items()):
        say(f"{name}: {count}")
    for finding in answer.findings:
        say(finding)
    if answer.findings:
        raise CommandError(f"the ledger does not balance: {len(answer.findings)} findings")
    say("OK: no findings")


def _say_account(account: pb.Account) -> None:
    balance = show_usd(account.balance_nano_usd)
    say(f"account: {account.account}")
    say(f"balance: {balance} USD{', unlimited' if account.unlimited else ''}")
    say(f"held:    {show_usd(account.held_nano_usd)} USD")
    say(f"opened:  {show_time(account.create_time)}")
