from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from pomogator.accounts.v1 import ledger_service_pb2 as ledger_pb
from pomogator.usage.v1 import usage_service_pb2 as pb
from pomogator.usage.v1 import usage_service_pb2_grpc as pb_grpc

from services.accounts.key_maker import KeyMaker
from services.accounts.key_reports import KeyReports
from services.accounts.ledger_servicer import LedgerServicer
from services.accounts.usage_servicer import UsageServicer
from services.admission.keyring import Keyring
from services.clock import system_chance
from services.common.key_format import new_secret
from services.domain.usage import Usage
from services.metering.holds import HoldTerms
from services.metering.ledger import Ledger
from services.rpc.listener import listening
from services.rpc.local_channel import local_channel
from services.storage.accounts import credit_account, ensure_account
from services.storage.base import Database
from services.storage.pepper import Pepper
from tests.stand.clock import FakeClock

DAY_S = 86_400
PAID_IN = 1_000

CALLS = (
    ("acme", "b", 30, 0),
    ("acme", "a", 10, 0),
    ("acme", "b", 5, 1),
    ("other", "a", 77, 1),
    ("acme", "b", 7, 2),
)
"""Calls: account, model, cost and day."""


@dataclass(frozen=True, slots=True)
class UsageStand:
    """The service, with ended calls and one in-flight call."""

    stub: pb_grpc.UsageServiceStub
    secrets: dict[str, str]
    days: list[str]
    servicer: LedgerServicer

    def of(self, account: str) -> Any:
        """Return the metadata of a caller."""
        return (("authorization", f"Bearer {self.secrets[account]}"),)


@pytest.fixture(params=["local", "tcp", "unix"])
async def stand(
    request: pytest.FixtureRequest, database: Database, clock: FakeClock, tmp_path: Path
) -> AsyncIterator[UsageStand]:
    """Service with three days of calls of `acme` and one of another account, in every layout."""
    pepper = Pepper(b"p" * 16)
    maker = KeyMaker(database, pepper, clock)
    ring = Keyring(database, pepper, clock, system_chance())
    servicer = UsageServicer(ring, database, KeyReports(database, clock))
    first_s = clock.time()
    await database.write(ensure_account, "rich", 0, unlimited=True)
    secrets, key_ids = {}, {}
    for account in ("acme", "other", "rich"):
        key, secrets[account] = await maker.make(account)
        key_ids[account] = key.id
        await database.write(credit_account, account, PAID_IN, f"inv-{account}", 0)
    async with Ledger(database, clock) as ledger, AsyncExitStack() as stack:
        for account, model, charge, day in CALLS:
            clock.advance(first_s + day * DAY_S - clock.time())
            order = (HoldTerms(account=account, key_id=key_ids[account], model=model), "r", 100)
            ledger.settle(await ledger.reserve(*order), charge, tokens(charge))
        order = (HoldTerms(account="acme", key_id="k", model="a"), "r", 100)
        running = await ledger.reserve(*order)
        await ledger.drain()

        def register(server: grpc.aio.Server) -> None:
            pb_grpc.add_UsageServiceServicer_to_server(servicer, server)

        if request.param == "local":
            channel = await stack.enter_async_context(local_channel(register))
        else:
            address = "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path}/s.sock"
            bound = await stack.enter_async_context(listening(register, address, grace_s=0))
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(bound))
        yield UsageStand(
            pb_grpc.UsageServiceStub(channel),
            secrets,
            [datetime.fromtimestamp(first_s + n * DAY_S, UTC).date().isoformat() for n in range(3)],
            LedgerServicer(database),
        )
        ledger.void(running)


def tokens(count: int) -> Usage:
    """Build a usage with a different number for every kind of token."""
    return Usage(
        prompt_token_count=count,
        completion_token_count=count + 1,
        thinking_token_count=count + 2,
        cache_read_token_count=count + 3,
        cache_write_token_count=count + 4,
    )


async def test_balance(stand: UsageStand) -> None:
    """The balance is deposits less charges. The hold of an in-flight call is not available."""
    answer = await stand.stub.GetBalance(pb.GetBalanceRequest(), metadata=stand.of("acme"))

    assert answer.balance == pb.Balance(
        account="acme", balance_nano_usd=948, held_nano_usd=100, available_nano_usd=848
    )


async def test_credits_less_charges_are_the_balance(stand: UsageStand) -> None:
    """Holds of in-flight calls are neither."""
    answer = await stand.stub.GetCredits(pb.GetCreditsRequest(), metadata=stand.of("acme"))

    assert answer.credits == pb.Credits(total_credit_nano_usd=1_000, total_charge_nano_usd=52)


async def test_usage_of_a_key_by_period(stand: UsageStand, clock: FakeClock) -> None:
    """Day, week and month are those of UTC; the week begins on Monday."""
    request = pb.GetKeyUsageRequest()
    metadata = stand.of("acme")
    now = datetime.fromtimestamp(clock.time(), UTC)
    found = (await stand.stub.GetKeyUsage(request, metadata=metadata)).key_usage
    assert (found.account, found.total_nano_usd, found.daily_nano_usd) == ("acme", 52, 7)
    assert found.prefix
    assert not found.HasField("monthly_limit_nano_usd")
    # Calls of 40, 5 and 7 nano-USD, on this day and the two before.
    days_of_week = min(now.weekday() + 1, 3)
    assert found.weekly_nano_usd == sum((7, 5, 40)[:days_of_week])
    assert found.monthly_nano_usd == sum((7, 5, 40)[: min(now.day, 3)])

    clock.advance(40 * DAY_S)
    later = (await stand.stub.GetKeyUsage(request, metadata=metadata)).key_usage
    assert (later.total_nano_usd, later.daily_nano_usd) == (52, 0)
    assert (later.weekly_nano_usd, later.monthly_nano_usd) == (0, 0)


