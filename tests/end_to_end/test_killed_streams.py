"""What a killed service is paid for: what it had written down, and never more than was said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.nightly.expected import Entry
from tests.nightly.system import Key, staging
from tests.nightly.tracked_account import Customer, Running
from tests.stand.deployment import PLANS, Layout, database_for
from tests.stand.providers.stepwise import Part

LAYOUTS = ("single", "fleet")


@asynccontextmanager
async def buying(
    directory: Path, layout: Layout, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[Customer, Key]]:
    """A customer with money; in the end nothing of it is held."""
    plan = PLANS[layout]
    async with (
        database_for(plan, request) as url,
        staging(directory / "site", plan, url) as stage,
    ):
        customer = Customer(stage)
        key = Key(*await stage.operators().create_key(customer.account))
        customer.expected.credits = 10**9
        await stage.operators().credit(customer.account, 10**9, "first")
        yield customer, key
        await stage.revive()
        await customer.agree(key)
        while customer.expected.lost:
            await asyncio.sleep(0.2)  # In a fleet, until the lease of the dead is over.
            await customer.agree(key)
        assert customer.expected.held == 0


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_a_stream_is_charged_as_written_down(
    tmp_path: Path, layout: Layout, request: pytest.FixtureRequest
) -> None:
    """Words are written down while the stream goes on; killed, it costs those at least."""
    async with buying(tmp_path, layout, request) as (customer, key):
        call = await customer.begin(customer.stage.doors[0], key, 3)
        assert isinstance(call, Running)
        noted = None
        while noted is None:
            await asyncio.sleep(0.1)  # The provider's pace.
            await customer.say(call, 1)
            (row,) = await customer.rows()
            noted = row.checkpoint

        await customer.kill(call.service)

    assert call.entry.charge is not None
    assert call.entry.request_nano < noted <= call.entry.charge <= call.entry.high


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_a_whole_answer_is_charged_whole_or_not_at_all(
    tmp_path: Path, layout: Layout, request: pytest.FixtureRequest
) -> None:
    """Killed as soon as its caller has it, the service is paid for it if that was on the disk."""
    async with buying(tmp_path, layout, request) as (customer, key):
        door = customer.stage.doors[0]
        request_nano = customer.stage.request_nano
        name, talk = await customer.post(door, key, Part(20), stream=False)
        await talk.rest()
        await customer.kill(customer.stage.service_of(door))

        entry = customer.expected.entries[name] = Entry(request_nano)
        entry.orphaned(20, None)
        entry.ends |= {"settled"}
        assert (talk.status, talk.words) == (200, 20)
    assert entry.charge in {0, entry.high}
