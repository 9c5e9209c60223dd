from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from math import inf
from typing import Any
from weakref import ref

import pytest

from services.domain.error_reason import ErrorReason
from services.domain.spec import ChatCompletionSpec
from services.domain.usage import Usage
from services.errors import Failure
from services.metering import outbox
from services.metering.holds import Hold, HoldTerms
from services.metering.ledger import HEARTBEAT_S, LOST_AFTER_S, Ledger
from services.metering.tokens import TokenCounter
from services.metering.usage import UsageMeter
from services.storage.accounts import account_by_name, credit_account, ensure_account
from services.storage.audit import audit
from services.storage.base import Database, Transaction
from services.storage.leases import end_leases, renew_lease
from tests.stand.clock import FakeClock
from tests.stand.failing_database import WatchedDatabase
from tests.stand.polling import until

USD = 10**9


def usage(prompt: int = 10, completion: int = 5) -> Usage:
    """Usage as reported by a provider."""
    return Usage(
        prompt_token_count=prompt,
        completion_token_count=completion,
        source="provider",
    )


Order = tuple[HoldTerms, str, int]


def order(amount: int = 1 * USD, request_id: str = "req-1", **changes: Any) -> Order:
    """A hold of the account `acme`: its terms, the request and the amount."""
    fields = {"account": "acme", "key_id": "key-1", "model": "a/b"}
    return HoldTerms(**{**fields, **changes}), request_id, amount


class Books:
    """Database with the account `acme`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._credits = 0

    async def credit(self, amount: int, account: str = "acme") -> None:
        """Credit an account, which is opened if it is missing."""
        self._credits += 1
        await self.database.write(ensure_account, account, 0)
        await self.database.write(credit_account, account, amount, f"r{self._credits}", 0)

    async def balance(self, account: str = "acme") -> tuple[int, int]:
        """Return the balance and the held amount."""
        found = await self.database.read(account_by_name, account)
        assert found is not None
        return found.posted, found.held

    async def end_expired_leases(self, ledger: Ledger) -> None:
        """End the lease of a ledger's process."""
        await self.database.write(end_leases, ledger.owner)

    async def move_lease(self, ledger: Ledger, jump_s: float) -> None:
        """Move a ledger's lease as a jump of the database's clock does."""
        await self.database.write(_move_lease, ledger.owner, round(jump_s * 1000))

    async def hold(self, hold: Hold) -> dict[str, object]:
        """Return the row of a hold."""
        return await self.database.read(_hold, hold.id)

    async def clean(self) -> dict[str, int]:
        """Return the counts of an audit, which must find nothing."""
        result = await self.database.read(audit)
        assert result.findings == ()
        return dict(result.counts)


def _move_lease(owner: str, jump_ms: int) -> Transaction[None]:
    yield "UPDATE leases SET until_ms = until_ms - ? WHERE owner = ?", (jump_ms, owner)


def _hold(hold_id: str) -> Transaction[dict[str, object]]:
    names = ("state", "charge", "overrun", "source", "prompt_tokens", "price")
    rows = yield (
        "SELECT state, charge, overrun, source, prompt_tokens, price FROM holds WHERE id = ?",
        (hold_id,),
    )
    return dict(zip(names, rows[0], strict=True))


@pytest.fixture
async def books(database: Database) -> AsyncIterator[Books]:
    books = Books(database)
    await books.credit(10 * USD)
    yield books
    await books.clean()


@pytest.fixture
async def ledger(books: Books, clock: FakeClock) -> AsyncIterator[Ledger]:
    async with Ledger(books.database, clock) as ledger:
        yield ledger


async def test_settlement_charges_the_cost(ledger: Ledger, books: Books) -> None:
    """A hold takes the estimate; the settlement takes the cost and gives back the rest."""
    hold = await ledger.reserve(*order(3 * USD, price='{"prompt":7}'))
    await ledger.drain()
    assert await books.balance() == (10 * USD, 3 * USD)

    ledger.settle(hold, 2 * USD + 1, usage(prompt=12))
    await ledger.drain()

    assert await books.balance() == (8 * USD - 1, 0)
    assert await books.hold(hold) == {
        "state": "settled",
        "charge": 2 * USD + 1,
        "overrun": 0,
        "source": "provider",
        "prompt_tokens": 12,
        "price": '{"prompt":7}',
    }


