"""Calls with idempotency keys, and a model that answers them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from services.completions.idempotency import Idempotency, IdempotentCall
from services.errors import Failure
from services.providers.base import Batch
from services.storage.pepper import Pepper

DAY_MS = 24 * 3600 * 1000
OWNER = "this process"
PEPPER = Pepper(b"salt is not enough")

RunCall = Callable[[], AsyncGenerator[Batch, None]]


def call(
    key: str = "order-1", account: str = "acme", prompt: str = "Hello", **spec: Any
) -> IdempotentCall:
    """Return a call with an idempotency key."""
    asked = pb.ChatCompletionSpec(model="a/b", **spec)
    asked.messages.add().content.add().text = prompt
    return IdempotentCall(
        account=account, key=key, spec=asked, parameter_policy=pb.PARAMETER_POLICY_UNSPECIFIED
    )


def answer(*texts: str) -> list[Batch]:
    """Return an answer: its first batch, one for each text, its last."""
    started = pb.ChatCompletionChunk(started=pb.CompletionStarted(completion_id="chatcmpl-1"))
    started.started.create_time.seconds = 1_800_000_000
    deltas = [pb.ChatCompletionChunk(delta=pb.CompletionDelta(text=text)) for text in texts]
    end = pb.ChatCompletionChunk(finished=pb.CompletionFinished(cost_nano_usd=7))
    end.finished.usage.total_token_count = 9
    batches = [[started], *([delta] for delta in deltas), [pb.ChatCompletionChunk(), end]]
    return [Batch(chunks=batch) for batch in batches]


class Model:
    """Answers, and counts its calls."""

    def __init__(self, *batches: Batch) -> None:
        self.batches = batches or tuple(answer("Hi", " there"))
        self.calls = 0
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.failure: Failure | None = None

    async def __call__(self) -> AsyncGenerator[Batch, None]:
        """Yield the first batch at once, the others when `goes_on` is set."""
        self.calls += 1
        yield self.batches[0]
        await self.goes_on.wait()
        if self.failure is not None:
            raise self.failure
        for batch in self.batches[1:]:
            yield batch


async def ask(once: Idempotency, asked: IdempotentCall, model: RunCall) -> tuple[list[Batch], bool]:
    """Return the answer, and whether it was a replay."""
    replays = 0

    async def before_replay() -> None:
        nonlocal replays
        replays += 1

    async with aclosing(once.run_once(asked, model, before_replay)) as batches:
        got = [batch async for batch in batches]
    return got, replays == 1


async def refusal(once: Idempotency, asked: IdempotentCall, model: RunCall) -> Failure:
    """Return the failure with which the call is refused."""
    with pytest.raises(Failure) as refused:
        await ask(once, asked, model)
    return refused.value


async def ignore() -> None:
    """Do nothing before a replay."""
