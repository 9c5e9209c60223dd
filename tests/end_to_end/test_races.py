"""Callers at many doors at once: over edges of one service, and over services of one database."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from pomogator.accounts.v1 import key_service_pb2 as keys

from tests.nightly.expected import MAX_TOKENS, Entry
from tests.nightly.system import Key, Stage, staging
from tests.nightly.tracked_account import BUSY, MADE, POOR, Customer, Outcome, Running
from tests.stand.deployment import PLANS, database_for
from tests.stand.providers.stepwise import Part

PLENTY = 10**9
SAME = "the same for all"
IN_PROGRESS: Outcome = (409, "idempotency_in_progress")
MISMATCH: Outcome = (422, "idempotency_mismatch")


@pytest.fixture(scope="module", params=["edges", "fleet"])
async def running_stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """Four edges before one service on SQLite, then four services on PostgreSQL and Valkey."""
    plan = PLANS[request.param]
    directory = tmp_path_factory.mktemp("races") / "site"
    async with database_for(plan, request) as url, staging(directory, plan, url) as stage:
        yield stage


@pytest.fixture
async def stage(running_stage: Stage) -> Stage:
    """The same processes, with the prices that they began with and no request remembered."""
    await running_stage.reload(None, 1_000_000)
    running_stage.upstream.requests.clear()
    return running_stage


async def customer_of(
    stage: Stage, credit_nano: int, scope: keys.KeyScope | None = None
) -> tuple[Customer, Key]:
    """An account with money, and its key."""
    customer = Customer(stage)
    key = Key(*await stage.operators().create_key(customer.account, scope))
    await stage.operators().credit(customer.account, credit_nano, customer.account)
    customer.expected.credits = credit_nano
    return customer, key


async def named(customer: Customer, key: Key, door: str, prompt: str = SAME) -> Outcome:
    """What becomes of a call under the one name."""
    part = customer.stage.puppet.parts.setdefault(prompt, Part(5, held=True))
    _, talk = await customer.post(door, key, part, stream=True, named="order", prompt=prompt)
    await talk.rest()
    if talk.status == 200:
        assert (talk.words, talk.done) == (5, True)
    return talk.status, talk.error


async def test_one_name_is_one_call(stage: Stage) -> None:
    """Of twenty at once one is made and the rest are told to wait; then all get its answer."""
    doors = stage.doors
    customer, key = await customer_of(stage, PLENTY)
    asking = [asyncio.create_task(named(customer, key, doors[n % 4])) for n in range(20)]
    for told in itertools.islice(asyncio.as_completed(asking), 19):
        assert await told == IN_PROGRESS
    stage.puppet.parts[SAME].orders.put_nowait(0)
    assert Counter(await asyncio.gather(*asking)) == {IN_PROGRESS: 19, MADE: 1}

    assert {await named(customer, key, door) for door in doors} == {MADE}
    assert {await named(customer, key, door, "another") for door in doors} == {MISMATCH}
    assert len(stage.upstream.requests) == 1
    (row,) = await customer.rows()
    customer.expected.entries[row.request_id] = Entry(stage.request_nano)
    customer.expected.entries[row.request_id].settled(5)
    await customer.agree(key)

    stranger, other = await customer_of(stage, PLENTY)
    stage.puppet.parts[SAME].orders.put_nowait(0)
    assert await named(stranger, other, doors[1]) == MADE
    assert len(stage.upstream.requests) == 2


async def test_tokens_of_a_caller_who_left_are_given_back(stage: Stage) -> None:
    """A limit is drawn for what calls may take, at all doors; what was not taken is there again."""
    scope = keys.KeyScope(tokens_per_minute=2 * MAX_TOKENS + 60)
    customer, key = await customer_of(stage, PLENTY, scope)
    first, second, third, fourth = stage.doors
    running = [await customer.begin(door, key, 1) for door in (first, second)]
    refused = await customer.begin(third, key, 1)
    if refused != BUSY and await stage.counts_apart():
        pytest.skip("too slow a machine: Valkey was taken for lost, and limits are not exact")
    assert refused == BUSY

    leaving, staying = running
    assert isinstance(leaving, Running)
    assert isinstance(staying, Running)
    leaving.talk.leave()
    customer.over(leaving)
    await customer.agree(key)

    late = await customer.begin(fourth, key, 1)
    assert isinstance(late, Running)
    for call in (staying, late):
        await customer.finish(call)
    await customer.agree(key)


async def test_who_runs_goes_on_when_the_money_is_gone(stage: Stage) -> None:
    """Another call costs more than its hold: the first one ends in peace, the next is refused."""
    hold = Entry(stage.request_nano).hold
    customer, key = await customer_of(stage, 2 * hold)
    first, second, third, _ = stage.doors
    running, costly = [await customer.begin(door, key, 1) for door in (first, second)]
    assert isinstance(running, Running)
    assert isinstance(costly, Running)
    await customer.say(costly, MAX_TOKENS + 9)
    await customer.finish(costly)
    await customer.agree(key)
    assert customer.expected.posted - customer.expected.held < 0

    assert await customer.begin(third, key, 1) == POOR
    await customer.say(running, MAX_TOKENS - 1)
    await customer.finish(running)
    await customer.agree(key)
    assert customer.expected.posted == -10 * 10_000
    assert await customer.begin(first, key, 1) == POOR


async def test_a_call_costs_what_it_did_when_it_began(stage: Stage) -> None:
    """A price that changes while a stream runs is that of the calls after it."""
    customer, key = await customer_of(stage, PLENTY)
    running = [await customer.begin(door, key, 2) for door in stage.doors]
    await stage.reload(None, 2 * stage.request_nano)
    running += [await customer.begin(door, key, 2) for door in stage.doors]
    for call in running:
        assert isinstance(call, Running)
        await customer.finish(call)
    await customer.agree(key)

    charges = Counter(row.charge for row in await customer.rows())
    assert charges == {1_020_000: 4, 2_020_000: 4}