async def test_a_voided_hold_costs_nothing(ledger: Ledger, books: Books) -> None:
    """Voiding releases the whole hold."""
    hold = await ledger.reserve(*order())

    ledger.void(hold)
    await ledger.drain()

    assert await books.balance() == (10 * USD, 0)
    assert (await books.clean())["voided"] == 1


async def test_only_the_first_end_counts(ledger: Ledger, books: Books) -> None:
    """However often a hold is ended, it is charged once, by the first end."""
    hold = await ledger.reserve(*order())

    ledger.settle(hold, 5, usage())
    ledger.settle(hold, 7, usage())
    ledger.void(hold)
    await ledger.drain()

    assert await books.balance() == (10 * USD - 5, 0)


async def test_a_call_above_the_balance_is_refused(ledger: Ledger, books: Books) -> None:
    """The refusal has the message of the API page."""
    with pytest.raises(Failure) as refused:
        await ledger.reserve(*order(10 * USD + 1))

    assert refused.value.reason == ErrorReason.INSUFFICIENT_QUOTA
    assert refused.value.message == "Insufficient balance"
    assert await books.balance() == (10 * USD, 0)
    assert (await books.clean())["held"] == 0


@pytest.mark.parametrize("round_", range(5))
async def test_balance_for_ten_admits_ten(ledger: Ledger, books: Books, round_: int) -> None:
    """Of a hundred requests at once, exactly the ten that are covered are admitted."""
    results = await asyncio.gather(
        *(ledger.reserve(*order(1 * USD)) for _ in range(100)), return_exceptions=True
    )

    admitted = [result for result in results if isinstance(result, Hold)]
    refused = [result for result in results if isinstance(result, Failure)]
    assert (len(admitted), len(refused)) == (10, 90)
    assert {failure.reason for failure in refused} == {ErrorReason.INSUFFICIENT_QUOTA}
    await ledger.drain()
    assert await books.balance() == (10 * USD, 10 * USD)
    for hold in admitted:
        ledger.void(hold)
    await ledger.drain()
    assert await books.balance() == (10 * USD, 0)


async def test_sequential_calls_are_never_refused(ledger: Ledger, books: Books) -> None:
    """A balance for one call at a time admits any number of calls, one after the other."""
    for _ in range(5):
        ledger.void(await ledger.reserve(*order(10 * USD)))
    ledger.settle(await ledger.reserve(*order(10 * USD)), 1 * USD, usage())

    with pytest.raises(Failure) as refused:
        await ledger.reserve(*order(10 * USD))

    assert refused.value.reason == ErrorReason.INSUFFICIENT_QUOTA
    await ledger.drain()
    assert await books.balance() == (9 * USD, 0)


async def test_a_free_call_needs_no_balance(ledger: Ledger, books: Books) -> None:
    """A free call is admitted with a balance of zero, and recorded."""
    await books.credit(0, "poor")
    hold = await ledger.reserve(*order(0, account="poor"))

    ledger.settle(hold, 0, usage())
    await ledger.drain()

    assert await books.balance("poor") == (0, 0)
    assert (await books.clean())["settled"] == 1


async def test_an_unlimited_account_may_go_below_zero(ledger: Ledger, books: Books) -> None:
    """An unlimited account is charged below zero."""
    await books.database.write(ensure_account, "rich", 0, unlimited=True)
    hold = await ledger.reserve(*order(7, account="rich"))

    ledger.settle(hold, 7, usage())
    await ledger.drain()

    assert await books.balance("rich") == (-7, 0)


async def test_an_overrun_is_charged_and_recorded(ledger: Ledger, books: Books) -> None:
    """A cost above the hold is charged whole, and the next request is refused."""
    hold = await ledger.reserve(*order(10 * USD))

    ledger.settle(hold, 12 * USD, usage())
    await ledger.drain()

    assert await books.balance() == (-2 * USD, 0)
    assert (await books.hold(hold))["overrun"] == 2 * USD
    with pytest.raises(Failure):
        await ledger.reserve(*order(1))


