"""Interface of databases: transactions, notices and errors.

A transaction is a generator. It yields a statement, receives the rows, and returns its result.
It does no I/O and knows no driver, so the same code runs on SQLite and on PostgreSQL:

    def rename(key_id: str, name: str) -> Transaction[bool]:
        renamed = yield "UPDATE keys SET name = ? WHERE id = ?", (name, key_id)
        return bool(renamed)

    await database.write(rename, "key-1", "batch")

A statement that changes rows without `RETURNING` yields one empty row per changed row. In
SQLite this takes half the time of `RETURNING`. With a list of parameters instead of one tuple it
runs once for each of them.

An exception in a transaction rolls it back. A transaction may run again from the start, after a
deadlock or a failed commit of its batch, so it must change nothing but the database. Besides
standard SQL both databases have `now_ms()`, the database's clock in milliseconds since 1970, and
`pg_notify(channel, payload)`, which reaches listeners after the commit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, ParamSpec, Protocol, TypeAlias, TypeVar

from services.common.plain_metrics import PlainMetrics
from services.domain.error_reason import ErrorReason
from services.errors import Failure

if TYPE_CHECKING:
    from services.storage.hold_journal import HoldJournal

P = ParamSpec("P")
T = TypeVar("T")

Value: TypeAlias = str | bytes | int | None
"""Parameter of a statement. Times are milliseconds since 1970, money is nano-USD."""

Row: TypeAlias = Sequence[object]
Values: TypeAlias = tuple[Value, ...]
Statement: TypeAlias = tuple[str, Values | list[Values]]
Transaction: TypeAlias = Generator[Statement, Sequence[Row], T]

Listener: TypeAlias = Callable[[str], None]
"""Receives the payload of a notice. An empty payload means that notices may have been missed."""

CHANNEL = "pomogator"
"""Channel of `pg_notify` that `Database.subscribe` listens on."""

NOTIFY = "SELECT pg_notify(?, ?)"

RETRY_AFTER_S = 1.0


class StateError(Exception):
    """The state cannot be opened. The message is for operators."""


class StateInUseError(StateError):
    """Another process has the state open."""


class ConstraintError(Exception):
    """A statement would break a constraint of the schema, or met a row that breaks one.

    The cause is a bug, or a row that another program wrote. Nothing was changed.
    """


class LockedError(Exception):
    """Another transaction kept a row locked for longer than this one has allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseOptions:
    """Options of a database on a server."""

    direct_url: str = ""
    """URL of the server past a pooler, for notices. Empty: the URL of the database."""
    notices: bool = True
    """Whether notices of other processes are wanted. Commands need none."""
    connections: int = 16
    """Most connections of a process."""
    prepared_statements: Literal["auto", "named", "unnamed"] = "auto"
    """Whether statements are prepared by name, which not every pooler can. `auto`: where the
    connection is proved to lead to the server without a pooler."""


DEFAULTS = DatabaseOptions()


class ConnectionCheck(NamedTuple):
    """Result of a connection to the server of one URL, which was not changed."""

    address: str
    """Hosts and the name of the database, without a login."""
    failure: str = ""
    """Why the server cannot be used. Empty: it can."""
    permanent: bool = False
    """Whether the failure stays until an operator mends its cause."""


class Database(Protocol):
    """Runs transactions. `read` and the `write` methods raise Failure STORAGE_UNAVAILABLE."""

    def write(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[T]:
        """Run a transaction. When its result is there, its effect survives a power cut.

        When the caller is cancelled, the transaction may or may not have taken effect.
        """
        ...

    def write_unsynced(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[T]:
        """Run a transaction whose effect matters only while the calling process lives.

        Its effect survives a crash of that process. A power cut, which also ends the process,
        may undo it. No later write survives without it.
        """
        ...

    def read(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[T]:
        """Run a transaction that only reads, on committed data."""
        ...

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` on the event loop with each notice from now on."""
        ...

    @property
    def healthy(self) -> bool:
        """Whether the last write was committed."""
        ...

    @property
    def failures(self) -> int:
        """Number of transactions that failed because of the database."""
        ...

    @property
    def hold_journal(self) -> HoldJournal | None:
        """Journal of holds, if no other process can have the database open."""
        ...

    async def close(self) -> None:
        """Wait for running transactions, then close the database."""
        ...


def declare_database_metrics(metrics: PlainMetrics, database: Database) -> None:
    """Declare the metrics of a database's failures and health."""
    metrics.observable_counter(
        "storage_failures_total",
        "Transactions that failed because of the database.",
        lambda: database.failures,
    )
    metrics.observable_gauge(
        "storage_healthy",
        "1: the last transaction was committed. 0: it failed.",
        lambda: database.healthy,
    )


def unavailable() -> Failure:
    """Return the failure for a database that cannot be reached, written or trusted."""
    return Failure(
        ErrorReason.STORAGE_UNAVAILABLE,
        "The gateway cannot reach its state.",
        retry_after_s=RETRY_AFTER_S,
    )


def notify(payload: str) -> Statement:
    """Return the statement that notifies the listeners of all processes after the commit."""
    return NOTIFY, (CHANNEL, payload)
