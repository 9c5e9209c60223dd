"""Kills a gateway at random moments under load, again and again, and audits its books.

    python -m tests.nightly.kill_cycles [--cycles 1000] [--topology single|split] [--seed N]

Every cycle: start what is dead, audit, let callers and a payer loose, `kill -9` at a
random moment (sometimes before it even serves). In the split topology the service, the
edge or both die. At the end every call and every payment is held against the books:

    a call has at most one hold, and one that was refused has cost nothing
    an answer that came whole costs what it said it does; only what the service's death
    caught on the way to the disk may cost less, and it is counted
    a payment that was acknowledged is there once
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import aiohttp
import grpc

from services.clock import SystemClock
from services.storage.accounts import account_by_name
from services.storage.audit import audit
from services.storage.base import Transaction
from services.storage.sqlite import SqliteDatabase
from tests.end_to_end.fleet import Member, both, edge, operators, service
from tests.fakes.upstream import (
    LAST_CHUNK,
    RESET,
    SSE_HEAD,
    FakeUpstream,
    Line,
    Request,
    Script,
    json_answer,
    sse,
)

Topology = Literal["single", "split"]

ACCOUNT = "acme"
CALLERS = 16
FIRST_CREDIT = 10**15
REQUEST_NANO = 1_000_000
TOKEN_NANO = 10_000
PIECES_MAX = 12
LOAD_S = (0.4, 0.4, 0.4, 0.4, 0.4, 3.0)
"""The longest time from the start of the load to the kill: seldom long enough for checkpoints."""
PAUSE_S = (0.03, 0.03, 0.03, 0.5)
"""The longest time between two pieces of an answer."""
STILLBORN = 0.1
"""The share of starts that are killed before they serve."""

CONFIG = """
[[channels]]
name = "house"
dialect = "openai"
base_url = "{url}"
models = {{ "house/model" = "m" }}

[[models]]
name = "house/model"
request_usd = 0.001
completion_usd_per_mtok = 10
"""


@dataclass(slots=True)
class Call:
    """What a caller knows of its call."""

    cycle: int
    """When it was made."""
    status: int = 0
    """0: nobody answered."""
    tokens: int | None = None
    """What a whole answer said it took. None: it did not come whole."""
    whole_at: float = 0.0
    """When it had come whole."""


@dataclass(slots=True)
class Tally:
    """What is to be held against the books."""

    calls: dict[str, Call] = field(default_factory=dict)
    """All calls, by their request ID."""
    credits: dict[str, int] = field(default_factory=dict)
    """All payments that were acknowledged, by their request ID."""
    killed_at: dict[int, float] = field(default_factory=dict)
    """When the service died, by cycle."""
    kills: Counter[str] = field(default_factory=Counter)
    """Whom it hit, how often."""


class Provider:
    """Answers at its own pace; now and then it fails, before or after the beginning."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def __call__(self, request: Request) -> Script:
        """A stream, or a whole answer where none was asked for."""
        chance = self._chance
        pause = partial(self._pause, chance.choice(PAUSE_S))
        if chance.random() < 0.05:
            return [json_answer({"error": {"message": "No."}}, 400)]
        tokens = chance.randrange(1, PIECES_MAX)
        usage = {
            "prompt_tokens": 1,
            "completion_tokens": tokens,
            "total_tokens": tokens + 1,
        }
        if not request.json().get("stream"):
            message = {"role": "assistant", "content": "word " * tokens}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return [pause, json_answer({"id": "1", "choices": [choice], "usage": usage})]
        steps: list[Any] = [SSE_HEAD]
        for _ in range(tokens):
            steps += [sse(_piece({"content": "word "})), pause]
        if chance.random() < 0.05:
            return [*steps, RESET]
        last = {"choices": [], "usage": usage}
        return [*steps, sse(_piece({}, "stop"), last, "[DONE]"), LAST_CHUNK]

    async def _pause(self, most_s: float, _line: Line) -> None:
        await asyncio.sleep(self._chance.random() * most_s)


def _piece(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "1", "choices": [choice]}


