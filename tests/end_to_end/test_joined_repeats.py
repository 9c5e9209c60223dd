"""Requests that agents repeat in their session get the answer of the first call, charged once."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.completions import joined_repeats
from services.config import BillingConfig
from tests.stand.billing_stand import COST_NANO, MODEL, NANO, PRICE, BillingStand, billing_stand
from tests.stand.messages_stand import (
    ANTHROPIC,
    BEGIN,
    END,
    PIECE,
    START,
    STREAM,
    ask,
    broken,
    document,
    request_body,
    streamed,
    told,
)
from tests.stand.upstream import SSE_HEAD, Script, chunk

SESSION = {"x_claude_code_session_id": "s-1"}
DRAINS: Mapping[str, Any] = {**PRICE, "billed_to_end": True}


def held(goes_on: asyncio.Event) -> Script:
    """A stream that waits in the middle."""
    return [SSE_HEAD, chunk(START + BEGIN + PIECE), goes_on, *streamed(PIECE + END)[1:]]


async def leave(stand: BillingStand, key: str, headers: Mapping[str, str] = SESSION) -> None:
    """Ask for a stream, and leave it once it has begun."""
    url = f"{stand.gateway.base_url}/messages"
    sent = {"x-api-key": key, "content-type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    body = request_body(stream=True)
    async with stand.gateway.http.post(url, data=body, headers=sent) as response:
        received = b""
        while PIECE not in received:
            received += await response.content.readany()
        response.close()


@pytest.mark.parametrize("streams", [True, False])
async def test_a_repeat_of_a_running_call_waits_for_its_answer(
    tmp_path: Path, streams: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It gets the answer in its own form, streamed or whole."""
    goes_on = asyncio.Event()
    async with billing_stand(tmp_path, channel=ANTHROPIC) as stand:
        stand.script = held(goes_on)
        key = await stand.open()
        first = asyncio.create_task(ask(stand, key, request_body(stream=True), **SESSION))
        await stand.upstream.request()
        with caplog.at_level(logging.INFO):
            repeat = asyncio.create_task(ask(stand, key, request_body(stream=streams), **SESSION))
            await asyncio.sleep(0.05)
            goes_on.set()
            _, headers, answer = await repeat
        _, own, body = await first
        assert body == told(START + BEGIN + PIECE + PIECE + END)
        assert headers["x-pomogator-joined"] == "true"
        assert "x-pomogator-joined" not in own
        if streams:
            assert answer == body
        else:
            message = json.loads(answer)
            assert message["content"][-1]["text"] == "GrüßGrüß"
        assert "call.joined" in {record.getMessage() for record in caplog.records}
        metrics = stand.gateway.service.call_metrics
        metrics.ended.deliver()
        assert metrics.idempotent_requests[("joined",)].value == 1
        assert len(stand.upstream.requests) == 1
        assert await stand.balance(key) == NANO - COST_NANO


async def test_a_repeat_of_a_drained_call_gets_its_answer(tmp_path: Path) -> None:
    """The drain runs or has just ended. An equal request after that is a call of its own."""
    goes_on = asyncio.Event()
    async with billing_stand(tmp_path, channel=ANTHROPIC, price=DRAINS) as stand:
        stand.script = held(goes_on)
        key = await stand.open()
        await leave(stand, key)
        goes_on.set()
        await stand.ended(1)
        _, headers, answer = await ask(stand, key, request_body(stream=False), **SESSION)
        assert headers["x-pomogator-joined"] == "true"
        assert json.loads(answer)["content"][-1]["text"] == "GrüßGrüß"
        assert await stand.balance(key) == NANO - COST_NANO
        stand.script = document()
        _, headers, _ = await ask(stand, key, request_body(stream=False), **SESSION)
        assert "x-pomogator-joined" not in headers
        assert len(stand.upstream.requests) == 2


async def test_a_repeat_of_a_failed_call_is_made_again(tmp_path: Path) -> None:
    """A stream that the provider cut has no answer to give."""
    async with billing_stand(tmp_path, channel=ANTHROPIC) as stand:
        key = await stand.open()
        stand.script = broken(START + BEGIN + PIECE)
        with suppress(aiohttp.ClientError):
            await ask(stand, key, request_body(stream=True), **SESSION)
        stand.script = document()
        status, headers, _ = await ask(stand, key, request_body(stream=False), **SESSION)
        assert (status, "x-pomogator-joined" in headers) == (200, False)
        assert len(stand.upstream.requests) == 2


