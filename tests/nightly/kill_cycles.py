"""Kills a gateway at random moments under load, again and again, and audits its books.

    python -m tests.nightly.kill_cycles [--cycles 1000] [--topology single|split|fleet]
        [--database sqlite|postgres] [--seed N]

Every cycle: start what is dead, audit, let callers and a payer loose, `kill -9` at a random
moment (sometimes before it even serves). In the split topology the service, the edge or both
die; in the fleet some of four services on one PostgreSQL. What a process on PostgreSQL held is
released once its lease is over. At the end every call and every payment is held against the
books:

    a call has at most one hold, and one that was refused has cost nothing
    an answer that came whole costs what it said it does; only what the service's death
    caught on the way to the disk may cost less, and it is counted
    an answer that costs more than its hold extends it, and the extensions are released with it
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
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Literal

import aiohttp
import grpc

from tests.nightly.reconciliation import ACCOUNT, Call, Tally, reconcile
from tests.stand.configuration import configuration
from tests.stand.databases import DATABASE_KINDS, empty_database
from tests.stand.deployment import PLANS, Deployment, Plan
from tests.stand.operators import operators
from tests.stand.providers.overlong import PIECE_TOKENS, PROMPT, TOKENS, OverlongAnswers
from tests.stand.providers.unreliable import UnreliableProvider
from tests.stand.upstream import FakeUpstream

Topology = Literal["single", "split", "fleet"]
TOPOLOGIES: Mapping[Topology, Plan] = {
    "single": PLANS["single"],
    "split": PLANS["unix"],
    "fleet": PLANS["fleet"],
}

CALLERS = 16
FIRST_CREDIT = 10**15
LOAD_S = (0.4, 0.4, 0.4, 0.4, 0.4, 3.0)
"""The longest time from the start of the load to the kill: seldom long enough for checkpoints."""
STILLBORN = 0.1
"""The share of starts that are killed before they serve."""
OVERLONG = 0.1
"""The share of streams whose answers are far longer than their limit."""
LEASES_EACH = 20
"""The number of cycles after which the audit on PostgreSQL waits for the leases of killed
processes."""


class Cycles:
    """The kill cycles of one deployment under load."""

    def __init__(self, deployment: Deployment, chance: random.Random) -> None:
        self.tally = Tally()
        self._deployment = deployment
        self._chance = chance
        self._key = ""

    async def prepare(self) -> None:
        """The first start: an account with money, and a key."""
        await self._revive()
        async with operators(self._deployment.states[0]) as ops:
            _, self._key = await ops.create_key(ACCOUNT)
            await ops.credit(ACCOUNT, FIRST_CREDIT, "first")
        self.tally.credits["first"] = FIRST_CREDIT

    async def run(self, cycle: int) -> None:
        """Runs one cycle. AssertionError where the books are wrong."""
        await self._revive()
        await self._audit(wait=not self._deployment.database_url or cycle % LEASES_EACH == 0)
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {self._key}"}) as http:
            stop = asyncio.Event()
            load = [asyncio.create_task(self._call(http, cycle, n, stop)) for n in range(CALLERS)]
            load.append(asyncio.create_task(self._pay(cycle, stop)))
            await asyncio.sleep(self._chance.random() * self._chance.choice(LOAD_S))
            await self._kill(cycle)
            stop.set()
            await asyncio.gather(*load)

    async def finish(self) -> Sequence[str]:
        """Waits for all holds, and compares calls and payments with the books."""
        await self._revive()
        await self._audit(wait=True)
        await self._deployment.kill()
        return await reconcile(
            self._deployment.states[0], self._deployment.database_url, self.tally
        )

    async def _revive(self) -> None:
        for server in self._deployment.servers.values():
            if not server.running and self._chance.random() < STILLBORN:
                await server.spawn()
                await asyncio.sleep(self._chance.random())
                await server.stop()
                self.tally.kills["newborn"] += 1
        await self._deployment.start()

    async def _audit(self, *, wait: bool) -> None:
        """Audits the books between cycles, and waits until nothing is held.

        Holds of killed processes stay for a lease, unless one process owns the database.
        """
        async with operators(self._deployment.states[0]) as ops:
            result = await ops.verify()
            while wait and result.counts["held"]:
                assert not result.findings, result
                await asyncio.sleep(0.05)
                result = await ops.verify()
            assert not result.findings, result

    async def _kill(self, cycle: int) -> None:
        names = list(self._deployment.servers)
        names = self._chance.sample(names, self._chance.randint(1, len(names)))
        for name in names:
            self.tally.kills[name] += 1
        if any(name in self._deployment.services for name in names):
            self.tally.killed_at[cycle] = time.monotonic()
        await self._deployment.kill(*names)

    async def _call(
        self, http: aiohttp.ClientSession, cycle: int, caller: int, stop: asyncio.Event
    ) -> None:
        """Makes calls one after another, until a process is killed."""
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
        is_overlong = streams and self._chance.random() < OVERLONG
        if is_overlong:
            call.piece_tokens, call.most_tokens = PIECE_TOKENS, TOKENS
        body = {
            "model": "house/model",
            "messages": [{"role": "user", "content": PROMPT if is_overlong else "Hello"}],
            "max_tokens": 50,
            "stream": streams,
        }
        if streams:
            body["stream_options"] = {"include_usage": True}
        headers = {"X-Request-Id": request_id}
        url = f"{self._chance.choice(self._deployment.urls)}/v1/chat/completions"
        async with http.post(url, json=body, headers=headers) as answer:
            call.status = answer.status
            leaves = streams and self._chance.random() < 0.1
            if leaves:
                await answer.content.readline()
                return
            data = b""
            async for line in answer.content:
                data += line
                if b'"content":"word' in line:
                    call.heard.append(time.monotonic())
        if answer.status == 200:
            call.tokens = (
                _tokens(data) if streams else json.loads(data)["usage"]["completion_tokens"]
            )
            call.whole_at = time.monotonic()

    async def _pay(self, cycle: int, stop: asyncio.Event) -> None:
        """Makes small payments, each repeated under the same request ID."""
        async with operators(self._chance.choice(self._deployment.states)) as ops:
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
    """The completion tokens of a stream's usage; None where the stream is truncated."""
    data = [line[6:] for line in stream.splitlines() if line.startswith(b"data: ")]
    if len(data) < 2 or data[-1] != b"[DONE]":
        return None
    usage = json.loads(data[-2]).get("usage")
    return None if usage is None else int(usage["completion_tokens"])


