"""Ledger: holds, settlement and checkpoints, correct across crashes.

A request takes a hold before anything is sent upstream, and the hold ends exactly once:

    reserve ──► held ──┬─ settle ──► settled     charged what it cost
                       ├─ void ────► voided      charged nothing
                       └─ (the process died) ──► recovered at its last checkpoint,
                                                 or voided if there is none

A process that stands still for longer than its lease is taken for dead. When it goes on, the
charges of its calls are corrected (`services.storage.late_charges`).

`services.metering.books` decides whether a hold is taken: from memory where this process owns the
database, else in the database. Each further step is one conditional statement there, so no order of
events, repetition or crash applies it twice. `settle` and `void` put the end of the hold into an
outbox, and a task writes it: the answer does not wait for the database, and a cancelled request is
settled, too. The task retries writes that the database refuses, while the hold stays open.

Overrun: a hold is an estimate. If a call costs more, `extend` takes more while it is in flight; it
ends where the balance has no more. The whole cost is charged in any case, and what is beyond the
hold and its extensions is recorded (`holds.overrun`). The balance may then be negative, by at most
the sum of the overruns, and further calls are refused until it is not. If a call costs less, only
its cost is charged.

Crashes: usage that a killed process had not written is not charged. Of a stream that is about its
last second. The settlement of a complete call stays in the outbox for some 20 ms and then
until its commit, because no answer waits for it. If the process is killed meanwhile, the call is
charged at its last checkpoint, and not at all if it took less than a second or came whole.

All amounts are whole nano-USD.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from contextlib import suppress
from typing import Self
from weakref import ref

from msgspec.structs import replace

from services.clock import Clock
from services.common.plain_metrics import PlainMetrics
from services.domain.usage import Usage
from services.errors import Failure
from services.metering.books import Books
from services.metering.checkpoints import Checkpoints
from services.metering.holds import Hold, HoldTerms, month_of
from services.metering.memory_books import MemoryBooks
from services.metering.outbox import Outbox
from services.metering.recovery import Recovery
from services.metering.shared_books import SharedBooks
from services.storage.accounts import BALANCE_MAX
from services.storage.base import Database, unavailable
from services.storage.hold_ends import HoldEnd, owned_holds
from services.storage.leases import end_leases, renew_lease
from services.storage.ledger import HoldRow, insufficient
from services.telemetry.supervisor import SupervisedTask, Supervisor

LEASE_S = 15.0
"""Lease of a process, by the database's clock. Its holds are recovered after the lease has expired
and the next sweep finds it still not renewed, since the clock may have jumped."""

HEARTBEAT_S = 0.5
"""Interval of the heartbeat. One asks the calls in flight for checkpoints, which they make with
their next batch. The next one makes those of calls that had no batch, and writes all of them: a
kill loses about one second of a stream."""

LEASE_HEARTBEATS = 2
"""Heartbeats between renewals of the lease."""

SWEEP_HEARTBEATS = 10
"""Heartbeats between sweeps for holds to recover."""

LOST_AFTER_S = 60.0
"""Age at which a hold that this process took, and has no reference to any more, is recovered."""

CLOSE_TIMEOUT_S = 10.0
"""Time that `close` waits for a database that does not answer."""


class Ledger:
    """Ledger of one process. It runs tasks, so it is used as `async with Ledger(…) as ledger`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        lease_s: float = LEASE_S,
        supervisor: Supervisor | None = None,
    ) -> None:
        """Create a ledger. `supervisor` runs its tasks; None creates one."""
        self._supervisor = supervisor or Supervisor()
        self._database = database
        self._clock = clock
        self._lease_s = lease_s
        self.owner = f"owner-{secrets.token_hex(8)}"
        """Name under which this process has its lease."""
        self._id_prefix = secrets.token_hex(6)
        self._serials = itertools.count()
        self._open: dict[str, ref[Hold]] = {}
        """Weak, so that a sweep recovers holds that no caller references any more."""
        self.outbox = Outbox(database)
        """Has the ends of holds that wait for the database."""
        self.drain_current, self.drain_ends = self.outbox.drain_current, self.outbox.drain_ends
        self._checkpoints = Checkpoints(database, self.outbox)
        self.checkpoint = self._checkpoints.put
        """Updates the usage of an in-flight call. It is written within `HEARTBEAT_S`."""
        journal = database.hold_journal
        self._books: Books = (
            MemoryBooks(database, journal, self.outbox)
            if journal
            else SharedBooks(database, self.outbox)
        )
        self.withdraw = self._books.withdraw
        """Keeps calls from taking what is withdrawn in the database, which decides."""
        self.recovery = Recovery(database)
        """Ends the holds of dead processes."""
        self._closing = False
        self._has_stopped = False
        self._tasks: list[SupervisedTask] = []

    async def __aenter__(self) -> Self:
        journal = self._database.hold_journal
        if journal is not None:
            # Any other process with this state has ended, so its holds need recovery.
            await self._database.write(end_leases)
            await self.recovery.restore(journal)
        await self._database.write(renew_lease, self.owner, self._lease_ms)
        await self.sweep()
        self._tasks = [
            self._supervisor.start(self.outbox.send, "ledger outbox"),
            self._supervisor.start(self._run_heartbeat, "ledger heartbeat"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._note_stop)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def healthy(self) -> bool:
        """Whether requests may be admitted: no task has stopped, and the outbox is not full."""
        return not self._has_stopped and not self.outbox.is_full

    @property
    def open_holds(self) -> int:
        """Number of open holds of this process."""
        return len(self._held())

    def declare_metrics(self, metrics: PlainMetrics) -> None:
        """Declare the metrics of holds."""
        metrics.observable_gauge(
            "holds_open", "Open holds of this process.", lambda: self.open_holds
        )
        metrics.observable_gauge(
            "holds_broken",
            "Holds that cannot be ended as they are stored.",
            lambda: self.recovery.broken,
        )
        metrics.observable_counter(
            "holds_recovered_total",
            "Holds recovered for dead processes.",
            lambda: self.recovery.recovered,
        )
        metrics.observable_gauge(
            "outbox_depth", "Ends of holds that wait for the database.", lambda: len(self.outbox)
        )

    async def reserve(
        self, terms: HoldTerms, request_id: str, amount_nano: int, extended: HoldRow | None = None
    ) -> Hold:
        """Take a hold of the highest expected cost; a call that costs nothing is always admitted.

        It extends the hold `extended`, if that is given. If the caller is cancelled meanwhile, no
        hold stays. Raise Failure: INSUFFICIENT_QUOTA, also if no account may have the amount,
        BUDGET_EXCEEDED, STORAGE_UNAVAILABLE.
        """
        if self._has_stopped or self.outbox.is_full or (self._closing and not extended):
            raise unavailable()
        if amount_nano > BALANCE_MAX:
            raise insufficient()
        now_s = self._clock.time()
        now_ms = int(now_s * 1000)
        row = replace(
            terms.row if extended is None else extended,
            id=f"hold-{now_ms:011x}-{self._id_prefix}{next(self._serials) & 0xFFFF:04x}",
            request_id=request_id,
            amount=amount_nano,
            owner=self.owner,
            created_ms=now_ms,
        )
        if extended is not None:  # It counts in the month of that hold.
            row = replace(row, extends=extended.id)
        elif terms.has_budget:
            row = replace(row, month=month_of(now_s))
        hold = Hold(row, terms, amount_nano)
        self._open[row.id] = ref(hold)
        try:
            await self._books.reserve(row)
        except BaseException:
            del self._open[row.id]
            raise
        return hold

    async def extend(self, hold: Hold, amount_nano: int) -> None:
        """Hold more for an in-flight call, which fails as `reserve`. The hold stays as it was then.

        An extension is a hold of its own, recovered and audited as any other.
        """
        extension = await self.reserve(hold.terms, hold.row.request_id, amount_nano, hold.row)
        hold.extensions += (extension,)
        hold.amount_nano += amount_nano

    def _note_stop(self, _: asyncio.Future[None]) -> None:
        self._has_stopped = True

    def settle(self, hold: Hold, charge_nano: int, usage: Usage | None) -> None:
        """End a hold and charge its account. None: it is voided.

        Further calls for this hold are ignored.
        """
        row = hold.row
        if self._open.pop(row.id, None) is None:
            return
        if unwritten := self._checkpoints.unwritten:
            unwritten.pop(row.id, None)
        self._books.end(row, charge_nano)
        extensions = self._end_extensions(hold) if hold.extensions else ()
        ended_ms = int(self._clock.time() * 1000)
        self.outbox.put(HoldEnd(row, charge_nano, usage, ended_ms, extensions))

    def void(self, hold: Hold) -> None:
        """End a hold without a charge. Further calls for this hold are ignored."""
        self.settle(hold, 0, None)

    async def drain(self) -> None:
        """Wait until the outbox is empty, with the ends of calls that were cancelled."""
        await self._books.drain()
        await self.outbox.drain()

    async def close(self) -> None:
        """Stop admission, write the outbox and end the lease.

        Ends that the database does not accept within `CLOSE_TIMEOUT_S` are recovered by the next
        process that opens it.
        """
        self._closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(Failure):
            await self._checkpoints.write()
            await self._database.write(end_leases, self.owner)

    async def sweep(self) -> int:
        """Recover holds of dead processes, and lost ones of this process. Return how many."""
        # The clock may have jumped past the lease of this process.
        await self._database.write(renew_lease, self.owner, self._lease_ms)
        before_ms = int((self._clock.time() - LOST_AFTER_S) * 1000)
        owned = await self._database.read(owned_holds, self.owner, before_ms)
        self._open = {each: hold for each, hold in self._open.items() if hold() is not None}
        lost = [hold_id for hold_id in owned if hold_id not in self._open]
        if lost:
            ending = self.outbox.ending_ids()
            lost = [hold_id for hold_id in lost if hold_id not in ending]
        return await self.recovery.sweep(lost, int(self._clock.time() * 1000))

    def _held(self) -> list[Hold]:
        """Return the holds of calls in flight."""
        return [hold for each in self._open.values() if (hold := each()) is not None]

    @property
    def _lease_ms(self) -> int:
        return round(self._lease_s * 1000)

    def _end_extensions(self, hold: Hold) -> tuple[HoldRow, ...]:
        for extension in hold.extensions:
            self._open.pop(extension.id, None)
            self._books.end(extension.row, 0)
        return tuple([each.row for each in hold.extensions])

    async def _run_heartbeat(self) -> None:
        """Write checkpoints, renew the lease and sweep, until cancelled."""
        heartbeats = 0
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            heartbeats += 1
            await self._checkpoints.ask(self._held())
            with suppress(Failure):
                await self._checkpoints.write()
                if heartbeats % LEASE_HEARTBEATS == 0:
                    await self._database.write(renew_lease, self.owner, self._lease_ms)
                if heartbeats % SWEEP_HEARTBEATS == 0:
                    await self.sweep()
