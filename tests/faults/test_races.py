"""Many at once for the same money, the same name, the same minute."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pomogator.accounts.v1 import key_service_pb2 as keys

from services.clock import SystemClock
from services.domain.usage import Usage
from services.metering.holds import HoldTerms
from services.metering.ledger import Ledger
from services.metering.outbox import BATCH_DELAY_S
from services.storage.accounts import account_by_name, credit_account, ensure_account
from services.storage.audit import audit
from services.storage.leases import end_leases
from services.storage.opening import open_database
from tests.faults.conftest import OpenStand
from tests.faults.fault_stand import BEGIN, CHARGE, END, FINE, STEADY, FaultStand, fitting, piece
from tests.faults.test_keys import bearing, operating
from tests.stand.upstream import LAST_CHUNK, STALL, sse

STREAMS = pytest.mark.parametrize("stream", [True, False])
WIRES = pytest.mark.parametrize("wire", [False, True])


@asynccontextmanager
async def buying(stand: FaultStand, nano_usd: int, scope: keys.KeyScope) -> AsyncIterator[str]:
    """The key of an account with money."""
    async with operating(stand) as ops:
        _, key = await ops.create_key("buyer", scope)
        await ops.credit("buyer", nano_usd, "payment-1")
        yield key


async def hold_of(stand: FaultStand) -> int:
    """The hold of the usual call."""
    assert (await stand.ask(model=STEADY)).status == 200
    hold: int = stand.log.of("call.ended")[-1]["hold_nano_usd"]
    return hold


@STREAMS
async def test_one_idempotency_key_makes_one_call_of_twenty(
    open_stand: OpenStand, *, stream: bool
) -> None:
    """One of twenty is made; its answer is replayed; another account's is its own. Row 105."""
    stand = await open_stand()
    goes_on = asyncio.Event()
    stand.play(lambda request: [goes_on, *fitting(request)])
    name = {"Idempotency-Key": "order-66"}
    async with buying(stand, 10**9, keys.KeyScope()) as stranger:
        running = [asyncio.create_task(stand.ask(headers=name, stream=stream)) for _ in range(20)]
        await stand.until(lambda: sum(task.done() for task in running) == 19)
        goes_on.set()
        replies = await asyncio.gather(*running)
        again = await stand.ask(headers=name, stream=stream)
        mismatch = await stand.ask(headers=name, stream=stream, max_tokens=51)
        theirs = await stand.ask(headers={**name, **bearing(stranger)}, stream=stream)

    assert Counter((reply.status, reply.code) for reply in replies) == {
        (200, None): 1,
        (409, "idempotency_in_progress"): 19,
    }
    assert (again.status, again.headers["Idempotency-Replayed"]) == (200, "true")
    assert (mismatch.status, mismatch.code) == (422, "idempotency_mismatch")
    assert (theirs.status, "Idempotency-Replayed" in theirs.headers) == (200, False)
    assert len(stand.first.requests) == 2
    assert await stand.charged() == (2, CHARGE)
    assert await stand.spent("buyer") == CHARGE
    outcomes = {
        outcome: stand.metric("idempotent_requests_total", outcome=outcome)
        for outcome in ("busy", "replay")
    }
    assert outcomes == {"busy": 19, "replay": 1}
    assert stand.metric("idempotent_requests_total", outcome="mismatch") == 1


async def test_concurrent_payments_and_calls_add_up(open_stand: OpenStand) -> None:
    """Payments, refunds, calls and a key's end at once: the balance is their sum. Row 106."""
    stand = await open_stand()
    stand.play(fitting)
    paid, refunded = 10**8, 10**6
    async with buying(stand, 10**9, keys.KeyScope()) as key, operating(stand) as ops:
        key_id, doomed = await ops.create_key("buyer")

        async def pay(number: int) -> None:
            await ops.credit("buyer", paid, f"payment-{number % 5}-again")
            await ops.credit("buyer", -refunded, f"refund-{number}")

        async def call(number: int) -> int:
            secret = doomed if number % 2 else key
            reply = await stand.ask(headers=bearing(secret), stream=bool(number % 3))
            return reply.status

        jobs = [asyncio.create_task(pay(number)) for number in range(20)]
        calls = [asyncio.create_task(call(number)) for number in range(40)]
        await stand.until(lambda: len(stand.first.requests) > 5)
        await ops.revoke_key(key_id)
        await asyncio.gather(*jobs)
        statuses = Counter(await asyncio.gather(*calls))
        await stand.wait_until_idle()
        account = await ops.account("buyer")

    assert set(statuses) <= {200, 401}
    assert statuses[200] >= 20
    spent = await stand.spent("buyer")
    assert account.balance_nano_usd == 10**9 + 5 * paid - 20 * refunded - spent
    assert account.held_nano_usd == 0
    assert statuses[200] * CHARGE <= spent


