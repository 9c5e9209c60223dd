"""Soak: a long run under load, after which nothing may have grown.

    python -m tests.nightly.soak [--minutes 30] [--topology single|split] [--rate 40] [--seed N]

Callers ask in streams and not, for models of all dialects; a fifth of them leave early, and
a twentieth of what providers do is a fault. After a warm-up, and three times after it, the
load stops, as many calls as there are places are made at once, and all comes to rest. What is
in use then must be what was in use after the warm-up: resident memory, tasks, descriptors. No
money is held, no place is taken, and the books are right. AssertionError where it is not so.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.nightly.load import Load
from tests.stand.operators import operators
from tests.stand.process import Server
from tests.stand.providers.unreliable import MANY, UnreliableProvider
from tests.stand.servers import TOPOLOGIES, Topology, gateway_of
from tests.stand.upstream import FakeUpstream

OBSERVED = (sys.executable, "-m", "tests.nightly.observed_server")

DIALECTS = ("openai", "openai-responses", "anthropic", "openrouter")
MODELS = [f"soak/{dialect}" for dialect in DIALECTS]
ACCOUNT = "soak"
CREDIT_NANO = 10**15
PLACES = 100
LEAVING, FAULTS = 0.2, 0.05
WARM_UP = 0.1
"""The warm-up's share of the time, in which caches, pools and arenas fill."""
PARTS = 3
FORGET_S = 5.0

MEMORY_MB_MAX = 16.0
"""The allowed growth of resident memory, for fragmentation and database pages."""
SPARE_MAX = 10
"""The allowed growth of descriptors: idle connections to providers are kept for a while."""
CALM_S = 60.0
REST_S = 0.5
AGAIN_S = 0.2

CONFIG = """
[bounds]
calls_max = {places}

[[limits]]
key = "*"
concurrency = {places}

[[limits]]
channel = "*"
concurrency = {places}
"""
CHANNEL = """
[[channels]]
name = "{dialect}"
dialect = "{dialect}"
base_url = "{url}"
models = {{ "soak/{dialect}" = "claude-sonnet-4-5" }}
progress_timeout_s = 1
first_token_timeout_s = 10
total_timeout_s = 10
breaker = {{ failures = 50, cooldown_s = 1 }}

[[models]]
name = "soak/{dialect}"
request_usd = 0.001
completion_usd_per_mtok = 10
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """The resources of one idle process."""

    memory_mb: float
    descriptors: int
    tasks: Mapping[str, int]
    """Numbers of tasks by coroutine."""


class Soak:
    """A gateway and its provider under load."""

    def __init__(
        self, directory: Path, provider: UnreliableProvider, url: str, topology: Topology
    ) -> None:
        config = directory / "pomogator.toml"
        channels = (CHANNEL.format(dialect=dialect, url=url) for dialect in DIALECTS)
        config.write_text(CONFIG.format(places=PLACES) + "".join(channels))
        self.state = directory / "state"
        self._provider = provider
        self.servers = gateway_of(topology, self.state, config, OBSERVED)

    async def begin(self) -> str:
        """Starts all servers, and returns the edge's URL."""
        addresses = [await server.start() for server in self.servers.values()]
        return f"http://{addresses[-1]}"

    async def end(self) -> None:
        """Stops all servers."""
        for server in reversed(list(self.servers.values())):
            await server.stop(signal.SIGTERM)

    async def forget(self, upstream: FakeUpstream) -> None:
        """Drops logs and requests regularly, so that this process does not grow."""
        while True:
            await asyncio.sleep(FORGET_S)
            upstream.requests.clear()
            for server in self.servers.values():
                server.forget_log()

    async def vitals(self) -> Mapping[str, Vitals]:
        """The resources once no call runs. AssertionError where the books are wrong."""
        async with operators(self.state) as ops, asyncio.timeout(CALM_S):
            while (result := await ops.verify()).counts.get("held", 0):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert not result.findings, result
        return {name: await _at_rest(server) for name, server in self.servers.items()}

    async def fill(self, load: Load) -> None:
        """Checks that as many calls as the limit allows run at once, and one more is refused.

        An edge of its own lowers its limit after a refusal for some seconds, so callers retry.
        """
        self._provider.hold()
        ends = load.outcomes.ends
        try:
            async with asyncio.TaskGroup() as calls, asyncio.timeout(CALM_S):
                for _ in range(PLACES):
                    calls.create_task(_insist(load))
                await self._provider.held(PLACES)
                before = ends["overloaded"]
                await load.call(stays=True)
                assert ends["overloaded"] == before + 1, ends
                self._provider.release()
        finally:
            self._provider.release()


