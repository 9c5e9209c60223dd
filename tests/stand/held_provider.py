"""A gateway over a provider that tests can hold. An answer costs a tenth of a cent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from services.clock import SystemClock
from services.config import ChannelConfig, KeysConfig, ModelConfig
from services.storage.audit import audit
from services.storage.base import Transaction
from services.storage.opening import open_database
from tests.stand.gateway import ANY_KEYS, Gateway, Transport, running
from tests.stand.response import ReadResponse, read
from tests.stand.upstream import (
    CUT,
    LAST_CHUNK,
    SSE_HEAD,
    FakeUpstream,
    Request,
    Script,
    json_answer,
    sse,
)

MODEL = "house/model"
MESSAGES: Any = [{"role": "user", "content": "Hello"}]
ASKED: Mapping[str, Any] = {"model": MODEL, "messages": MESSAGES, "max_tokens": 50}
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}

PATH = "/v1/chat/completions"
NAMED = {"Idempotency-Key": "order-1"}

REQUEST_USD = Decimal("0.001")
CHARGE_NANO_USD = 1_000_000


class HeldProvider:
    """A provider that answers "Good day" once `goes_on` is set."""

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.fails = False

    def __call__(self, request: Request) -> Script:
        """The script of a stream or a whole answer, as requested."""
        if request.json().get("stream"):
            return self._stream()
        if self.fails:
            return [json_answer({"error": {"message": "No."}}, 500)]
        message = {"role": "assistant", "content": "Good day"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return [self.goes_on, json_answer({"id": "1", "choices": [choice], "usage": USAGE})]

    def _stream(self) -> Script:
        begin = [SSE_HEAD, sse(piece({"content": "Good"}))]
        if self.fails:
            return [*begin, CUT]
        usage = {"choices": [], "usage": USAGE}
        rest = sse(piece({"content": " day"}), piece({}, "stop"), usage, "[DONE]")
        return [*begin, self.goes_on, rest, LAST_CHUNK]


def piece(delta: Mapping[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    """An event of the provider's stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "1", "choices": [choice]}


@asynccontextmanager
async def held_gateway(
    state: Path,
    transport: Transport = "in-process",
    keys: KeysConfig = ANY_KEYS,
    database_url: str = "",
) -> AsyncIterator[tuple[Gateway, FakeUpstream, HeldProvider]]:
    """A gateway with its state in `state`, its provider's server, and the provider."""
    provider = HeldProvider()
    async with FakeUpstream() as upstream:
        upstream.play(provider)
        channel = ChannelConfig(
            name="house", dialect="openai", base_url=upstream.url, models={MODEL: "m"}
        )
        model = ModelConfig(name=MODEL, request_usd=REQUEST_USD)
        async with running(
            state,
            channel,
            models=[model],
            transport=transport,
            keys=keys,
            database_url=database_url,
        ) as gateway:
            yield gateway, upstream, provider


async def ask(gateway: Gateway, headers: Mapping[str, str] = NAMED, **fields: Any) -> ReadResponse:
    """Asks for a completion and reads it to its end."""
    body = {**ASKED, **fields}
    async with gateway.http.post(gateway.url + PATH, json=body, headers=headers) as answer:
        return await read(answer)


async def audited_charges(state: Path, database_url: str = "") -> Mapping[str, int]:
    """The charges by the state of their holds. The books are audited; no process may use them."""
    database = await open_database(state, database_url, SystemClock())
    assert (await database.read(audit)).findings == ()
    ends = await database.read(_ends)
    await database.close()
    return ends


def _ends() -> Transaction[Mapping[str, int]]:
    rows = yield "SELECT state, CAST(sum(charge) AS bigint) FROM holds GROUP BY state", ()
    return {str(state): int(str(charge)) for state, charge in rows}