async def run(
    directory: Path, topology: Topology, cycles: int, seed: int, database_url: str = ""
) -> Sequence[str]:
    """Runs the cycles and returns a report. AssertionError where money was lost or doubled.

    `database_url` has an empty database on PostgreSQL, which a fleet needs. Without it the state
    is on SQLite.
    """
    chance = random.Random(seed)  # noqa: S311 - a cause of trouble, not a secret
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(FakeUpstream())
        upstream.play(OverlongAnswers(UnreliableProvider(chance), chance))
        config = configuration(
            upstream.url,
            prices={"request_usd": 0.001, "completion_usd_per_mtok": 10},
            state={"database_url": database_url},
        )
        deployment = Deployment(directory / "site", TOPOLOGIES[topology], config, database_url)
        stack.push_async_callback(deployment.kill)
        runs = Cycles(deployment, chance)
        await runs.prepare()
        for cycle in range(cycles):
            await runs.run(cycle)
            if cycle % 50 == 49:
                _say(f"{cycle + 1} cycles, {len(runs.tally.calls)} calls")
        return await runs.finish()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _run_alone(arguments: argparse.Namespace) -> Sequence[str]:
    topology: Topology = arguments.topology
    on_postgres = arguments.database == "postgres" or TOPOLOGIES[topology].shared
    with tempfile.TemporaryDirectory(prefix="pomogator-kills-") as directory:
        async with empty_database(needed=on_postgres) as url:
            return await run(Path(directory), topology, arguments.cycles, arguments.seed, url)


def main() -> None:
    """Runs as the command line says."""
    parser = argparse.ArgumentParser(description="Kill a gateway under load; audit its books.")
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--topology", choices=TOPOLOGIES, default="single")
    parser.add_argument("--database", choices=DATABASE_KINDS, default="sqlite")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    arguments = parser.parse_args()
    _say(f"seed {arguments.seed}")
    for line in asyncio.run(_run_alone(arguments)):
        _say(line)


if __name__ == "__main__":
    main()
