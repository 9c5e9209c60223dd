"""A gateway with accounts, prices, and a provider that reports its usage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from pomogator.accounts.v1 import account_service_pb2 as accounts_pb
from pomogator.accounts.v1 import account_service_pb2_grpc as accounts_grpc
from pomogator.accounts.v1 import key_service_pb2 as keys_pb
from pomogator.accounts.v1 import key_service_pb2_grpc as keys_grpc
from pomogator.accounts.v1 import ledger_service_pb2 as ledger_pb
from pomogator.accounts.v1 import ledger_service_pb2_grpc as ledger_grpc

from services.clock import Clock
from services.config import (
    BillingConfig,
    CallLogConfig,
    ChannelConfig,
    Config,
    LimitConfig,
    ModelConfig,
)
from services.serving.server import SYSTEM_CLOCK
from tests.stand.gateway import Gateway, Transport, running_config, stored
from tests.stand.response import ReadResponse, read
from tests.stand.upstream import FakeUpstream, Request, Script, json_answer, stream

FORMS = ("json", "sse")
"""The forms of an answer: a document or a stream."""

MODEL = "house/model"
FREE = "house/free"
"""A model without a price."""

PRICE: Mapping[str, Any] = {
    "prompt_usd_per_mtok": Decimal(3),
    "cache_read_usd_per_mtok": Decimal("0.3"),
    "completion_usd_per_mtok": Decimal(15),
    "request_usd": Decimal("0.001"),
}
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 5,
    "total_tokens": 16,
    "prompt_tokens_details": {"cached_tokens": 4},
}
COST_NANO = 7 * 3_000 + 4 * 300 + 5 * 15_000 + 1_000_000
"""The cost of a call with `USAGE` at `PRICE`."""

NANO = 10**9

BILLING = BillingConfig(unpriced="free")

NO_KEYS: Mapping[str, Any] = {}


@dataclass(slots=True)
class BillingStand:
    """A gateway with prices, its operators' methods, and its provider."""

    gateway: Gateway
    upstream: FakeUpstream
    accounts: accounts_grpc.AccountServiceStub
    keys: keys_grpc.KeyServiceStub
    ledger: ledger_grpc.LedgerServiceStub
    usage: dict[str, Any] = field(default_factory=lambda: dict(USAGE))
    """The usage that the provider reports."""
    script: Script = ()
    """The provider's script instead of an answer, if any."""
    before: Script = ()
    """The provider's steps before its answer."""

    async def open_account(self, account: str, credit_nano: int) -> str:
        """A key of a new account."""
        request = accounts_pb.CreateAccountRequest(account=account, credit_nano_usd=credit_nano)
        await self.accounts.CreateAccount(request)
        return (await self.make_key(account)).secret

    async def open(self, credit_nano: int = NANO, **scope: Any) -> str:
        """A key of the account `acme`, which is created if it does not exist."""
        listed = await self.accounts.ListAccounts(accounts_pb.ListAccountsRequest())
        if "acme" not in {each.account for each in listed.accounts}:
            request = accounts_pb.CreateAccountRequest(account="acme", credit_nano_usd=credit_nano)
            await self.accounts.CreateAccount(request)
        secret: str = (await self.make_key(**scope)).secret
        return secret

    async def make_key(self, account: str = "acme", **scope: Any) -> keys_pb.CreateKeyResponse:
        """A new key and its secret."""
        return await self.keys.CreateKey(
            keys_pb.CreateKeyRequest(account=account, scope=keys_pb.KeyScope(**scope))
        )

    async def ask(self, key: str, form: str = "json", **fields: Any) -> ReadResponse:
        """Asks for a completion in one of the forms."""
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 20,
            "stream": form == "sse",
            "usage": {"include": True},
            **fields,
        }
        async with self.gateway.http.post(
            f"{self.gateway.base_url}/chat/completions", json=body, headers=bearer(key)
        ) as response:
            return await read(response)

    async def get(self, key: str, path: str, **query: str) -> Any:
        """A document about the key's own account, once no call of it runs."""
        await self.settled(key)
        return await self._get(key, path, **query)

    async def settled(self, key: str) -> Mapping[str, Any]:
        """The balance, once nothing is held. Calls are settled after their answer."""
        while True:
            balance: Mapping[str, Any] = await self._get(key, "/balance")
            if balance["held_nano_usd"] == "0":
                return balance
            await asyncio.sleep(0.01)

    async def balance(self, key: str) -> int:
        """The balance in nano-USD, once nothing is held."""
        return int((await self.settled(key))["balance_nano_usd"])

    async def counts(self) -> Mapping[str, int]:
        """The audit's counts. AssertionError where the books are wrong."""
        audit = await self.ledger.VerifyLedger(ledger_pb.VerifyLedgerRequest())
        assert not audit.findings
        return audit.counts

    async def ended(self, number: int) -> Mapping[str, int]:
        """The audit's counts, once this many calls have ended."""
        while True:
            counts = await self.counts()
            if sum(counts[state] for state in ("settled", "voided", "recovered")) >= number:
                return counts
            await asyncio.sleep(0.01)

    async def closed(self) -> None:
        """Returns once no account has a hold."""
        while True:
            if not (await self.counts())["held"]:
                return
            await asyncio.sleep(0.01)

    async def _get(self, key: str, path: str, **query: str) -> Any:
        async with self.gateway.http.get(
            f"{self.gateway.base_url}{path}", headers=bearer(key), params=query
        ) as response:
            assert response.status == 200
            return await response.json()

    def play(self, request: Request) -> Script:
        """The provider's script: an answer in the requested form, with `usage`."""
        if self.script:
            return self.script
        if request.json().get("stream"):
            return [*self.before, stream(chunks(self.usage))]
        return [*self.before, json_answer(completion(self.usage))]


