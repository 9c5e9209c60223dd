"""Answers that are read to their end without their caller, as the rows of model and channel say."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from services.completions.drains import DRAINS_PER_ACCOUNT_MAX
from services.providers.translate.thinking import BUDGETS
from tests.stand.billing_stand import (
    COST_NANO,
    FORMS,
    MODEL,
    NANO,
    PRICE,
    USAGE,
    BillingStand,
    bearer,
    billing_stand,
    piece,
)
from tests.stand.gateway import TRANSPORTS, Transport
from tests.stand.response import ReadResponse, read
from tests.stand.upstream import CUT, SSE_HEAD, STALL, Script, sse

WORD = "tick"
ENDING = sse(piece(None), {"choices": [], "usage": USAGE}, "[DONE]")
REASONS = {"thinking": "effort", "thinking_default": "always", "max_output_tokens": 50_000}
"""Keys of a model that always reasons and does not show it."""

PROMPT_NANO = 1_000_000 + (2 + 4) * 3_000
"""The price of a call without an answer, whose prompt is "Hello"."""
TOKEN_NANO = 15_000


async def leave_after(stand: BillingStand, key: str, words: int, **fields: Any) -> None:
    """Leave a stream after this many words; after none, once the provider has the request."""
    number = len(stand.upstream.requests)
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": True,
        **fields,
    }

    async def ask() -> None:
        async with stand.gateway.http.post(
            f"{stand.gateway.base_url}/chat/completions", json=body, headers=bearer(key)
        ) as response:
            heard = b""
            while heard.count(WORD.encode()) < words:
                heard += await response.content.readany()
            response.close()

    asking = asyncio.create_task(ask())
    await stand.upstream.request(number)
    if not words:
        asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


def held_back(goes_on: asyncio.Event, words: int) -> Script:
    """A stream that says its words at once, and the rest when it goes on."""
    return [SSE_HEAD, *(sse(piece(WORD)) for _ in range(words)), goes_on, ENDING, CUT]


DRAINED: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]] = (
    (REASONS, {}),
    ({"thinking": "effort"}, {"reasoning_effort": "low"}),
    ({"billed_to_end": True}, {}),
)
"""Keys of a model's row, and fields of a request whose answer is drained."""


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("words", range(4))
@pytest.mark.parametrize(("row", "fields"), DRAINED)
async def test_an_answer_of_unknown_cost_is_read_to_its_end(
    tmp_path: Path,
    transport: Transport,
    row: Mapping[str, Any],
    fields: Mapping[str, Any],
    words: int,
) -> None:
    """The caller leaves before the first chunk or after any, and pays the reported usage."""
    async with billing_stand(tmp_path, price={**PRICE, **row}, transport=transport) as stand:
        goes_on = asyncio.Event()
        stand.script = held_back(goes_on, words)
        key = await stand.open()
        await leave_after(stand, key, words, max_tokens=2_000, **fields)
        goes_on.set()
        counts = await stand.ended(1)

        assert (counts["settled"], counts["voided"]) == (1, 0)
        assert await stand.balance(key) == NANO - COST_NANO


CANCELLED: Sequence[tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]] = (
    ({}, {}, {}),
    ({**REASONS, "thinking_default": "off"}, {}, {}),
    ({**REASONS, "thinking_shown": True}, {}, {}),
    ({**REASONS, "thinking_default": "on"}, {"reasoning_effort": "none"}, {}),
    (REASONS, {}, {"on_disconnect": "cancel"}),
    ({"billed_to_end": True}, {}, {"on_disconnect": "cancel"}),
)
"""Keys of a model's row, fields of a request, and keys of a channel that saves the rest."""


@pytest.mark.parametrize(("row", "fields", "channel"), CANCELLED)
async def test_other_answers_are_cancelled_at_once(
    tmp_path: Path, row: Mapping[str, Any], fields: Mapping[str, Any], channel: Mapping[str, Any]
) -> None:
    """The provider stops, which saves the rest of the answer."""
    async with billing_stand(tmp_path, price={**PRICE, **row}, channel=channel) as stand:
        stand.script = [SSE_HEAD, sse(piece(WORD)), STALL]
        key = await stand.open()
        await leave_after(stand, key, 1, max_tokens=2_000, **fields)
        await (await stand.upstream.request()).left.wait()
        counts = await stand.ended(1)

        assert counts["settled"] == 1