@pytest.mark.parametrize("differs", ["session", "key", "body", "none", "cache"])
async def test_other_calls_are_not_joined(tmp_path: Path, differs: str) -> None:
    """They differ in session, key or body, or have no session."""
    goes_on = asyncio.Event()
    async with billing_stand(tmp_path, channel=ANTHROPIC) as stand:
        stand.script = held(goes_on)
        key = await stand.open()
        other = (await stand.make_key()).secret if differs == "key" else key
        one: dict[str, str] = {} if differs == "none" else dict(SESSION)
        two = {**one, "x_claude_code_session_id": "s-2"} if differs == "session" else one
        more = '"temperature":0.5,' if differs == "body" else ""
        first = asyncio.create_task(ask(stand, key, request_body(stream=True), **one))
        await stand.upstream.request()
        again = request_body(stream=True, more=more)
        second = asyncio.create_task(ask(stand, other, again, **two))
        if differs == "cache":
            second.cancel()
            first.cancel()
            await asyncio.gather(first, second, return_exceptions=True)
            await _ask_chat_twice(stand, key)
            return
        await stand.upstream.request(1)
        goes_on.set()
        for _, headers, body in await asyncio.gather(first, second):
            assert "x-pomogator-joined" not in headers
            assert body == told(START + BEGIN + PIECE + PIECE + END)


async def _ask_chat_twice(stand: BillingStand, key: str) -> None:
    goes_on = asyncio.Event()
    stand.script = held(goes_on)
    number = len(stand.upstream.requests)
    body = {"prompt_cache_key": "app", "stream": True}
    asking = [asyncio.create_task(stand.ask(key, "sse", **body)) for _ in range(2)]
    await stand.upstream.request(number + 1)
    goes_on.set()
    for answer in await asyncio.gather(*asking):
        assert "x-pomogator-joined" not in answer.headers


async def test_a_repeated_chat_completion_is_joined(tmp_path: Path) -> None:
    """Sessions of all surfaces have the rule."""
    goes_on = asyncio.Event()
    async with billing_stand(tmp_path) as stand:
        stand.before = [goes_on]
        key = await stand.open()
        url = f"{stand.gateway.base_url}/chat/completions"
        headers = {"Authorization": f"Bearer {key}", "session-id": "s-1"}
        messages = [{"role": "user", "content": "Hello"}]

        async def one(*, stream: bool) -> tuple[Mapping[str, str], bytes]:
            body = {"model": MODEL, "messages": messages, "max_tokens": 20, "stream": stream}
            async with stand.gateway.http.post(url, json=body, headers=headers) as response:
                return response.headers, await response.read()

        first = asyncio.create_task(one(stream=True))
        await stand.upstream.request()
        repeat = asyncio.create_task(one(stream=False))
        await asyncio.sleep(0.05)
        goes_on.set()
        _, events = await first
        joined, whole = await repeat
        assert b"[DONE]" in events
        assert joined["x-pomogator-joined"] == "true"
        assert json.loads(whole)["choices"][0]["message"]["content"] == "Hi!"
        assert len(stand.upstream.requests) == 1
        assert await stand.balance(key) == NANO - COST_NANO


async def test_the_rule_can_be_switched_off(tmp_path: Path) -> None:
    """`[billing] join_repeats = false`: each request is a call of its own."""
    goes_on = asyncio.Event()
    billing = BillingConfig(unpriced="free", join_repeats=False)
    async with billing_stand(tmp_path, channel=ANTHROPIC, billing=billing) as stand:
        stand.script = held(goes_on)
        key = await stand.open()
        asking = [
            asyncio.create_task(ask(stand, key, request_body(stream=True), **SESSION))
            for _ in range(2)
        ]
        await stand.upstream.request(1)
        goes_on.set()
        await asyncio.gather(*asking)
        assert await stand.balance(key) == NANO - 2 * COST_NANO


async def test_equal_requests_one_after_another_are_two_calls(tmp_path: Path) -> None:
    """The first answer was whole."""
    async with billing_stand(tmp_path, channel=ANTHROPIC) as stand:
        stand.script = streamed(STREAM)
        key = await stand.open()
        for _ in range(2):
            _, headers, _ = await ask(stand, key, request_body(stream=True), **SESSION)
            assert "x-pomogator-joined" not in headers
        assert await stand.balance(key) == NANO - 2 * COST_NANO


async def test_answers_beyond_the_memory_for_them_are_not_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repeat is then a call of its own."""
    monkeypatch.setattr(joined_repeats, "ANSWER_BYTES_MAX", 100)
    goes_on = asyncio.Event()
    async with billing_stand(tmp_path, channel=ANTHROPIC) as stand:
        stand.script = held(goes_on)
        key = await stand.open()
        asking = [
            asyncio.create_task(ask(stand, key, request_body(stream=True), **SESSION))
            for _ in range(2)
        ]
        await stand.upstream.request()
        goes_on.set()
        for _, headers, body in await asyncio.gather(*asking):
            assert body == told(START + BEGIN + PIECE + PIECE + END)
            assert "x-pomogator-joined" not in headers
        assert await stand.balance(key) == NANO - 2 * COST_NANO
