"""A caller with one key who tries combinations of all attacks, at random.

Of each round: attacks on the prompt and on the answer, in one request or in several at once;
idempotency keys that come again with other requests; deadlines; callers that leave at any time. The
provider bills as dearly as it may, and what it has generated when its caller leaves.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.admission.ticket import STEP_TOKENS
from services.config import BillingConfig
from tests.end_to_end.test_adversary import ATTACKS
from tests.end_to_end.test_adversary_leaving import (
    COMPLETION_NANO,
    LEAVING,
    PRICE,
    PROMPT_NANO,
    WRITTEN_NANO,
)
from tests.stand.billing_stand import MODEL, BillingStand, bearer, billing_stand, completion, piece
from tests.stand.dear_prompts import prompt_tokens
from tests.stand.upstream import (
    LAST_CHUNK,
    SSE_HEAD,
    Request,
    Script,
    Step,
    UpstreamConnection,
    json_answer,
    sse,
)

SEEDS = int(os.environ.get("POMOGATOR_EXAMPLES", "2"))
ROUNDS = 12
WORDS_MAX = 200
WORDS_PER_PIECE = 20
KINDS = list({**ATTACKS, **LEAVING}.values())


class Provider:
    """Provider that answers with a random share of the allowed tokens, or all of them."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.bills: list[int] = []

    def play(self, request: Request) -> Script:
        """Answer in pieces, of which each is billed when it is sent."""
        body, number = request.json(), len(self.bills)
        prompt = prompt_tokens(body)
        written = prompt if b"cache_control" in request.body else 0
        self.bills.append((prompt - written) * PROMPT_NANO + written * WRITTEN_NANO)
        allowed = (body.get("n") or 1) * body.get("max_tokens", 100_000)
        tokens = self._chance.choice([1, max(1, allowed // 2), allowed])
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": tokens,
            "prompt_tokens_details": {"cache_write_tokens": written},
        }
        thinking = self._step(number, 0, b"", self._chance.random() * 0.2)
        if not body.get("stream"):
            return [thinking, self._step(number, tokens, json_answer(completion(usage)))]
        steps: list[Step] = [thinking, SSE_HEAD]
        words = min(tokens, WORDS_MAX)
        for first in range(0, words, WORDS_PER_PIECE):
            count = min(WORDS_PER_PIECE, words - first)
            steps.append(self._step(number, count, sse(piece("tick" * count)), 0.01))
        end = sse(piece(None), {"choices": [], "usage": usage}, "[DONE]")
        return [*steps, self._step(number, tokens - words, end), LAST_CHUNK]

    def _step(self, number: int, tokens: int, data: bytes, after_s: float = 0.0) -> Step:
        async def send(line: UpstreamConnection) -> None:
            await asyncio.sleep(after_s)
            if line.reader.at_eof():
                raise ConnectionResetError  # The caller has left.
            self.bills[number] += tokens * COMPLETION_NANO
            line.writer.write(data)
            await line.writer.drain()

        return send


def request_of(chance: random.Random, mix: list[Mapping[str, Any]]) -> tuple[Any, dict[str, str]]:
    """Return a body and headers."""
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": chance.choice([1, 20, 400]),
        "stream": chance.random() < 0.6,
    }
    for fields in mix if chance.random() < 0.7 else [chance.choice(mix)]:
        body |= fields
    if chance.random() < 0.2:
        body["n"] = chance.choice([2, 7])
    if chance.random() < 0.2:
        body["reasoning_effort"] = chance.choice(["low", "high", "HIGH"])
    headers = {}
    if chance.random() < 0.3:
        headers["Idempotency-Key"] = f"key-{chance.randrange(8)}"
    if chance.random() < 0.2:
        headers["x-pomogator-timeout"] = chance.choice(["0.05", "0.2", "1"])
    return {**body, "model": MODEL}, headers


async def call(
    stand: BillingStand, chance: random.Random, key: str, mix: list[Mapping[str, Any]]
) -> None:
    """Make a call, and perhaps leave it."""
    body, headers = request_of(chance, mix)
    stays_s = chance.choice([60.0, chance.random() * 0.4])
    url = f"{stand.gateway.base_url}/chat/completions"
    with suppress(TimeoutError, aiohttp.ClientError):
        async with (
            asyncio.timeout(stays_s),
            stand.gateway.http.post(url, json=body, headers=bearer(key) | headers) as response,
        ):
            await response.read()


@pytest.mark.nightly
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_no_mix_of_attacks_is_worth_more_than_the_bound(
    tmp_path: Path, each_database_url: str, seed: int
) -> None:
    """In no round does the provider bill more than the credit and a step of each call."""
    chance = random.Random(seed)  # noqa: S311 - for tests
    channel = {
        "dialect": chance.choice(["openai", "openrouter"]),
        "pass_through": chance.choice(["harmless", ("harmless", "annotations")]),
    }
    price = {**PRICE, "thinking": chance.choice(["budget", "effort", "unknown"])}
    async with billing_stand(
        tmp_path,
        price=price,
        billing=BillingConfig(),
        channel=channel,
        database_url=each_database_url,
    ) as stand:
        provider = Provider(chance)
        stand.upstream.play(provider.play)
        for number in range(ROUNDS):
            provider.bills.clear()
            credit_nano = chance.choice([10_000_000, 50_000_000, 7_000_000_000])
            key = await stand.open_account(f"a{number}", credit_nano=credit_nano)
            mix = [chance.choice(KINDS) for _ in range(chance.choice([1, 1, 2, 3]))]
            calls = range(chance.choice([5, 30, 60]))
            await asyncio.gather(*(call(stand, chance, key, mix) for _ in calls))
            balance = await stand.balance(key)

            billed, steps = sum(provider.bills), len(provider.bills) * STEP_TOKENS * COMPLETION_NANO
            assert billed <= credit_nano + steps, mix
            assert credit_nano - balance >= billed - steps, mix
            assert balance >= -steps, mix
