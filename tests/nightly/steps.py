"""The steps of the state machine: events of a gateway and one account of it."""

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

from tests.stand.expected_books import MAX_TOKENS, STEP_NANO, TOKEN_NANO, ExpectedCall, price
from tests.stand.process_stand import Key, ProcessStand
from tests.stand.providers.stepwise import PlannedAnswer
from tests.stand.tracked_account import (
    BUSY,
    MADE,
    POOR,
    REVOKED,
    Outcome,
    RunningCall,
    TrackedAccount,
)

T = TypeVar("T")

STEP_S = 120.0
"""The timeout of a step. The lease of a killed fleet process takes 20 s."""

REFUSED_UPSTREAM: Outcome = (400, "upstream_invalid_request")
MISMATCH: Outcome = (422, "idempotency_mismatch")
IN_PROGRESS: Outcome = (409, "idempotency_in_progress")

MANY_WORDS = 5_000
"""Words of an answer that is far longer than its limit."""

WORDS = st.integers(1, 10)
LIMITS = st.sampled_from([None, 1, 2, 3])
ANY = st.integers(0, 1000)
"""A number that chooses among the existing processes, calls or keys."""

living = precondition(lambda self: self.stand.services and self.stand.edges)
running = precondition(lambda self: self.account.running)


class GatewayMachine(RuleBasedStateMachine):
    """A state machine of one account. Rules run in a thread, their work in the event loop."""

    loop: asyncio.AbstractEventLoop
    stand: ProcessStand

    def __init__(self) -> None:
        super().__init__()
        self.account = TrackedAccount(self.stand)
        self.payments = count()
        self.keys: list[Key] = []
        self.whole: dict[str, tuple[str, str]] = {}
        """Prompt and answer of completed calls, by idempotency key."""

    def run_async(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs work in the event loop, and keeps a failure, since a sequence may not fail again."""
        self.stand.trail.append(getattr(work, "__name__", ""))
        try:
            return asyncio.run_coroutine_threadsafe(work, self.loop).result(STEP_S)
        except Exception:
            trail = " ".join(self.stand.trail[-40:])
            self.stand.failures.append(f"{trail}\n{traceback.format_exc()}")
            raise

    @property
    def key(self) -> Key:
        """The valid key."""
        return self.keys[-1]

    def edge(self, number: int) -> str:
        """A running edge."""
        return self.stand.edges[number % len(self.stand.edges)]

    def one(self, number: int) -> RunningCall:
        """A call that runs."""
        return self.account.running[number % len(self.account.running)]

    @initialize(calls=st.integers(0, 12), limit=LIMITS)
    def begin(self, calls: int, limit: int | None) -> None:
        """Starts all processes, and credits money for some calls."""
        self.stand.trail.clear()

        async def open_account() -> None:
            await self.stand.revive()
            await self.stand.reload(limit, 1_000_000)
            await self._make_key()
            await self._pay(calls * ExpectedCall(self.stand.request_nano).hold)

        self.run_async(open_account())

    async def _make_key(self) -> None:
        self.keys.append(Key(*await self.stand.operators().create_key(self.account.name)))

    async def _pay(self, nano_usd: int) -> None:
        """Credits the account, twice under one request ID."""
        if not nano_usd:
            return
        name = f"{self.account.name}-payment-{next(self.payments)}"
        for _ in range(2):
            await self.stand.operators().credit(self.account.name, nano_usd, name)
        self.account.expected.credits += nano_usd

    @living
    @rule(number=ANY, words=WORDS, stream=st.booleans(), refused=st.booleans(), named=st.booleans())
    def call(self, number: int, words: int, stream: bool, refused: bool, named: bool) -> None:
        """Makes a call and awaits its end."""
        self.run_async(self._call(self.edge(number), words, stream, refused, named))

    async def _call(
        self, edge: str, words: int, stream: bool, refused: bool, named: bool
    ) -> Outcome:
        possible = self.account.outcomes(edge, self.key)
        entry = ExpectedCall(self.stand.request_nano)
        planned = PlannedAnswer(words, refused=refused)
        key_name = f"order-{next(self.payments)}" if named else ""
        name, answer = await self.account.post(
            edge, self.key, planned, stream=stream, named=key_name
        )
        await answer.read_to_end()
        outcome = (answer.status, answer.error)
        if outcome == REFUSED_UPSTREAM and refused:
            self.account.expected.entries[name] = entry
            entry.voided()
            outcome = MADE
        elif outcome == MADE:
            assert not refused
            self.account.expected.entries[name] = entry
            entry.settled(words)
            assert answer.words == words
            if named:
                self.whole[key_name] = name, answer.text
        await self._expect(outcome, possible)
        return outcome

    async def _expect(self, outcome: Outcome, possible: Collection[Outcome]) -> None:
        """Checks an outcome. Limits that a process counted alone for a moment are not exact."""
        if outcome not in possible:
            assert {outcome, *possible} <= {BUSY, MADE, POOR}, (outcome, possible)
            assert await self.stand.counts_apart(), (outcome, possible)

    @living
    @rule(number=ANY, words=WORDS, named=st.booleans())
    def begin_stream(self, number: int, words: int, named: bool) -> None:
        """Begins a stream that stays open and keeps its idempotency key in use."""

        async def begin() -> None:
            edge, name = self.edge(number), f"order-{next(self.payments)}" if named else ""
            possible = self.account.outcomes(edge, self.key)
            call = await self.account.begin(edge, self.key, words, name)
            await self._expect(MADE if isinstance(call, RunningCall) else call, possible)
            if named and isinstance(call, RunningCall) and self._open_to(edge):
                await self._again(edge, name, call.name, IN_PROGRESS)
                await self._again(edge, name, f"not {call.name}", MISMATCH)

        self.run_async(begin())

    def _open_to(self, edge: str) -> bool:
        return self.stand.service_of(edge) in self.stand.services

    async def _again(self, edge: str, name: str, prompt: str, outcome: Outcome) -> str:
        """Makes a call with a used idempotency key: no provider is asked, nothing is charged."""
        asked = len(self.stand.upstream.requests)
        _, answer = await self.account.post(
            edge, self.key, PlannedAnswer(1), stream=bool(asked % 2), named=name, prompt=prompt
        )
        await answer.read_to_end()
        assert (answer.status, answer.error) == outcome
        assert len(self.stand.upstream.requests) == asked
        assert (answer.headers.get("idempotency-replayed") == "true") == (outcome == MADE)
        return answer.text

    @living
    @precondition(lambda self: self.whole)
    @rule(number=ANY, which=ANY)
    def replay(self, number: int, which: int) -> None:
        """Repeats a completed call: a replay, or 422 for another prompt."""
        edge, name = self.edge(number), sorted(self.whole)[which % len(self.whole)]
        prompt, text = self.whole[name]

        async def ask_again() -> None:
            if self._open_to(edge):
                assert await self._again(edge, name, prompt, MADE) == text
                await self._again(edge, name, f"not {prompt}", MISMATCH)

        self.run_async(ask_again())

    @running
    @rule(number=ANY, words=WORDS)
    def go_on(self, number: int, words: int) -> None:
        """Sends more words of a stream."""
        call = self.one(number)
        if call.words + words <= MAX_TOKENS:
            self.run_async(self.account.say(call, words))

    @running
    @rule(number=ANY)
    def write_down(self, number: int) -> None:
        """Continues a stream until its checkpoint is in the database."""
        call = self.one(number)

        async def say_until_noted() -> None:
            while call.words < MAX_TOKENS:
                await self.account.say(call, 1)
                for row in await self.account.rows():
                    if row.request_id == call.name and row.checkpoint is not None:
                        assert row.checkpoint <= price(call.entry.request_nano, call.words)
                        return
                await asyncio.sleep(0.2)  # Nobody announces it.

        self.run_async(say_until_noted())

    @running
    @rule(number=ANY)
    def finish(self, number: int) -> None:
        """Ends a stream."""
        self.run_async(self.account.finish(self.one(number)))

    @running
    @rule(number=ANY, rich=st.booleans())
    def outrun(self, number: int, rich: bool) -> None:
        """Sends far more than a stream's hold: it goes on if there is money, and ends if not."""
        if not self.account.expected.lost:
            self.run_async(self._outrun(self.one(number), rich))

    async def _outrun(self, call: RunningCall, rich: bool) -> None:
        account, expected = self.account, self.account.expected
        if rich:
            await self._pay(2 * MANY_WORDS * TOKEN_NANO + 2 * STEP_NANO)
            await account.say(call, MANY_WORDS)
            await account.finish(call)
            self.stand.seen["holds extended"] += 1
            return
        free = expected.posted - expected.held
        if free < MANY_WORDS // 2 * TOKEN_NANO:
            await account.outrun(call, MANY_WORDS)
            self.stand.seen["ended without money"] += 1

    @running
    @rule(number=ANY)
    def leave(self, number: int) -> None:
        """Disconnects a caller, which is charged for the words so far."""
        call = self.one(number)
        call.answer.leave()
        self.account.over(call)

    @running
    @rule(number=ANY)
    def break_off(self, number: int) -> None:
        """Closes a provider's connection: the caller gets an error and the charge so far."""
        call = self.one(number)

        async def break_off() -> None:
            call.planned.steps.put_nowait(None)
            await call.answer.read_to_end()
            assert (call.answer.error, call.answer.done) == ("upstream_disconnected", True)
            self.account.over(call)

        self.run_async(break_off())

    @living
    @rule(calls=st.integers(2, 12))
    def rush(self, calls: int) -> None:
        """Begins streams at once at all edges: as many as money and limit allow are admitted."""
        self.run_async(self._rush(calls))

    async def _rush(self, calls: int) -> None:
        edges = [edge for edge in self.stand.edges if self._open_to(edge)]
        if not edges:
            return
        account, limit = self.account, self.stand.limit
        hold = ExpectedCall(self.stand.request_nano).hold
        least = account.expected.posted - account.expected.held
        lost = sum(account.expected.entries[name].hold for name in account.expected.lost)
        room = calls if limit is None else max(0, limit - account.occupied(self.key))
        sure = min(calls, max(0, least) // hold, max(0, room - self.key.orphaned_places))
        most = min(calls, max(0, least + lost) // hold, room)
        begun = await asyncio.gather(
            *(account.begin(edges[n % len(edges)], self.key, 1) for n in range(calls))
        )
        admitted = [call for call in begun if isinstance(call, RunningCall)]
        assert all(call in (POOR, BUSY) for call in begun if not isinstance(call, RunningCall))
        if not sure <= len(admitted) <= most:
            assert await self.stand.counts_apart(), (sure, len(admitted), most)
            assert len(admitted) <= min(calls, max(0, least + lost) // hold)
        await asyncio.gather(*(account.finish(call) for call in admitted))

    @living
    @rule(holds=st.integers(-3, 8))
    def pay(self, holds: int) -> None:
        """Credits money, or debits what is not held."""
        amount = holds * ExpectedCall(self.stand.request_nano).hold // 2
        expected = self.account.expected

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
        """Changes limits and prices for new calls."""
        self.run_async(self.stand.reload(limit, request))

    @living
    @rule()
    def revoke(self) -> None:
        """Revokes the key at one service: all services end its calls and refuse new ones."""

        async def revoke() -> None:
            key = self.key
            await self.stand.operators().revoke_key(key.id)
            for call in [call for call in self.account.running if call.key is key]:
                await call.answer.read_to_end()
                assert (call.answer.error, call.answer.done) == (REVOKED[1], True)
                self.account.over(call)
            await self.account.agree()
            for edge in self.stand.edges:
                outcome = MADE
                while self._open_to(edge) and outcome != REVOKED:
                    outcome = await self._refused(edge)
                    # Only another process may not have heard of it yet.
                    assert outcome == REVOKED or self.stand.plan.shared, outcome
            await self._make_key()

        self.run_async(revoke())

    async def _refused(self, edge: str) -> Outcome:
        """The outcome of a call with a revoked key."""
        entry = ExpectedCall(self.stand.request_nano)
        name, answer = await self.account.post(edge, self.key, PlannedAnswer(1), stream=False)
        await answer.read_to_end()
        if answer.status == 200:
            self.account.expected.entries[name] = entry
            entry.settled(1)
        outcome = REVOKED if answer.guessed else (answer.status, answer.error)
        assert outcome in (REVOKED, MADE, POOR, BUSY)
        return outcome

    @rule(number=ANY)
    def kill(self, number: int) -> None:
        """Kills a process."""
        alive = [name for name, server in self.stand.deployment.servers.items() if server.running]
        if alive:
            self.run_async(self.account.kill(alive[number % len(alive)]))

    @precondition(
        lambda self: not all(each.running for each in self.stand.deployment.servers.values())
    )
    @rule()
    def revive(self) -> None:
        """Starts all processes that do not run."""
        self.run_async(self.stand.revive())

    @invariant()
    def books_are_right(self) -> None:
        """Checks that an audit finds nothing, and that the account is as in the model."""
        if self.keys:
            self.run_async(self.account.agree(self.key))

    def teardown(self) -> None:
        """Ends all calls: nothing is held, and the whole concurrency limit is free."""
        if self.keys:
            self.run_async(self._end())

    async def _end(self) -> None:
        await self.stand.revive()
        for call in list(self.account.running):
            await self.account.finish(call)
        await self.account.agree(self.key)
        while self.account.expected.lost:
            await asyncio.sleep(0.2)  # Until the leases of the dead are over.
            await self.account.agree(self.key)
        assert self.account.expected.held == 0
        await self.stand.reload(3, 1_000_000)
        await self._pay(5 * ExpectedCall(1_000_000).hold)
        for _ in range(2):
            # The second time shows that the first has left nothing behind.
            await self._rush(5)
            await self.account.agree(self.key)
