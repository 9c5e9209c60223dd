"""A gateway with a provider of embeddings, its prices and its books."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from pomogator.accounts.v1 import account_service_pb2 as accounts_pb
from pomogator.accounts.v1 import account_service_pb2_grpc as accounts_grpc
from pomogator.accounts.v1 import key_service_pb2 as keys_pb
from pomogator.accounts.v1 import key_service_pb2_grpc as keys_grpc

from services.config import ChannelConfig, Config, LimitConfig, ModelConfig
from services.embedding_limits import EmbeddingLimits
from tests.stand.embedding_provider import EmbeddingProvider
from tests.stand.gateway import Gateway, Transport, running_config
from tests.stand.response import ReadResponse, read

MODEL = "house/embed"
UPSTREAM_MODEL = "text-embedding-3-small"
NANO_PER_TOKEN = 2_000
PRICE: Mapping[str, Any] = {"prompt_usd_per_mtok": Decimal(2)}
CREDIT_NANO = 10**9


@dataclass(slots=True)
class EmbeddingStand:
    """A gateway in front of providers of embeddings."""

    gateway: Gateway
    providers: Sequence[EmbeddingProvider]
    accounts: accounts_grpc.AccountServiceStub
    keys: keys_grpc.KeyServiceStub

    @property
    def provider(self) -> EmbeddingProvider:
        """The first provider."""
        return self.providers[0]

    def client(self, key: str = "") -> AsyncOpenAI:
        """The official SDK, as a user sets it up."""
        return AsyncOpenAI(
            api_key=key or self.gateway.key, base_url=self.gateway.base_url, max_retries=0
        )

    async def ask(
        self, body: Mapping[str, Any], key: str = "", headers: Mapping[str, str] = {}
    ) -> ReadResponse:
        """Posts a request for embeddings."""
        url = f"{self.gateway.base_url}/embeddings"
        sent = {"Authorization": f"Bearer {key or self.gateway.key}", **headers}
        sent["Content-Type"] = "application/json"
        data = BytesIO(json.dumps({"model": MODEL, **body}).encode())
        async with self.gateway.http.post(url, data=data, headers=sent) as response:
            return await read(response)

    async def open_account(self, credit_nano: int = CREDIT_NANO, **scope: Any) -> str:
        """A key of a new account that pays."""
        request = accounts_pb.CreateAccountRequest(account="acme", credit_nano_usd=credit_nano)
        await self.accounts.CreateAccount(request)
        asked = keys_pb.CreateKeyRequest(account="acme", scope=keys_pb.KeyScope(**scope))
        secret: str = (await self.keys.CreateKey(asked)).secret
        return secret

    async def revoke_all(self) -> None:
        """Revokes the keys of the account."""
        listed = await self.keys.ListKeys(keys_pb.ListKeysRequest(account="acme"))
        for key in listed.keys:
            await self.keys.RevokeKey(keys_pb.RevokeKeyRequest(key_id=key.key_id))

    async def settled(self) -> None:
        """Returns once no call runs, and the books have all ends."""
        while self.gateway.service.calls.live:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.01)

    async def spent_nano(self, credit_nano: int = CREDIT_NANO) -> int:
        """The charges of the account, once nothing is on hold."""
        listed = await self.accounts.ListAccounts(accounts_pb.ListAccountsRequest())
        (account,) = [each for each in listed.accounts if each.account == "acme"]
        return credit_nano - account.balance_nano_usd


def channel(provider: EmbeddingProvider, name: str = "embed", **fields: Any) -> ChannelConfig:
    """A channel that leads to a provider."""
    given = {"dialect": "openai", "models": {MODEL: UPSTREAM_MODEL}, **fields}
    return ChannelConfig(name=name, base_url=provider.url, **given)


@asynccontextmanager
async def embedding_stand(
    state: Path,
    *providers: EmbeddingProvider,
    transport: Transport = "in-process",
    limits: EmbeddingLimits | None = None,
    rules: Sequence[LimitConfig] = (),
    channels: Sequence[Mapping[str, Any]] = (),
) -> AsyncIterator[EmbeddingStand]:
    """A gateway in front of these providers, or of one; each is a channel of the model.

    `channels` are more fields of the channels, of the first one on.
    """
    async with AsyncExitStack() as stack:
        found = [
            await stack.enter_async_context(each) for each in providers or (EmbeddingProvider(),)
        ]
        fields = [*channels, *[{} for _ in found]]
        config = Config(
            channels=tuple(
                channel(each, f"embed-{index}", priority=index, **fields[index])
                for index, each in enumerate(found)
            ),
            models=(ModelConfig(name=MODEL, embeddings=limits, **PRICE),),
            limits=tuple(rules),
        )
        gateway = await stack.enter_async_context(
            running_config(state, config, transport=transport)
        )
        operators = await stack.enter_async_context(gateway.service.operators_channel())
        yield EmbeddingStand(
            gateway,
            found,
            accounts_grpc.AccountServiceStub(operators),
            keys_grpc.KeyServiceStub(operators),
        )
