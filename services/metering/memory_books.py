"""Books in memory, for the only process of a database: SQLite.

The process is the only one that changes balances. A change that its calls have not caused, such as
a deposit, reaches it as a notice of the database (`services.storage.balance_changes`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from services.metering.outbox import Outbox
from services.storage.balance_changes import (
    BalanceChange,
    BudgetChange,
    load_account,
    load_budget,
    read_change,
)
from services.storage.base import Database, unavailable
from services.storage.hold_ends import HoldEnd
from services.storage.hold_journal import HoldJournal
from services.storage.ledger import HoldRow, budget_exceeded, insufficient

B = TypeVar("B", "AccountBook", "BudgetBook")
T = TypeVar("T")


class AccountBook(msgspec.Struct):
    """An account in memory. Amounts are in nano-USD."""

    is_loaded: bool = False
    counts_changes: bool = False
    """Whether changes count: those before are in what is being loaded."""
    unlimited: bool = False
    posted: int = 0
    """Balance less the charges of all ended calls."""
    held: int = 0


class BudgetBook(msgspec.Struct):
    """The budget of a key for one month, in memory."""

    is_loaded: bool = False
    counts_changes: bool = False
    spent: int = 0
    held: int = 0


class MemoryBooks:
    """Balances in memory, for the only process of a database."""

    def __init__(self, database: Database, journal: HoldJournal, outbox: Outbox) -> None:
        self._database = database
        self._journal = journal
        self._outbox = outbox
        self._accounts: dict[str, AccountBook] = {}
        self._budgets: dict[tuple[str, str], BudgetBook] = {}
        self._loading: dict[object, asyncio.Task[Any]] = {}
        self._withdrawals: Counter[str] = Counter()
        """Amounts that the database is deciding about, by account."""
        self._decided = asyncio.Event()
        """Set, and replaced, when it has decided about one."""
        database.subscribe(self._on_notice)
        outbox.on_not_written = self._take_back

    async def reserve(self, hold: HoldRow) -> None:
        """Take a hold. See `Books`."""
        if not self._database.healthy:
            raise unavailable()  # The heartbeat notices when it can be written again.
        amount, budget = hold.amount, None
        account = self._accounts.get(hold.account)
        if account is None or not account.is_loaded:
            account = await self._load_once(hold.account, self._load_account(hold.account))
        if hold.month:
            at = hold.key_id, hold.month
            budget = self._budgets.get(at)
            if budget is None or not budget.is_loaded:
                budget = await self._load_once(at, self._load_budget(at))
        is_bounded = amount > 0 and not account.unlimited
        if is_bounded and self._withdrawals:
            await self._wait_for_withdrawals(account, hold)
        # Nothing is awaited from here on: the decision and the hold are one step.
        if is_bounded and account.posted - account.held < amount:
            raise insufficient()
        if budget is not None and amount and budget.spent + budget.held + amount > hold.budget:
            raise budget_exceeded()
        try:
            self._journal.append(hold)
        except OSError:
            raise unavailable() from None
        account.held += amount
        if budget is not None:
            budget.held += amount
        self._outbox.add(hold)

    async def drain(self) -> None:
        """Do nothing: a cancelled call has no hold."""

    def end(self, hold: HoldRow, charge: int) -> None:
        """Release a hold and charge its account."""
        account = self._accounts[hold.account]
        account.held -= hold.amount
        account.posted -= charge
        if hold.month:
            budget = self._budgets[hold.key_id, hold.month]
            budget.held -= hold.amount
            budget.spent += charge

    def _take_back(self, hold_end: HoldEnd, has_hold: bool) -> None:
        """Undo `end` as far as the database has not done it.

        The hold of an end that came too late, or is refused, is released by a recovery's notice.
        """
        hold = hold_end.hold
        self.end(replace(hold, amount=-hold.amount if has_hold else 0), -hold_end.charge)
        for extension in hold_end.extensions:
            self.end(replace(extension, amount=-extension.amount if has_hold else 0), 0)

    async def withdraw(self, account: str, amount: int, write: Callable[[], Awaitable[T]]) -> T:
        """Withdraw. Before, the database gets all that calls have taken. See `Books`."""
        self._withdrawals[account] += amount
        try:
            await self._outbox.drain_current()
            writing = asyncio.ensure_future(write())
        except BaseException:
            self._end_withdrawal(account, amount)
            raise
        # The database may commit after the caller has gone.
        writing.add_done_callback(lambda _: self._end_withdrawal(account, amount))
        return await asyncio.shield(writing)

    async def _wait_for_withdrawals(self, account: AccountBook, hold: HoldRow) -> None:
        """Wait while only withdrawals that are not decided keep a call from its hold."""
        free = account.posted - account.held
        while free - self._withdrawals[hold.account] < hold.amount <= free:
            await self._decided.wait()
            free = account.posted - account.held

    def _end_withdrawal(self, account: str, amount: int) -> None:
        self._withdrawals[account] -= amount
        if not self._withdrawals[account]:
            del self._withdrawals[account]
        self._decided.set()
        self._decided = asyncio.Event()

    async def _load_once(self, key: object, load: Coroutine[None, None, B]) -> B:
        """Load for all callers that wait. The cancellation of one does not end it."""
        task: asyncio.Task[B] | None = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.ensure_future(load)
            task.add_done_callback(lambda _: self._loading.pop(key))
        else:
            load.close()
        return await asyncio.shield(task)

    async def _load_account(self, name: str) -> AccountBook:
        book = self._accounts.get(name)
        if book is not None and book.is_loaded:
            return book
        book = self._accounts[name] = AccountBook()
        try:
            found = await self._database.write_unsynced(load_account, name)
            if found is None:
                raise insufficient()
        except BaseException:
            del self._accounts[name]
            raise
        book.unlimited = found[0]
        book.posted += found[1]
        book.held += found[2]
        book.is_loaded = True
        return book

    async def _load_budget(self, at: tuple[str, str]) -> BudgetBook:
        book = self._budgets.get(at)
        if book is not None and book.is_loaded:
            return book
        book = self._budgets[at] = BudgetBook()
        try:
            spent, held = await self._database.write_unsynced(load_budget, *at)
        except BaseException:
            del self._budgets[at]
            raise
        book.spent += spent
        book.held += held
        book.is_loaded = True
        return book

    def _on_notice(self, payload: str) -> None:
        change = read_change(payload)
        if isinstance(change, BalanceChange):
            account = self._accounts.get(change.account)
            if account is not None and account.counts_changes:
                account.posted += change.posted
                account.held += change.held
            elif account is not None:
                account.counts_changes = change.loaded
        elif isinstance(change, BudgetChange):
            budget = self._budgets.get((change.key_id, change.month))
            if budget is not None and budget.counts_changes:
                budget.spent += change.spent
                budget.held += change.held
            elif budget is not None:
                budget.counts_changes = change.loaded