@WIRES
async def test_unused_tokens_of_a_limit_are_given_back(
    open_stand: OpenStand, *, wire: bool
) -> None:
    """A limit is drawn for the most that a call may take; the rest is given back. Row 108."""
    stand = await open_stand(wire=wire)
    stand.play([BEGIN, STALL], FINE)
    scope = keys.KeyScope(tokens_per_minute=200)
    async with buying(stand, 10**9, scope) as key:
        headers = bearing(key)
        async with stand.post({"max_tokens": 150}, headers=headers) as answer:
            await answer.content.readuntil(b"canary-answer-")
            refused = await stand.ask(headers=headers, max_tokens=150)
            assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
            assert 1 <= float(refused.headers["Retry-After"]) <= 60
        await stand.wait_until_idle()
        after = await stand.ask(headers=headers, max_tokens=150)

    assert after.status == 200
    left = int(after.headers["x-ratelimit-remaining-tokens"])
    assert 0 <= left < 50
    assert len(stand.first.requests) == 2
    assert stand.metric("requests_refused_total", reason="RATE_LIMIT_EXCEEDED") == 1


async def test_an_overdrawn_account_ends_its_calls_whole(open_stand: OpenStand) -> None:
    """A call costs more than its hold: running calls end whole, new ones are refused. Row 109."""
    stand = await open_stand()
    hold = await hold_of(stand)
    goes_on = asyncio.Event()
    usage = {"prompt_tokens": 10, "completion_tokens": 90}
    costly = sse(piece("31d0"), piece("", "stop"), {"id": "c", "choices": [], "usage": usage})
    stand.play([BEGIN, goes_on, END], [BEGIN + costly + sse("[DONE]") + LAST_CHUNK])
    async with buying(stand, 2 * hold, keys.KeyScope()) as key, operating(stand) as ops:
        headers = bearing(key)
        async with stand.post(headers=headers) as answer:
            await answer.content.readuntil(b"canary-answer-")
            assert (await stand.ask(headers=headers)).finishes == ["stop"]
            await stand.until(lambda: stand.metric("outbox_depth") == 0)
            assert await stand.spent("buyer") > hold
            poor = await stand.ask(headers=headers)
            goes_on.set()
            reply = await stand.read(answer)
        await stand.wait_until_idle()
        account = await ops.account("buyer")

    assert (poor.status, poor.code) == (402, "insufficient_quota")
    assert poor.headers["x-should-retry"] == "false"
    assert (reply.finishes, reply.events[-1]) == (["stop"], "[DONE]")
    assert len(stand.first.requests) == 2
    assert account.balance_nano_usd == 2 * hold - await stand.spent("buyer")
    assert stand.metric("requests_refused_total", reason="INSUFFICIENT_QUOTA") == 1


ROUNDS = 20


async def test_a_hold_is_ended_once_by_many_sweepers(
    tmp_path_factory: pytest.TempPathFactory, each_database_url: str
) -> None:
    """Several processes end a hold at once: it is charged once, in whatever order. Row 103."""
    folder, clock = tmp_path_factory.mktemp("sweep"), SystemClock()
    database = await open_database(folder, each_database_url, clock)
    try:
        await database.write(ensure_account, "acme", 0)
        await database.write(credit_account, "acme", 10**6, "payment-1", 0)
        order = (HoldTerms(account="acme", key_id="k", model="m"), "r", 1000)
        for number in range(ROUNDS):
            async with Ledger(database, clock) as late:
                hold = await late.reserve(*order)
                late.checkpoint(hold, 300, Usage())
                await late._checkpoints.write()
                sweepers = [Ledger(database, clock) for _ in range(3)]
                # Who does not renew a lease that is over is dead when it has been seen twice.
                await asyncio.gather(*(each.sweep() for each in sweepers))
                await database.write(end_leases, late.owner)
                late.settle(hold, 500, Usage())
                await asyncio.sleep(number % 4 * BATCH_DELAY_S / 2)  # Either may be first.
                await asyncio.gather(*(each.sweep() for each in sweepers * 2), late.drain())
        result = await database.read(audit)
        account = await database.read(account_by_name, "acme")
    finally:
        await database.close()

    assert result.findings == ()
    assert account is not None
    assert account.held == 0
    settled, recovered = result.counts["settled"], result.counts["recovered"]
    assert settled + recovered == ROUNDS
    assert 10**6 - account.posted == 500 * settled + 300 * recovered
