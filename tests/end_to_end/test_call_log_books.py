"""The call log adds up to the ledger to the nano-dollar, however calls end and whatever repeats."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.stand.billing_stand import MODEL, NANO, bearer, billing_stand, chunks, completion, piece
from tests.stand.call_log import CallLogStand, call_log_stand, rows_of
from tests.stand.upstream import CUT, RESET, SSE_HEAD, STALL, Request, Script, sse, stream
from tests.stand.upstream import json_answer as answer_of

CALLS = 120
CONCURRENT_CALLS = 24
CREDIT_NANO = 100 * NANO

FATES: Mapping[str, int] = {
    "served": 1,
    "overloaded": 1,
    "reset": 1,
    "cut": 1,
    "abandoned": 1,
    "unknown": 1,
    "repeated": 3,
    "joined": 3,
}
"""Ends of calls, and the number of equal ones at once."""


def play(request: Request) -> Script:
    """Answer as the first word of the request demands."""
    asked = request.json()
    text = asked["messages"][0]["content"]
    match text.split()[0]:
        case "overloaded":
            return [answer_of({"error": {"message": "later"}}, status=503)]
        case "reset":
            return [RESET]
        case "cut":
            return [SSE_HEAD, sse(piece("Hel")), CUT]
        case "abandoned":
            return [SSE_HEAD, sse(piece("Hel")), STALL]
    tokens = len(text)
    usage = {"prompt_tokens": tokens, "completion_tokens": 5, "total_tokens": tokens + 5}
    return [stream(chunks(usage)) if asked.get("stream") else answer_of(completion(usage))]


async def ask(log: CallLogStand, key: str, fate: str, number: int) -> None:
    """Make a call, and leave it after its first line where its fate is `abandoned`."""
    headers = bearer(key)
    if fate == "repeated":
        headers["Idempotency-Key"] = f"i-{number}"
    if fate == "joined":
        headers["x-session-id"] = f"s-{number}"
    body: dict[str, Any] = {
        "model": "house/unknown" if fate == "unknown" else MODEL,
        "messages": [{"role": "user", "content": f"{fate} {number}"}],
        "max_tokens": 20,
        "stream": number % 2 == 0 or fate in {"abandoned", "cut"},
    }
    url = f"{log.stand.gateway.base_url}/chat/completions"
    with suppress(aiohttp.ClientError):
        async with log.stand.gateway.http.post(url, json=body, headers=headers) as answer:
            if fate == "abandoned":
                await answer.content.readline()
                answer.close()
            else:
                await answer.read()


@pytest.fixture
async def log(tmp_path: Path, each_database_url: str) -> AsyncIterator[CallLogStand]:
    """The log of a gateway, in each database."""
    async with (
        billing_stand(tmp_path, database_url=each_database_url) as stand,
        call_log_stand(stand) as opened,
    ):
        yield opened


async def test_rows_add_up_to_the_ledger_however_calls_end(log: CallLogStand) -> None:
    """Failures, broken and abandoned streams, repeats and refusals happen at once."""
    stand = log.stand
    key = await stand.open(CREDIT_NANO)
    await stand.ask(key)  # The stand's own script is played once.
    stand.upstream.play(play)
    chosen = random.Random(7)  # noqa: S311 - a mixture of calls
    slots = asyncio.Semaphore(CONCURRENT_CALLS)

    async def some(number: int) -> None:
        fate = chosen.choice(list(FATES))
        async with slots:
            await asyncio.gather(*(ask(log, key, fate, number) for _ in range(FATES[fate])))

    await asyncio.gather(*map(some, range(CALLS)))
    charged = CREDIT_NANO - await stand.balance(key)
    await stand.closed()
    counts = await stand.counts()
    holds = sum(counts[state] for state in ("settled", "voided", "recovered"))
    while counts["calls"] < holds:  # Rows follow the ends of their holds.
        counts = await stand.counts()

    rows = rows_of((await log.text(key))[1])
    groups = (await log.get(key, "/calls:aggregate", interval="CALL_INTERVAL_HOUR"))[1]["groups"]
    ends = {row["end"] for row in rows}
    assert {"stop", "replayed", "client_gone", "upstream_eof", "refused"} <= ends
    assert counts["calls"] == holds
    assert sum(int(row["charge_nano_usd"]) for row in rows) == charged > 0
    assert sum(int(group["charge_nano_usd"]) for group in groups) == charged
    assert sum(int(group["call_count"]) for group in groups) == len(rows)