class Cycles:
    """The gateway, who uses it, and who kills it."""

    def __init__(
        self, directory: Path, url: str, topology: Topology, chance: random.Random
    ) -> None:
        config = directory / "pomogator.toml"
        config.write_text(CONFIG.format(url=url))
        self.state = directory / "state"
        self.tally = Tally()
        self._chance = chance
        self._key = ""
        self._members: dict[str, Member] = (
            {"both": both(self.state, config)}
            if topology == "single"
            else {"service": service(self.state, config), "edge": edge(self.state)}
        )
        self._url = ""

    async def prepare(self) -> None:
        """The first start: an account with money, and a key."""
        await self._revive()
        async with operators(self.state) as ops:
            _, self._key = await ops.create_key(ACCOUNT)
            await ops.credit(ACCOUNT, FIRST_CREDIT, "first")
        self.tally.credits["first"] = FIRST_CREDIT

    async def run(self, cycle: int) -> None:
        """One cycle. AssertionError where the books are wrong."""
        await self._revive()
        await self._audit()
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {self._key}"}) as http:
            stop = asyncio.Event()
            load = [asyncio.create_task(self._call(http, cycle, n, stop)) for n in range(CALLERS)]
            load.append(asyncio.create_task(self._pay(cycle, stop)))
            await asyncio.sleep(self._chance.random() * self._chance.choice(LOAD_S))
            await self._kill(cycle)
            stop.set()
            await asyncio.gather(*load)

    async def finish(self) -> Sequence[str]:
        """Ends what runs in peace, and holds calls and payments against the books."""
        await self._revive()
        await self._audit()
        for member in reversed(self._members.values()):
            await member.end()
        return await reconcile(self.state, self.tally)

    async def end(self) -> None:
        """Ends what runs."""
        for member in self._members.values():
            await member.end()

    async def _revive(self) -> None:
        for member in self._members.values():
            if not member.alive and self._chance.random() < STILLBORN:
                await member.spawn()
                await asyncio.sleep(self._chance.random())
                await member.end()
                self.tally.kills["newborn"] += 1
        for name, member in self._members.items():
            if not member.alive:
                address = await member.start()
                self._url = self._url if name == "service" else f"http://{address}"

    async def _audit(self) -> None:
        """The books are right, and nothing stays held: nobody calls at the moment."""
        async with operators(self.state) as ops:
            result = await ops.verify()
            while result.counts["held"]:
                assert not result.findings, result
                await asyncio.sleep(0.05)
                result = await ops.verify()
            assert not result.findings, result

    async def _kill(self, cycle: int) -> None:
        names = list(self._members)
        if len(names) > 1:
            names = self._chance.choice([["service"], ["edge"], names])
        self.tally.kills[" and ".join(names)] += 1
        if names != ["edge"]:
            self.tally.killed_at[cycle] = time.monotonic()
        await asyncio.gather(*(self._members[name].end() for name in names))

    async def _call(
        self, http: aiohttp.ClientSession, cycle: int, caller: int, stop: asyncio.Event
    ) -> None:
        """Calls, one after the other, until somebody dies."""
        number = 0
        while not stop.is_set():
            number += 1
            request_id = f"call-{cycle}-{caller}-{number}"
            call = self.tally.calls[request_id] = Call(cycle)
            with suppress(aiohttp.ClientError, ConnectionError):
                await self._ask(http, request_id, call)
            if self._chance.random() < 0.1:
                await asyncio.sleep(0.01)

    async def _ask(self, http: aiohttp.ClientSession, request_id: str, call: Call) -> None:
        streams = self._chance.random() < 0.7
        body = {
            "model": "house/model",
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 50,
            "stream": streams,
        }
        if streams:
            body["stream_options"] = {"include_usage": True}
        headers = {"X-Request-Id": request_id}
        url = f"{self._url}/v1/chat/completions"
        async with http.post(url, json=body, headers=headers) as answer:
            call.status = answer.status
            leaves = streams and self._chance.random() < 0.1
            if leaves:
                await answer.content.readline()
                return
            data = await answer.read()
        if answer.status == 200:
            call.tokens = (
                _tokens(data) if streams else json.loads(data)["usage"]["completion_tokens"]
            )
            call.whole_at = time.monotonic()

    async def _pay(self, cycle: int, stop: asyncio.Event) -> None:
        """Pays in, a little at a time; asks again under the same name where nobody answered."""
        async with operators(self.state) as ops:
            for number in range(1_000_000):
                if stop.is_set():
                    return
                request_id = f"payment-{cycle}-{number}"
                with suppress(grpc.aio.AioRpcError):
                    await ops.credit(ACCOUNT, 1 + number, request_id)
                    await ops.credit(ACCOUNT, 1 + number, request_id)
                    self.tally.credits[request_id] = 1 + number
                await asyncio.sleep(0.02)


