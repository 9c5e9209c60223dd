"""What a database promises to the rest of the service, whichever it is.

A transaction is a generator. It yields a statement, is handed the rows, and returns
its result; it does no I/O and knows no driver, so that one text serves SQLite and
PostgreSQL alike:

    def rename(key_id: str, name: str) -> Transaction[bool]:
        renamed = yield "UPDATE keys SET name = ? WHERE id = ?", (name, key_id)
        return bool(renamed)

    await database.write(rename, "key-1", "batch")

The rows of a statement that only changes some, and returns nothing of them, are empty:
there are as many as it changed. SQLite takes half the time for it that `RETURNING` takes.

What it raises undoes it. It may be run again from the start (a batch that could not
be committed, a deadlock), so it changes nothing but the database. Besides standard
SQL both databases know `now_ms()`, the database's clock in milliseconds since 1970,
and `pg_notify(channel, payload)`, which reaches listeners after the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import ParamSpec, Protocol, TypeAlias, TypeVar

from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.errors import Failure

P = ParamSpec("P")
T = TypeVar("T")

Value: TypeAlias = str | bytes | int | None
"""What a statement may bind. Times are milliseconds since 1970, money is nano-USD."""

Row: TypeAlias = Sequence[object]
Statement: TypeAlias = tuple[str, tuple[Value, ...]]
Transaction: TypeAlias = Generator[Statement, Sequence[Row], T]

Listener: TypeAlias = Callable[[str], None]
"""Is told a payload; an empty one means that notices may have been missed."""

CHANNEL = "pomogator"
"""The channel of `pg_notify` that `Database.subscribe` listens to."""

NOTIFY = "SELECT pg_notify(?, ?)"

RETRY_AFTER_S = 1.0


class StateError(Exception):
    """The state cannot be opened. The message says what is wrong, for operators."""


class StateInUseError(StateError):
    """Another process has the state open."""


class ConstraintError(Exception):
    """A statement would break a constraint of the schema, or has met a row that does.

    A fault of ours, or of whoever has written that row. Nothing was changed.
    """


class Database(Protocol):
    """Runs transactions. Both methods raise Failure STORAGE_UNAVAILABLE if it cannot."""

    async def write(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs a transaction; when this returns, its effect outlives the machine's power.

        A caller that is cancelled does not know whether it took effect.
        """
        ...

    async def write_unsynced(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `write`, for what means nothing without the process that asked for it.

        Its effect outlives that process. A power cut may undo it, but only one that ends
        the process as well; later writes never survive without it.
        """
        ...

    async def read(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs a transaction that only reads, on what has been committed."""
        ...

    def subscribe(self, listener: Listener) -> None:
        """Calls `listener` on the event loop with each notice from now on."""
        ...

    @property
    def healthy(self) -> bool:
        """Whether the last attempt to write reached the disk."""
        ...

    @property
    def exclusive(self) -> bool:
        """Whether no other process can have it open."""
        ...

    async def close(self) -> None:
        """Waits for what runs, then lets go of the database."""
        ...


def unavailable() -> Failure:
    """The failure of a database that cannot be reached, written or trusted."""
    return Failure(
        reasons.ERROR_REASON_STORAGE_UNAVAILABLE,
        "The gateway cannot reach its state.",
        retry_after_s=RETRY_AFTER_S,
    )


def notify(payload: str) -> Statement:
    """The statement that tells all listeners of all processes, once committed."""
    return NOTIFY, (CHANNEL, payload)
