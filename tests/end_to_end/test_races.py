"""Concurrent callers at many edges, of one service or of services on one database."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from pomogator.accounts.v1 import key_service_pb2 as keys

from tests.stand.deployment import PLANS, database_for
from tests.stand.expected_books import MAX_TOKENS, STEP_NANO, ExpectedCall
from tests.stand.process_stand import Key, ProcessStand, process_stand
from tests.stand.providers.stepwise import PlannedAnswer
from tests.stand.tracked_account import BUSY, MADE, POOR, Outcome, RunningCall, TrackedAccount

PLENTY = 10**9
SAME = "the same for all"
IN_PROGRESS: Outcome = (409, "idempotency_in_progress")
MISMATCH: Outcome = (422, "idempotency_mismatch")


@pytest.fixture(scope="module", params=["edges", "fleet"])
async def running_stand(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ProcessStand]:
    """Four edges before one service on SQLite, then four services on PostgreSQL and Valkey."""
    plan = PLANS[request.param]
    directory = tmp_path_factory.mktemp("races") / "site"
    async with database_for(plan, request) as url, process_stand(directory, plan, url) as stand:
        yield stand


@pytest.fixture
async def stand(running_stand: ProcessStand) -> ProcessStand:
    """The same processes, with the prices that they began with and no request remembered."""
    await running_stand.reload(None, 1_000_000)
    running_stand.upstream.requests.clear()
    return running_stand


async def account_of(
    stand: ProcessStand, credit_nano: int, scope: keys.KeyScope | None = None
) -> tuple[TrackedAccount, Key]:
    """An account with money, and its key."""
    account = TrackedAccount(stand)
    key = Key(*await stand.operators().create_key(account.name, scope))
    await stand.operators().credit(account.name, credit_nano, account.name)
    account.expected.credits = credit_nano
    return account, key


async def named(account: TrackedAccount, key: Key, edge: str, prompt: str = SAME) -> Outcome:
    """Return the outcome of a call with the one idempotency key."""
    planned = account.stand.provider.answers.setdefault(prompt, PlannedAnswer(5, held=True))
    _, answer = await account.post(edge, key, planned, stream=True, named="order", prompt=prompt)
    await answer.read_to_end()
    if answer.status == 200:
        assert (answer.words, answer.done) == (5, True)
    return answer.status, answer.error


async def test_one_idempotency_key_makes_one_call(stand: ProcessStand) -> None:
    """Of twenty at once one is made and the others get 409; then all get its answer."""
    edges = stand.edges
    account, key = await account_of(stand, PLENTY)
    asking = [asyncio.create_task(named(account, key, edges[n % 4])) for n in range(20)]
    for told in itertools.islice(asyncio.as_completed(asking), 19):
        assert await told == IN_PROGRESS
    stand.provider.answers[SAME].steps.put_nowait(0)
    assert Counter(await asyncio.gather(*asking)) == {IN_PROGRESS: 19, MADE: 1}

    assert {await named(account, key, edge) for edge in edges} == {MADE}
    assert {await named(account, key, edge, "another") for edge in edges} == {MISMATCH}
    assert len(stand.upstream.requests) == 1
    (row,) = await account.rows()
    account.expected.entries[row.request_id] = ExpectedCall(stand.request_nano)
    account.expected.entries[row.request_id].settled(5)
    await account.agree(key)

    stranger, other = await account_of(stand, PLENTY)
    stand.provider.answers[SAME].steps.put_nowait(0)
    assert await named(stranger, other, edges[1]) == MADE
    assert len(stand.upstream.requests) == 2


async def test_tokens_of_a_disconnected_caller_are_given_back(stand: ProcessStand) -> None:
    """A limit is drawn for what calls may take, at all edges; the rest is given back."""
    scope = keys.KeyScope(tokens_per_minute=2 * MAX_TOKENS + 60)
    account, key = await account_of(stand, PLENTY, scope)
    first, second, third, fourth = stand.edges
    running = [await account.begin(edge, key, 1) for edge in (first, second)]
    refused = await account.begin(third, key, 1)
    if refused != BUSY and await stand.counts_apart():
        pytest.skip("too slow a machine: Valkey was taken for lost, and limits are not exact")
    assert refused == BUSY

    leaving, staying = running
    assert isinstance(leaving, RunningCall)
    assert isinstance(staying, RunningCall)
    leaving.answer.leave()
    account.over(leaving)
    await account.agree(key)

    late = await account.begin(fourth, key, 1)
    assert isinstance(late, RunningCall)
    for call in (staying, late):
        await account.finish(call)
    await account.agree(key)


async def test_running_calls_end_whole_when_the_money_is_gone(stand: ProcessStand) -> None:
    """A call that costs more than its hold ends for lack of money, and the next is refused."""
    hold = ExpectedCall(stand.request_nano).hold
    account, key = await account_of(stand, 2 * hold)
    first, second, third, _ = stand.edges
    running, costly = [await account.begin(edge, key, 1) for edge in (first, second)]
    assert isinstance(running, RunningCall)
    assert isinstance(costly, RunningCall)
    await account.outrun(costly, 2 * MAX_TOKENS)
    await account.agree(key)

    assert await account.begin(third, key, 1) == POOR
    await account.say(running, MAX_TOKENS - 1)
    await account.finish(running)
    await account.agree(key)
    assert -STEP_NANO <= account.expected.posted <= 0
    assert await account.begin(first, key, 1) == POOR


async def test_a_call_costs_its_price_at_admission(stand: ProcessStand) -> None:
    """A price that changes while a stream runs is that of the calls after it."""
    account, key = await account_of(stand, PLENTY)
    running = [await account.begin(edge, key, 2) for edge in stand.edges]
    await stand.reload(None, 2 * stand.request_nano)
    running += [await account.begin(edge, key, 2) for edge in stand.edges]
    for call in running:
        assert isinstance(call, RunningCall)
        await account.finish(call)
    await account.agree(key)

    charges = Counter(row.charge for row in await account.rows())
    assert charges == {1_020_000: 4, 2_020_000: 4}
