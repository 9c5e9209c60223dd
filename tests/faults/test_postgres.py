"""A PostgreSQL that is frozen or away, or whose acknowledgement is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.metering import outbox
from services.storage import postgres
from tests.faults.conftest import OpenStand
from tests.faults.fault_stand import BEGIN, CHARGE, END, FINE, TEXT, FaultStand
from tests.faults.processes import priced_configuration
from tests.stand.databases import folder_of_postgres, frozen_postgres, running_postgres
from tests.stand.operators import Operators
from tests.stand.shell import refused_start

SOCKET = ".s.PGSQL.5432"
UNAVAILABLE = {"auth_unavailable", "storage_unavailable"}


@pytest.fixture
def own_postgres() -> Iterator[str]:
    """The URL of a server of this test alone."""
    with running_postgres() as url:
        yield url


async def ready(stand: FaultStand, status: int) -> None:
    """Waits until the gateway says that it is ready, or is not. It lives in any case."""
    async with asyncio.timeout(20):
        while True:
            async with (
                stand.http.get(f"{stand.url}/readyz") as answer,
                stand.http.get(f"{stand.url}/healthz") as alive,
            ):
                assert alive.status == 200
                if answer.status == status:
                    return
            await asyncio.sleep(0.02)  # Nobody tells of it but by answering.


async def test_a_frozen_database_is_503_and_streams_go_on(
    own_postgres: str, open_stand: OpenStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New calls are 503, never 401; streams end whole; thawed, each is charged once.

    Rows 28, 88.
    """
    monkeypatch.setattr(postgres, "COMMAND_TIMEOUT_S", 0.3)
    stand = await open_stand(database_url=own_postgres)
    # The call log fails, too, if it writes meanwhile.
    stand.errors |= {"storage.failed", "call_log.failed"}
    goes_on = asyncio.Event()
    stand.play([BEGIN, goes_on, END], FINE)
    async with stand.service.operators_channel() as channel:
        _, unknown = await Operators(channel).create_key("default")
    stranger = {"Authorization": f"Bearer {unknown}"}

    async with stand.post() as answer:
        await answer.content.readuntil(b"canary-answer-")
        with frozen_postgres(own_postgres):
            known = await asyncio.gather(*(stand.ask() for _ in range(3)))
            guest = await stand.ask(headers=stranger)
            goes_on.set()
            reply = await stand.read(answer)
            await ready(stand, 503)
            assert stand.metric("outbox_depth") == 1
    await ready(stand, 200)

    assert (reply.finishes, reply.events[-1]) == (["stop"], "[DONE]")
    assert {(each.status, each.code) for each in known} == {(503, "storage_unavailable")}
    assert (guest.status, guest.code) == (503, "auth_unavailable")
    assert all(1 <= float(each.headers["Retry-After"]) <= 5 for each in (*known, guest))
    assert stand.metric("auth_failures_total", reason="AUTH_UNAVAILABLE") == 1
    # Once for each database: the ledger's, and that of the call log.
    assert 1 <= len(stand.log.of("storage.failed")) <= 2
    assert len(stand.first.requests) == 1
    for headers in (None, stranger):
        assert (await stand.ask(headers=headers)).content == TEXT
    assert await stand.charged() == (3, 3 * CHARGE)


async def test_a_full_outbox_refuses_new_calls(
    own_postgres: str, open_stand: OpenStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a full outbox no calls are begun; no settlement is lost. Row 92."""
    waiting = 3
    monkeypatch.setattr(outbox, "BACKLOG_MAX", waiting)
    monkeypatch.setattr(postgres, "COMMAND_TIMEOUT_S", 0.3)
    stand = await open_stand(database_url=own_postgres)
    stand.errors |= {"storage.failed"}
    goes_on = asyncio.Event()
    stand.play([BEGIN, goes_on, END])
    running = [asyncio.create_task(stand.ask()) for _ in range(waiting)]
    await stand.until(lambda: len(stand.first.requests) == waiting)

    with frozen_postgres(own_postgres):
        goes_on.set()
        replies = await asyncio.gather(*running)
        await stand.until(lambda: stand.metric("outbox_depth") == waiting)
        refused = await stand.ask()
    await ready(stand, 200)

    assert {reply.content for reply in replies} == {TEXT}
    assert (refused.status, refused.code) == (503, "storage_unavailable")
    assert len(stand.first.requests) == waiting
    assert await stand.charged() == (waiting, waiting * CHARGE)


@pytest.mark.parametrize("url", ["postgresql://127.0.0.1:1/none", "postgresql:///n?host={folder}"])
async def test_a_process_without_its_database_does_not_start(tmp_path: Path, url: str) -> None:
    """The process says so in one line, and does not serve. Row 88."""
    file = tmp_path / "pomogator.toml"
    state = f'\n[state]\ndatabase_url = "{url.format(folder=tmp_path)}"\n'
    file.write_text(priced_configuration("http://127.0.0.1:9") + state)
    pepper = {"POMOGATOR_PEPPER": "sixteen bytes and more"}

    log = await refused_start(tmp_path / "var", "--config", file, env=pepper)

    assert "state.database_url" in log.splitlines()[-1]


class Thief:
    """A proxy in front of the server, which drops the answer to a COMMIT."""

    def __init__(self, server: Path) -> None:
        self._server = server
        self._left = 0
        self.stolen = 0

    def arm(self, nth: int) -> None:
        """The `nth` COMMIT from now on takes effect, and its connection is lost."""
        self._left = nth

    def disarm(self) -> bool:
        """Passes everything on from now on. Returns whether there had been so many commits."""
        stole, self._left = self._left <= 0, 0
        return stole

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        theirs, ours = await asyncio.open_unix_connection(str(self._server))
        back = asyncio.create_task(self._pass_on(theirs, writer))
        while data := await reader.read(65_536):
            self._left -= b"COMMIT;" in data
            steals = self._left == 0 and b"COMMIT;" in data
            if steals:
                back.cancel()
                await asyncio.wait([back])
            ours.write(data)
            if steals:
                await theirs.read(1)  # It has taken effect.
                self.stolen += 1
                break
        back.cancel()
        ours.close()
        writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()


@pytest.fixture
async def stealing(postgres_url: str, tmp_path: Path) -> AsyncIterator[tuple[Thief, str]]:
    """Such a proxy, and the URL of the database behind it."""
    folder = folder_of_postgres(postgres_url)
    thief = Thief(folder / SOCKET)
    async with await asyncio.start_unix_server(thief.serve, tmp_path / SOCKET):
        yield thief, postgres_url.replace(str(folder), str(tmp_path))


async def test_a_lost_commit_acknowledgement_charges_once(
    stealing: tuple[Thief, str], open_stand: OpenStand
) -> None:
    """Whichever answer is lost, nothing is held or charged twice, or for nothing. Row 89."""
    thief, url = stealing
    stand = await open_stand(database_url=url)
    stand.errors |= {"storage.failed"}
    stand.play(FINE)
    answered = nth = 0
    stole = True
    while stole:
        nth += 1
        thief.arm(nth)
        reply = await stand.ask()
        assert reply.status == 200 or (reply.status == 503 and reply.code in UNAVAILABLE)
        answered += reply.status == 200
        await stand.wait_until_idle()
        stole = thief.disarm()
        assert (await stand.ask()).content == TEXT
        answered += 1
        assert await stand.charged() == (answered, answered * CHARGE)

    assert thief.stolen == nth - 1 >= 2
    assert len(stand.first.requests) == answered
