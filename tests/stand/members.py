"""`pomogator serve` in several processes: services and edges that can be killed one by one."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from pomogator.accounts.v1 import account_service_pb2 as accounts
from pomogator.accounts.v1 import account_service_pb2_grpc as accounts_grpc
from pomogator.accounts.v1 import key_service_pb2 as keys
from pomogator.accounts.v1 import key_service_pb2_grpc as keys_grpc
from pomogator.accounts.v1 import ledger_service_pb2 as ledger
from pomogator.accounts.v1 import ledger_service_pb2_grpc as ledger_grpc

from tests.stand.process import Server

ANSWER_S = 60.0
"""How long a server that is starting may take to answer an operator. No test is about it."""


class Member:
    """One command, which may run many times."""

    def __init__(
        self,
        *arguments: object,
        listens: Mapping[str, str],
        env: Mapping[str, str] | None = None,
        module: str = "services",
    ) -> None:
        """`listens` are the fields of the log line that says that it serves."""
        self._module = module
        self._arguments = [str(argument) for argument in arguments]
        self._listens = listens
        self._env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(env or {})}
        self._reading: list[asyncio.Task[None]] = []
        self.process: asyncio.subprocess.Process | None = None
        self.server: Server | None = None

    @property
    def alive(self) -> bool:
        """Whether it runs at the moment."""
        return self.process is not None and self.process.returncode is None

    async def spawn(self) -> None:
        """Starts it, and does not wait until it serves."""
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self._module, "serve", *self._arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._env,
        )
        self.server = Server(self.process)
        self._reading = [
            asyncio.create_task(self.server.read_log()),
            asyncio.create_task(self.server.read_greeting()),
        ]

    async def start(self) -> str:
        """Starts it, and gives the address where it serves."""
        await self.spawn()
        assert self.server is not None
        serves = asyncio.create_task(self.server.event("server.listening", **self._listens))
        await asyncio.wait([serves, *self._reading], return_when=asyncio.FIRST_COMPLETED)
        assert serves.done(), self.server.log
        return str(serves.result()["address"])

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal, and returns when the process is gone."""
        if self.process is None:
            return
        if self.process.returncode is None:
            self.process.send_signal(number)
        await self.process.wait()
        await asyncio.gather(*self._reading)


def service(
    state: Path, config: Path, env: Mapping[str, str] | None = None, address: str = ""
) -> Member:
    """A service alone, with its operators at `unix:STATE/ops.sock`.

    Without an address of its own it is at `unix:STATE/grpc.sock`.
    """
    address = address or f"unix:{state / 'grpc.sock'}"
    return Member(
        *("--only", "grpc", "--grpc", address, "--metrics", ""),
        *("--config", config, "--state", state),
        listens={"protocol": "grpc", "address": address},
        env=env,
    )


def edge(state: Path, address: str = "") -> Member:
    """An edge alone, in front of the service of that state, or at that address."""
    target = address or f"unix:{state / 'grpc.sock'}"
    return Member(
        *("--only", "rest", "--target", target, "--rest", "127.0.0.1:0"),
        listens={"protocol": "http"},
    )


def both(state: Path, config: Path, env: Mapping[str, str] | None = None) -> Member:
    """Edge and service in one process."""
    return Member(
        *("--rest", "127.0.0.1:0", "--grpc", f"unix:{state / 'grpc.sock'}", "--metrics", ""),
        *("--config", config, "--state", state),
        listens={"protocol": "http"},
        env=env,
    )


class Operators:
    """What tests ask of a service's operators' listener."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._keys = keys_grpc.KeyServiceStub(channel)
        self._accounts = accounts_grpc.AccountServiceStub(channel)
        self._ledger = ledger_grpc.LedgerServiceStub(channel)

    async def create_key(self, account: str, scope: keys.KeyScope | None = None) -> tuple[str, str]:
        """The ID and the secret of a new key."""
        request = keys.CreateKeyRequest(account=account, scope=scope)
        answer = await self._keys.CreateKey(request, timeout=ANSWER_S, wait_for_ready=True)
        return answer.key.key_id, answer.secret

    async def revoke_key(self, key_id: str) -> None:
        """Revokes a key."""
        await self._keys.RevokeKey(keys.RevokeKeyRequest(key_id=key_id), timeout=ANSWER_S)

    async def credit(self, account: str, nano_usd: int, request_id: str) -> None:
        """Pays in, once for each `request_id`."""
        request = accounts.CreditAccountRequest(
            account=account, amount_nano_usd=nano_usd, request_id=request_id
        )
        await self._accounts.CreditAccount(request, timeout=ANSWER_S)

    async def account(self, account: str) -> accounts.Account:
        """What is known about an account."""
        request = accounts.GetAccountRequest(account=account)
        answer = await self._accounts.GetAccount(request, timeout=ANSWER_S)
        return answer.account

    async def verify(self) -> ledger.VerifyLedgerResponse:
        """The audit of the books, as `pomogator ledger verify` has it."""
        return await self._ledger.VerifyLedger(
            ledger.VerifyLedgerRequest(), timeout=ANSWER_S, wait_for_ready=True
        )


@asynccontextmanager
async def operators(state: Path) -> AsyncIterator[Operators]:
    """The operators' services of the service with that state."""
    async with grpc.aio.insecure_channel(f"unix:{state / 'ops.sock'}") as channel:
        yield Operators(channel)
