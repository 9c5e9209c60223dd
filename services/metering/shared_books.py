"""Books in a database that several processes share: PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeVar

from services.errors import Failure
from services.metering.outbox import Outbox
from services.storage.base import ConstraintError, Database, LockedError, unavailable
from services.storage.hold_ends import HoldEnd
from services.storage.ledger import HoldRow, insert_holds

T = TypeVar("T")

RELEASE_WAIT_S = 1.0
"""Time that a call without enough balance waits for pending ends of holds to be committed."""

LOCK_TIMEOUT_S = 0.1
"""Time that the calls of several accounts wait together for an account that another transaction
has locked. Then each account waits for itself."""


class _Waiting(NamedTuple):
    """Hold that waits for the database, and its caller."""

    hold: HoldRow
    decided: asyncio.Future[None]


class SharedBooks:
    """The database decides, for the calls of one turn of the loop together.

    An account has one transaction at a time: its row is locked by each of them. Calls of an account
    whose transaction is running wait for its end.
    """

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox
        self._waiting: list[_Waiting] = []
        self._busy: dict[str, list[_Waiting]] = {}
        """Calls that wait for a transaction of their account, by account."""
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
        decided = asyncio.get_running_loop().create_future()
        self._add([_Waiting(hold, decided)])
        await decided

    async def drain(self) -> None:
        """Wait until the holds of cancelled calls are voided."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def end(self, hold: HoldRow, charge: int) -> None:
        """Do nothing: the database has the balance."""

    async def withdraw(
        self,
        account: str,  # noqa: ARG002
        amount: int,  # noqa: ARG002
        write: Callable[[], Awaitable[T]],
    ) -> T:
        """Only write: the database decides about calls, too."""
        return await write()

    def _add(self, waiting: Iterable[_Waiting]) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._decide)
        self._waiting += waiting

    def _decide(self) -> None:
        """Start a transaction for the accounts that have none."""
        waiting, self._waiting = self._waiting, []
        together: list[_Waiting] = []
        for each in waiting:
            if each.decided.done():
                continue  # Its caller has left.
            queue = self._busy.get(each.hold.account)
            (together if queue is None else queue).append(each)
        self._busy |= {each.hold.account: [] for each in together}
        self._start(together)

    def _start(self, waiting: Sequence[_Waiting]) -> None:
        if waiting:
            task = asyncio.create_task(self._run(waiting), name="holds")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, waiting: Sequence[_Waiting]) -> None:
        """Decide about holds. Accounts of which one is locked go on without each other."""
        groups = _by_account(waiting)
        try:
            timeout_s = LOCK_TIMEOUT_S if len(groups) > 1 else 0.0
            await self._insert(waiting, timeout_s)
        except LockedError:
            for group in groups.values():
                self._start(group)
            return
        except BaseException:
            self._release(groups)
            raise
        self._release(groups)

    def _release(self, accounts: Iterable[str]) -> None:
        """Go on with the calls that have waited for these accounts."""
        for account in accounts:
            if queue := self._busy.pop(account):
                self._add(queue)

    async def _insert(self, waiting: Sequence[_Waiting], lock_timeout_s: float) -> None:
        holds = [each.hold for each in waiting]
        try:
            # Not synced to disk: a power cut that loses a hold also ends its call. Charges are
            # synced, each together with the hold that it ends.
            refusals = await self._database.write_unsynced(insert_holds, holds, lock_timeout_s)
        except ConstraintError as error:
            if len(waiting) > 1:  # One hold must not fail the others.
                for each in waiting:
                    await self._insert([each], 0.0)
                return
            _fail(waiting, error)
        except Failure as failure:
            _fail(waiting, failure)
        except LockedError:
            raise
        except BaseException:
            _fail(waiting, unavailable())
            raise
        else:
            for each, refusal in zip(waiting, refusals, strict=True):
                self._answer(each, refusal)

    def _answer(self, waiting: _Waiting, refusal: Failure | None) -> None:
        hold, decided = waiting
        if not decided.done():
            if refusal is None:
                decided.set_result(None)
            else:
                decided.set_exception(refusal)
        elif refusal is None:
            # The caller has left meanwhile. Only now is there a hold to void.
            self._outbox.put(HoldEnd(hold, 0, None, hold.created_ms))


def _by_account(waiting: Sequence[_Waiting]) -> dict[str, list[_Waiting]]:
    groups: dict[str, list[_Waiting]] = {}
    for each in waiting:
        groups.setdefault(each.hold.account, []).append(each)
    return groups


def _fail(waiting: Sequence[_Waiting], error: BaseException) -> None:
    for each in waiting:
        if not each.decided.done():
            each.decided.set_exception(error)
