"""The operators' services, and a channel to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
from pomogator.accounts.v1 import account_service_pb2_grpc as accounts_grpc
from pomogator.accounts.v1 import audit_service_pb2_grpc as audit_grpc
from pomogator.accounts.v1 import key_service_pb2_grpc as keys_grpc
from pomogator.accounts.v1 import ledger_service_pb2_grpc as ledger_grpc

from services.accounts.account_servicer import AccountServicer, Withdraw, no_calls_run
from services.accounts.audit_servicer import AuditServicer
from services.accounts.key_servicer import KeyServicer
from services.accounts.ledger_servicer import AuditCalls, LedgerServicer
from services.clock import Clock
from services.common.addresses import split_address
from services.rpc.local_channel import local_channel
from services.storage.audit import Audit
from services.storage.base import Database, DatabaseOptions, StateInUseError
from services.storage.opening import open_database
from services.storage.pepper import Pepper, load_pepper

COMMAND = DatabaseOptions(notices=False, connections=4)
"""Options of the database of a command."""

CONNECT_TIMEOUT_S = 2.0
"""Timeout of a connection to the operators' listener, which is on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorServices:
    """Services for operators, on an open database."""

    database: Database
    pepper: Pepper
    clock: Clock
    withdraw: Withdraw = no_calls_run
    """Keeps calls of this process from taking what a withdrawal takes."""
    audit_calls: AuditCalls | None = None
    """Compares the call log with the ledger. None: there is no log."""

    audit_keep_ms: int = 0
    """Retention of entries of the audit log. 0: no limit."""

    def register(self, server: grpc.aio.Server) -> None:
        """Add the services to a server."""
        keys_grpc.add_KeyServiceServicer_to_server(
            KeyServicer(self.database, self.pepper, self.clock, self.audit_keep_ms), server
        )
        accounts_grpc.add_AccountServiceServicer_to_server(
            AccountServicer(self.database, self.clock, self.withdraw, self.audit_keep_ms), server
        )
        audit_grpc.add_AuditServiceServicer_to_server(AuditServicer(self.database), server)
        ledger_grpc.add_LedgerServiceServicer_to_server(
            LedgerServicer(self.database, self.audit_calls), server
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StateAddress:
    """Location of a state, and of the server that may have it open."""

    state: Path
    """State directory."""
    database_url: str
    """URL of the database. Empty: SQLite in the directory."""
    ops: str
    """gRPC target of the server's operators' listener."""
    credentials: grpc.ChannelCredentials | None = None
    """Credentials for the listener. None: plain text."""
    audit_calls: Callable[[Database], Awaitable[Audit]] | None = None
    """Compares the call log with the database of a state that no server has open."""


@asynccontextmanager
async def operators_channel(
    address: StateAddress, env: Mapping[str, str], clock: Clock
) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel to the operators' services of the running server, or to our own.

    If a server listens, the channel leads to it. Otherwise the state is opened by this process.
    If the state is locked, a server is just starting or stopping, and the channel leads to it:
    the lock prevents two writers. A database server allows several. Raise StateError.
    """
    if await _is_listening(address.ops):
        async with _channel(address) as channel:
            yield channel
        return
    try:
        database = await open_database(address.state, address.database_url, clock, COMMAND)
    except StateInUseError:
        async with _channel(address) as channel:
            yield channel
        return
    try:
        pepper = await load_pepper(address.state, env, database)
        audit = address.audit_calls
        services = OperatorServices(
            database=database,
            pepper=pepper,
            clock=clock,
            audit_calls=None if audit is None else partial(audit, database),
        )
        async with local_channel(services.register) as own:
            yield own
    finally:
        await database.close()


def _channel(address: StateAddress) -> grpc.aio.Channel:
    # The listener is on this machine: never use an HTTP proxy.
    options = (("grpc.enable_http_proxy", 0),)
    if address.credentials is None:
        return grpc.aio.insecure_channel(address.ops, options=options)
    return grpc.aio.secure_channel(address.ops, address.credentials, options=options)


async def _is_listening(ops: str) -> bool:
    """Return whether the target accepts connections. A dead server's socket does not."""
    if ops.startswith("unix:"):
        connecting = asyncio.open_unix_connection(ops.removeprefix("unix:"))
    else:
        connecting = asyncio.open_connection(*split_address(ops))
    try:
        _, writer = await asyncio.wait_for(connecting, CONNECT_TIMEOUT_S)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
