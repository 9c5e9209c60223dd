"""Idempotency keys through the whole gateway: one call to the provider, one charge."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from services.storage.keys import KeyScope
from tests.stand.gateway import TRANSPORTS, Gateway, Transport
from tests.stand.held_provider import (
    CHARGE_NANO_USD,
    MESSAGES,
    MODEL,
    NAMED,
    ask,
    audited_charges,
    held_gateway,
)
from tests.stand.response import ReadResponse


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("stream", [False, True])
async def test_one_of_twenty_equal_calls_is_made(
    tmp_path: Path, transport: Transport, stream: bool
) -> None:
    """The others get 409 with Retry-After of a second; a retry gets the answer byte by byte."""
    async with held_gateway(tmp_path, transport) as (gateway, upstream, provider):
        provider.goes_on.clear()
        calls = [asyncio.create_task(ask(gateway, stream=stream)) for _ in range(20)]
        pending = set(calls)
        while len(pending) > 1:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        provider.goes_on.set()
        replies = await asyncio.gather(*calls)
        again = await ask(gateway, stream=stream)

        (first,) = [reply for reply in replies if reply.status == 200]
        refused = [reply for reply in replies if reply is not first]
        assert {reply.status for reply in refused} == {409}
        assert {reply.code for reply in refused} == {"idempotency_in_progress"}
        assert {reply.headers["Retry-After"] for reply in refused} == {"1"}
        assert (first.replayed, again.replayed) == (False, True)
        assert again.body == first.body
        assert b"Good" in first.body
        assert len(upstream.requests) == 1
    assert await audited_charges(tmp_path) == {"settled": CHARGE_NANO_USD}


async def test_a_stream_is_replayed_as_a_whole_answer_and_the_reverse(tmp_path: Path) -> None:
    """Both have the same ID, time, text and usage."""
    async with held_gateway(tmp_path) as (gateway, upstream, _):
        with_usage = {"stream": True, "stream_options": {"include_usage": True}}
        streamed = await ask(gateway, {"Idempotency-Key": "a"}, **with_usage)
        then_whole = await ask(gateway, {"Idempotency-Key": "a"})
        whole = await ask(gateway, {"Idempotency-Key": "b"})
        then_streamed = await ask(gateway, {"Idempotency-Key": "b"}, **with_usage)

        assert (streamed.replayed, whole.replayed) == (False, False)
        assert (then_whole.replayed, then_streamed.replayed) == (True, True)
        assert len(upstream.requests) == 2
    _check_same(streamed, then_whole)
    _check_same(then_streamed, whole)


def _check_same(stream: ReadResponse, whole: ReadResponse) -> None:
    answer, events = whole.json, stream.events[:-1]
    assert {event["id"] for event in events} == {answer["id"]}
    assert {event["created"] for event in events} == {answer["created"]}
    texts = [choice["delta"].get("content") for event in events for choice in event["choices"]]
    assert "".join(text or "" for text in texts) == "Good day"
    assert answer["choices"][0]["message"]["content"] == "Good day"
    assert events[-1]["usage"] == answer["usage"]


async def test_another_request_with_the_same_key_is_refused(tmp_path: Path) -> None:
    """Its status is one that no SDK retries."""
    async with held_gateway(tmp_path) as (gateway, upstream, _):
        await ask(gateway)
        for changed in ({"max_tokens": 51}, {"messages": MESSAGES * 2}, {"top_k": 1}):
            refused = await ask(gateway, **changed)
            assert (refused.status, refused.code) == (422, "idempotency_mismatch")
        policy = await ask(gateway, {**NAMED, "x-pomogator-mode": "strict"})

        assert policy.status == 422
        assert len(upstream.requests) == 1


async def test_an_idempotency_key_belongs_to_an_account(tmp_path: Path) -> None:
    """Another key of the account gets the answer; another account learns nothing of it."""
    async with held_gateway(tmp_path) as (gateway, upstream, _):
        await ask(gateway)
        _, sibling = await gateway.service.key_maker.make("default")
        _, stranger = await gateway.service.key_maker.make("acme")

        assert (await ask(gateway, NAMED | _bearer(sibling))).replayed
        # It has no money, and so its call is refused: it was about to be made.
        assert (await ask(gateway, NAMED | _bearer(stranger))).status == 402
        assert len(upstream.requests) == 1


async def test_a_replay_needs_a_key_for_the_model(tmp_path: Path) -> None:
    """The scope of a key applies to replays too."""
    async with held_gateway(tmp_path) as (gateway, _, _):
        await ask(gateway)
        scope = KeyScope(models=frozenset({"house/another"}))
        _, narrow = await gateway.service.key_maker.make("default", scope=scope)
        reply = await ask(gateway, NAMED | _bearer(narrow))

        assert (reply.status, reply.code) == (403, "model_not_allowed")


async def test_a_replay_counts_against_no_limit(tmp_path: Path) -> None:
    """A key at its limit still gets the replay of an answer that it has paid for."""
    async with held_gateway(tmp_path) as (gateway, _, _):
        _, secret = await gateway.service.key_maker.make("default", scope=KeyScope(rpm=1))
        await ask(gateway, NAMED | _bearer(secret))
        other = await ask(gateway, {"Idempotency-Key": "order-2"} | _bearer(secret))
        again = await ask(gateway, NAMED | _bearer(secret))

        assert other.status == 429
        assert (again.status, again.replayed) == (200, True)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failed_call_can_be_retried_with_its_key(tmp_path: Path, stream: bool) -> None:
    """After a refusal or a truncated answer; each attempt is charged for what came."""
    async with held_gateway(tmp_path) as (gateway, upstream, provider):
        provider.fails = True
        failed = await ask(gateway, stream=stream)
        made = len(upstream.requests)
        provider.fails = False
        reply = await ask(gateway, stream=stream)

        assert (failed.status == 200) == stream, "a stream has begun, and ends with the error"
        assert b'"error"' in failed.body
        assert (reply.status, reply.replayed) == (200, False)
        assert len(upstream.requests) == made + 1
    ends = await audited_charges(tmp_path)
    assert ends["settled"] == CHARGE_NANO_USD * (2 if stream else 1)


async def test_a_disconnected_call_is_made_again(tmp_path: Path) -> None:
    """The disconnect cancels the call, and the retry makes another one."""
    async with held_gateway(tmp_path) as (gateway, upstream, provider):
        provider.goes_on.clear()
        leaving = asyncio.create_task(ask(gateway, stream=True))
        left = await upstream.request(0)
        leaving.cancel()
        await left.left.wait()
        provider.goes_on.set()
        reply = await _ask_until_answered(gateway)

        assert not reply.replayed
        assert len(upstream.requests) == 2


async def _ask_until_answered(gateway: Gateway) -> ReadResponse:
    while (reply := await ask(gateway)).status == 409:
        pass
    return reply


@pytest.mark.parametrize(
    ("headers", "fields", "status"),
    [
        ({"Idempotency-Key": "a" * 256}, {}, 400),
        (NAMED, {"max_tokens": 0}, 400),
        (NAMED, {"model": "house/none"}, 400),
        ({**NAMED, "Authorization": f"Bearer sk-pg-{'a' * 49}"}, {}, 401),
    ],
)
async def test_a_refused_request_does_not_use_its_key(
    tmp_path: Path, headers: Mapping[str, str], fields: Mapping[str, Any], status: int
) -> None:
    """The request can be corrected and sent again."""
    async with held_gateway(tmp_path) as (gateway, upstream, _):
        assert (await ask(gateway, headers, **fields)).status == status
        assert (await ask(gateway)).status == 200
        assert len(upstream.requests) == 1


async def test_calls_without_a_key_are_never_merged(tmp_path: Path) -> None:
    """They may be equal, and have any retry count of an SDK."""
    async with held_gateway(tmp_path) as (gateway, upstream, _):
        for count in range(3):
            reply = await ask(gateway, {"x-stainless-retry-count": str(count)})
            assert not reply.replayed
        assert len(upstream.requests) == 3
    assert await audited_charges(tmp_path) == {"settled": 3 * CHARGE_NANO_USD}


async def test_an_sdks_retry_gets_the_answer_of_the_running_call(tmp_path: Path) -> None:
    """Refused while an equal call runs, it waits as told, and gets that call's answer."""
    refused = asyncio.Event()

    async def watch(response: Any) -> None:
        if response.status_code == 409:
            refused.set()

    async with (
        held_gateway(tmp_path) as (gateway, upstream, provider),
        DefaultAsyncHttpxClient(event_hooks={"response": [watch]}) as http,
        AsyncOpenAI(api_key=gateway.key, base_url=gateway.base_url, http_client=http) as client,
    ):
        provider.goes_on.clear()
        first = asyncio.create_task(ask(gateway))
        await upstream.request(0)
        second = asyncio.create_task(
            client.chat.completions.create(
                model=MODEL, messages=MESSAGES, max_tokens=50, extra_headers=NAMED
            )
        )
        await refused.wait()
        provider.goes_on.set()

        assert json.loads((await first).body)["id"] == (await second).id
        assert len(upstream.requests) == 1


def _bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}
