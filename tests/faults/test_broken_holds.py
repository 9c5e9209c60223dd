"""A state with holds that no version of the program writes."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from services.storage.sqlite_file import FILE
from tests.faults.fault_stand import BEGIN, FINE, PATH
from tests.faults.processes import asking, priced_configuration
from tests.stand.operators import operators
from tests.stand.process import Server
from tests.stand.servers import running_server
from tests.stand.upstream import STALL, FakeUpstream

WHOLE = """
    INSERT INTO holds (id, request_id, account, key_id, model, amount, price, month, owner, state,
        checkpoint, created_ms)
    VALUES ('{id}', 'request', 'default', 'key', 'm', 50, '{{}}', '', 'the dead', 'held', 7, 1)
"""
AMOUNT, CHECKPOINT = 50, 7
HELD = "UPDATE accounts SET held = held + 50 WHERE name = 'default'"

ODD: Mapping[str, str] = {
    "nothing": "model = 'm'",
    "price": "price = 'no JSON'",
    "tokens": "prompt_tokens = -5",
    "dates": "created_ms = -5",
}
"""Changes of a hold that can still be ended, as statements."""

BROKEN: Mapping[str, str] = {
    "more than is held": "amount = 1000000000000000",
    "no such budget": "month = '2026-11'",
    "no such account": "account = 'nobody'",
    "no such account, and free": "account = 'nobody', checkpoint = NULL",
    "negative": "amount = -50",
    "negative charge": "checkpoint = -7",
}
"""Changes after which a hold cannot be ended, on both databases."""

BROKEN_TYPES: Mapping[str, str] = {
    "text": "amount = 'fifty'",
    "a fraction": "amount = 0.5",
    "bytes": "amount = x'50'",
    "text for a charge": "checkpoint = 'seven'",
    "a fraction for a charge": "checkpoint = 7.5",
    "bytes for an account": "account = x'61'",
    "no text for an account": "account = CAST(x'ff' AS TEXT)",
    "bytes for a month": "month = x'61'",
}
"""The same on SQLite, which stores values of any type in any column."""

CHARGED = """
    INSERT INTO transfers (id, debit, credit, amount, created_ms)
    VALUES ('charge:charged before', 'nobody', ':revenue', 7, 1)
"""
NO_CONSTRAINTS = """
    ALTER TABLE holds DROP CONSTRAINT holds_amount_check, DROP CONSTRAINT holds_checkpoint_check,
        DROP CONSTRAINT holds_account_fkey
"""


class State:
    """The state of a stopped gateway, which another program changes by SQL."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self._file = folder / "var" / FILE
        self._url = database_url

    async def run(self, *statements: str) -> Sequence[tuple[Any, ...]]:
        """The rows of the last of these statements."""
        if self._url:
            connection = await asyncpg.connect(self._url)
            try:
                *_, records = [await connection.fetch(statement) for statement in statements]
            finally:
                await connection.close()
            return [tuple(record) for record in records]
        with closing(sqlite3.connect(self._file, isolation_level=None)) as raw:
            raw.execute("PRAGMA ignore_check_constraints = ON")
            *_, rows = [raw.execute(statement).fetchall() for statement in statements]
        return rows

    async def spoil(self) -> set[str]:
        """Writes holds of each kind; gives the names of those that cannot be ended."""
        broken = BROKEN if self._url else {**BROKEN, **BROKEN_TYPES}
        if self._url:
            await self.run(NO_CONSTRAINTS, "DELETE FROM leases")
        for name, change in {**ODD, **broken}.items():
            spoilt = f"UPDATE holds SET {change} WHERE id = '{name}'"  # noqa: S608
            await self.run(WHOLE.format(id=name), HELD, spoilt)
        await self.run(WHOLE.format(id="charged before"), HELD, CHARGED)
        return {*broken, "charged before"}

    async def held(self) -> set[str]:
        """The holds that have not been ended."""
        return {row[0] for row in await self.run("SELECT id FROM holds WHERE state = 'held'")}

    async def charges(self) -> Mapping[str, int]:
        """The charges of the holds that have been ended."""
        return dict(await self.run("SELECT id, charge FROM holds WHERE state <> 'held'"))

    async def balance(self) -> Sequence[int]:
        """The balance of the account, and its held amount."""
        (balance,) = await self.run("SELECT posted, held FROM accounts WHERE name = 'default'")
        return balance


