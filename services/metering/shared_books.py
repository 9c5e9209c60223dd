"""Books in a database that several processes share: PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

from services.errors import Failure
from services.metering.outbox import Outbox
from services.storage.base import ConstraintError, Database, unavailable
from services.storage.ledger import HoldRow, insert_holds

T = TypeVar("T")

RELEASE_WAIT_S = 1.0
"""Time that a call without enough balance waits for pending ends of holds to be committed."""

_Waiting: TypeAlias = tuple[HoldRow, "asyncio.Future[None]"]


class SharedBooks:
    """The database decides, for the calls of one turn of the loop together."""

    takes_when_cancelled = True

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox
        self._waiting: list[_Waiting] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def reserve(self, hold: HoldRow) -> None:
        """Take a hold. See `Books`."""
        try:
            return await self._reserve(hold)
        except Failure as refusal:
            if not refusal.row.lacks_funds or not len(self._outbox):
                raise
        # Ended calls may not have released their holds yet: sequential calls must not be
        # refused for that.
        with suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_WAIT_S):
                await self._outbox.drain_current()
        return await self._reserve(hold)

    async def _reserve(self, hold: HoldRow) -> None:
        loop = asyncio.get_running_loop()
        decided = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._decide)
        self._waiting.append((hold, decided))
        await decided

    def end(self, hold: HoldRow, charge: int) -> None:
        """Do nothing: the database has the balance."""

    async def withdraw(
        self,
        account: str,  # noqa: ARG002
        amount: int,  # noqa: ARG002
        write: Callable[[], Coroutine[Any, Any, T]],
    ) -> T:
        """Only write: the database decides about calls, too."""
        return await write()

    def _decide(self) -> None:
        waiting, self._waiting = self._waiting, []
        waiting = [each for each in waiting if not each[1].done()]
        if waiting:
            task = asyncio.create_task(self._insert(waiting), name="holds")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _insert(self, waiting: Sequence[_Waiting]) -> None:
        try:
            holds = [hold for hold, _ in waiting]
            # Not synced to disk: a power cut that loses a hold also ends its call. Charges are
            # synced, each together with the hold that it ends.
            refusals = await self._database.write_unsynced(insert_holds, holds)
        except ConstraintError as error:
            if len(waiting) > 1:  # One hold must not fail the others.
                for each in waiting:
                    await self._insert([each])
                return
            _fail(waiting, error)
        except Failure as failure:
            _fail(waiting, failure)
        except BaseException:
            _fail(waiting, unavailable())
            raise
        else:
            for (_, decided), refusal in zip(waiting, refusals, strict=True):
                if not decided.done():
                    if refusal is None:
                        decided.set_result(None)
                    else:
                        decided.set_exception(refusal)


def _fail(waiting: Sequence[_Waiting], error: BaseException) -> None:
    for _, decided in waiting:
        if not decided.done():
            decided.set_exception(error)