async def test_a_key_spends_at_most_its_monthly_budget(
    ledger: Ledger, books: Books, clock: FakeClock
) -> None:
    """The budget holds for a calendar month and starts again in the next one."""
    first = await ledger.reserve(*order(2 * USD, monthly_nano=3 * USD))
    with pytest.raises(Failure) as refused:
        await ledger.reserve(*order(2 * USD, monthly_nano=3 * USD))
    assert refused.value.reason == ErrorReason.BUDGET_EXCEEDED
    await ledger.drain()
    assert await books.balance() == (10 * USD, 2 * USD)

    ledger.settle(first, 1 * USD, usage())
    await ledger.drain()
    ledger.void(await ledger.reserve(*order(2 * USD, monthly_nano=3 * USD)))
    clock.advance(31 * 24 * 3600)
    ledger.void(await ledger.reserve(*order(3 * USD, monthly_nano=3 * USD)))
    await ledger.drain()

    assert await books.balance() == (9 * USD, 0)


async def test_the_same_request_id_is_charged_twice(ledger: Ledger, books: Books) -> None:
    """Callers may choose the request ID. It is not an idempotency key."""
    for _ in range(2):
        ledger.settle(await ledger.reserve(*order(request_id="mine")), 1 * USD, usage())
    await ledger.drain()

    assert await books.balance() == (8 * USD, 0)


async def test_a_dead_process_is_charged_at_its_checkpoint(books: Books, clock: FakeClock) -> None:
    """The next process charges the delivered part, and releases the rest of the hold."""
    dead = Ledger(books.database, clock)
    await dead.__aenter__()
    streaming, waiting = await dead.reserve(*order(3 * USD)), await dead.reserve(*order(4 * USD))
    dead.checkpoint(streaming, 1 * USD, usage(prompt=99))
    await dead.drain()
    await dead._checkpoints.write()
    for task in dead._tasks:
        task.cancel()
    await books.end_expired_leases(dead)

    async with Ledger(books.database, clock):
        pass

    assert await books.balance() == (9 * USD, 0)
    assert (await books.hold(streaming))["state"] == "recovered"
    assert (await books.hold(streaming))["prompt_tokens"] == 99
    assert (await books.hold(waiting))["state"] == "voided"


async def test_a_kill_loses_at_most_one_second() -> None:
    """A heartbeat asks for a checkpoint, and the next one writes it."""
    assert 2 * HEARTBEAT_S <= 1.0


class PausedCall:
    """A call whose answer has begun and pauses. Its checkpoint fails where it has no charge."""

    has_uncounted = True

    def __init__(self, ledger: Ledger, hold: Hold, charge: int | None) -> None:
        self.meter = UsageMeter(ChatCompletionSpec(model="a/b"), TokenCounter())
        self._make = (ledger.checkpoint, hold, charge)
        hold.call = ref(self)

    def checkpoint(self) -> None:
        """Makes a checkpoint of the charge."""
        put, hold, charge = self._make
        if charge is None:
            raise RuntimeError("the count failed")
        put(hold, charge, usage())


async def test_a_pause_is_checkpointed_also_after_the_fault_of_another_call(
    ledger: Ledger, books: Books
) -> None:
    """A fault in the count of one call does not stop the heartbeat."""
    first, second = await ledger.reserve(*order()), await ledger.reserve(*order())
    faulty, paused = PausedCall(ledger, first, None), PausedCall(ledger, second, 7)
    await ledger.drain()

    async def is_written() -> object:
        return (await books.hold(second))["prompt_tokens"]

    await until(is_written)

    assert (await books.hold(first))["prompt_tokens"] == 0
    assert ledger.healthy
    assert faulty.meter.awaits_count
    assert paused.meter.awaits_count