def bearer(key: str) -> dict[str, str]:
    """The header with the key."""
    return {"Authorization": f"Bearer {key}"}


def completion(usage: Mapping[str, Any]) -> Mapping[str, Any]:
    """The provider's whole answer."""
    message = {"role": "assistant", "content": "Hi!"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [choice], "usage": usage}  # fmt: skip


def chunks(usage: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The events of the provider's stream."""
    return [piece("Hi"), piece("!"), piece(None), {**_CHUNK, "choices": [], "usage": usage}]


def piece(text: str | None) -> Mapping[str, Any]:
    """An event with a piece of text; None ends the choice."""
    delta = {"index": 0, "delta": {"content": text} if text else {},
             "finish_reason": None if text else "stop"}  # fmt: skip
    return {**_CHUNK, "choices": [delta]}


_CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}


@asynccontextmanager
async def billing_stand(  # noqa: PLR0913 - what tests vary, each by its name
    state: Path,
    *,
    transport: Transport = "in-process",
    price: Mapping[str, Any] = PRICE,
    limits: Sequence[LimitConfig] = (),
    billing: BillingConfig = BILLING,
    clock: Clock = SYSTEM_CLOCK,
    channel: Mapping[str, Any] = NO_KEYS,
    database_url: str = "",
    call_log: bool = True,
    call_log_url: str = "",
) -> AsyncIterator[BillingStand]:
    """Opens the stand. In the end the books are right, and nothing is held.

    `channel` has more keys of the channel, `price` those of the row of `MODEL`.
    """
    async with FakeUpstream() as upstream:
        keys: dict[str, Any] = {
            "name": "house",
            "dialect": "openai",
            "base_url": upstream.url,
            "models": {MODEL: "m", FREE: "f"},
        }
        config = Config(
            channels=(ChannelConfig(**{**keys, **channel}),),
            models=(ModelConfig(name=MODEL, **price),),
            limits=tuple(limits),
            billing=billing,
            state=stored(database_url, call_log_url),
            call_log=CallLogConfig(enabled=call_log),
        )
        async with (
            running_config(state, config, transport=transport, clock=clock) as gateway,
            gateway.service.operators_channel() as operators,
        ):
            stand = BillingStand(
                gateway,
                upstream,
                accounts_grpc.AccountServiceStub(operators),
                keys_grpc.KeyServiceStub(operators),
                ledger_grpc.LedgerServiceStub(operators),
            )
            upstream.play(stand.play)
            yield stand
            await stand.closed()
