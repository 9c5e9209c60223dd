from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from pomogator.accounts.v1 import ledger_service_pb2 as pb
from pomogator.accounts.v1 import ledger_service_pb2_grpc as pb_grpc

from services.accounts.operator_services import OperatorServices
from services.domain.usage import Usage
from services.metering.holds import HoldTerms
from services.metering.ledger import Ledger
from services.rpc.local_channel import local_channel
from services.storage.accounts import credit_account, ensure_account
from services.storage.base import Database
from services.storage.pepper import Pepper
from tests.stand.clock import FakeClock


@pytest.fixture
async def stub(database: Database, clock: FakeClock) -> AsyncIterator[pb_grpc.LedgerServiceStub]:
    """Stub of the service, with four calls of `acme`, one of them in flight, and one other call."""
    services = OperatorServices(database=database, pepper=Pepper(b"p" * 16), clock=clock)
    for account in ("acme", "other"):
        await database.write(ensure_account, account, 0)
        await database.write(credit_account, account, 1000, f"inv-{account}", 0)
    async with Ledger(database, clock) as ledger:
        for account, model, charge in (
            ("acme", "b", 30),
            ("acme", "a", 10),
            ("acme", "b", 5),
            ("other", "a", 77),
        ):
            order = (HoldTerms(account=account, key_id="k", model=model), "r", 100)
            usage = Usage(prompt_token_count=charge, completion_token_count=1)
            ledger.settle(await ledger.reserve(*order), charge, usage)
            clock.advance(60)
        order = (HoldTerms(account="acme", key_id="k", model="a"), "r", 100)
        running = await ledger.reserve(*order)
        await ledger.drain()
        async with local_channel(services.register) as channel:
            yield pb_grpc.LedgerServiceStub(channel)
        ledger.void(running)


async def test_usage_is_reported_by_model(stub: pb_grpc.LedgerServiceStub) -> None:
    """The report contains the ended calls of the account, by model."""
    answer = await stub.ReportUsage(pb.ReportUsageRequest(account="acme"))

    assert [
        (row.model, row.call_count, row.prompt_token_count, row.charge_nano_usd)
        for row in answer.models
    ] == [("a", 1, 10, 10), ("b", 2, 35, 35)]


async def test_usage_of_a_time_range(stub: pb_grpc.LedgerServiceStub, clock: FakeClock) -> None:
    """The range includes its start and excludes its end."""
    begin = Timestamp(seconds=int(clock.time()) - 180)
    end = Timestamp(seconds=int(clock.time()) - 120)

    answer = await stub.ReportUsage(
        pb.ReportUsageRequest(account="acme", start_time=begin, end_time=end)
    )

    assert [(row.model, row.charge_nano_usd) for row in answer.models] == [("a", 10)]


async def test_transfers_are_listed_in_pages(stub: pb_grpc.LedgerServiceStub) -> None:
    """Credits are positive and charges negative, oldest first, of this account only."""
    amounts = []
    request = pb.ListTransfersRequest(account="acme", page_size=3)
    for _ in range(2):
        answer = await stub.ListTransfers(request)
        amounts += [transfer.amount_nano_usd for transfer in answer.transfers]
        request.page_token = answer.next_page_token

    assert amounts == [1000, -30, -10, -5]
    assert not answer.next_page_token


async def test_the_ledger_is_consistent(stub: pb_grpc.LedgerServiceStub) -> None:
    """The verification counts accounts, transfers and holds, and finds nothing."""
    answer = await stub.VerifyLedger(pb.VerifyLedgerRequest())

    assert not answer.findings
    assert dict(answer.counts) == {
        "accounts": 2, "held": 1, "recovered": 0, "settled": 4, "transfers": 6, "voided": 0,
    }  # fmt: skip


async def test_an_unknown_account_is_not_found(stub: pb_grpc.LedgerServiceStub) -> None:
    """A report of an unknown account is NOT_FOUND."""
    for call in (
        stub.ReportUsage(pb.ReportUsageRequest(account="nobody")),
        stub.ListTransfers(pb.ListTransfersRequest(account=":revenue")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() in {
            grpc.StatusCode.NOT_FOUND,
            grpc.StatusCode.INVALID_ARGUMENT,
        }
