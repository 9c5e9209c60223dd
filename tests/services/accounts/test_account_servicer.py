from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from pomogator.accounts.v1 import account_service_pb2 as pb
from pomogator.accounts.v1 import account_service_pb2_grpc as pb_grpc

from services.accounts.key_maker import KeyMaker
from services.accounts.operator_services import OperatorServices
from services.admission.keyring import Keyring
from services.clock import system_chance
from services.rpc.local_channel import local_channel
from services.storage.base import Database
from services.storage.pepper import Pepper
from tests.stand.clock import FakeClock

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
def services(database: Database, clock: FakeClock) -> OperatorServices:
    return OperatorServices(database=database, pepper=Pepper(b"p" * 16), clock=clock)


@pytest.fixture
async def stub(services: OperatorServices) -> AsyncIterator[pb_grpc.AccountServiceStub]:
    async with local_channel(services.register) as channel:
        yield pb_grpc.AccountServiceStub(channel)


async def test_concurrent_equal_credits_count_once(stub: pb_grpc.AccountServiceStub) -> None:
    """Twenty concurrent credits with one request ID count once."""
    await stub.CreateAccount(pb.CreateAccountRequest(account="acme", credit_nano_usd=5))
    credit = pb.CreditAccountRequest(account="acme", amount_nano_usd=7, request_id="inv-1")

    await asyncio.gather(*(stub.CreditAccount(credit) for _ in range(20)))

    answer = await stub.GetAccount(pb.GetAccountRequest(account="acme"))
    assert answer.account.balance_nano_usd == 12


async def test_pages_list_every_account_once(stub: pb_grpc.AccountServiceStub) -> None:
    """Following the page tokens lists every account once."""
    for n in range(5):
        await stub.CreateAccount(pb.CreateAccountRequest(account=f"a{n}"))

    first = await stub.ListAccounts(pb.ListAccountsRequest(page_size=3))
    rest = await stub.ListAccounts(
        pb.ListAccountsRequest(page_size=3, page_token=first.next_page_token)
    )

    names = [account.account for account in (*first.accounts, *rest.accounts)]
    assert names == ["a0", "a1", "a2", "a3", "a4"]
    assert not rest.next_page_token


async def test_a_new_markup_applies_to_the_next_call(
    services: OperatorServices, stub: pb_grpc.AccountServiceStub
) -> None:
    """A changed markup applies to the next call of a cached key."""
    maker = KeyMaker(services.database, services.pepper, services.clock)
    _, secret = await maker.make("acme")
    ring = Keyring(services.database, services.pepper, services.clock, system_chance())
    assert (await ring.authenticate(f"Bearer {secret}")).markup_bp == 0

    await stub.UpdateAccount(
        pb.UpdateAccountRequest(
            account=pb.Account(account="acme", markup_basis_points=1500),
            update_mask=FieldMask(paths=["markup_basis_points"]),
        )
    )

    assert (await ring.authenticate(f"Bearer {secret}")).markup_bp == 1500


@pytest.mark.parametrize(
    ("method", "request_", "code"),
    [
        ("CreateAccount", pb.CreateAccountRequest(account=":revenue"), INVALID),
        ("CreateAccount", pb.CreateAccountRequest(account="a", credit_nano_usd=-1), INVALID),
        ("CreateAccount", pb.CreateAccountRequest(account="a", markup_basis_points=-1), INVALID),
        ("CreateAccount", pb.CreateAccountRequest(account="here"), grpc.StatusCode.ALREADY_EXISTS),
        ("GetAccount", pb.GetAccountRequest(account="nobody"), grpc.StatusCode.NOT_FOUND),
        (
            "CreditAccount",
            pb.CreditAccountRequest(account="here", amount_nano_usd=2**62, request_id="r"),
            INVALID,
        ),
        ("CreditAccount", pb.CreditAccountRequest(account="here", amount_nano_usd=1), INVALID),
        (
            "CreditAccount",
            pb.CreditAccountRequest(account="here", amount_nano_usd=1, request_id="a\0b"),
            INVALID,
        ),
        (
            "CreditAccount",
            pb.CreditAccountRequest(account="here", amount_nano_usd=-1, request_id="r"),
            grpc.StatusCode.FAILED_PRECONDITION,
        ),
        ("UpdateAccount", pb.UpdateAccountRequest(account=pb.Account(account="here")), INVALID),
        ("ListAccounts", pb.ListAccountsRequest(page_token="?"), INVALID),
    ],
)
async def test_invalid_requests_are_refused(
    stub: pb_grpc.AccountServiceStub, method: str, request_: object, code: grpc.StatusCode
) -> None:
    """Invalid fields and impossible credits are refused, each with its reason."""
    await stub.CreateAccount(pb.CreateAccountRequest(account="here"))

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await getattr(stub, method)(request_)

    assert refused.value.code() == code
