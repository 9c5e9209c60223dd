"""Calls that cost more than they hold: they take more of the balance, and end when it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError, insecure_channel
from openai import APIError, AsyncOpenAI
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as chat_grpc
from pomogator.chat.v1 import content_pb2

from services.admission.ticket import STEP_TOKENS
from services.rpc.listener import listening
from tests.stand.billing_stand import MODEL, NANO, PRICE, USAGE, BillingStand, billing_stand, piece
from tests.stand.gateway import TRANSPORTS, Transport
from tests.stand.upstream import CUT, SSE_HEAD, Script, sse

PIECE = "five " * 80
"""A hundred tokens, as the gateway counts."""
PIECE_NANO = 100 * 15_000
STEP_NANO = STEP_TOKENS * 15_000
ENDLESS = 400
"""Pieces of an answer that is far longer than its limit."""

SHORT = {**USAGE, "completion_tokens": 20, "total_tokens": 31}


def script(pieces: int, usage: Any = SHORT) -> Script:
    """A stream of pieces, of which each is read by itself, with a usage that says less."""

    async def apart(line: Any) -> None:
        for _ in range(pieces):
            line.writer.write(sse(piece(PIECE)))
            await line.writer.drain()
            await asyncio.sleep(0)

    return [SSE_HEAD, apart, sse(piece(None), {"choices": [], "usage": usage}, "[DONE]"), CUT]


async def begin(stand: BillingStand, credit_nano: int) -> str:
    """A key of an account with this credit."""
    return await stand.open(credit_nano=credit_nano)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_stream_ends_when_the_balance_is_gone(
    tmp_path: Path, each_database_url: str, transport: Transport
) -> None:
    """Text that was passed on is paid. The overspending is less than a step."""
    async with billing_stand(
        tmp_path, transport=transport, database_url=each_database_url
    ) as stand:
        stand.script = script(ENDLESS)
        credit = 1_000_000 + 2 * STEP_NANO
        key = await begin(stand, credit)
        answer = await stand.ask(key, "sse")
        await (await stand.upstream.request()).left.wait()

        assert (answer.status, answer.code) == (200, "insufficient_quota")
        charged = credit - await stand.balance(key)
        assert charged >= answer.text.count("five ") * 5 // 4 * 15_000
        assert credit - STEP_NANO <= charged <= credit + STEP_NANO
        assert (await stand.ask(key)).status == 402


async def test_a_whole_answer_ends_when_the_balance_is_gone(
    tmp_path: Path, each_database_url: str
) -> None:
    """The gateway reads it as a stream from the provider."""
    price = {**PRICE, "thinking": "effort", "thinking_default": "always", "thinking_shown": True}
    async with billing_stand(tmp_path, price=price, database_url=each_database_url) as stand:
        stand.script = script(ENDLESS)
        credit = 1_000_000 + 2 * STEP_NANO
        key = await begin(stand, credit)
        answer = await stand.ask(key, "json")

        assert (answer.status, answer.error["code"]) == (402, "insufficient_quota")
        assert -STEP_NANO <= await stand.balance(key) <= STEP_NANO


@pytest.mark.parametrize("pieces", [1, 3, 40])
async def test_a_stream_with_money_goes_on(
    tmp_path: Path, each_database_url: str, pieces: int
) -> None:
    """It is charged as if it had held all from the beginning, and counts as one call."""
    async with billing_stand(tmp_path, database_url=each_database_url) as stand:
        usage = {**USAGE, "completion_tokens": 0, "total_tokens": 0, "prompt_tokens": 0}
        stand.script = script(pieces, usage)
        key = await begin(stand, NANO)
        answer = await stand.ask(key, "sse")
        (row,) = (await stand.get(key, "/usage"))["usage"]

        assert (answer.status, answer.text.count("five ")) == (200, pieces * 80)
        assert row["request_count"] == "1"
        assert NANO - await stand.balance(key) == int(row["cost_nano_usd"])
        assert int(row["cost_nano_usd"]) > 1_000_000 + pieces * PIECE_NANO


async def test_a_budget_ends_a_stream_of_an_unlimited_account(
    tmp_path: Path, each_database_url: str
) -> None:
    """The budget is the key's."""
    async with billing_stand(tmp_path, database_url=each_database_url) as stand:
        stand.script = script(ENDLESS)
        budget = 1_000_000 + 2 * STEP_NANO
        key = await stand.open(credit_nano=100 * NANO, monthly_nano_usd=budget)
        answer = await stand.ask(key, "sse")

        assert answer.code == "budget_exceeded"
        assert 100 * NANO - await stand.balance(key) <= budget + STEP_NANO


