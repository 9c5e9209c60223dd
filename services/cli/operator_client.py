"""The operators' services, for commands: of the server that runs, or of none."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import grpc
from pomogator.accounts.v1 import account_service_pb2_grpc as accounts_grpc
from pomogator.accounts.v1 import key_service_pb2_grpc as keys_grpc
from pomogator.accounts.v1 import ledger_service_pb2_grpc as ledger_grpc
from pomogator.operations.v1 import operations_service_pb2_grpc as operations_grpc

from services.accounts.credential import TOKEN_VARIABLE
from services.accounts.operator_services import StateAddress, operators_channel
from services.cli.output import CommandError
from services.clock import SystemClock
from services.common.addresses import is_local
from services.common.tls import TargetTls
from services.config import load

ANSWER_TIMEOUT_S = 10.0
"""How long a server may take to answer, its start included. Audits take their time."""

AUDIT_TIMEOUT_S = 600.0

Q = TypeVar("Q")
A = TypeVar("A")


class Operators:
    """What commands ask."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        """`token` is what a listener on TCP asks for. Others do not look at it."""
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.keys = keys_grpc.KeyServiceStub(channel)
        self.accounts = accounts_grpc.AccountServiceStub(channel)
        self.ledger = ledger_grpc.LedgerServiceStub(channel)
        self.operations = operations_grpc.OperationsServiceStub(channel)

    async def ask(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Q, A],
        request: Q,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> A:
        """The answer of a method. A server that is just starting is waited for."""
        return await method(
            request, timeout=timeout_s, metadata=self._metadata, wait_for_ready=True
        )


@asynccontextmanager
async def operators(arguments: Namespace, env: Mapping[str, str]) -> AsyncIterator[Operators]:
    """The operators' services of the state that the arguments name."""
    config = load(arguments.config, env)
    address = StateAddress(
        state=arguments.state,
        database_url=config.state.database_url.reveal(),
        ops=ops_address(arguments),
        credentials=_credentials(arguments),
    )
    async with operators_channel(address, env, SystemClock()) as channel:
        yield Operators(channel, env.get(TOKEN_VARIABLE, ""))


def _credentials(arguments: Namespace) -> grpc.ChannelCredentials | None:
    """Of a listener that speaks TLS. Any other must be on this machine: it hears the token."""
    ca, certificate, key = arguments.ops_ca, arguments.ops_cert, arguments.ops_key
    if (certificate is None) != (key is None) or (certificate is not None and ca is None):
        raise CommandError("--ops-cert and --ops-key go together, and with --ops-ca")
    if ca is not None:
        return TargetTls(ca=ca, certificate=certificate, key=key).credentials()
    if not is_local(ops_address(arguments)):
        raise CommandError(f"--ops {arguments.ops} would be plain text: give --ops-ca")
    return None


def ops_address(arguments: Namespace) -> str:
    """Where the operators' listener is: as said, or in the state directory."""
    address: str = arguments.ops or f"unix:{arguments.state / 'ops.sock'}"
    return address
