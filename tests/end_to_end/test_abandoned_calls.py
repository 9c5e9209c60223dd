"""Charges and limits of calls that end without usage after their request has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.completions.drains import DRAINS_PER_ACCOUNT_MAX
from services.config import LimitConfig
from services.domain.spec import Effort
from services.providers import registry
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
from tests.stand.clock import FakeClock
from tests.stand.echo_dialect import EchoDialect
from tests.stand.gateway import TRANSPORTS, Transport
from tests.stand.polling import until
from tests.stand.ports import free_port
from tests.stand.upstream import (
    CUT,
    SSE_HEAD,
    STALL,
    Script,
    UpstreamConnection,
    json_answer,
    sse,
)

TEXT = "Hello, gateway! " * 10
PROMPT_TOKENS = len(TEXT) // 4 + 4
"""As the gateway counts: a token for four bytes, and four for a message."""
PROMPT_NANO = 1_000_000 + PROMPT_TOKENS * 3_000
"""The price of a call with that prompt and without an answer."""
TOKEN_NANO = 15_000
"""The price of a generated token."""
WORD = "tick"
"""Four bytes: a token, as the gateway counts."""

PROMPT: Any = [{"role": "user", "content": TEXT}]
WHOLE: Any = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"},
                           "finish_reason": "stop"}]}  # fmt: skip


@pytest.fixture
async def stand(tmp_path: Path, each_database_url: str) -> AsyncIterator[BillingStand]:
    """A gateway with prices, on either database."""
    async with billing_stand(tmp_path, database_url=each_database_url) as stand:
        yield stand


async def leave_after_sending(stand: BillingStand, key: str, form: str = "sse") -> None:
    """Disconnect a caller as soon as the provider has its request."""
    number = len(stand.upstream.requests)
    asking = asyncio.create_task(stand.ask(key, form, messages=PROMPT))
    request = await stand.upstream.request(number)
    asking.cancel()
    await request.left.wait()


async def used(stand: BillingStand, key: str) -> tuple[int, int, int]:
    """Return prompt tokens, completion tokens and cost of an account's calls."""
    (row,) = (await stand.get(key, "/usage"))["usage"]
    return (
        int(row["prompt_token_count"]),
        int(row["completion_token_count"]),
        int(row["cost_nano_usd"]),
    )


