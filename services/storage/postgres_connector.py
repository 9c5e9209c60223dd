"""Connections to a PostgreSQL server: which host, which statements, and what went wrong.

Named prepared statements belong to a session, and a pooler such as PgBouncer gives each transaction
another one. So statements are named only where the session is proved to be the client's own: a
pooler invents the process ID that it announces, so it differs from the server's `pg_backend_pid()`.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Sequence
from typing import Literal, TypeAlias

import asyncpg

from services.storage.base import StateError
from services.storage.postgres_parameters import UrlError
from services.storage.postgres_url import DEFAULT_ADDRESS, Host, host_address, parse_url

log = logging.getLogger(__name__)

STATEMENTS_NAMED = 100
"""Prepared statements that a connection keeps by name."""

PreparedStatements: TypeAlias = Literal["auto", "named", "unnamed"]

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.TargetServerAttributeNotMatched,
    OSError,
    TimeoutError,
)


class UnreachableError(Exception):
    """No host takes a connection. It has the failure of each, in the order of the attempts."""

    def __init__(self, failures: Sequence[tuple[str, BaseException]]) -> None:
        """`failures` are addresses and what happened there."""
        super().__init__("; ".join(f"{address}: {describe(error)}" for address, error in failures))
        self.errors = [error for _, error in failures]


CONNECTION_ERRORS = (UnreachableError, *DRIVER_ERRORS)
"""Errors of a connection that fails, or of a statement that the server does not run."""

CLOSED_STATES = ("08", "57P01", "57P02", "57P03", "25006")
"""SQLSTATEs, or their first characters, after which a connection is of no use: it is broken, or its
server shuts down, starts up or is read-only."""

PERMANENT_STATES = ("28", "3D000", "3F000", "42501", "42704")
"""SQLSTATEs, or their first characters, that stay until an operator mends the cause: password,
name of the database, schema, privilege, name of a parameter."""

NO_TLS = "rejected SSL upgrade"
"""Words of the driver where the URL demands TLS."""

RENAMED_STATES = ("26000", "42P05")
"""SQLSTATEs of a named statement that is on another session: a pooler is in between."""


class PostgresConnector:
    """Opens connections to the server that a URL names, and of several hosts to the right one."""

    def __init__(
        self,
        url: str,
        prepared_statements: PreparedStatements = "auto",
        *,
        key: str = "state.database_url",
    ) -> None:
        """`key` is that of the URL in the configuration. Raise StateError if it is not valid."""
        try:
            self._url = parse_url(url)
        except UrlError as error:
            raise StateError(f"{key}: {error}") from None
        for parameter in self._url.unmet:
            extra = {"parameter": parameter, "remedy": "sslmode=verify-full&sslrootcert=system"}
            log.warning("database_parameter.ignored", extra=extra)
        self._hosts = list(self._url.hosts)
        """Hosts, those that failed last at the end."""
        self._mode = prepared_statements
        self.direct = False
        """Whether sessions are proved to be the client's own."""
        self.named_statements = prepared_statements == "named"
        """Whether connections prepare statements by name."""

    @property
    def address(self) -> str:
        """Hosts and the database's name, without a login."""
        return self._url.address

    @property
    def timeout_s(self) -> float:
        """Longest time of an attempt at all hosts."""
        return self._url.connect_timeout_s * max(1, len(self._hosts))

    async def connect(self) -> Connection:
        """Connect to the first host that answers and accepts writes. Raise UnreachableError."""
        failures: list[tuple[str, BaseException]] = []
        hosts: Sequence[Host | None] = self._hosts or [None]
        for host in hosts:
            try:
                return await self._connect(host)
            except DRIVER_ERRORS as error:
                failures.append((host_address(host) if host else DEFAULT_ADDRESS, error))
                if host is not None and host != hosts[-1]:
                    self._put_last(host)
        raise UnreachableError(failures)

    async def probe(self, connection: Connection) -> None:
        """Find out whether sessions are the client's own, and statements may be named."""
        async with connection.transaction():  # Even an unnamed statement needs one session.
            pid = await connection.fetchval("SELECT pg_backend_pid()")
        self.direct = pid == connection.get_server_pid()
        self.named_statements = self._mode == "named" or (self._mode == "auto" and self.direct)

    def stop_naming(self) -> bool:
        """Prepare no more statements by name. Return False if the configuration wants names."""
        if self._mode == "auto":
            self.named_statements = False
        return self._mode == "auto"

    async def _connect(self, host: Host | None) -> Connection:
        connection: Connection = await asyncpg.connect(
            self._url.dsn,
            host=host and host[0],
            port=host and host[1],
            timeout=self._url.connect_timeout_s,
            target_session_attrs=self._url.target,  # type: ignore[arg-type]
            statement_cache_size=STATEMENTS_NAMED if self.named_statements else 0,
        )
        return connection

    def _put_last(self, host: Host) -> None:
        if self._hosts[0] == host:  # Another attempt may have done it.
            self._hosts = [*self._hosts[1:], host]
            first, port = self._hosts[0]
            log.warning("database_host.changed", extra={"address": f"{first}:{port}"})


def is_closing(error: BaseException) -> bool:
    """Return whether the connection of this error is to be closed, and its pool renewed."""
    return isinstance(error, asyncpg.PostgresError) and _state(error).startswith(CLOSED_STATES)


def is_renamed(error: BaseException) -> bool:
    """Return whether a named statement was looked up in another session."""
    return isinstance(error, asyncpg.PostgresError) and _state(error) in RENAMED_STATES


def is_full(error: BaseException) -> bool:
    """Return whether the server has no connection slot left, for any or for this role.

    PgBouncer up to 1.22 has no SQLSTATE for it.
    """
    if isinstance(error, UnreachableError):
        return any(is_full(each) for each in error.errors)
    return isinstance(error, asyncpg.PostgresError) and (
        _state(error) == "53300" or "no more connections allowed" in str(error)
    )


def is_permanent(error: BaseException) -> bool:
    """Return whether the failure stays until an operator mends its cause."""
    if isinstance(error, UnreachableError):
        return all(is_permanent(each) for each in error.errors)
    if isinstance(error, asyncpg.PostgresError):
        return _state(error).startswith(PERMANENT_STATES)
    if isinstance(error, asyncpg.ClientConfigurationError | ssl.SSLCertVerificationError):
        return True
    return NO_TLS in str(error)


def describe(error: BaseException) -> str:
    """Return the reason of a failure for operators. It never holds the URL, with its password."""
    if isinstance(error, UnreachableError | asyncpg.ClientConfigurationError):
        return str(error).splitlines()[0]
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "accepts no writes (target_session_attrs)"
    if isinstance(error, asyncpg.PostgresError) and error.as_dict().get("severity"):
        return f"{str(error).splitlines()[0]} ({_state(error)})"  # The server's own words.
    if isinstance(error, asyncpg.ConnectionDoesNotExistError):
        return "the server closed the connection"
    if isinstance(error, OSError):
        return _describe_system(error)
    return type(error).__name__


def _describe_system(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"tls: certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"tls: {error.reason or error}"
    if isinstance(error, TimeoutError) and error.errno is None:
        return str(error) or "no answer in time"
    if NO_TLS in str(error):
        return "the server does not speak TLS, which sslmode demands"
    if error.errno is None:
        return str(error) or type(error).__name__  # The driver's words, or several of the system.
    return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)


def _state(error: asyncpg.PostgresError) -> str:
    return str(error.sqlstate or "")