async def test_two_sweeps_recover_a_hold_once(books: Books, clock: FakeClock) -> None:
    """Of two sweeps that find the same orphaned hold, one recovers it."""
    dead = Ledger(books.database, clock)
    await dead.__aenter__()
    dead.checkpoint(hold := await dead.reserve(*order()), 3, usage())
    await dead.drain()
    await dead._checkpoints.write()
    for task in dead._tasks:
        task.cancel()
    await books.end_expired_leases(dead)

    await asyncio.gather(*(Ledger(books.database, clock).sweep() for _ in range(5)))

    assert await books.balance() == (10 * USD - 3, 0)
    assert hold.id


async def test_holds_of_a_live_process_are_not_recovered(
    ledger: Ledger, books: Books, clock: FakeClock
) -> None:
    """While a process renews its lease, no sweep recovers its holds."""
    hold = await ledger.reserve(*order())

    assert await Ledger(books.database, clock).sweep() == 0

    ledger.void(hold)
    await ledger.drain()


@pytest.mark.parametrize("jump_s", [3600.0, 90 * 86_400.0, -3600.0, -90 * 86_400.0])
async def test_a_clock_jump_recovers_no_hold_of_a_live_process(
    ledger: Ledger, books: Books, clock: FakeClock, jump_s: float
) -> None:
    """After a jump all leases expire at once, or never. A renewed lease protects its holds."""
    hold = await ledger.reserve(*order())
    await books.move_lease(ledger, jump_s)
    other = Ledger(books.database, clock)

    assert await other.sweep() == 0
    await ledger._database.write(renew_lease, ledger.owner, ledger._lease_ms)
    for _ in range(3):
        assert await other.sweep() == 0

    ledger.settle(hold, 5, usage())
    await ledger.drain()
    assert (await books.hold(hold))["state"] == "settled"


@pytest.mark.parametrize("jump_s", [16.0, -90 * 86_400.0])
async def test_a_lease_ends_at_the_second_sweep(
    books: Books, clock: FakeClock, jump_s: float
) -> None:
    """An expired lease, or one from before the clock was set back, ends unless it is renewed."""
    dead = Ledger(books.database, clock)
    await dead.__aenter__()
    await dead.reserve(*order())
    await dead.drain()
    for task in dead._tasks:
        task.cancel()
    await books.move_lease(dead, jump_s)
    other = Ledger(books.database, clock)

    assert [await other.sweep() for _ in range(3)] == [0, 1, 0]

    assert await books.balance() == (10 * USD, 0)


async def test_an_unreferenced_hold_is_recovered(
    ledger: Ledger, books: Books, clock: FakeClock
) -> None:
    """A hold that no caller references is recovered after a while, although its process lives."""
    kept = await ledger.reserve(*order())
    forgotten = (await ledger.reserve(*order())).id
    await ledger.drain()
    gc.collect()
    clock.advance(LOST_AFTER_S + 1)
    await ledger._database.write(renew_lease, ledger.owner, ledger._lease_ms)

    assert (kept.id in ledger._open, ledger.open_holds) == (True, 1)
    assert await ledger.sweep() == 1
    assert forgotten not in ledger._open
    assert await books.balance() == (10 * USD, 1 * USD)
    ledger.void(kept)
    await ledger.drain()


@pytest.mark.parametrize("steps", range(6))
async def test_cancelled_reservation_holds_nothing(
    ledger: Ledger, books: Books, steps: int
) -> None:
    """Wherever the request is cancelled, its hold is voided."""
    reserving = asyncio.ensure_future(ledger.reserve(*order()))
    for _ in range(steps):
        await asyncio.sleep(0)
    reserving.cancel()
    results = await asyncio.gather(reserving, return_exceptions=True)
    if isinstance(results[0], Hold):
        ledger.void(results[0])
    await ledger.drain()

    assert await books.balance() == (10 * USD, 0)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nth", range(1, 10))
