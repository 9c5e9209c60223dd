"""Client of a service's operators' listener."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from pomogator.accounts.v1 import account_service_pb2 as accounts
from pomogator.accounts.v1 import account_service_pb2_grpc as accounts_grpc
from pomogator.accounts.v1 import key_service_pb2 as keys
from pomogator.accounts.v1 import key_service_pb2_grpc as keys_grpc
from pomogator.accounts.v1 import ledger_service_pb2 as ledger
from pomogator.accounts.v1 import ledger_service_pb2_grpc as ledger_grpc

ANSWER_TIMEOUT_S = 60.0
"""The longest time to an operator's answer while a server starts. No test depends on it."""


class Operators:
    """The operators' methods that tests use."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._keys = keys_grpc.KeyServiceStub(channel)
        self._accounts = accounts_grpc.AccountServiceStub(channel)
        self._ledger = ledger_grpc.LedgerServiceStub(channel)

    async def create_key(self, account: str, scope: keys.KeyScope | None = None) -> tuple[str, str]:
        """The ID and the secret of a new key."""
        request = keys.CreateKeyRequest(account=account, scope=scope)
        answer = await self._keys.CreateKey(request, timeout=ANSWER_TIMEOUT_S, wait_for_ready=True)
        return answer.key.key_id, answer.secret

    async def revoke_key(self, key_id: str) -> None:
        """Revokes a key."""
        await self._keys.RevokeKey(keys.RevokeKeyRequest(key_id=key_id), timeout=ANSWER_TIMEOUT_S)

    async def credit(self, account: str, nano_usd: int, request_id: str) -> None:
        """Credits the account, once for each `request_id`."""
        request = accounts.CreditAccountRequest(
            account=account, amount_nano_usd=nano_usd, request_id=request_id
        )
        await self._accounts.CreditAccount(request, timeout=ANSWER_TIMEOUT_S)

    async def account(self, account: str) -> accounts.Account:
        """The account."""
        request = accounts.GetAccountRequest(account=account)
        answer = await self._accounts.GetAccount(request, timeout=ANSWER_TIMEOUT_S)
        return answer.account

    async def verify(self) -> ledger.VerifyLedgerResponse:
        """The audit of the books, as `pomogator ledger verify` has it."""
        return await self._ledger.VerifyLedger(
            ledger.VerifyLedgerRequest(), timeout=ANSWER_TIMEOUT_S, wait_for_ready=True
        )

    async def settled(self) -> ledger.VerifyLedgerResponse:
        """The audit of the books, once no money is held."""
        while (result := await self.verify()).counts.get("held", 0):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        return result


@asynccontextmanager
async def operators(state: Path) -> AsyncIterator[Operators]:
    """Operators of the service whose state is in `state`."""
    async with grpc.aio.insecure_channel(f"unix:{state / 'ops.sock'}") as channel:
        yield Operators(channel)
