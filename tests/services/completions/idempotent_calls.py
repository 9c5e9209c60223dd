"""Calls with idempotency keys, and a model that answers them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from services.completions.idempotency import Idempotency, IdempotentCall
from services.domain.conversation import Message, TextPart
from services.domain.events import Batch, Event, Finished, Started, TextDelta
from services.domain.spec import ChatCompletionSpec, CompletionRequest
from services.domain.usage import Usage
from services.errors import Failure
from services.storage.pepper import Pepper

DAY_MS = 24 * 3600 * 1000
OWNER = "this process"
PEPPER = Pepper(b"salt is not enough")

RunCall = Callable[[], AsyncGenerator[Batch, None]]


def call(
    key: str = "order-1", account: str = "acme", prompt: str = "Hello", **spec: Any
) -> IdempotentCall:
    """Return a call with an idempotency key."""
    message = Message(role="user", content=[TextPart(text=prompt)])
    asked = ChatCompletionSpec(model="a/b", messages=[message], **spec)
    return IdempotentCall(account=account, key=key, request=CompletionRequest(spec=asked))


def answer(*texts: str) -> list[Batch]:
    """Return an answer: its first batch, one for each text, its last."""
    started = Started(completion_id="chatcmpl-1", model="a/b", create_time_s=1_800_000_000)
    end = Finished(usage=Usage(total_token_count=9), cost_nano_usd=7)
    texts_between: list[Event] = [TextDelta(text) for text in texts]
    return [[started], *([delta] for delta in texts_between), [TextDelta(""), end]]


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