async def test_any_failing_write_leaves_the_ledger_consistent(
    books: Books, clock: FakeClock, nth: int, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever write fails, with or without effect, all holds end and are charged once."""
    monkeypatch.setattr(outbox, "RETRY_S", (0.0,))
    failing = WatchedDatabase(books.database, lambda call: when if call == nth else "")
    charged = 0
    try:
        async with Ledger(failing, clock) as ledger:
            for _ in range(3):
                try:
                    hold = await ledger.reserve(*order())
                except Failure:
                    continue
                ledger.settle(hold, 5, usage())
                charged += 5
                await ledger.drain()
    except Failure:
        assert nth <= 5  # Opening the ledger fails as a whole.
    await books.database.write(end_leases)
    async with Ledger(books.database, clock):
        pass

    assert await books.balance() == (10 * USD - charged, 0)


async def test_a_full_outbox_admits_nothing(
    books: Books, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While too many ends of holds wait for a database that is down, requests are refused."""
    monkeypatch.setattr(outbox, "BACKLOG_MAX", 3)
    monkeypatch.setattr(outbox, "RETRY_S", (0.0,))
    down = asyncio.Event()
    failing = WatchedDatabase(books.database, lambda _call: "before" if down.is_set() else "")
    async with Ledger(failing, clock) as ledger:
        holds = [await ledger.reserve(*order()) for _ in range(3)]
        down.set()
        for hold in holds:
            ledger.settle(hold, 1, usage())
        await asyncio.sleep(0)

        assert not ledger.healthy
        with pytest.raises(Failure) as refused:
            await ledger.reserve(*order())
        assert refused.value.reason == ErrorReason.STORAGE_UNAVAILABLE

        down.clear()
        await ledger.drain()
        ledger.void(await ledger.reserve(*order()))

    assert await books.balance() == (10 * USD - 3, 0)


async def test_a_full_outbox_admits_again_before_it_is_empty(
    books: Books, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the database is back, the backlog shrinks with each transaction."""
    monkeypatch.setattr(outbox, "BACKLOG_MAX", 5)
    monkeypatch.setattr(outbox, "TRANSACTION_MAX", 2)
    monkeypatch.setattr(outbox, "RETRY_S", (0.0,))
    left = inf

    def fails(_call: int) -> str:
        nonlocal left
        left -= 1
        return "before" if left < 0 else ""

    failing = WatchedDatabase(books.database, fails)
    async with Ledger(failing, clock) as ledger:
        holds = [await ledger.reserve(*order()) for _ in range(6)]
        await ledger.drain()
        left = 0
        for hold in holds:
            ledger.settle(hold, 1, usage())
        assert not ledger.healthy

        left = 1
        async with asyncio.timeout(5):
            while len(ledger.outbox) == 6:  # noqa: ASYNC110
                await asyncio.sleep(0)  # The outbox announces nothing.

        assert (len(ledger.outbox), ledger.healthy) == (4, True)
        left = inf

    assert await books.balance() == (10 * USD - 6, 0)


async def test_a_ledger_without_its_tasks_admits_nothing(books: Books, clock: FakeClock) -> None:
    """A task that has failed too often is not restarted: no end of a hold would be written."""
    async with Ledger(books.database, clock) as ledger:
        ledger._tasks[0].cancel()
        await asyncio.wait(ledger._tasks[:1])
        await asyncio.sleep(0)

        assert not ledger.healthy
        with pytest.raises(Failure) as refused:
            await ledger.reserve(*order())
        assert refused.value.reason == ErrorReason.STORAGE_UNAVAILABLE


async def test_a_credit_counts_once(books: Books) -> None:
    """A request ID credits once, and is refused with another amount; so is an excessive debit."""
    database = books.database
    for _ in range(3):
        await database.write(credit_account, "acme", 5 * USD, "invoice-7", 0)
    assert await books.balance() == (15 * USD, 0)

    with pytest.raises(Failure) as refused:
        await database.write(credit_account, "acme", 6 * USD, "invoice-7", 0)
    assert refused.value.reason == ErrorReason.ALREADY_EXISTS
    with pytest.raises(Failure) as refused:
        await database.write(credit_account, "acme", -16 * USD, "refund", 0)
    assert refused.value.reason == ErrorReason.INSUFFICIENT_QUOTA
    await database.write(credit_account, "acme", -15 * USD, "refund", 0)
    assert await books.balance() == (0, 0)
