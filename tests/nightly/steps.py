"""What may happen to a gateway and one account of it, step by step."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Collection, Coroutine
from itertools import count
from typing import Any, TypeVar

import grpc
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tests.nightly.expected import MAX_TOKENS, Entry, price
from tests.nightly.system import Key, Stage
from tests.nightly.tracked_account import BUSY, MADE, POOR, REVOKED, Customer, Outcome, Running
from tests.stand.providers.stepwise import Part

T = TypeVar("T")

STEP_S = 120.0
"""How long a step may take before it is taken for stuck. A dead fleet's lease takes 20."""

REFUSED_UPSTREAM: Outcome = (400, "upstream_invalid_request")
MISMATCH: Outcome = (422, "idempotency_mismatch")
IN_PROGRESS: Outcome = (409, "idempotency_in_progress")

WORDS = st.integers(1, 10)
LIMITS = st.sampled_from([None, 1, 2, 3])
ANY = st.integers(0, 1000)
"""Chooses among as many as there are."""

living = precondition(lambda self: self.stage.services and self.stage.doors)
running = precondition(lambda self: self.customer.running)


class GatewayMachine(RuleBasedStateMachine):
    """One account of a gateway. Rules run in a thread, what they do in the loop."""

    loop: asyncio.AbstractEventLoop
    stage: Stage

    def __init__(self) -> None:
        super().__init__()
        self.customer = Customer(self.stage)
        self.payments = count()
        self.keys: list[Key] = []
        self.whole: dict[str, tuple[str, str]] = {}
        """By name: the prompt of a call that was answered whole, and the answer."""

    def run_async(self, work: Coroutine[Any, Any, T]) -> T:
        """Does something in the loop. A failure is kept: its sequence may not fail again."""
        self.stage.trail.append(getattr(work, "__name__", ""))
        try:
            return asyncio.run_coroutine_threadsafe(work, self.loop).result(STEP_S)
        except Exception:
            trail = " ".join(self.stage.trail[-40:])
            self.stage.failures.append(f"{trail}\n{traceback.format_exc()}")
            raise

    @property
    def key(self) -> Key:
        """The one that is good."""
        return self.keys[-1]

    def door(self, number: int) -> str:
        """One that lives."""
        return self.stage.doors[number % len(self.stage.doors)]

    def one(self, number: int) -> Running:
        """A call that runs."""
        return self.customer.running[number % len(self.customer.running)]

    @initialize(calls=st.integers(0, 12), limit=LIMITS)
    def begin(self, calls: int, limit: int | None) -> None:
        """All processes live, and there is money for some calls."""
        self.stage.trail.clear()

        async def open_account() -> None:
            await self.stage.revive()
            await self.stage.reload(limit, 1_000_000)
            await self._make_key()
            await self._pay(calls * Entry(self.stage.request_nano).hold)

        self.run_async(open_account())

    async def _make_key(self) -> None:
        self.keys.append(Key(*await self.stage.operators().create_key(self.customer.account)))

    async def _pay(self, nano_usd: int) -> None:
        """Pays in, twice under one name."""
        if not nano_usd:
            return
        name = f"{self.customer.account}-payment-{next(self.payments)}"
        for _ in range(2):
            await self.stage.operators().credit(self.customer.account, nano_usd, name)
        self.customer.expected.credits += nano_usd

    @living
    @rule(number=ANY, words=WORDS, stream=st.booleans(), refused=st.booleans(), named=st.booleans())
    def call(self, number: int, words: int, stream: bool, refused: bool, named: bool) -> None:
        """A call comes to its end, whatever that is."""
        self.run_async(self._call(self.door(number), words, stream, refused, named))

    async def _call(
        self, door: str, words: int, stream: bool, refused: bool, named: bool
    ) -> Outcome:
        possible = self.customer.outcomes(door, self.key)
        entry = Entry(self.stage.request_nano)
        part = Part(words, refused=refused)
        key_name = f"order-{next(self.payments)}" if named else ""
        name, talk = await self.customer.post(door, self.key, part, stream=stream, named=key_name)
        await talk.rest()
        outcome = (talk.status, talk.error)
        if outcome == REFUSED_UPSTREAM and refused:
            self.customer.expected.entries[name] = entry
            entry.voided()
            outcome = MADE
        elif outcome == MADE:
            assert not refused
            self.customer.expected.entries[name] = entry
            entry.settled(words)
            assert talk.words == words
            if named:
                self.whole[key_name] = name, talk.text
        await self._expect(outcome, possible)
        return outcome

    async def _expect(self, outcome: Outcome, possible: Collection[Outcome]) -> None:
        """Where limits could not be counted together for a moment, they are not exact."""
        if outcome not in possible:
            assert {outcome, *possible} <= {BUSY, MADE, POOR}, (outcome, possible)
            assert await self.stage.counts_apart(), (outcome, possible)

    @living
    @rule(number=ANY, words=WORDS, named=st.booleans())
    def begin_stream(self, number: int, words: int, named: bool) -> None:
        """A stream begins, and stays open. Its name is taken."""

        async def begin() -> None:
            door, name = self.door(number), f"order-{next(self.payments)}" if named else ""
            possible = self.customer.outcomes(door, self.key)
            call = await self.customer.begin(door, self.key, words, name)
            await self._expect(MADE if isinstance(call, Running) else call, possible)
            if named and isinstance(call, Running) and self._open_to(door):
                await self._again(door, name, call.name, IN_PROGRESS)
                await self._again(door, name, f"not {call.name}", MISMATCH)

        self.run_async(begin())

    def _open_to(self, door: str) -> bool:
        return self.stage.service_of(door) in self.stage.services

    async def _again(self, door: str, name: str, prompt: str, outcome: Outcome) -> str:
        """A call under a name that is in use: nobody is asked, and nothing is charged."""
        asked = len(self.stage.upstream.requests)
        _, talk = await self.customer.post(
            door, self.key, Part(1), stream=bool(asked % 2), named=name, prompt=prompt
        )
        await talk.rest()
        assert (talk.status, talk.error) == outcome
        assert len(self.stage.upstream.requests) == asked
        assert (talk.headers.get("idempotency-replayed") == "true") == (outcome == MADE)
        return talk.text

    @living
    @precondition(lambda self: self.whole)
    @rule(number=ANY, which=ANY)
    def replay(self, number: int, which: int) -> None:
        """A call that was answered is made again: the same answer, or 422 for another question."""
        door, name = self.door(number), sorted(self.whole)[which % len(self.whole)]
        prompt, text = self.whole[name]

        async def ask_again() -> None:
            if self._open_to(door):
                assert await self._again(door, name, prompt, MADE) == text
                await self._again(door, name, f"not {prompt}", MISMATCH)

        self.run_async(ask_again())

    @running
    @rule(number=ANY, words=WORDS)
    def go_on(self, number: int, words: int) -> None:
        """A stream says more."""
        call = self.one(number)
        if call.words + words <= MAX_TOKENS:
            self.run_async(self.customer.say(call, words))

    @running
    @rule(number=ANY)
    def write_down(self, number: int) -> None:
        """A stream goes on until what it has cost is in the database."""
        call = self.one(number)

        async def say_until_noted() -> None:
            while call.words < MAX_TOKENS:
                await self.customer.say(call, 1)
                for row in await self.customer.rows():
                    if row.request_id == call.name and row.checkpoint is not None:
                        assert row.checkpoint <= price(call.entry.request_nano, call.words)
                        return
                await asyncio.sleep(0.2)  # Nobody announces it.

        self.run_async(say_until_noted())

    @running
    @rule(number=ANY)
    def finish(self, number: int) -> None:
        """A stream comes to its end."""
        self.run_async(self.customer.finish(self.one(number)))

    @running
    @rule(number=ANY)
    def leave(self, number: int) -> None:
        """A caller leaves, and pays for what was said."""
        call = self.one(number)
        call.talk.leave()
        self.customer.over(call)

    @running
    @rule(number=ANY)
    def break_off(self, number: int) -> None:
        """A provider hangs up: the caller is told, and pays for what was said."""
        call = self.one(number)

        async def break_off() -> None:
            call.part.orders.put_nowait(None)
            await call.talk.rest()
            assert (call.talk.error, call.talk.done) == ("upstream_disconnected", True)
            self.customer.over(call)

        self.run_async(break_off())

    @living
    @rule(calls=st.integers(2, 12))
    def rush(self, calls: int) -> None:
        """So many streams at once, over all doors: as many begin as there is money and room for."""
        self.run_async(self._rush(calls))

    async def _rush(self, calls: int) -> None:
        doors = [door for door in self.stage.doors if self._open_to(door)]
        if not doors:
            return
        customer, limit = self.customer, self.stage.limit
        hold = Entry(self.stage.request_nano).hold
        least = customer.expected.posted - customer.expected.held
        lost = sum(customer.expected.entries[name].hold for name in customer.expected.lost)
        room = calls if limit is None else max(0, limit - customer.occupied(self.key))
        sure = min(calls, max(0, least) // hold, max(0, room - self.key.ghosts))
        most = min(calls, max(0, least + lost) // hold, room)
        begun = await asyncio.gather(
            *(customer.begin(doors[n % len(doors)], self.key, 1) for n in range(calls))
        )
        admitted = [call for call in begun if isinstance(call, Running)]
        assert all(call in (POOR, BUSY) for call in begun if not isinstance(call, Running))
        if not sure <= len(admitted) <= most:
            assert await self.stage.counts_apart(), (sure, len(admitted), most)
            assert len(admitted) <= min(calls, max(0, least + lost) // hold)
        await asyncio.gather(*(customer.finish(call) for call in admitted))

    @living
    @rule(holds=st.integers(-3, 8))
    def pay(self, holds: int) -> None:
        """Money comes in, or goes out if nothing is done with it."""
        amount = holds * Entry(self.stage.request_nano).hold // 2
        expected = self.customer.expected

        async def pay() -> None:
            if amount >= 0 or expected.posted - expected.held >= -amount:
                await self._pay(amount)
            elif not expected.lost:
                try:
                    await self._pay(amount)
                except grpc.aio.AioRpcError as refusal:
                    assert refusal.code() is grpc.StatusCode.FAILED_PRECONDITION  # noqa: PT017
                else:
                    raise AssertionError("money was paid out that is not there")

        self.run_async(pay())

    @living
    @rule(limit=LIMITS, request=st.sampled_from([1_000_000, 2_000_000]))
    def reconfigure(self, limit: int | None, request: int) -> None:
        """Limits and prices change, for the calls that come from now on."""
        self.run_async(self.stage.reload(limit, request))

    @living
    @rule()
    def revoke(self) -> None:
        """The key is revoked at one service: its calls end at all of them, and it opens nothing."""

        async def revoke() -> None:
            key = self.key
            await self.stage.operators().revoke_key(key.id)
            for call in [call for call in self.customer.running if call.key is key]:
                await call.talk.rest()
                assert (call.talk.error, call.talk.done) == (REVOKED[1], True)
                self.customer.over(call)
            await self.customer.agree()
            for door in self.stage.doors:
                outcome = MADE
                while self._open_to(door) and outcome != REVOKED:
                    outcome = await self._refused(door)
                    # Only another process may not have heard of it yet.
                    assert outcome == REVOKED or self.stage.plan.shared, outcome
            await self._make_key()

        self.run_async(revoke())

    async def _refused(self, door: str) -> Outcome:
        """What becomes of a call with a revoked key."""
        entry = Entry(self.stage.request_nano)
        name, talk = await self.customer.post(door, self.key, Part(1), stream=False)
        await talk.rest()
        if talk.status == 200:
            self.customer.expected.entries[name] = entry
            entry.settled(1)
        outcome = REVOKED if talk.guessed else (talk.status, talk.error)
        assert outcome in (REVOKED, MADE, POOR, BUSY)
        return outcome

    @rule(number=ANY)
    def kill(self, number: int) -> None:
        """A process dies, at once."""
        alive = [name for name, member in self.stage.site.members.items() if member.running]
        if alive:
            self.run_async(self.customer.kill(alive[number % len(alive)]))

    @precondition(lambda self: not all(each.running for each in self.stage.site.members.values()))
    @rule()
    def revive(self) -> None:
        """The dead are started again."""
        self.run_async(self.stage.revive())

    @invariant()
    def books_are_right(self) -> None:
        """An audit finds nothing, and the account is as the model has it."""
        if self.keys:
            self.run_async(self.customer.agree(self.key))

    def teardown(self) -> None:
        """All runs to its end; nothing is held or taken, and the last free place can be had."""
        if self.keys:
            self.run_async(self._end())

    async def _end(self) -> None:
        await self.stage.revive()
        for call in list(self.customer.running):
            await self.customer.finish(call)
        await self.customer.agree(self.key)
        while self.customer.expected.lost:
            await asyncio.sleep(0.2)  # Until the leases of the dead are over.
            await self.customer.agree(self.key)
        assert self.customer.expected.held == 0
        await self.stage.reload(3, 1_000_000)
        await self._pay(5 * Entry(1_000_000).hold)
        for _ in range(2):
            # The second time shows that the first has left nothing behind.
            await self._rush(5)
            await self.customer.agree(self.key)