class Gateway:
    """A gateway that goes on with what the one before it has left."""

    def __init__(self, server: Server, state: Path) -> None:
        self.server = server
        self._state = state

    @property
    def told(self) -> Sequence[str]:
        """The holds that its log calls broken."""
        return [
            line["hold_id"] for line in self.server.lines if line["event"] == "hold.quarantined"
        ]

    async def serves(self, key: str) -> None:
        """Answers a call."""
        url = f"http://{await self.server.address('http')}{PATH}"
        async with asking(url, key) as answer:
            assert (await answer.text()).endswith("data: [DONE]\n\n")

    async def counts(self, broken: int) -> None:
        """Shows operators how many holds are broken, and that the books are wrong."""
        assert (await self.server.samples())["pomogator_holds_broken", frozenset()] == broken
        async with operators(self._state) as book:
            result = await book.verify()
        assert result.counts["held"] == broken
        assert list(result.findings) != []


@asynccontextmanager
async def going_on(folder: Path) -> AsyncIterator[Gateway]:
    """A gateway on the state of the one before it. It must end in good order."""
    state = folder / "var"
    member = Server(
        *("--config", folder / "pomogator.toml", "--state", state, "--rest", "127.0.0.1:0"),
        *(
            "--grpc",
            f"unix:{state / 'grpc.sock'}",
            "--metrics",
            "127.0.0.1:0",
            "--shutdown-delay",
            "0",
        ),
        ready={"protocol": "http"},
    )
    try:
        await member.start()
        yield Gateway(member, state)
        member.send_signal(signal.SIGTERM)
        assert await member.ended() == 0
    finally:
        await member.stop()


@pytest.mark.parametrize(
    "each_database_url",
    ["sqlite", pytest.param("postgres", marks=pytest.mark.nightly)],
    indirect=True,
)
async def test_broken_holds_are_reported_once_and_others_recovered(
    tmp_path: Path, each_database_url: str
) -> None:
    """Broken holds are logged once and left until they are mended; all others are settled.

    Row 101.
    """
    state = State(tmp_path, each_database_url)
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, STALL], FINE, FINE)
        config = priced_configuration(upstream.url)
        config += f'\n[state]\ndatabase_url = "{each_database_url}"\n' if each_database_url else ""
        async with running_server(tmp_path, config) as server:
            url = f"http://{await server.address('http')}{PATH}"
            async with asking(url, server.key):
                server.send_signal(signal.SIGKILL)
                await server.ended()
        broken = await state.spoil()

        async with going_on(tmp_path) as gateway:
            await gateway.server.event("holds.recovered", holds=len(ODD) + 1)
            await gateway.serves(server.key)
            await state.run(WHOLE.format(id="late"), HELD)
            await gateway.server.event("holds.recovered", holds=1)
            await gateway.counts(len(broken))
        assert sorted(gateway.told) == sorted(broken)
        assert await state.held() == broken
        charges = await state.charges()
        assert {charges[name] for name in (*ODD, "late")} == {CHECKPOINT}
        assert await state.balance() == (-sum(charges.values()), AMOUNT * len(broken))

        await state.run("UPDATE holds SET amount = 50 WHERE id = 'more than is held'")
        broken -= {"more than is held"}
        async with going_on(tmp_path) as gateway:
            await gateway.server.event("holds.recovered", holds=1)
            await gateway.serves(server.key)
        assert sorted(gateway.told) == sorted(broken)
        assert await state.held() == broken
