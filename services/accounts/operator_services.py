"""The operators' services as a whole, and the way to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from pomogator.accounts.v1 import account_service_pb2_grpc as accounts_grpc
from pomogator.accounts.v1 import key_service_pb2_grpc as keys_grpc
from pomogator.accounts.v1 import ledger_service_pb2_grpc as ledger_grpc

from services.accounts.account_servicer import AccountServicer
from services.accounts.key_servicer import KeyServicer
from services.accounts.ledger_servicer import LedgerServicer
from services.clock import Clock
from services.common.addresses import split_address
from services.inprocess import InProcessChannel
from services.rpc.failure_border import FailureBorder
from services.storage.base import Database, StateInUseError
from services.storage.opening import open_database
from services.storage.pepper import Pepper, load_pepper

CONNECT_TIMEOUT_S = 2.0
"""How long a connection to the operators' listener may take. It is near."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorServices:
    """What operators may call, over an open state."""

    database: Database
    """Where the service remembers."""
    pepper: Pepper
    """What its keys are digested with."""
    clock: Clock
    """What dates what is made."""

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the services to a server, or to a channel within the process."""
        keys_grpc.add_KeyServiceServicer_to_server(
            KeyServicer(self.database, self.pepper, self.clock), server
        )
        accounts_grpc.add_AccountServiceServicer_to_server(
            AccountServicer(self.database, self.clock), server
        )
        ledger_grpc.add_LedgerServiceServicer_to_server(LedgerServicer(self.database), server)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateAddress:
    """Where a state is, and the server that may have it open."""

    state: Path
    """Its directory."""
    database_url: str
    """The database, if it is not in the directory."""
    ops: str
    """The operators' listener of the server, as gRPC names it."""
    credentials: grpc.ChannelCredentials | None = None
    """What that listener knows us by, and we it. None: it speaks plain text."""


@asynccontextmanager
async def operators_channel(
    address: StateAddress, env: Mapping[str, str], clock: Clock
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the operators' services: the server's where one listens, else our own.

    Where the state is locked and nobody listens, the server is only starting, or stopping:
    the lock sees to it that the two never both write. A database of its own takes more
    than one writer. Raises StateError.
    """
    if await _is_listening(address.ops):
        async with _channel(address) as channel:
            yield channel
        return
    try:
        database = await open_database(address.state, address.database_url, clock)
    except StateInUseError:
        async with _channel(address) as channel:
            yield channel
        return
    try:
        pepper = await load_pepper(address.state, env, database)
        services = OperatorServices(database=database, pepper=pepper, clock=clock)
        async with InProcessChannel(services.register, interceptors=[FailureBorder()]) as own:
            yield own
    finally:
        await database.close()


def _channel(address: StateAddress) -> grpc.aio.Channel:
    # The operators' listener is on this machine, where no proxy belongs between.
    options = (("grpc.enable_http_proxy", 0),)
    if address.credentials is None:
        return grpc.aio.insecure_channel(address.ops, options=options)
    return grpc.aio.secure_channel(address.ops, address.credentials, options=options)


async def _is_listening(ops: str) -> bool:
    """Whether somebody takes connections there: a socket that a dead server left does not."""
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