async def _insist(load: Load) -> None:
    while await load.call(stays=True) == "overloaded":  # noqa: ASYNC110
        await asyncio.sleep(AGAIN_S)


async def _at_rest(server: Server) -> Vitals:
    """The resources once they do not change: connections take a moment to end."""
    now = await _observe(server)
    async with asyncio.timeout(CALM_S):
        while True:
            then = now
            await asyncio.sleep(REST_S)
            now = await _observe(server)
            if (now.tasks, now.descriptors) == (then.tasks, then.descriptors):
                return now


async def _observe(server: Server) -> Vitals:
    server.forget_log()
    server.send_signal(signal.SIGUSR1)
    line = await server.event("process.observed")
    process = psutil.Process(server.pid)
    return Vitals(
        memory_mb=process.memory_info().rss / 2**20,
        descriptors=process.num_fds(),
        tasks=line["tasks"],
    )


def left_behind(before: Mapping[str, Vitals], after: Mapping[str, Vitals]) -> Sequence[str]:
    """The resources that have grown by more than is allowed."""
    found = []
    for name, then in before.items():
        now = after[name]
        tasks = Counter(now.tasks) - Counter(then.tasks)
        if tasks:
            found.append(f"{name}: tasks {dict(tasks)}")
        if now.descriptors > then.descriptors + SPARE_MAX:
            found.append(f"{name}: descriptors {then.descriptors}, now {now.descriptors}")
        if now.memory_mb > then.memory_mb + MEMORY_MB_MAX:
            found.append(f"{name}: MB {then.memory_mb:.1f}, now {now.memory_mb:.1f}")
    return found


@asynccontextmanager
async def opened(
    directory: Path,
    provider: UnreliableProvider,
    topology: Topology,
    chance: random.Random,
    leaving: float,
) -> AsyncIterator[tuple[Soak, Load]]:
    """A running gateway, and load with a paid key."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(FakeUpstream())
        upstream.play(provider)
        soak = Soak(directory, provider, upstream.url, topology)
        stack.push_async_callback(soak.end)
        url = await soak.begin()
        ops = await stack.enter_async_context(operators(soak.state))
        _, key = await ops.create_key(ACCOUNT)
        await ops.credit(ACCOUNT, CREDIT_NANO, "all")
        forgetting = asyncio.create_task(soak.forget(upstream))
        stack.callback(forgetting.cancel)
        yield soak, Load(url, key, MODELS, chance, leaving=leaving)


async def run(
    directory: Path, topology: Topology, seconds: float, rate: float, seed: int
) -> Counter[str]:
    """Runs the soak and returns outcomes. AssertionError where resources grew or calls failed."""
    chance = random.Random(seed)  # noqa: S311 - a cause of trouble, not a secret
    provider = UnreliableProvider(chance, faults=MANY, share=FAULTS)
    async with opened(directory, provider, topology, chance, LEAVING) as (soak, load):
        seen = []
        for share in (WARM_UP, *[(1 - WARM_UP) / PARTS] * PARTS):
            async with load.connected():
                await load.run(rate, seconds * share)
                await soak.fill(load)
            seen.append(await soak.vitals())
            _say(f"{load.outcomes.asked} calls; {_told(seen[-1])}")
    if found := (*load.outcomes.wrong, *left_behind(seen[0], seen[-1])):
        raise AssertionError(found)
    return load.outcomes.ends


def _told(vitals: Mapping[str, Vitals]) -> str:
    return "; ".join(
        f"{name}: {one.memory_mb:.1f} MB, {sum(one.tasks.values())} tasks,"
        f" {one.descriptors} descriptors"
        for name, one in vitals.items()
    )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Runs as the command line says."""
    parser = argparse.ArgumentParser(description="Let a gateway work; see what stays behind.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--topology", choices=TOPOLOGIES, default="single")
    parser.add_argument("--rate", type=float, default=40.0, help="calls a second")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    _say(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="pomogator-soak-") as directory:
        seconds = options.minutes * 60
        ends = asyncio.run(
            run(Path(directory), options.topology, seconds, options.rate, options.seed)
        )
    for end, count in ends.most_common():
        _say(f"{count:8} {end}")


if __name__ == "__main__":
    main()
