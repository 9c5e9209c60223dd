"""The charge of a killed service's calls: the latest checkpoint at least, what was sent at most."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.stand.deployment import PLANS, Layout, database_for
from tests.stand.expected_books import TOKEN_NANO, ExpectedCall
from tests.stand.polling import until
from tests.stand.process_stand import Key, process_stand
from tests.stand.providers.stepwise import PlannedAnswer
from tests.stand.tracked_account import RunningCall, TrackedAccount

LAYOUTS = ("single", pytest.param("fleet", marks=pytest.mark.nightly))
"""In a fleet every test waits until the lease of the killed service is over."""


@asynccontextmanager
async def buying(
    directory: Path, layout: Layout, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[TrackedAccount, Key]]:
    """An account with money; in the end nothing of it is held."""
    plan = PLANS[layout]
    async with (
        database_for(plan, request) as url,
        process_stand(directory / "site", plan, url) as stand,
    ):
        account = TrackedAccount(stand)
        key = Key(*await stand.operators().create_key(account.name))
        account.expected.credits = 10**9
        await stand.operators().credit(account.name, 10**9, "first")
        yield account, key
        await stand.revive()
        await account.agree(key)
        while account.expected.lost:
            await asyncio.sleep(0.2)  # In a fleet, until the lease of the dead is over.
            await account.agree(key)
        assert account.expected.held == 0


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_a_killed_stream_is_charged_its_checkpoint(
    tmp_path: Path, layout: Layout, request: pytest.FixtureRequest
) -> None:
    """Its words are checkpointed while it runs. It costs at least those."""
    async with buying(tmp_path, layout, request) as (account, key):
        call = await account.begin(account.stand.edges[0], key, 3)
        assert isinstance(call, RunningCall)
        noted = None
        while noted is None:
            await asyncio.sleep(0.1)  # The provider's pace.
            await account.say(call, 1)
            rows = await account.rows()  # A hold of the last moment is only in the journal.
            noted = rows[0].checkpoint if rows else None

        await account.kill(call.service)

    assert call.entry.charge is not None
    assert call.entry.request_nano < noted <= call.entry.charge <= call.entry.high


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_words_before_a_pause_are_checkpointed_in_the_pause(
    tmp_path: Path, layout: Layout, request: pytest.FixtureRequest
) -> None:
    """No batch comes that could make the checkpoint."""
    async with buying(tmp_path, layout, request) as (account, key):
        call = await account.begin(account.stand.edges[0], key, 1)
        assert isinstance(call, RunningCall)

        async def has_checkpoint() -> bool:
            return await checkpoint_of(account) > 0

        async def has_all() -> bool:
            return await checkpoint_of(account) == first_nano + 8 * TOKEN_NANO

        await until(has_checkpoint)
        first_nano = await checkpoint_of(account)
        for words in (1, 2, 3, 1, 1):  # More batches than there are checkpoints meanwhile.
            await account.say(call, words)
        await until(has_all)
        await account.kill(call.service)

    assert call.entry.charge == first_nano + 8 * TOKEN_NANO


async def checkpoint_of(account: TrackedAccount) -> int:
    """The checkpoint of the account's only call; 0: it has none yet."""
    rows = await account.rows()  # A hold of the last moment is only in the journal.
    return (rows[0].checkpoint or 0) if rows else 0


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_a_killed_whole_answer_is_charged_whole_or_not_at_all(
    tmp_path: Path, layout: Layout, request: pytest.FixtureRequest
) -> None:
    """It is charged if its settlement was on the disk when the service was killed."""
    async with buying(tmp_path, layout, request) as (account, key):
        edge = account.stand.edges[0]
        request_nano = account.stand.request_nano
        name, answer = await account.post(edge, key, PlannedAnswer(20), stream=False)
        await answer.read_to_end()
        await account.kill(account.stand.service_of(edge))

        entry = account.expected.entries[name] = ExpectedCall(request_nano)
        entry.orphaned(20, None)
        entry.ends |= {"settled"}
        assert (answer.status, answer.words) == (200, 20)
    assert entry.charge in {0, entry.high}
