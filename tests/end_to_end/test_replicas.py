"""Processes with the manifests of `split`: an edge before two replicas.

They share a real PostgreSQL and a real Valkey; the edge finds them by the name of a headless
service, and calls them in turn over mutual TLS. Replicas are killed, frozen and replaced while
calls run. A call at a dead replica gets an error that says so; later calls are served.
"""

from __future__ import annotations

import asyncio
import json
import resource
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import asyncpg
import pytest
import trustme
from pomogator.accounts.v1 import key_service_pb2 as keys

from tests.deploy.manifests import of_kind
from tests.stand.configuration import configuration
from tests.stand.databases import empty_postgres
from tests.stand.dns import FakeDns
from tests.stand.held_provider import ASKED, CHARGE_NANO_USD, PATH, HeldProvider
from tests.stand.operators import Operators, operators
from tests.stand.pods import Pod, edge_pod, service_pod
from tests.stand.ports import free_port
from tests.stand.upstream import FakeUpstream
from tests.stand.valkey import running_valkey

GONE = "service_unavailable"
CALLERS = 4
"""Callers at the same time while replicas are replaced."""
PATIENCE_S = 90.0
"""Timeout of effects that wait for a lease or a ping, on a busy machine."""
CREDIT = 1_000_000 * CHARGE_NANO_USD
HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")
"""Addresses of the replicas and of their successors."""


@dataclass(slots=True)
class Tally:
    """How calls ended: "" if well, else the code of the error."""

    codes: Counter[str] = field(default_factory=Counter)

    @property
    def served(self) -> int:
        """Calls that were answered."""
        return self.codes[""]

    @property
    def failed(self) -> int:
        """Calls that were not."""
        return self.codes.total() - self.served