async def say_hello(stand: BillingStand, headers: Mapping[str, str], form: str) -> ReadResponse:
    """Ask with these headers, and read the answer to its end."""
    messages = [{"role": "user", "content": "Hello"}]
    body = {"model": MODEL, "messages": messages, "stream": form == "sse"}
    url = f"{stand.gateway.base_url}/chat/completions"
    async with stand.gateway.http.post(url, json=body, headers=headers) as response:
        return await read(response)


@pytest.mark.parametrize("form", FORMS)
async def test_a_named_answer_that_was_drained_is_replayed(
    tmp_path: Path, each_database_url: str, form: str
) -> None:
    """The caller that has left gets all of it later, and pays once."""
    async with billing_stand(
        tmp_path, price={**PRICE, **REASONS}, database_url=each_database_url
    ) as stand:
        goes_on = asyncio.Event()
        stand.script = held_back(goes_on, 2)
        key = await stand.open()
        named = {**bearer(key), "Idempotency-Key": "order"}
        asking = asyncio.create_task(say_hello(stand, named, form))
        await stand.upstream.request()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        goes_on.set()
        await stand.ended(1)
        again = await say_hello(stand, named, form)

        assert (again.status, again.text.count(WORD)) == (200, 2)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert len(stand.upstream.requests) == 1
        assert await stand.balance(key) == NANO - COST_NANO


@pytest.mark.parametrize(
    ("row", "tokens"), [(REASONS, BUDGETS["medium"]), ({"billed_to_end": True}, 10_000)]
)
async def test_beyond_its_drains_an_account_pays_an_estimate(
    tmp_path: Path, each_database_url: str, row: Mapping[str, Any], tokens: int
) -> None:
    """It includes reasoning. Where the provider bills the whole answer, it is the call's hold."""
    async with billing_stand(
        tmp_path, price={**PRICE, **row}, database_url=each_database_url
    ) as stand:
        goes_on = asyncio.Event()
        stand.script = held_back(goes_on, 1)
        key = await stand.open(credit_nano=100 * NANO)
        calls = DRAINS_PER_ACCOUNT_MAX + 3
        for number in range(calls):
            await leave_after(stand, key, 1, max_tokens=10_000)
            if number >= DRAINS_PER_ACCOUNT_MAX:
                await stand.ended(number + 1 - DRAINS_PER_ACCOUNT_MAX)
        goes_on.set()
        await stand.ended(calls)

        charged = 100 * NANO - await stand.balance(key)
        estimate = PROMPT_NANO + (tokens + ("thinking" in row)) * TOKEN_NANO
        assert charged == DRAINS_PER_ACCOUNT_MAX * COST_NANO + 3 * estimate


async def test_a_drain_that_takes_too_long_costs_the_estimate(tmp_path: Path) -> None:
    """A provider whose model only reasons stops when the connection is closed."""
    async with billing_stand(
        tmp_path, price={**PRICE, **REASONS}, channel={"drain_seconds": 0.1}
    ) as stand:
        stand.script = [SSE_HEAD, sse(piece(WORD)), STALL]
        key = await stand.open(credit_nano=100 * NANO)
        await leave_after(stand, key, 1, max_tokens=20_000)
        await (await stand.upstream.request()).left.wait()
        await stand.ended(1)

        estimate = PROMPT_NANO + (BUDGETS["medium"] + 1) * TOKEN_NANO
        assert await stand.balance(key) == 100 * NANO - estimate


async def test_a_drain_ends_when_the_balance_is_gone(
    tmp_path: Path, each_database_url: str
) -> None:
    """The stream would have ended so for its caller, too."""
    async with billing_stand(
        tmp_path,
        price={**PRICE, **REASONS},
        channel={"on_disconnect": "drain"},
        database_url=each_database_url,
    ) as stand:
        goes_on = asyncio.Event()
        long = [sse(piece("five " * 80)) for _ in range(400)]
        stand.script = [SSE_HEAD, sse(piece(WORD)), goes_on, *long, STALL]
        credit = NANO // 20
        key = await stand.open(credit_nano=credit)
        await leave_after(stand, key, 1, max_tokens=20)
        goes_on.set()
        await (await stand.upstream.request()).left.wait()

        assert abs(await stand.balance(key)) <= 1024 * TOKEN_NANO
