from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from pomogator.accounts.v1 import account_service_pb2 as accounts
from pomogator.accounts.v1.account_service_pb2_grpc import AccountServiceStub
from pomogator.models.v1 import model_service_pb2 as pb
from pomogator.models.v1 import model_service_pb2_grpc as pb_grpc

from services.config import load
from services.providers.registry import DIALECTS
from services.serving.server import open_service
from services.serving.service import Service
from tests.stand.clock import FakeClock

CHANNEL = """
[[channels]]
name = "somewhere"
dialect = "openai"
base_url = "http://127.0.0.1:9/v1"
[channels.models]
"""
PRICE = """
[[models]]
name = "house/m0"
prompt_usd_per_mtok = 3
cache_read_usd_per_mtok = 0.3
cache_write_usd_per_mtok = 3.75
completion_usd_per_mtok = 15
"""
NAMES = [f"house/m{n}" for n in range(5)]


@asynccontextmanager
async def serving(
    folder: Path, clock: FakeClock, names: Sequence[str], rows: str = ""
) -> AsyncIterator[tuple[Service, pb_grpc.ModelServiceStub]]:
    """Run a service that offers models of these names. `rows` are rows of `[[models]]`."""
    file = folder / "pomogator.toml"
    file.write_text(CHANNEL + "".join(f'"{name}" = "m"\n' for name in names) + rows)

    async with (
        open_service(
            load(file, {}, dialects=DIALECTS),
            folder / "state",
            {},
            clock=clock,
            read=lambda: load(file, {}, dialects=DIALECTS),
        ) as service,
        service.channel() as channel,
    ):
        yield service, pb_grpc.ModelServiceStub(channel)


async def caller(service: Service) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a caller whose account is unlimited."""
    secret = await service.key_maker.make_first()
    return (("authorization", f"Bearer {secret}"),)


async def test_create_times_survive_reloads_and_restarts(tmp_path: Path, clock: FakeClock) -> None:
    """Only a model that is new has a later time."""
    first_s = int(clock.time())
    async with serving(tmp_path, clock, NAMES[:1]) as (service, stub):
        metadata = await caller(service)
        await stub.ListModels(pb.ListModelsRequest(), metadata=metadata)
        clock.advance(100)
        file = tmp_path / "pomogator.toml"
        file.write_text(file.read_text() + f'"{NAMES[1]}" = "m"\n')
        service.reloader.reload()
        answer = await stub.ListModels(pb.ListModelsRequest(), metadata=metadata)
        assert [model.create_time.seconds for model in answer.models] == [first_s, first_s + 100]

    clock.advance(100)
    async with serving(tmp_path, clock, NAMES[:2]) as (service, stub):
        for name, expected in zip(NAMES, (first_s, first_s + 100), strict=False):
            found = await stub.GetModel(pb.GetModelRequest(model=name), metadata=metadata)
            assert found.model.create_time.seconds == expected


async def test_pages_list_every_model_once(tmp_path: Path, clock: FakeClock) -> None:
    """The tokens are opaque; without a page size, and with a large one, there is one page."""
    async with serving(tmp_path, clock, NAMES) as (service, stub):
        metadata = await caller(service)
        seen: list[str] = []
        request = pb.ListModelsRequest(page_size=2)
        while len(seen) < len(NAMES):
            answer = await stub.ListModels(request, metadata=metadata)
            seen += [model.name for model in answer.models]
            request.page_token = answer.next_page_token
            assert "house" not in request.page_token
        assert not request.page_token
        assert seen == NAMES
        for size in (0, 2**31 - 1):
            whole = await stub.ListModels(pb.ListModelsRequest(page_size=size), metadata=metadata)
            assert [model.name for model in whole.models] == NAMES
            assert not whole.next_page_token

        for wrong in (pb.ListModelsRequest(page_size=-1), pb.ListModelsRequest(page_token="a")):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.ListModels(wrong, metadata=metadata)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_prices_are_those_of_the_account(tmp_path: Path, clock: FakeClock) -> None:
    """With its markup. A model without a price has none."""
    async with (
        serving(tmp_path, clock, NAMES[:2], PRICE) as (service, stub),
        service.operators_channel() as channel,
    ):
        operators = AccountServiceStub(channel)
        request = accounts.CreateAccountRequest(
            account="acme", unlimited=True, markup_basis_points=1250
        )
        await operators.CreateAccount(request)
        _, secret = await service.key_maker.make("acme")
        metadata = (("authorization", f"Bearer {secret}"),)

        answer = await stub.ListModels(pb.ListModelsRequest(), metadata=metadata)

    priced, unpriced = answer.models
    assert priced.pricing.rates == pb.TokenRates(
        prompt_usd="0.000003375",
        completion_usd="0.000016875",
        thinking_usd="0.000016875",
        cache_read_usd="0.0000003375",
        cache_write_usd="0.00000421875",
        cache_write_1h_usd="0.00000421875",
    )
    assert not unpriced.HasField("pricing")
