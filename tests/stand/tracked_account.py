"""One account of a gateway, whose charges are all predicted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import count

from tests.stand.answer_reader import AnswerReader
from tests.stand.expected_books import MAX_TOKENS, ExpectedBooks, ExpectedCall
from tests.stand.holds import HoldRow, holds_of
from tests.stand.process_stand import Key, ProcessStand
from tests.stand.providers.stepwise import PlannedAnswer

Outcome = tuple[int, str]
"""A status, and the code of the error."""

MADE: Outcome = (200, "")
REVOKED: Outcome = (401, "key_revoked")
POOR: Outcome = (402, "insufficient_quota")
BUSY: Outcome = (429, "rate_limit_exceeded")
DOWN: Outcome = (503, "service_unavailable")

_names = count()


@dataclass(slots=True)
class RunningCall:
    """A stream that has begun, and goes on when the test says so."""

    name: str
    entry: ExpectedCall
    key: Key
    edge: str
    service: str
    """The name of the process that has its hold."""
    planned: PlannedAnswer
    answer: AnswerReader
    counted: bool
    """Whether it takes a slot of the key's concurrency limit."""
    words: int
    """The number of words that were sent and received."""


@dataclass(slots=True)
class TrackedAccount:
    """One account, its expected books and its running calls."""

    stand: ProcessStand
    name: str = field(default_factory=lambda: f"acme-{next(_names)}")
    expected: ExpectedBooks = field(default_factory=ExpectedBooks)
    running: list[RunningCall] = field(default_factory=list)
    numbers: count[int] = field(default_factory=count)

    def occupied(self, key: Key) -> int:
        """The concurrency slots that calls of a key take."""
        return sum(call.counted and call.key is key for call in self.running)

    def outcomes(self, edge: str, key: Key) -> Collection[Outcome]:
        """The possible outcomes of a call: several only while dead processes hold something."""
        if self.stand.service_of(edge) not in self.stand.services:
            return {DOWN}
        limit, occupied = self.stand.limit, self.occupied(key)
        if limit is not None and occupied >= limit:
            return {BUSY}
        least = self.expected.posted - self.expected.held
        lost = sum(self.expected.entries[name].hold for name in self.expected.lost)
        hold = ExpectedCall(self.stand.request_nano).hold
        possible = {MADE} if least >= hold else {POOR, MADE} if least + lost >= hold else {POOR}
        return possible | (
            {BUSY} if limit is not None and occupied + key.orphaned_places >= limit else set()
        )

    async def post(
        self,
        edge: str,
        key: Key,
        planned: PlannedAnswer,
        *,
        stream: bool,
        named: str = "",
        prompt: str = "",
    ) -> tuple[str, AnswerReader]:
        """Makes a call. Its request ID is also its prompt, unless `prompt` is given."""
        name = f"{self.name}-{next(self.numbers)}"
        self.stand.provider.answers.setdefault(prompt or name, planned)
        headers = {"Authorization": f"Bearer {key.secret}", "X-Request-Id": name}
        if named:
            headers["Idempotency-Key"] = named
        body = {
            "model": "house/model",
            "messages": [{"role": "user", "content": prompt or name}],
            "max_tokens": MAX_TOKENS,
            "stream": stream,
        }
        if stream:
            body["stream_options"] = {"include_usage": True}
        url = self.stand.deployment.url(edge) + "/v1/chat/completions"
        answer = AnswerReader(await self.stand.client.http.post(url, json=body, headers=headers))
        if answer.status != 200:
            await answer.read_to_end()
        self.stand.seen[answer.error or "made"] += 1
        return name, answer

    async def begin(
        self, edge: str, key: Key, words: int, named: str = ""
    ) -> RunningCall | Outcome:
        """A stream that has sent this many words and stays open; or the outcome of its refusal."""
        planned = PlannedAnswer(words, held=True)
        request_nano, counted = self.stand.request_nano, self.stand.limit is not None
        name, answer = await self.post(edge, key, planned, stream=True, named=named)
        if answer.status != 200:
            return answer.status, answer.error
        entry = self.expected.entries[name] = ExpectedCall(request_nano)
        await answer.read_words(words)
        service = self.stand.service_of(edge)
        call = RunningCall(name, entry, key, edge, service, planned, answer, counted, words)
        self.running.append(call)
        return call

    async def say(self, call: RunningCall, words: int) -> None:
        """Sends more words, and waits until the caller has them."""
        call.planned.steps.put_nowait(words)
        call.words += words
        await call.answer.read_words(call.words)

    async def finish(self, call: RunningCall) -> None:
        """Ends the answer, which is charged by its usage."""
        call.planned.steps.put_nowait(0)
        await call.answer.read_to_end()
        self.over(call)
        assert (call.answer.words, call.answer.error, call.answer.done) == (call.words, "", True)
        assert call.answer.usage is not None
        assert call.answer.usage["completion_tokens"] == call.words

    async def outrun(self, call: RunningCall, words: int) -> None:
        """Sends far more words than the hold and the balance cover: the call ends."""
        free = self.expected.posted - self.expected.held
        call.planned.steps.put_nowait(words)
        await call.answer.read_to_end()
        assert (call.answer.error, call.answer.done) == (POOR[1], True)
        self.over(call)
        call.entry.outran(free)

    def over(self, call: RunningCall) -> None:
        """Expects that the call has ended and its words are charged."""
        self.running.remove(call)
        call.entry.settled(call.words)

    async def rows(self) -> Sequence[HoldRow]:
        """The account's holds in the database."""
        return await holds_of(
            self.name, self.stand.deployment.states[0], self.stand.deployment.database_url
        )

    async def kill(self, server: str) -> None:
        """Kills a process. A service loses what its calls have not checkpointed."""
        stand = self.stand
        checkpoints = {row.request_id: row.checkpoint for row in await self.rows()}
        is_service = server in stand.deployment.services
        hit = [call for call in self.running if server in (call.edge, call.service)]
        await stand.deployment.kill(server)
        stand.seen["services killed" if is_service else "edges killed"] += 1
        for call in hit:
            await call.answer.read_to_end()
            assert call.answer.words == call.words
            # A door that lives says what happened; one that died says nothing more.
            told = call.edge in stand.edges
            assert (call.answer.error, call.answer.done) == (DOWN[1] if told else "", told)
            self.over(call)
            if is_service:
                call.entry.orphaned(call.words, checkpoints.get(call.name))
                call.key.orphaned_places += call.counted and bool(stand.valkey_url)

    async def agree(self, *keys: Key) -> None:
        """Returns once the books are as expected. AssertionError where they cannot be."""
        if not self.stand.services:
            return
        ops = self.stand.operators()
        while True:
            audit = await ops.verify()
            assert not audit.findings, audit
            before = await self.rows()
            complete = self.expected.see(before)
            account = await ops.account(self.name)
            same = Counter(before) == Counter(await self.rows())
            if complete and same:
                posted, held = account.balance_nano_usd, account.held_nano_usd
                assert (posted, held) == (self.expected.posted, self.expected.held)
                break
            await asyncio.sleep(0.01)  # The outbox announces nothing.
        for key in keys:
            await self._places_agree(key)

    async def _places_agree(self, key: Key) -> None:
        """Waits until the taken slots are those of running calls and of dead processes."""
        occupied = self.occupied(key)
        while (places := await self.stand.places(key)) is not None:
            if (
                occupied <= places <= occupied + key.orphaned_places
                or await self.stand.counts_apart()
            ):
                return
            await asyncio.sleep(0.01)
