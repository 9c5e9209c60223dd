"""Charges of streams that their callers' deadlines cut, after each chunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.stand.billing_stand import MODEL, NANO, BillingStand, bearer, billing_stand, piece
from tests.stand.gateway import TRANSPORTS, Transport
from tests.stand.polling import until
from tests.stand.upstream import SSE_HEAD, STALL, sse

TEXT = "Hurry up, please. " * 10
PROMPT: Any = [{"role": "user", "content": TEXT}]
PROMPT_NANO = 1_000_000 + (len(TEXT) // 4 + 4) * 3_000
"""As the gateway counts: a token for four bytes, and four for a message."""
TOKEN_NANO = 15_000
WORD = "tick"
"""Four bytes: a token, as the gateway counts."""


async def words_until_deadline(stand: BillingStand, key: str, limit_s: str) -> int:
    """The number of words that a caller gets before its deadline."""
    body = {"model": MODEL, "messages": PROMPT, "stream": True, "max_tokens": 20}
    headers = {**bearer(key), "x-pomogator-timeout": limit_s}
    url = f"{stand.gateway.base_url}/chat/completions"
    heard = b""
    try:
        async with stand.gateway.http.post(url, json=body, headers=headers) as response:
            async for data in response.content.iter_any():
                heard += data
    except aiohttp.ClientError:
        pass  # The connection is closed where the edge's own deadline comes first.
    return heard.count(WORD.encode())


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("words", range(4))
@pytest.mark.parametrize("limit_s", ["0.3", pytest.param("0.7", marks=pytest.mark.nightly)])
async def test_a_deadline_costs_the_prompt_and_what_was_passed_on(
    tmp_path: Path, each_database_url: str, transport: Transport, words: int, limit_s: str
) -> None:
    """It is charged only where the request was sent in time, which a busy machine may miss.

    There the deadline may pass even before the call has a hold.
    """
    async with billing_stand(
        tmp_path, transport=transport, database_url=each_database_url
    ) as stand:
        stand.script = [SSE_HEAD, *(sse(piece(WORD)) for _ in range(words)), STALL]
        key = await stand.open()
        heard = await words_until_deadline(stand, key, limit_s)
        await until(lambda: not stand.gateway.service.calls.live)
        counts = await stand.counts()
        cost = NANO - await stand.balance(key)

    assert counts["held"] == 0
    if not stand.upstream.requests:
        assert (heard, cost, counts["settled"]) == (0, 0, 0)
        return
    assert counts["settled"] == 1
    assert PROMPT_NANO + heard * TOKEN_NANO <= cost <= PROMPT_NANO + words * TOKEN_NANO
