"""Outbox of the ledger."""

from __future__ import annotations

from collections.abc import Callable

from services.domain.usage import Usage
from services.metering.holds import HoldTerms
from services.metering.ledger import Ledger
from services.storage.accounts import credit_account, ensure_account
from services.storage.audit import audit
from services.storage.base import Database, P, T, Transaction
from services.storage.hold_ends import end_holds
from services.telemetry.supervisor import Supervisor
from tests.stand.clock import FakeClock
from tests.stand.failing_database import WatchedDatabase

FAILURES = 3


class BuggyDatabase(WatchedDatabase):
    """Real database whose driver raises an unexpected error when holds are ended."""

    left = FAILURES

    async def write(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Delegate to the database, except for the first ends of holds."""
        if transaction is end_holds and self.left:
            self.left -= 1
            raise RuntimeError("a bug")
        return await super().write(transaction, *args, **kwargs)


async def test_a_bug_loses_no_end_of_a_hold(database: Database, clock: FakeClock) -> None:
    """The restarted task writes all ends once and in order."""
    await database.write(ensure_account, "acme", 0)
    await database.write(credit_account, "acme", 100, "r1", 0)
    supervisor = Supervisor(pause_s=0)
    async with Ledger(BuggyDatabase(database), clock, supervisor=supervisor) as ledger:
        holds = [
            await ledger.reserve(*(HoldTerms(account="acme", key_id="k", model="m"), "r", 10))
            for _ in range(3)
        ]
        await ledger.drain()
        ledger.settle(holds[0], 7, Usage())
        ledger.void(holds[1])
        ledger.settle(holds[2], 5, Usage())
        await ledger.drain()

        assert ledger.healthy
        assert len(ledger.outbox) == 0

    assert supervisor.failures[("ledger outbox",)].value == FAILURES
    result = await database.read(audit)
    assert result.findings == ()
    assert (result.counts["settled"], result.counts["voided"]) == (2, 1)