def _tokens(stream: bytes) -> int | None:
    """What the usage at the end of a stream says; None where it broke off."""
    data = [line[6:] for line in stream.splitlines() if line.startswith(b"data: ")]
    if len(data) < 2 or data[-1] != b"[DONE]":
        return None
    usage = json.loads(data[-2]).get("usage")
    return None if usage is None else int(usage["completion_tokens"])


async def reconcile(state: Path, tally: Tally) -> Sequence[str]:
    """Holds what callers know against the books; says what came out. The state is not in use."""
    database = await SqliteDatabase.open(state, SystemClock())
    try:
        result = await database.read(audit)
        holds = await database.read(_holds)
        payments = await database.read(_credits)
        account = await database.read(account_by_name, ACCOUNT)
    finally:
        await database.close()
    assert result.findings == (), result.findings
    assert account is not None
    assert account.held == 0
    assert len(holds) == len({request_id for request_id, _, _ in holds}), "two holds for a call"
    ends = {request_id: (end, charge) for request_id, end, charge in holds}
    assert ends.keys() <= tally.calls.keys()
    for request_id, amount in tally.credits.items():
        assert payments[request_id] == amount, request_id
    assert account.posted == sum(payments.values()) - sum(charge for _, charge in ends.values())

    ages = []
    for request_id, call in tally.calls.items():
        end, charge = ends.get(request_id, ("none", 0))
        if call.tokens is None:
            assert call.status in (0, 200) or charge == 0, (request_id, call, end, charge)
            continue
        due = REQUEST_NANO + call.tokens * TOKEN_NANO
        if (end, charge) == ("settled", due):
            continue
        # Whole, but its settlement was still on its way when the service died.
        assert call.cycle in tally.killed_at, (request_id, call, end, charge)
        assert end in ("recovered", "voided"), (request_id, call, end, charge)
        assert charge <= due, (request_id, call, end, charge)
        ages.append(tally.killed_at[call.cycle] - call.whole_at)
    whole = sum(call.tokens is not None for call in tally.calls.values())
    return (
        f"kills {dict(tally.kills)}",
        f"books {dict(result.counts)}",
        f"calls {len(tally.calls)}, of which {whole} came whole",
        f"payments acknowledged {len(tally.credits)}, in the books {len(payments)}",
        f"whole answers not billed in full, since the service died on the way: {len(ages)}"
        + (f", the oldest {max(ages) * 1000:.0f} ms before its death" if ages else ""),
    )


def _holds() -> Transaction[Sequence[tuple[str, str, int]]]:
    rows = yield "SELECT request_id, state, charge FROM holds", ()
    return [(str(request_id), str(end), int(str(charge))) for request_id, end, charge in rows]


def _credits() -> Transaction[dict[str, int]]:
    rows = yield "SELECT substr(id, 8), amount FROM transfers WHERE id LIKE 'credit:%'", ()
    return {str(request_id): int(str(amount)) for request_id, amount in rows}


async def run(directory: Path, topology: Topology, cycles: int, seed: int) -> Sequence[str]:
    """So many cycles; what came out. AssertionError where money was lost or doubled."""
    chance = random.Random(seed)  # noqa: S311 - a cause of trouble, not a secret
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(FakeUpstream())
        upstream.play(Provider(chance))
        runs = Cycles(directory, upstream.url, topology, chance)
        stack.push_async_callback(runs.end)
        await runs.prepare()
        for cycle in range(cycles):
            await runs.run(cycle)
            if cycle % 50 == 49:
                _say(f"{cycle + 1} cycles, {len(runs.tally.calls)} calls")
        return await runs.finish()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Runs as the command line says."""
    parser = argparse.ArgumentParser(description="Kill a gateway under load; audit its books.")
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--topology", choices=("single", "split"), default="single")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    arguments = parser.parse_args()
    _say(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory(prefix="pomogator-kills-") as directory:
        lines = asyncio.run(
            run(Path(directory), arguments.topology, arguments.cycles, arguments.seed)
        )
    for line in lines:
        _say(line)


if __name__ == "__main__":
    main()