BEFORE_THE_ANSWER: Sequence[Script] = (
    [STALL],
    [SSE_HEAD, STALL],
    [SSE_HEAD, sse({"choices": [{"index": 0, "delta": {"role": "assistant"}}]}), STALL],
    [json_answer(WHOLE)[:-10], STALL],
)
"""Nothing; headers; an event without content; a part of a document."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("script", BEFORE_THE_ANSWER)
async def test_leaving_before_the_answer_costs_the_prompt(
    stand: BillingStand, form: str, script: Script
) -> None:
    """The provider has the prompt: it is charged as the gateway counts it."""
    stand.script = script
    key = await stand.open()
    await leave_after_sending(stand, key, form)
    counts = await stand.ended(1)

    assert (counts["settled"], counts["voided"]) == (1, 0)
    assert await used(stand, key) == (PROMPT_TOKENS, 0, PROMPT_NANO)
    assert await stand.balance(key) == NANO - PROMPT_NANO


@pytest.mark.parametrize("words", range(1, 6))
async def test_leaving_after_a_chunk_costs_the_prompt_and_what_was_passed_on(
    stand: BillingStand, words: int
) -> None:
    """After every chunk: prompt and text as the gateway counts them."""
    stand.script = [SSE_HEAD, *(sse(piece(WORD)) for _ in range(words)), STALL]
    key = await stand.open()
    body = {"model": MODEL, "messages": PROMPT, "stream": True, "max_tokens": 20}
    async with stand.gateway.http.post(
        f"{stand.gateway.base_url}/chat/completions", json=body, headers=bearer(key)
    ) as response:
        heard = b""
        while heard.count(WORD.encode()) < words:
            heard += await response.content.readany()
        response.close()
    await (await stand.upstream.request()).left.wait()
    await stand.ended(1)

    assert await used(stand, key) == (PROMPT_TOKENS, words, PROMPT_NANO + words * TOKEN_NANO)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("limit_s", ["0.05", "0.3", pytest.param("1", marks=pytest.mark.nightly)])
async def test_a_deadline_before_the_answer_costs_the_prompt(
    tmp_path: Path, transport: Transport, form: str, limit_s: str
) -> None:
    """A deadline that the caller sets spares it nothing."""
    async with billing_stand(tmp_path, transport=transport) as stand:
        stand.script = [STALL]
        key = await stand.open()
        late = await ask_until(stand, key, limit_s, form)
        counts = await stand.ended(1)

        assert late in (None, 504)
        # On a busy machine it may pass before the request leaves, which costs nothing.
        sent = len(stand.upstream.requests)
        assert (counts["settled"], counts["voided"]) == (sent, 1 - sent)
        assert await stand.balance(key) == NANO - sent * PROMPT_NANO


async def ask_until(stand: BillingStand, key: str, limit_s: str, form: str) -> int | None:
    """The status of a call with a deadline. None: the connection was closed."""
    body = {"model": MODEL, "messages": PROMPT, "stream": form == "sse", "max_tokens": 20}
    headers = {**bearer(key), "x-pomogator-timeout": limit_s}
    url = f"{stand.gateway.base_url}/chat/completions"
    try:
        async with stand.gateway.http.post(url, json=body, headers=headers) as response:
            await response.read()
            return response.status
    except aiohttp.ClientError:
        return None


@pytest.mark.parametrize("bills", [True, False])
async def test_abandoned_calls_count_against_limits(tmp_path: Path, bills: bool) -> None:
    """Leaving gives back no request and no token of the prompt, whatever the provider bills."""
    rules = [LimitConfig(key="*", rpm=5, tpm=1_000_000), LimitConfig(channel="house", rpm=100)]
    async with billing_stand(
        tmp_path, limits=rules, clock=FakeClock(), channel={"bills_abandoned": bills}
    ) as stand:
        stand.script = [STALL]
        key = await stand.open()
        for number in range(1, 6):
            await leave_after_sending(stand, key)
            await stand.ended(number)
        refused = await stand.ask(key)

        assert (refused.status, len(stand.upstream.requests)) == (429, 5)
        left = int(refused.headers["x-ratelimit-remaining-tokens"])
        assert left == 1_000_000 - 5 * PROMPT_TOKENS


@pytest.mark.parametrize("form", FORMS)
async def test_a_provider_may_bill_nothing_for_abandoned_calls(
    tmp_path: Path, each_database_url: str, form: str
) -> None:
    """On a channel that says so, leaving before the answer is free."""
    async with billing_stand(
        tmp_path, database_url=each_database_url, channel={"bills_abandoned": False}
    ) as stand:
        stand.script = [STALL]
        key = await stand.open()
        await leave_after_sending(stand, key, form)
        counts = await stand.ended(1)

        assert (counts["settled"], counts["voided"]) == (0, 1)
        assert await stand.balance(key) == NANO


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "channel", [{"base_url": "http://127.0.0.1:{port}"}, {"base_url": "http://nowhere.invalid"}]
)
async def test_a_request_that_never_left_is_free(
    tmp_path: Path, form: str, channel: dict[str, str]
) -> None:
    """The address could not be reached. Nothing is charged, and limits get the request back."""
    url = channel["base_url"].format(port=free_port())
    rules = [LimitConfig(key="*", rpm=1)]
    async with billing_stand(
        tmp_path, limits=rules, clock=FakeClock(), channel={"base_url": url}
    ) as stand:
        key = await stand.open()
        for number in (1, 2):
            assert (await stand.ask(key, form)).status == 502
            counts = await stand.ended(number)

        assert (counts["settled"], counts["voided"]) == (0, 2)
        assert await stand.balance(key) == NANO


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("script", [[json_answer({}, 400)], [json_answer({}, 529)], [CUT]])
async def test_a_providers_refusal_is_free(stand: BillingStand, form: str, script: Script) -> None:
    """The caller has not ended the call: the provider has."""
    stand.script = script
    key = await stand.open()
    assert (await stand.ask(key, form)).status >= 400
    counts = await stand.ended(1)

    assert (counts["settled"], counts["voided"]) == (0, 1)
    assert await stand.balance(key) == NANO


REASONS: dict[str, Any] = {
    **PRICE,
    "thinking": "effort",
    "thinking_default": "always",
    "max_output_tokens": 100_000,
}
"""The row of a model that always reasons and does not show it."""


async def read_words_and_leave(stand: BillingStand, key: str, words: int, **fields: Any) -> None:
    """Read a stream up to a word, and leave."""
    number = len(stand.upstream.requests)
    body = {"model": MODEL, "messages": PROMPT, "stream": True, **fields}
    async with stand.gateway.http.post(
        f"{stand.gateway.base_url}/chat/completions", json=body, headers=bearer(key)
    ) as response:
        heard = b""
        while heard.count(WORD.encode()) < words:
            heard += await response.content.readany()
        response.close()
    await (await stand.upstream.request(number)).left.wait()


EFFORTS: Sequence[Effort | None] = (None, *BUDGETS)


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("max_tokens", [None, 1, 2_000, 50_000])
@pytest.mark.parametrize("n", [1, 3])
async def test_leaving_before_the_usage_pays_for_unseen_reasoning(
    tmp_path: Path, effort: Effort | None, max_tokens: int | None, n: int
) -> None:
    """The tokens of the effort are charged for every choice, within the limit of the call."""
    fields: dict[str, Any] = {"n": n}
    if effort:
        fields["reasoning_effort"] = effort
    if max_tokens:
        fields["max_tokens"] = max_tokens
    channel = {"on_disconnect": "cancel"}
    async with billing_stand(tmp_path, price=REASONS, channel=channel) as stand:
        stand.script = [SSE_HEAD, sse(piece(WORD)), sse(piece(None)), STALL]
        key = await stand.open(credit_nano=100 * NANO)
        await read_words_and_leave(stand, key, 1, **fields)
        await stand.ended(1)
        _, completion, _ = await used(stand, key)

    worth = min(BUDGETS[effort or "medium"], max_tokens or 100_000)
    most = n * max_tokens if max_tokens else n * 100_000
    assert min(n * worth, most) <= completion <= n * worth + 1


@pytest.mark.parametrize(
    "row",
    [{"thinking": "none", "thinking_default": "off"}, {"thinking_shown": True}],
)
async def test_reasoning_that_is_shown_is_not_estimated(
    tmp_path: Path, row: dict[str, Any]
) -> None:
    """Nor is that of a model that does not reason. Only text that was passed on is charged."""
    async with billing_stand(tmp_path, price={**REASONS, **row}) as stand:
        stand.script = [SSE_HEAD, sse(piece(WORD)), STALL]
        key = await stand.open(credit_nano=100 * NANO)
        await read_words_and_leave(stand, key, 1)
        await stand.ended(1)

        assert (await used(stand, key))[1] == 1


async def test_an_account_cannot_take_all_drains(tmp_path: Path, each_database_url: str) -> None:
    """One account drains as many calls as it may; the calls of another are drained, too."""
    async with billing_stand(
        tmp_path, database_url=each_database_url, channel={"on_disconnect": "drain"}
    ) as stand:
        goes_on = asyncio.Event()
        end = sse(piece(None), {"choices": [], "usage": USAGE}, "[DONE]")
        stand.script = [SSE_HEAD, sse(piece(WORD)), goes_on, end, CUT]
        key = await stand.open(credit_nano=100 * NANO)
        other = await stand.open_account("other", credit_nano=100 * NANO)
        most = DRAINS_PER_ACCOUNT_MAX
        for caller, calls in ((key, most + 4), (other, most)):
            await asyncio.gather(*(ask_and_leave(stand, caller) for _ in range(calls)))

        async def are_settled() -> bool:
            return (await stand.counts())["settled"] >= 4

        await until(are_settled)
        goes_on.set()

        assert await stand.balance(other) == 100 * NANO - most * COST_NANO
        beyond = PROMPT_NANO + 20 * TOKEN_NANO
        assert await stand.balance(key) == 100 * NANO - most * COST_NANO - 4 * beyond


async def ask_and_leave(stand: BillingStand, key: str) -> None:
    """Leave a stream after its first word."""
    body = {"model": MODEL, "messages": PROMPT, "stream": True, "max_tokens": 20}
    async with stand.gateway.http.post(
        f"{stand.gateway.base_url}/chat/completions", json=body, headers=bearer(key)
    ) as response:
        await response.content.readuntil(WORD.encode())
        response.close()


async def goes_past(_: UpstreamConnection) -> None:
    """Wait until the gateway has read the bytes that were sent."""
    await asyncio.sleep(0.05)


UNREADABLE: Sequence[Script] = (
    [json_answer({"nothing": "said"})],
    [SSE_HEAD, sse(5), STALL],
    [SSE_HEAD, sse({"say": WORD}), goes_past, sse(5), STALL],
)
"""Answers that no decoder expects: a document, a stream at once, and a stream later."""


@pytest.mark.parametrize("bills", [True, False])
@pytest.mark.parametrize("script", UNREADABLE)
async def test_an_answer_that_a_decoder_fails_at_is_charged(
    tmp_path: Path,
    each_database_url: str,
    script: Script,
    bills: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The fault is the gateway's, and the provider bills its answer."""
    monkeypatch.setitem(registry.DIALECTS, "echo", EchoDialect())
    channel = {"dialect": "echo", "bills_abandoned": bills}
    async with billing_stand(tmp_path, database_url=each_database_url, channel=channel) as stand:
        stand.script = script
        key = await stand.open()
        answer = await stand.ask(key, "sse", messages=PROMPT)
        counts = await stand.ended(1)

        assert answer.code == "internal_error"
        assert (counts["settled"], counts["voided"]) == (1, 0)
        said = answer.text.count(WORD)
        assert await used(stand, key) == (PROMPT_TOKENS, said, PROMPT_NANO + said * TOKEN_NANO)