async def test_an_unlimited_account_is_marked(stand: UsageStand) -> None:
    """The balance of an unlimited account limits nothing."""
    answer = await stand.stub.GetBalance(pb.GetBalanceRequest(), metadata=stand.of("rich"))

    assert answer.balance.unlimited


async def test_usage_by_day_and_model(stand: UsageStand) -> None:
    """By default usage is grouped by day and model, oldest first, without in-flight calls."""
    answer = await stand.stub.ListUsage(pb.ListUsageRequest(), metadata=stand.of("acme"))

    first, second, third = stand.days
    assert [(sum_.day, sum_.model, sum_.cost_nano_usd) for sum_ in answer.usage] == [
        (first, "a", 10),
        (first, "b", 30),
        (second, "b", 5),
        (third, "b", 7),
    ]
    assert answer.usage[0] == pb.UsageSum(
        model="a",
        day=first,
        request_count=1,
        prompt_token_count=10,
        completion_token_count=11,
        thinking_token_count=12,
        cache_read_token_count=13,
        cache_write_token_count=14,
        cost_nano_usd=10,
    )


async def test_usage_by_model(stand: UsageStand) -> None:
    """Grouped by model, the sums equal the operators' report."""
    answer = await stand.stub.ListUsage(
        pb.ListUsageRequest(group_by=pb.USAGE_GROUPING_MODEL), metadata=stand.of("acme")
    )
    context: Any = None
    report = await stand.servicer.ReportUsage(ledger_pb.ReportUsageRequest(account="acme"), context)

    assert [(sum_.day, sum_.model, sum_.request_count) for sum_ in answer.usage] == [
        ("", "a", 1),
        ("", "b", 3),
    ]
    assert [(sum_.model, sum_.prompt_token_count, sum_.cost_nano_usd) for sum_ in answer.usage] == [
        (row.model, row.prompt_token_count, row.charge_nano_usd) for row in report.models
    ]


async def test_usage_by_day(stand: UsageStand) -> None:
    """Grouped by day, each sum covers all models."""
    answer = await stand.stub.ListUsage(
        pb.ListUsageRequest(group_by=pb.USAGE_GROUPING_DAY), metadata=stand.of("acme")
    )

    assert [(sum_.day, sum_.model, sum_.cost_nano_usd) for sum_ in answer.usage] == [
        (day, "", cost) for day, cost in zip(stand.days, (40, 5, 7), strict=True)
    ]


@pytest.mark.parametrize("grouping", pb.UsageGrouping.values())
async def test_pages_contain_every_sum_once(
    stand: UsageStand, grouping: pb.UsageGrouping.ValueType
) -> None:
    """The pages together equal the whole list, with each sum on one page."""
    request = pb.ListUsageRequest(group_by=grouping)
    whole = await stand.stub.ListUsage(request, metadata=stand.of("acme"))
    request.page_size = 1
    paged: list[pb.UsageSum] = []
    while not paged or request.page_token:
        answer = await stand.stub.ListUsage(request, metadata=stand.of("acme"))
        paged += answer.usage
        request.page_token = answer.next_page_token

    assert paged == list(whole.usage)


async def test_usage_of_a_time_range(stand: UsageStand, clock: FakeClock) -> None:
    """The range includes its start and excludes its end."""
    now_s = int(clock.time())
    request = pb.ListUsageRequest(
        start_time=Timestamp(seconds=now_s - DAY_S), end_time=Timestamp(seconds=now_s)
    )

    answer = await stand.stub.ListUsage(request, metadata=stand.of("acme"))

    assert [(sum_.day, sum_.cost_nano_usd) for sum_ in answer.usage] == [(stand.days[1], 5)]


async def test_the_key_determines_the_account(stand: UsageStand) -> None:
    """Callers see the usage of their own account only, which may be empty."""
    seen = {}
    for account in stand.secrets:
        answer = await stand.stub.ListUsage(pb.ListUsageRequest(), metadata=stand.of(account))
        seen[account] = [sum_.cost_nano_usd for sum_ in answer.usage]

    assert seen == {"acme": [10, 30, 5, 7], "other": [77], "rich": []}


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (pb.ListUsageRequest(page_size=-1), "page_size"),
        (pb.ListUsageRequest(page_token="x"), "page_token"),
        (pb.ListUsageRequest(group_by=9), "group_by"),  # type: ignore[arg-type]
        (pb.ListUsageRequest(start_time=Timestamp(seconds=-1)), "start_time"),
        (pb.ListUsageRequest(start_time=Timestamp(seconds=2**50)), "start_time"),
        (
            pb.ListUsageRequest(start_time=Timestamp(seconds=2), end_time=Timestamp(seconds=1)),
            "end_time",
        ),
    ],
)
async def test_invalid_requests_are_refused(
    stand: UsageStand, request_: pb.ListUsageRequest, param: str
) -> None:
    """The refusal names the field, and no value beyond its range reaches the database."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stand.stub.ListUsage(request_, metadata=stand.of("acme"))

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert param in (refused.value.details() or "")


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer x", f"Bearer {new_secret()}"],
    ids=["none", "malformed", "unknown"],
)
async def test_a_key_is_required(stand: UsageStand, authorization: str) -> None:
    """Without a valid key the call is refused."""
    metadata = (("authorization", authorization),)
    for call in (
        stand.stub.GetBalance(pb.GetBalanceRequest(), metadata=metadata),
        stand.stub.ListUsage(pb.ListUsageRequest(), metadata=metadata),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
