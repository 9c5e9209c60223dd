"""Money: what a request may take, what it took, and that both are true whatever dies.

A request takes a hold before anything is sent upstream, and the hold ends once:

    reserve ──► held ──┬─ settle ──► settled     charged what it cost
                       ├─ void ────► voided      charged nothing
                       └─ (the process died) ──► recovered at its last checkpoint,
                                                 or voided if there is none

Each step is one conditional statement in the database, so that no order of events,
no repetition and no crash between any two of them does it twice. `settle` and `void`
only take note: a task of the ledger carries them out, so that neither the answer
waits nor a cancelled request forgets. What the database refuses is tried again; it
is safe there, since the hold stands until it is ended.

Over-run: a hold is an estimate. Where a request cost more, the whole cost is charged
and the excess recorded (`holds.overrun`); the balance may then be negative, by no
more than the sum of those, and what follows is refused until it is not. Where it cost
less, only the cost is charged.

Death: what a killed process had not written down is lost to us, never to the caller. Of a
stream that is at most its last second. A call that was complete has its settlement in the
outbox for some 20 ms and then for as long as the commit takes: settlement keeps no answer
waiting. Killed meanwhile, it costs what its last checkpoint says, and nothing if it took less
than a second or came in one piece.

All amounts are whole nano-USD.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from contextlib import suppress
from datetime import UTC, datetime
from typing import Self
from weakref import WeakValueDictionary

from pomogator.chat.v1 import usage_pb2

from services.clock import Clock
from services.errors import Failure
from services.metering.holds import Hold, HoldRequest, tokens_of
from services.metering.outbox import Outbox
from services.metering.recovery import Recovery
from services.storage.base import Database, unavailable
from services.storage.ledger import (
    NO_TOKENS,
    SETTLED,
    VOIDED,
    Checkpoint,
    HoldEnd,
    HoldRow,
    Tokens,
    end_leases,
    insert_hold,
    owned_holds,
    renew_lease,
    write_checkpoints,
)
from services.telemetry.supervisor import Supervisor

LEASE_S = 15.0
"""How long a process that is silent is taken to live, by the database's clock: its holds are left
alone. After that it has until the next sweep to say that only the clock has jumped."""

HEARTBEAT_S = 0.5
"""How often checkpoints are written. Calls note theirs as often (`CHECKPOINT_S` of their ticket):
the two together are what a kill may lose of a stream, and at most a second."""

LEASE_HEARTBEATS = 2
"""Every how many beats the lease is renewed."""

SWEEP_HEARTBEATS = 10
"""Every how many beats holds are looked for that nobody will end."""

LOST_AFTER_S = 60.0
"""The age at which a hold of ours that nobody here knows is taken for lost."""

RELEASE_WAIT_S = 1.0
"""How long a call that there is no money for waits for others to give back theirs."""

CLOSE_TIMEOUT_S = 10.0
"""How long `close` waits for a database that does not answer."""


class Ledger:
    """The ledger of one process. Use it as a context: `async with Ledger(…) as ledger`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        lease_s: float = LEASE_S,
        supervisor: Supervisor | None = None,
    ) -> None:
        """`supervisor` runs the ledger's tasks. None: one of its own."""
        self._supervisor = supervisor or Supervisor()
        self._database = database
        self._clock = clock
        self._lease_s = lease_s
        self._owner = f"owner-{secrets.token_hex(8)}"
        self._id_prefix = secrets.token_hex(6)
        self._serials = itertools.count()
        # Holds that nobody has any more cannot be ended by anybody: they are swept.
        self._open: WeakValueDictionary[str, Hold] = WeakValueDictionary()
        self._dirty: dict[str, Hold] = {}
        self._outbox = Outbox(database)
        self._recovery = Recovery(database)
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        if self._database.exclusive:
            # Whoever else had the state open is gone, and so nobody ends its holds.
            await self._database.write(end_leases)
        await self._database.write(renew_lease, self._owner, self._lease_ms)
        await self.sweep()
        self._tasks = [
            self._supervisor.start(self._outbox.send, "ledger outbox"),
            self._supervisor.start(self._run_heartbeat, "ledger beat"),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def owner(self) -> str:
        """The name under which this process has its lease, for as long as it lives."""
        return self._owner

    @property
    def outbox_depth(self) -> int:
        """How many endings wait for the database."""
        return len(self._outbox)

    @property
    def healthy(self) -> bool:
        """Whether requests may be admitted: what ends them keeps up."""
        for task in self._tasks:
            if task.done():
                return False
        return not self._outbox.full

    @property
    def open_holds(self) -> int:
        """How many requests of this process hold money."""
        return len(self._open)

    @property
    def recovered(self) -> int:
        """How many holds were ended here for processes that could not."""
        return self._recovery.recovered

    @property
    def broken_holds(self) -> int:
        """How many holds nobody can end as they stand in the database."""
        return self._recovery.broken

    async def reserve(self, request: HoldRequest) -> Hold:
        """Takes a hold. A caller that is cancelled meanwhile holds nothing.

        Raises Failure: INSUFFICIENT_QUOTA, BUDGET_EXCEEDED, STORAGE_UNAVAILABLE.
        """
        try:
            return await self._reserve(request)
        except Failure as refusal:
            if not refusal.row.lacks_funds or not len(self._outbox):
                raise
        # Calls that are over have still to give back what they held: a caller who asks one
        # thing after another must not be refused for that.
        with suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_WAIT_S):
                await self._outbox.drain_current()
        return await self._reserve(request)

    async def _reserve(self, request: HoldRequest) -> Hold:
        if self._closing or not self.healthy:
            raise unavailable()
        hold = Hold(self._row(request))
        self._open[hold.id] = hold
        try:
            # Whoever loses it to a power cut has lost the call that it was for as well. Charges
            # are synced, and so is every hold that one of them ends.
            await self._database.write_unsynced(insert_hold, hold.row)
        except asyncio.CancelledError:
            # It may have been taken all the same. Queued behind it, this gives it back.
            self.void(hold)
            raise
        except BaseException:
            hold.ended = True
            del self._open[hold.id]
            raise
        return hold

    def checkpoint(self, hold: Hold, charge_nano: int, usage: usage_pb2.Usage) -> None:
        """Says what a running request has used so far. Written within `HEARTBEAT_S`."""
        hold.charge_nano = charge_nano
        hold.usage = usage
        self._dirty[hold.id] = hold

    def settle(self, hold: Hold, charge_nano: int, usage: usage_pb2.Usage) -> None:
        """Ends a hold: its account is charged. Whatever is said of it later is ignored."""
        self._end(hold, SETTLED, charge_nano, tokens_of(usage))

    def void(self, hold: Hold) -> None:
        """Ends a hold: nothing is charged. Whatever is said of it later is ignored."""
        self._end(hold, VOIDED, 0, NO_TOKENS)

    async def drain(self) -> None:
        """Returns when every ending that was asked for is in the database."""
        await self._outbox.drain()

    async def close(self) -> None:
        """Admits nothing more, and carries out what was asked for.

        What the database has not taken by then is recovered by whoever opens it next.
        """
        self._closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(Failure):
            await self._write_checkpoints()
            await self._database.write(end_leases, self._owner)

    async def sweep(self) -> int:
        """Ends holds that nobody else will; returns how many it found."""
        # The date may have jumped past the lease of this very process.
        await self._database.write(renew_lease, self._owner, self._lease_ms)
        before_ms = int((self._clock.time() - LOST_AFTER_S) * 1000)
        owned = await self._database.read(owned_holds, self._owner, before_ms)
        lost = [
            hold_id
            for hold_id in owned
            if hold_id not in self._open and hold_id not in self._outbox
        ]
        return await self._recovery.sweep(lost, self._now_ms())

    @property
    def _lease_ms(self) -> int:
        return round(self._lease_s * 1000)

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)

    def _row(self, request: HoldRequest) -> HoldRow:
        now_s = self._clock.time()
        now_ms = int(now_s * 1000)
        budget = request.monthly_nano
        month = "" if budget is None else datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m")
        return HoldRow(
            id=f"hold-{now_ms:011x}-{self._id_prefix}{next(self._serials) & 0xFFFF:04x}",
            request_id=request.request_id,
            account=request.account,
            key_id=request.key_id,
            model=request.model,
            amount=request.amount_nano,
            price=request.price,
            month=month,
            budget=budget or 0,
            owner=self._owner,
            created_ms=now_ms,
        )

    def _end(self, hold: Hold, state: str, charge_nano: int, tokens: Tokens) -> None:
        if hold.ended:
            return
        hold.ended = True
        self._open.pop(hold.id, None)
        self._dirty.pop(hold.id, None)
        self._outbox.put(HoldEnd(hold.row, state, charge_nano, tokens, self._now_ms()))

    async def _run_heartbeat(self) -> None:
        """Keeps the lease, the checkpoints and the books in order, for ever."""
        heartbeats = 0
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            heartbeats += 1
            with suppress(Failure):
                await self._write_checkpoints()
                if heartbeats % LEASE_HEARTBEATS == 0:
                    await self._database.write(renew_lease, self._owner, self._lease_ms)
                if heartbeats % SWEEP_HEARTBEATS == 0:
                    await self.sweep()

    async def _write_checkpoints(self) -> None:
        dirty, self._dirty = self._dirty, {}
        if not dirty:
            return
        points = [
            Checkpoint(hold.id, hold.charge_nano, tokens_of(hold.usage)) for hold in dirty.values()
        ]
        try:
            await self._database.write(write_checkpoints, points)
        except BaseException:
            self._dirty = dirty | self._dirty
            raise
