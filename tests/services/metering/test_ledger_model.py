"""Stateful property test: the ledger against a model of it, with steps in any order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from services.domain.error_reason import ErrorReason
from services.domain.usage import Usage
from services.errors import Failure
from services.metering import outbox
from services.metering.holds import Hold, HoldTerms
from services.metering.ledger import Ledger
from services.storage.accounts import account_by_name, credit_account, ensure_account
from services.storage.audit import audit
from services.storage.base import Database
from services.storage.hold_ends import HoldEnd, end_holds
from services.storage.leases import end_leases
from services.storage.ledger import HoldRow
from services.storage.opening import open_database
from tests.stand.clock import FakeClock

T = TypeVar("T")

BUDGET = 60
AMOUNTS = st.integers(0, 50)
USAGE = Usage(prompt_token_count=3, source="counted")

_names = count()


@dataclass
class Expected:
    """Hold in the model."""

    amount: int
    budgeted: bool
    checkpoint: int | None = None


class LedgerMachine(RuleBasedStateMachine):
    """State machine of one account and one ledger, which may crash and restart at any step."""

    runner: asyncio.Runner
    database: Database

    def __init__(self) -> None:
        super().__init__()
        self.account = f"model-{next(_names)}"
        self.posted = self.budget_used = self.budget_held = 0
        self.open: dict[str, tuple[Hold, Expected]] = {}
        self.ended: list[HoldRow] = []
        self.credits = count()

    def run_async(self, work: Awaitable[T]) -> T:
        """Wait for the end of some work."""

        async def ended() -> T:
            return await work

        return self.runner.run(ended())

    def attempt(self, work: Awaitable[T]) -> tuple[T | None, ErrorReason | None]:
        """Return the result of some work, or the reason of its failure."""
        try:
            return self.run_async(work), None
        except Failure as failure:
            return None, failure.reason

    @property
    def held(self) -> int:
        """Held amount in the model."""
        return sum(expected.amount for _, expected in self.open.values())

    @initialize()
    def begin(self) -> None:
        """Open the account and the ledger."""
        self.run_async(self.database.write(ensure_account, self.account, 0))
        self.start_ledger()

    def start_ledger(self) -> None:
        """Start a process."""

        async def start() -> Ledger:
            return await Ledger(self.database, FakeClock()).__aenter__()

        self.ledger = self.run_async(start())

    @rule(amount=st.integers(-100, 200), again=st.booleans())
    def credit(self, amount: int, again: bool) -> None:
        """Credit or debit the account. The same payment counts once."""
        request_id = f"{self.account}-{next(self.credits)}"
        covered = amount >= 0 or self.posted - self.held >= -amount
        for _ in range(1 + again):
            _, refusal = self.attempt(self.pay(amount, request_id))
            assert refusal == (None if covered else ErrorReason.INSUFFICIENT_QUOTA)
        self.posted += amount if covered else 0

    async def pay(self, amount: int, request_id: str) -> None:
        """Credit or debit the account as operators do."""

        async def credit() -> object:
            return await self.database.write(credit_account, self.account, amount, request_id, 0)

        await (credit() if amount > 0 else self.ledger.withdraw(self.account, -amount, credit))

    @rule(amount=AMOUNTS, budgeted=st.booleans())
    def reserve(self, amount: int, budgeted: bool) -> None:
        """Take a hold. It is admitted exactly if the balance and the budget cover it."""
        covered = not amount or self.posted - self.held >= amount
        within = not (amount and budgeted) or self.budget_used + self.budget_held + amount <= BUDGET
        terms = HoldTerms(
            account=self.account,
            key_id=f"key-{self.account}",
            model="a/b",
            monthly_nano=BUDGET if budgeted else None,
        )
        hold, refusal = self.attempt(self.ledger.reserve(terms, "req", amount))
        if not covered:
            assert refusal == ErrorReason.INSUFFICIENT_QUOTA
        elif not within:
            assert refusal == ErrorReason.BUDGET_EXCEEDED
        else:
            assert hold is not None
            self.open[hold.id] = (hold, Expected(amount, budgeted))
            self.budget_held += amount if budgeted else 0

    @precondition(lambda self: self.open)
    @rule(data=st.data(), amount=st.integers(1, 50))
    def extend(self, data: st.DataObject, amount: int) -> None:
        """Hold more for a call, which is admitted as a hold is."""
        hold, expected = self.open[data.draw(st.sampled_from(sorted(self.open)))]
        covered = self.posted - self.held >= amount
        within = not expected.budgeted or self.budget_used + self.budget_held + amount <= BUDGET
        _, refusal = self.attempt(self.ledger.extend(hold, amount))
        if not covered:
            assert refusal == ErrorReason.INSUFFICIENT_QUOTA
        elif not within:
            assert refusal == ErrorReason.BUDGET_EXCEEDED
        else:
            assert refusal is None
            expected.amount += amount
            self.budget_held += amount if expected.budgeted else 0
        assert hold.amount_nano == expected.amount

    @precondition(lambda self: self.open)
    @rule(data=st.data(), charge=AMOUNTS)
    def checkpoint(self, data: st.DataObject, charge: int) -> None:
        """Checkpoint a call."""
        hold, expected = self.open[data.draw(st.sampled_from(sorted(self.open)))]
        self.ledger.checkpoint(hold, charge, USAGE)
        self.run_async(self.ledger._checkpoints.write())
        expected.checkpoint = charge

    @precondition(lambda self: self.open)
    @rule(data=st.data(), charge=st.integers(0, 70), times=st.integers(1, 3))
    def settle(self, data: st.DataObject, charge: int, times: int) -> None:
        """Settle a hold several times, with a cost that may exceed it."""
        hold = self.end(data, charge)
        for _ in range(times):
            self.ledger.settle(hold, charge, USAGE)
        self.run_async(self.ledger.drain())

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def void(self, data: st.DataObject) -> None:
        """Void a hold."""
        self.ledger.void(self.end(data, 0))
        self.run_async(self.ledger.drain())

    @precondition(lambda self: self.ended)
    @rule(data=st.data(), charge=AMOUNTS)
    def replay(self, data: st.DataObject, charge: int) -> None:
        """Write the end of a hold again: nothing happens."""
        row = data.draw(st.sampled_from(self.ended))
        ending = HoldEnd(row, charge, Usage(), 0)
        assert self.run_async(self.database.write(end_holds, [ending])) == [False]

    @rule()
    def crash(self) -> None:
        """Crash. The next process charges at the checkpoints, and releases the rest."""
        self.stop_ledger()
        for hold_id in list(self.open):
            hold, expected = self.open.pop(hold_id)
            self.account_for(hold.row, expected, expected.checkpoint or 0)
        self.start_ledger()

    def stop_ledger(self) -> None:
        """Crash, and end the lease."""

        async def die() -> None:
            for task in self.ledger._tasks:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*self.ledger._tasks)
            await self.database.write(end_leases, self.ledger.owner)

        self.run_async(die())

    def end(self, data: st.DataObject, charge: int) -> Hold:
        """End a hold in the model."""
        hold_id = data.draw(st.sampled_from(sorted(self.open)))
        hold, expected = self.open.pop(hold_id)
        self.account_for(hold.row, expected, charge)
        return hold

    def account_for(self, row: HoldRow, expected: Expected, charge: int) -> None:
        """Add a charge to the model."""
        self.ended.append(row)
        self.posted -= charge
        if expected.budgeted:
            self.budget_held -= expected.amount
            self.budget_used += charge

    @invariant()
    def ledger_is_consistent(self) -> None:
        """The account equals the model's, and an audit finds nothing (I1 to I5)."""
        self.run_async(self.ledger.drain())
        account = self.run_async(self.database.read(account_by_name, self.account))
        if account is not None:
            assert (account.posted, account.held) == (self.posted, self.held)
        assert self.run_async(self.database.read(audit)).findings == ()

    def teardown(self) -> None:
        """Crash with the open holds."""
        self.stop_ledger()
        self.start_ledger()
        assert not self.ledger.open_holds
        self.stop_ledger()


def test_agrees_with_the_model(
    each_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credits, holds, checkpoints, ends, replays and crashes in any order stay consistent."""
    monkeypatch.setattr(outbox, "BATCH_DELAY_S", 0.0)
    with asyncio.Runner() as runner:
        database = runner.run(open_database(tmp_path, each_database_url, FakeClock()))
        members = {"runner": runner, "database": database}
        machine = type("Machine", (LedgerMachine,), members)
        try:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=20,
                    stateful_step_count=25,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(database.close())
