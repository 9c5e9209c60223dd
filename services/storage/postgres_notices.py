"""Notices of other processes: over `LISTEN` where it is proved to work, else by polling a number.

`LISTEN` belongs to a session. Behind a pooler that gives each transaction another session it is
lost in silence, and on the wrong server it hears nothing. So every heartbeat sends a random word
over a pooled connection; the listening connection must hear it. Where it does not, the table
`notices`, which counts all notices, is polled at the same interval, and `LISTEN` is tried again
once a minute. A word that could not be sent, since all pooled connections were in use, proves
nothing: the listening connection is kept, and hears the next word after all earlier notices.

After a notice may have been missed, listeners get an empty one.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum, auto
from typing import Protocol, TypeVar

from services.errors import Failure
from services.storage.base import CHANNEL, Listener, Transaction
from services.storage.postgres_connector import (
    CONNECTION_ERRORS,
    Connection,
    PostgresConnector,
    describe,
)

log = logging.getLogger(__name__)

HEARTBEAT_S = 2.0
"""Interval of proofs and of polls: the longest time that a lost notice stays undetected."""

PROVE_AGAIN_S = 60.0
"""Interval of attempts to listen where that has failed, though the connection was well."""

T = TypeVar("T")


class Runner(Protocol):
    """Runs a transaction on the pool. Raises Failure."""

    def __call__(self, transaction: Callable[[], Transaction[T]]) -> Awaitable[T]:
        """Run the transaction, and return its result."""
        ...


class Proof(Enum):
    """Result of a proof that `LISTEN` works."""

    HEARD = auto()
    UNHEARD = auto()
    UNSENT = auto()
    """The pool took no transaction in time."""


class PostgresNotices:
    """Listens for notices, or polls."""

    def __init__(self, connector: PostgresConnector, run: Runner, deliver: Listener) -> None:
        """`connector` leads to the server that is listened to."""
        self._connector = connector
        self._run = run
        self._deliver = deliver
        self._channel = f"{CHANNEL}_{secrets.token_hex(8)}"
        """Channel of this process, for its proofs."""
        self._connection: Connection | None = None
        self._heard: asyncio.Future[None] | None = None
        self._word = ""
        self._number: int | None = None
        self._logged = True
        self.ready = asyncio.Event()
        """Set once notices arrive, in one way or the other."""

    @property
    def listening(self) -> bool:
        """Whether `LISTEN` is proved."""
        return self._connection is not None

    async def run(self) -> None:
        """Deliver notices until cancelled."""
        clock = asyncio.get_running_loop().time
        listen_at = 0.0
        try:
            while True:
                if self._connection is not None and await self._prove() is Proof.UNHEARD:
                    self._disconnect()
                if self._connection is None and clock() >= listen_at:
                    reachable = await self._listen()
                    listen_at = clock() + (PROVE_AGAIN_S if reachable else 0)
                if self._connection is None:
                    await self._poll()
                await asyncio.sleep(HEARTBEAT_S)
        finally:
            self._disconnect()

    async def _listen(self) -> bool:
        """Connect and prove. Return whether the connection was well."""
        try:
            self._connection = await self._connector.connect()
            # One statement is one transaction, which a pooler does not tear apart.
            await self._connection.add_listener(CHANNEL, self._on_notice)
            await self._connection.add_listener(self._channel, self._on_word)
        except CONNECTION_ERRORS as error:
            self._log_polling(describe(error))
            self._disconnect()
            return False
        proof = await self._prove()
        if proof is not Proof.HEARD:
            if proof is Proof.UNHEARD:
                self._log_polling("notices do not arrive over LISTEN")
            self._disconnect()
            return proof is Proof.UNHEARD
        if not self._logged:
            log.info("notices.recovered")
        self._logged = True
        self._number = None
        self._deliver("")
        self.ready.set()
        return True

    async def _prove(self) -> Proof:
        """Send a word over a pooled connection, and wait until it is heard."""
        if self._connection is None or self._connection.is_closed():
            return Proof.UNHEARD
        self._heard = asyncio.get_running_loop().create_future()
        self._word = secrets.token_hex(8)
        try:
            await self._run(self._say)
        except Failure:
            return Proof.UNHEARD if self._connection.is_closed() else Proof.UNSENT
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await self._heard
        except TimeoutError:
            return Proof.UNHEARD
        return Proof.HEARD

    async def _poll(self) -> None:
        with suppress(Failure):
            number = await self._run(_read_number)
            if number != self._number:
                self._number = number
                self._deliver("")
            self.ready.set()

    def _say(self) -> Transaction[None]:
        yield "SELECT pg_notify(?, ?)", (self._channel, self._word)

    def _on_notice(self, *notice: object) -> None:
        self._deliver(str(notice[-1]))

    def _on_word(self, *notice: object) -> None:
        if notice[-1] == self._word and self._heard is not None and not self._heard.done():
            self._heard.set_result(None)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    def _log_polling(self, reason: str) -> None:
        if self._logged:
            remedy = "state.database_direct_url"
            log.warning("notices.polled", extra={"reason": reason, "remedy": remedy})
        self._logged = False


def _read_number() -> Transaction[int]:
    rows = yield "SELECT number FROM notices", ()
    return int(str(rows[0][0]))
