"""Connection of commands to the operators' services of a running server, or of this process."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import grpc
from pomogator.accounts.v1 import account_service_pb2_grpc as accounts_grpc
from pomogator.accounts.v1 import audit_service_pb2_grpc as audit_grpc
from pomogator.accounts.v1 import key_service_pb2_grpc as keys_grpc
from pomogator.accounts.v1 import ledger_service_pb2_grpc as ledger_grpc
from pomogator.operations.v1 import operations_service_pb2_grpc as operations_grpc

from services.accounts.credential import TOKEN_VARIABLE
from services.accounts.operator_services import StateAddress, operators_channel
from services.call_log.closed_log import audit_closed_log
from services.cli.output import CommandError, remark
from services.clock import SystemClock
from services.common.addresses import is_local
from services.common.call_names import OPERATOR_HEADER
from services.common.tls import TargetTls
from services.config import load_state
from services.storage.sqlite_file import FILE

ANSWER_TIMEOUT_S = 10.0
"""Timeout of a call, the server's start included. An audit takes longer."""

AUDIT_TIMEOUT_S = 600.0

Q = TypeVar("Q")
A = TypeVar("A")


class Operators:
    """Stubs of the operators' services."""

    def __init__(self, channel: grpc.aio.Channel, token: str, name: str) -> None:
        """`token` is the credential for a listener on TCP. Unix sockets ignore it.

        `name` is the operator's, for the audit log.
        """
        named = {"authorization": token and f"Bearer {token}", OPERATOR_HEADER: name}
        self._metadata = tuple((key, value) for key, value in named.items() if value)
        self.keys = keys_grpc.KeyServiceStub(channel)
        self.accounts = accounts_grpc.AccountServiceStub(channel)
        self.audit = audit_grpc.AuditServiceStub(channel)
        self.ledger = ledger_grpc.LedgerServiceStub(channel)
        self.operations = operations_grpc.OperationsServiceStub(channel)

    async def ask(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Q, A],
        request: Q,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> A:
        """Call a method. Waits for a server that is just starting."""
        return await method(
            request, timeout=timeout_s, metadata=self._metadata, wait_for_ready=True
        )


@contextmanager
def needing_server(why: str) -> Iterator[None]:
    """Call a method that only a server has. Raise CommandError, with `why`, where none runs."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            raise CommandError(f"no server runs: {why}") from None
        raise


@asynccontextmanager
async def operators(arguments: Namespace, env: Mapping[str, str]) -> AsyncIterator[Operators]:
    """Open the operators' services of the state that the arguments name.

    Where no server runs and there is no state, one is made, and stderr says where.
    """
    config = load_state(arguments.config, env)
    database_url = config.database_url.reveal()
    address = StateAddress(
        state=arguments.state,
        database_url=database_url,
        ops=ops_address(arguments),
        credentials=_credentials(arguments),
        audit_calls=partial(audit_closed_log, config, arguments.state),
    )
    existed = bool(database_url) or _has_database(arguments.state)
    async with operators_channel(address, env, SystemClock()) as channel:
        if not existed and _has_database(arguments.state):
            remark(
                f"no server runs, so a new state was made in {arguments.state.absolute()}; "
                "--state names another one"
            )
        yield Operators(channel, env.get(TOKEN_VARIABLE, ""), arguments.operator)


def _has_database(state: Path) -> bool:
    return (state / FILE).exists()


def _credentials(arguments: Namespace) -> grpc.ChannelCredentials | None:
    """Credentials of a TLS listener. Plain text stays on this machine, since it has the token."""
    ca, certificate, key = arguments.ops_ca, arguments.ops_cert, arguments.ops_key
    if (certificate is None) != (key is None) or (certificate is not None and ca is None):
        raise CommandError("--ops-cert and --ops-key go together, and with --ops-ca")
    if ca is not None:
        return TargetTls(ca=ca, certificate=certificate, key=key).credentials()
    if not is_local(ops_address(arguments)):
        raise CommandError(
            f"--ops {arguments.ops} would be plain text on the network: give --ops-ca"
        )
    return None


def ops_address(arguments: Namespace) -> str:
    """Return the address of the operators' listener, by default in the state directory."""
    address: str = arguments.ops or f"unix:{arguments.state / 'ops.sock'}"
    return address