class Cluster:
    """The pods, their stores, and a client."""

    def __init__(
        self, folder: Path, upstream: FakeUpstream, dns: FakeDns, stack: AsyncExitStack
    ) -> None:
        """The stack closes everything that a test opens here."""
        self.folder = folder
        self.upstream = upstream
        self.provider = HeldProvider()
        self.dns = dns
        self.env: Mapping[str, str] = {}
        self.ports = free_port(), free_port()
        self.replicas: list[Pod] = []
        self.edge: Pod
        self.http: aiohttp.ClientSession
        self.authority = trustme.CA()
        self.secret = ""
        self._account = ""
        self._made = 2
        self._stack = stack

    def issue(self) -> None:
        """Writes new certificates into the files that the pods have mounted."""
        for folder, name in (
            ("service-tls", "pomogator-grpc"),
            ("edge-tls", "pomogator-edge.pomogator.svc"),
        ):
            mounted = self.folder / folder
            mounted.mkdir(exist_ok=True)
            issued = self.authority.issue_cert(name)
            (mounted / "ca.crt").write_bytes(self.authority.cert_pem.bytes())
            (mounted / "tls.crt").write_bytes(b"".join(p.bytes() for p in issued.cert_chain_pems))
            (mounted / "tls.key").write_bytes(issued.private_key_pem.bytes())

    def successor(self, old: Pod, *, user: str, password: str) -> Pod:
        """Another replica at an address of its own, with other secrets."""
        url = urlsplit(old.env["POMOGATOR_DATABASE_URL"])
        login = f"{user}:{password}@{url.netloc.rpartition('@')[2]}"
        env = {
            **self.env,
            "POMOGATOR_DATABASE_URL": urlunsplit(url._replace(netloc=login)),
            "HOUSE_API_KEY": "sk-second",
        }
        self._made += 1
        new = service_pod(self._made - 1, self.folder, self.ports, env)
        self._stack.push_async_callback(new.kill)
        return new

    @asynccontextmanager
    async def operators(self, replica: int = 0) -> AsyncIterator[Operators]:
        """The operators' services of a replica."""
        state = Path(self.replicas[replica].env["POMOGATOR_STATE"])
        async with operators(state) as found:
            yield found

    async def open_account(self) -> None:
        """A new account with money, and a key of it."""
        self._account = f"account-{secrets.token_hex(4)}"
        async with self.operators() as ops:
            _, self.secret = await ops.create_key(self._account)
            await ops.credit(self._account, CREDIT, self._account)

    async def ask(self, *, stream: bool = False, secret: str = "") -> str:
        """How a call ends."""
        headers = {"Authorization": f"Bearer {secret or self.secret}"}
        url = f"http://{await self.edge.address()}{PATH}"
        body = {**ASKED, "stream": stream}
        async with self.http.post(url, json=body, headers=headers) as answer:
            text = await answer.text()
            if answer.status != 200:
                return str(json.loads(text)["error"]["code"])
            if stream:
                return how_it_ended(text)
            return ""

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[aiohttp.ClientResponse]:
        """A stream that has begun, and is held by the provider."""
        headers = {"Authorization": f"Bearer {self.secret}"}
        url = f"http://{await self.edge.address()}{PATH}"
        async with self.http.post(url, json={**ASKED, "stream": True}, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            await answer.content.readuntil(b'"Good"')
            yield answer

    async def call_until(self, enough: asyncio.Event, tally: Tally) -> None:
        """Calls, `CALLERS` at a time, whole and streamed, until it is enough."""

        async def call(number: int) -> None:
            while not enough.is_set():
                tally.codes[await self.ask(stream=bool(number % 2))] += 1

        await asyncio.gather(*(call(number) for number in range(CALLERS)))

    async def taken_by_each(self) -> list[float]:
        """How many calls each replica has ended since it started."""
        return [await pod.metric("pomogator_requests_total") for pod in self.replicas]

    async def both_take_calls(self) -> None:
        """Returns once each replica has ended a call of ours; all of them are answered."""
        before = await self.taken_by_each()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                assert await self.ask() == ""
                now = await self.taken_by_each()
                if all(late > early for early, late in zip(before, now, strict=True)):
                    return

    async def books_are_right(self, tally: Tally) -> None:
        """Nothing is held any more, and the account paid for what it was served, and no more.

        A call that failed may have been begun, and then costs what it had used.
        """
        async with self.operators() as ops, asyncio.timeout(PATIENCE_S):
            while (result := await ops.verify()).counts["held"]:
                assert not result.findings
                await asyncio.sleep(0.2)  # The sweeper announces nothing.
            assert not result.findings
            account = await ops.account(self._account)
        assert account.held_nano_usd == 0
        paid = (CREDIT - account.balance_nano_usd) / CHARGE_NANO_USD
        assert tally.served <= paid <= tally.served + tally.failed


def how_it_ended(text: str) -> str:
    """The code of the error that ends a stream; nothing if it ended well."""
    *_, last, done, empty = text.split("\n\n")
    assert (done, empty) == ("data: [DONE]", "")
    error = json.loads(last.removeprefix("data: ")).get("error")
    return str(error["code"]) if error else ""


@pytest.fixture(scope="module", autouse=True)
def core_dumps() -> Iterator[None]:
    """Processes may dump core, as far as the machine allows it."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, before)


@pytest.fixture(scope="module")
async def running(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: str
) -> AsyncIterator[Cluster]:
    """Two replicas and an edge. Every test leaves both replicas alive."""
    folder = tmp_path_factory.mktemp("cluster")
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(FakeUpstream())
        dns = await stack.enter_async_context(FakeDns(HOSTS[:2]))
        cluster = Cluster(folder, upstream, dns, stack)
        upstream.play(cluster.provider)
        cluster.issue()
        (config,) = of_kind("split", "ConfigMap")
        clients = config["data"]["pomogator.toml"].replace("defaults = true", "")
        channels = configuration(
            upstream.url, channel='api_key_env = "HOUSE_API_KEY"\n', prices={"request_usd": 0.001}
        )
        (folder / "pomogator.toml").write_text(channels + clients)
        valkey = stack.enter_context(running_valkey())
        cluster.env = {
            "POMOGATOR_DATABASE_URL": await stack.enter_async_context(
                empty_postgres(postgres_server)
            ),
            "POMOGATOR_REDIS_URL": valkey.url,
            "POMOGATOR_PEPPER": "all replicas have the same",
            "HOUSE_API_KEY": "sk-first",
        }
        cluster.replicas = [
            service_pod(number, folder, cluster.ports, cluster.env) for number in range(2)
        ]
        cluster.edge = edge_pod(folder, dns.target(f"pomogator-grpc:{cluster.ports[0]}"))
        for pod in (*cluster.replicas, cluster.edge):
            stack.push_async_callback(pod.kill)
            await pod.start()
        await cluster.edge.ready()
        connector = aiohttp.TCPConnector(limit=0)
        cluster.http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        yield cluster


@pytest.fixture
async def cluster(running: Cluster) -> Cluster:
    """The cluster, well, with an account of the test's own."""
    await running.open_account()
    running.provider.goes_on.set()
    await running.both_take_calls()
    await running.open_account()
    return running


async def test_no_process_dumps_core(cluster: Cluster) -> None:
    """A core dump would hold keys and prompts."""
    for pod in (*cluster.replicas, cluster.edge):
        allowed, _ = resource.prlimit(pod.process.pid, resource.RLIMIT_CORE)
        assert allowed == 0


async def test_a_killed_replica_ends_only_its_own_streams(cluster: Cluster) -> None:
    """Its streams end with an error that says so, the other's go on, and no other call fails."""
    tally = Tally()
    cluster.provider.goes_on.clear()
    async with AsyncExitStack() as stack:
        held = [await stack.enter_async_context(cluster.asking()) for _ in range(6)]

        await cluster.replicas[0].kill()

        cluster.provider.goes_on.set()
        tally.codes.update([how_it_ended(await each.text()) for each in held])
    assert tally.codes.keys() == {"", GONE}
    tally.codes.update([await cluster.ask(stream=bool(n % 2)) for n in range(20)])
    assert tally.codes.keys() == {"", GONE}
    assert tally.failed <= 3, "calls that came after it failed, too"

    await cluster.replicas[0].start()

    await cluster.books_are_right(tally)
    await cluster.both_take_calls()


@pytest.mark.nightly
async def test_a_frozen_replica_is_noticed_by_pings(cluster: Cluster) -> None:
    """Its calls end with an error; thawed, it settles once and serves again."""
    tally, frozen = Tally(), cluster.replicas[1]
    cluster.provider.goes_on.clear()
    async with AsyncExitStack() as stack:
        held = [await stack.enter_async_context(cluster.asking()) for _ in range(4)]
        frozen.process.send_signal(signal.SIGSTOP)
        try:
            assert not await frozen.passes("readinessProbe")
            ends = [asyncio.create_task(each.text()) for each in held]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            # Now that the edge knows, calls that come are all served.
            cluster.provider.goes_on.set()
            tally.codes.update([how_it_ended(text) for text in await asyncio.gather(*ends)])
            assert set(tally.codes) == {"", GONE}
            later = [await cluster.ask(stream=bool(n % 2)) for n in range(20)]
            assert set(later) == {""}
            tally.codes.update(later)
            # The other replica takes the holds of the silent one for lost, and ends them.
            await cluster.books_are_right(tally)
        finally:
            frozen.process.send_signal(signal.SIGCONT)
    await frozen.ready()
    await cluster.books_are_right(tally)
    await cluster.both_take_calls()


async def test_a_rolling_restart_rotates_secrets_without_a_failure(cluster: Cluster) -> None:
    """Under load streams end whole, no call fails, and all secrets are new."""
    tally, enough = Tally(), asyncio.Event()
    role = f"rotated_{secrets.token_hex(4)}"
    admin = await asyncpg.connect(cluster.env["POMOGATOR_DATABASE_URL"])
    owner = await admin.fetchval("SELECT current_user")
    await admin.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'second' IN ROLE {owner}")
    cluster.issue()
    load = asyncio.create_task(cluster.call_until(enough, tally))
    for number, old in enumerate(list(cluster.replicas)):
        new = cluster.successor(old, user=role, password="second")
        await replaced(cluster, old, new)
        cluster.replicas[number] = new
        async with cluster.operators(number) as ops:
            assert not (await ops.verify()).findings
    enough.set()
    await load

    assert tally.codes.keys() == {""}
    await cluster.books_are_right(tally)
    await cluster.both_take_calls()
    assert cluster.upstream.requests[-1].headers["authorization"] == "Bearer sk-second"
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1"
    assert await admin.fetchval(sessions, role) >= 2
    await admin.close()


async def replaced(cluster: Cluster, old: Pod, new: Pod) -> None:
    """Does as the manifests say: a new one first; the old one leaves the service, then stops."""
    await new.start()
    await new.ready()
    cluster.dns.addresses.append(new.host)
    cluster.dns.addresses.remove(old.host)
    old.process.send_signal(signal.SIGTERM)
    await old.process.event("shutdown.started")
    assert not await old.passes("readinessProbe")
    assert await old.ended() == 0


async def test_sigterm_drains_a_replica(cluster: Cluster) -> None:
    """SIGTERM with live streams: not ready at once, streams run to their end, exit code 0."""
    tally, leaving = Tally(), cluster.replicas[0]
    cluster.provider.goes_on.clear()
    async with AsyncExitStack() as stack:
        held = [await stack.enter_async_context(cluster.asking()) for _ in range(4)]
        leaving.process.send_signal(signal.SIGTERM)
        await leaving.process.event("shutdown.started")
        assert not await leaving.passes("readinessProbe")
        assert await leaving.passes("livenessProbe")
        ended = asyncio.create_task(leaving.ended())
        assert not ended.done()

        cluster.provider.goes_on.set()

        tally.codes.update([how_it_ended(await each.text()) for each in held])
        assert await ended == 0
    assert set(tally.codes) == {""}
    await leaving.start()
    await cluster.books_are_right(tally)


async def test_limits_hold_over_replicas(cluster: Cluster) -> None:
    """Ten a minute are ten over all replicas; a killed replica forgets none."""
    async with cluster.operators(1) as ops:
        _, limited = await ops.create_key("limited", keys.KeyScope(requests_per_minute=10))
        await ops.credit("limited", CREDIT, f"limited-{secrets.token_hex(4)}")
    early = [await cluster.ask(secret=limited) for _ in range(4)]

    await cluster.replicas[0].kill()
    late = [await cluster.ask(secret=limited) for _ in range(20)]
    await cluster.replicas[0].start()

    counts = Counter(early + late)
    assert counts.keys() <= {"", "rate_limit_exceeded", GONE}
    assert counts[""] <= 10
    assert counts[""] + counts[GONE] >= 10
    assert counts["rate_limit_exceeded"] >= 13
    await cluster.both_take_calls()
