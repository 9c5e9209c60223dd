"""One account of a gateway, every cent of which is followed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import count

from tests.nightly.expected import MAX_TOKENS, Entry, Expected
from tests.nightly.system import Key, Stage
from tests.stand.answer_reader import Talk
from tests.stand.holds import HoldSeen, holds_of
from tests.stand.providers.stepwise import Part

Outcome = tuple[int, str]
"""A status, and the code of the error."""

MADE: Outcome = (200, "")
REVOKED: Outcome = (401, "key_revoked")
POOR: Outcome = (402, "insufficient_quota")
BUSY: Outcome = (429, "rate_limit_exceeded")
DOWN: Outcome = (503, "service_unavailable")

_names = count()


@dataclass(slots=True)
class Running:
    """A call that has begun to be answered, and goes on when it is told to."""

    name: str
    entry: Entry
    key: Key
    door: str
    service: str
    """The process that has its hold."""
    part: Part
    talk: Talk
    counted: bool
    """Whether it has a place of those that are limited."""
    words: int
    """How many were said; as many were heard."""


@dataclass(slots=True)
class Customer:
    """One account, and all that is known of it."""

    stage: Stage
    account: str = field(default_factory=lambda: f"acme-{next(_names)}")
    expected: Expected = field(default_factory=Expected)
    running: list[Running] = field(default_factory=list)
    numbers: count[int] = field(default_factory=count)

    def occupied(self, key: Key) -> int:
        """The limited places that calls of a key have."""
        return sum(call.counted and call.key is key for call in self.running)

    def outcomes(self, door: str, key: Key) -> Collection[Outcome]:
        """What may become of a call. More than one thing only while the dead hold something."""
        if self.stage.service_of(door) not in self.stage.services:
            return {DOWN}
        limit, occupied = self.stage.limit, self.occupied(key)
        if limit is not None and occupied >= limit:
            return {BUSY}
        least = self.expected.posted - self.expected.held
        lost = sum(self.expected.entries[name].hold for name in self.expected.lost)
        hold = Entry(self.stage.request_nano).hold
        possible = {MADE} if least >= hold else {POOR, MADE} if least + lost >= hold else {POOR}
        return possible | (
            {BUSY} if limit is not None and occupied + key.ghosts >= limit else set()
        )

    async def post(
        self, door: str, key: Key, part: Part, *, stream: bool, named: str = "", prompt: str = ""
    ) -> tuple[str, Talk]:
        """Makes a call; its name is its prompt, too, unless that is another's."""
        name = f"{self.account}-{next(self.numbers)}"
        self.stage.puppet.parts.setdefault(prompt or name, part)
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
        url = self.stage.site.url(door) + "/v1/chat/completions"
        answer = await self.stage.visit.http.post(url, json=body, headers=headers)
        talk = Talk(answer)
        if talk.status != 200:
            await talk.rest()
        self.stage.seen[talk.error or "made"] += 1
        return name, talk

    async def begin(self, door: str, key: Key, words: int, named: str = "") -> Running | Outcome:
        """A stream that has said so many words, and stays open; or why it was refused."""
        part = Part(words, held=True)
        request_nano, counted = self.stage.request_nano, self.stage.limit is not None
        name, talk = await self.post(door, key, part, stream=True, named=named)
        if talk.status != 200:
            return talk.status, talk.error
        entry = self.expected.entries[name] = Entry(request_nano)
        await talk.hear(words)
        service = self.stage.service_of(door)
        call = Running(name, entry, key, door, service, part, talk, counted, words)
        self.running.append(call)
        return call

    async def say(self, call: Running, words: int) -> None:
        """The provider goes on, and the caller hears it."""
        call.part.orders.put_nowait(words)
        call.words += words
        await call.talk.hear(call.words)

    async def finish(self, call: Running) -> None:
        """The provider comes to the end: the whole answer is charged as it says."""
        call.part.orders.put_nowait(0)
        await call.talk.rest()
        self.over(call)
        assert (call.talk.words, call.talk.error, call.talk.done) == (call.words, "", True)
        assert call.talk.usage is not None
        assert call.talk.usage["completion_tokens"] == call.words

    def over(self, call: Running) -> None:
        """It runs no more: what was said is charged."""
        self.running.remove(call)
        call.entry.settled(call.words)

    async def rows(self) -> Sequence[HoldSeen]:
        """The holds of the account, as they are."""
        return await holds_of(self.account, self.stage.site.states[0], self.stage.site.database_url)

    async def kill(self, member: str) -> None:
        """A process dies, and with a service what its calls have not written down."""
        stage = self.stage
        checkpoints = {row.request_id: row.checkpoint for row in await self.rows()}
        is_service = member in stage.site.services
        hit = [call for call in self.running if member in (call.door, call.service)]
        await stage.site.kill(member)
        stage.seen["services killed" if is_service else "edges killed"] += 1
        for call in hit:
            await call.talk.rest()
            assert call.talk.words == call.words
            # A door that lives says what happened; one that died says nothing more.
            told = call.door in stage.doors
            assert (call.talk.error, call.talk.done) == (DOWN[1] if told else "", told)
            self.over(call)
            if is_service:
                call.entry.orphaned(call.words, checkpoints[call.name])
                call.key.ghosts += call.counted and bool(stage.valkey_url)

    async def agree(self, *keys: Key) -> None:
        """Returns when the books say what they must. AssertionError where they never will."""
        if not self.stage.services:
            return
        ops = self.stage.operators()
        while True:
            audit = await ops.verify()
            assert not audit.findings, audit
            before = await self.rows()
            complete = self.expected.see(before)
            account = await ops.account(self.account)
            same = Counter(before) == Counter(await self.rows())
            if complete and same:
                posted, held = account.balance_nano_usd, account.held_nano_usd
                assert (posted, held) == (self.expected.posted, self.expected.held)
                break
            await asyncio.sleep(0.01)  # The outbox announces nothing.
        for key in keys:
            await self._places_agree(key)

    async def _places_agree(self, key: Key) -> None:
        """As many places are taken as calls run, but for those of the dead."""
        occupied = self.occupied(key)
        while (places := await self.stage.places(key)) is not None:
            if occupied <= places <= occupied + key.ghosts or await self.stage.counts_apart():
                return
            await asyncio.sleep(0.01)