async def test_an_answer_within_its_limit_needs_no_more_than_its_hold(
    tmp_path: Path, each_database_url: str
) -> None:
    """A balance for exactly one call makes it, however its tokens arrive."""
    async with billing_stand(tmp_path, database_url=each_database_url) as stand:
        tokens = 1_000
        usage = {**USAGE, "completion_tokens": tokens, "total_tokens": 11 + tokens}
        stand.script = script(tokens // 100, usage)
        prompt = 3 + 8  # Of "Hello", and of its message.
        key = await begin(stand, 1_000_000 + prompt * 3_000 + tokens * 15_000)
        answer = await stand.ask(key, "sse", max_tokens=tokens)

        assert (answer.status, answer.code) == (200, None)
        assert await stand.balance(key) == 4 * 2_700


PICTURE = {"type": "image_url", "image_url": {"url": "https://example.org/large.png"}}
INLINE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
BY_ADDRESS = {"type": "file", "file": {"file_data": "https://example.org/long.pdf"}}
BY_ID = {"type": "file", "file": {"file_id": "file-1"}}
VIDEO = {"type": "video_url", "video_url": {"url": "https://example.org/long.mp4"}}

TOKEN = {"prompt_usd_per_mtok": 1}
"""A price of a dollar for a million tokens of the prompt, and nothing else."""
MICRO = 10**3
"""The price of a token."""
PROMPT_TOKENS = 11
"""As in `USAGE`."""

MEDIA: Sequence[tuple[Mapping[str, Any], int]] = (
    (PICTURE, 16_384),
    (INLINE, 16_384),
    (BY_ADDRESS, 1_000_000),
    (BY_ID, 1_000_000),
    (VIDEO, 1_000_000),
)
"""Parts of a message, and the tokens that a balance must have the price of."""


def message(*parts: Mapping[str, Any]) -> Any:
    """A message of these parts."""
    return [{"role": "user", "content": [{"type": "text", "text": "Hi"}, *parts]}]


@pytest.mark.parametrize(("part", "tokens"), MEDIA)
async def test_media_of_unknown_size_need_the_price_of_the_most_they_may_take(
    tmp_path: Path, each_database_url: str, part: Mapping[str, Any], tokens: int
) -> None:
    """A call beyond the balance reaches no provider. Only used tokens are charged."""
    async with billing_stand(tmp_path, price=TOKEN, database_url=each_database_url) as stand:
        poor = await stand.open(credit_nano=tokens * MICRO)
        rich = await stand.open_account("rich", credit_nano=(tokens + 100) * MICRO)
        refused = await stand.ask(poor, messages=message(part), max_tokens=1)
        made = await stand.ask(rich, messages=message(part), max_tokens=1)

        assert (refused.status, made.status, len(stand.upstream.requests)) == (402, 200, 1)
        assert await stand.balance(rich) == (tokens + 100 - PROMPT_TOKENS) * MICRO


async def test_the_most_tokens_of_media_are_configured_by_model(tmp_path: Path) -> None:
    """And each part counts."""
    price = {**TOKEN, "image_tokens": 3_000, "document_tokens": 20_000}
    async with billing_stand(tmp_path, price=price) as stand:
        poor = await stand.open(credit_nano=26_000 * MICRO)
        rich = await stand.open_account("rich", credit_nano=26_100 * MICRO)
        messages = message(PICTURE, BY_ADDRESS, INLINE)
        statuses = [(await stand.ask(key, messages=messages)).status for key in (poor, rich)]

        assert statuses == [402, 200]


@pytest.mark.parametrize("form", ["json", "sse"])
@pytest.mark.parametrize("part", [PICTURE, BY_ADDRESS])
async def test_a_million_tokens_that_are_reported_at_last_overspend_by_a_step(
    tmp_path: Path, each_database_url: str, form: str, part: Mapping[str, Any]
) -> None:
    """Where the rows of the model say less: the balance that there is, and a step, are charged."""
    price = {**PRICE, "image_tokens": 2_000, "document_tokens": 2_000}
    async with billing_stand(tmp_path, price=price, database_url=each_database_url) as stand:
        stand.usage |= {"prompt_tokens": 1_000_000, "total_tokens": 1_000_005}
        credit = NANO // 50
        key = await stand.open(credit_nano=credit)
        answer = await stand.ask(key, form, messages=message(part), max_tokens=1)
        balance = await stand.balance(key)

        assert answer.status == 200
        assert -STEP_NANO <= balance < 0
        assert round(answer.usage["cost"] * NANO) == credit - balance


async def test_the_sdk_raises_when_the_balance_is_gone(tmp_path: Path) -> None:
    """It raises in the middle of a stream, after all text that was paid for."""
    async with billing_stand(tmp_path) as stand:
        stand.script = script(ENDLESS)
        key = await stand.open(credit_nano=1_000_000 + 2 * STEP_NANO)
        heard = 0
        async with AsyncOpenAI(
            api_key=key, base_url=stand.gateway.base_url, max_retries=0
        ) as client:
            with pytest.raises(APIError) as failed:  # noqa: PT012 - it fails on the way
                async for chunk in await client.chat.completions.create(
                    model=MODEL,
                    messages=[{"role": "user", "content": "Hello"}],
                    max_tokens=20,
                    stream=True,
                ):
                    heard += (chunk.choices[0].delta.content or "").count("five ")

        assert (failed.value.code, failed.value.type) == ("insufficient_quota",) * 2
        assert heard


async def test_a_stub_gets_the_status_when_the_balance_is_gone(tmp_path: Path) -> None:
    """And the reason, as of a call that is refused at once."""
    async with (
        billing_stand(tmp_path) as stand,
        listening(stand.gateway.service.register, "127.0.0.1:0", grace_s=0) as address,
        insecure_channel(address) as channel,
    ):
        stand.script = script(ENDLESS)
        key = await stand.open(credit_nano=1_000_000 + 2 * STEP_NANO)
        user = content_pb2.Message(
            role=content_pb2.ROLE_USER, content=[content_pb2.ContentPart(text="Hello")]
        )
        spec = chat.ChatCompletionSpec(model=MODEL, messages=[user], max_tokens=20)
        request = chat.StreamChatCompletionRequest(spec=spec)
        stub = chat_grpc.ChatCompletionServiceStub(channel)
        batches = 0
        with pytest.raises(AioRpcError) as failed:  # noqa: PT012 - it fails on the way
            async for _ in stub.StreamChatCompletion(
                request, metadata=(("authorization", f"Bearer {key}"),)
            ):
                batches += 1

        assert failed.value.code() is StatusCode.FAILED_PRECONDITION
        assert failed.value.details() == "Insufficient balance"
        assert batches
