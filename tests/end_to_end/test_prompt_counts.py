"""Tokens of prompts: counted by providers that can, estimated with a note otherwise."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import usage_pb2
from pomogator.chat.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub
from pomogator.operations.v1.operations_service_pb2 import ListChannelsRequest
from pomogator.operations.v1.operations_service_pb2_grpc import OperationsServiceStub

from services.completions import prompt_counts
from services.config import LimitConfig
from tests.stand.billing_stand import MODEL, NANO, BillingStand, bearer, billing_stand
from tests.stand.clock import FakeClock
from tests.stand.gateway import TRANSPORTS, Transport
from tests.stand.messages_stand import ANTHROPIC, UPSTREAM_MODEL
from tests.stand.upstream import STALL, json_answer

COUNT = [json_answer({"input_tokens": 2095})]
PROMPT = f'{{"messages":[{{"role":"user", "content":"Hello"}}],"model":"{MODEL}"}}'.encode()
OPENAI = {"models": {MODEL: "gpt-5.6-terra"}}
ITEMS = {"model": MODEL, "input": "Hello", "instructions": "Be brief."}


class Count(NamedTuple):
    """An answer to a request for a count."""

    status: int
    body: Any
    notes: str


async def ask(
    stand: BillingStand, key: str, body: bytes = PROMPT, path: str = "/messages/count_tokens"
) -> Count:
    """The answer to a request for a count."""
    sent = {**bearer(key), "content-type": "application/json"}
    url = f"{stand.gateway.base_url}{path}"
    async with stand.gateway.http.post(url, data=body, headers=sent) as response:
        notes = response.headers.get("x-pomogator-notes", "")
        return Count(response.status, await response.json(), notes)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_provider_counts(tmp_path: Path, transport: Transport) -> None:
    """The provider gets the caller's bytes, but for the model's name. Nothing is charged."""
    async with billing_stand(tmp_path, transport=transport, channel=ANTHROPIC) as stand:
        stand.script = COUNT
        key = await stand.open()
        assert await ask(stand, key) == Count(200, {"input_tokens": 2095}, "")
        (sent,) = stand.upstream.requests
        assert sent.path == "/v1/messages/count_tokens"
        assert sent.body == PROMPT.replace(MODEL.encode(), UPSTREAM_MODEL.encode())
        assert await stand.balance(key) == NANO
        assert (await stand.counts())["settled"] == 0


async def test_a_prompt_of_responses_is_counted_by_openai(tmp_path: Path) -> None:
    """A channel of OpenAI's has a model of Responses, and gets the fields of the prompt alone."""
    async with billing_stand(tmp_path, channel=OPENAI) as stand:
        stand.script = COUNT
        key = await stand.open()
        body = json.dumps({**ITEMS, "store": False}).encode()
        counted = await ask(stand, key, body, "/responses/input_tokens")
        expected = {"object": "response.input_tokens", "input_tokens": 2095}
        assert counted == Count(200, expected, "")
        (sent,) = stand.upstream.requests
        assert sent.path == "/v1/responses/input_tokens"
        assert sent.json().keys() == {"model", "input"}


async def test_a_prompt_that_may_not_pass_is_translated(tmp_path: Path) -> None:
    """A caller that pays gets the count of the completion's own request."""
    async with billing_stand(tmp_path, channel=ANTHROPIC) as stand:
        stand.script = COUNT
        key = await stand.open()
        members = {**json.loads(PROMPT), "mcp_servers": [{"type": "url", "url": "https://a.b"}]}
        assert await ask(stand, key, json.dumps(members).encode()) == Count(
            200, {"input_tokens": 2095}, ""
        )
        (sent,) = stand.upstream.requests
        assert sent.json().keys() == {"model", "messages"}


@pytest.mark.parametrize(
    "script",
    [
        [json_answer({"error": {"message": "Overloaded"}}, 529)],
        [json_answer({"error": {"message": "Not found"}}, 404)],
        [json_answer({"error": {"message": "Slow down"}}, 429, retry_after="7")],
        [json_answer({"input_tokens": "many"})],
        [json_answer({"input_tokens": -1})],
        [json_answer([])],
    ],
)
async def test_a_provider_that_does_not_count_is_left_alone(tmp_path: Path, script: Any) -> None:
    """The caller gets an estimate with a note, also while the provider is not asked."""
    clock = FakeClock()
    async with billing_stand(tmp_path, channel=ANTHROPIC, clock=clock) as stand:
        stand.script = script
        key = await stand.open()
        for _ in range(2):
            counted = await ask(stand, key)
            assert counted.status == 200
            assert 0 < counted.body["input_tokens"] < 50
            assert (
                '"param":"input_tokens","action":"replaced","detail":"An estimate: '
                in counted.notes
            )
        assert len(stand.upstream.requests) == 1
        clock.advance(prompt_counts.MISSING_BACKOFF_S)
        stand.script = COUNT
        assert (await ask(stand, key)).body == {"input_tokens": 2095}


async def test_failed_counts_do_not_count_against_the_channel(tmp_path: Path) -> None:
    """A completion goes to the channel, and operators see no failure of it."""
    async with billing_stand(
        tmp_path, channel={**ANTHROPIC, "dialect": "openai", **OPENAI}
    ) as stand:
        key = await stand.open()
        stand.script = [json_answer({"error": {"message": "Unknown"}}, 500)]
        body = json.dumps(ITEMS).encode()
        for _ in range(10):
            await ask(stand, key, body, "/responses/input_tokens")
        async with stand.gateway.service.operators_channel() as opened:
            operations = OperationsServiceStub(opened)
            channels = (await operations.ListChannels(ListChannelsRequest())).channels
        assert [each.last_failure for each in channels] == [""]
        stand.script = ()
        assert (await stand.ask(key)).status == 200


async def test_a_slow_provider_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The estimate comes after a few seconds, and the provider's connection is closed."""
    monkeypatch.setattr(prompt_counts, "TIMEOUT_S", 0.2)
    async with billing_stand(tmp_path, channel=ANTHROPIC) as stand:
        stand.script = [STALL]
        key = await stand.open()
        counted = await ask(stand, key)
        assert (counted.status, "took too long" in counted.notes) == (200, True)
        await asyncio.wait_for(stand.upstream.requests[0].left.wait(), 10)


async def test_the_refusal_of_a_request_that_passed_is_the_callers(tmp_path: Path) -> None:
    """The provider refuses the count as it would the completion."""
    async with billing_stand(tmp_path, channel=ANTHROPIC) as stand:
        message = "messages: roles must alternate"
        error = {"type": "invalid_request_error", "message": message}
        stand.script = [json_answer({"type": "error", "error": error}, 400)]
        key = await stand.open()
        counted = await ask(stand, key)
        assert (counted.status, counted.body["error"]["type"]) == (400, "invalid_request_error")
        assert message in counted.body["error"]["message"]


async def test_limits_on_requests_apply(tmp_path: Path) -> None:
    """Beyond the limits of key and channel there are estimates, and a completion is refused."""
    for rule in (LimitConfig(key="*", rpm=2), LimitConfig(channel="house", rpm=2)):
        state = tmp_path / (rule.channel or "key")
        state.mkdir()
        async with billing_stand(
            state, channel=ANTHROPIC, limits=[rule], clock=FakeClock()
        ) as stand:
            stand.script = COUNT
            key = await stand.open()
            notes = [(await ask(stand, key)).notes for _ in range(4)]
            assert notes[:2] == ["", ""]
            assert all("limits on requests" in each for each in notes[2:])
            assert len(stand.upstream.requests) == 2
            assert (await stand.ask(key)).status == 429


async def test_counts_at_a_time_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Further ones are estimated at once."""
    monkeypatch.setattr(prompt_counts, "REQUESTS_MAX", 1)
    go_on = asyncio.Event()
    async with billing_stand(tmp_path, channel=ANTHROPIC) as stand:
        stand.script = [go_on, *COUNT]
        key = await stand.open()
        first = asyncio.create_task(ask(stand, key))
        await stand.upstream.request()
        assert "too many" in (await ask(stand, key)).notes
        go_on.set()
        assert (await first).body == {"input_tokens": 2095}


async def test_a_caller_of_stubs_is_told_the_source(tmp_path: Path) -> None:
    """With the request as a specification or as it came; one with neither is refused."""
    async with billing_stand(tmp_path, channel=ANTHROPIC) as stand:
        stand.script = COUNT
        key = await stand.open()
        metadata = (("authorization", f"Bearer {key}"),)
        raw = chat.RawRequest(api=chat.RAW_API_ANTHROPIC_MESSAGES, body=PROMPT)
        spec = chat.ChatCompletionSpec(model=MODEL)
        spec.messages.add(role="ROLE_USER").content.add(text="Hello")
        async with stand.gateway.service.channel() as channel:
            stub = ChatCompletionServiceStub(channel)
            for request in (
                chat.CountPromptTokensRequest(raw=raw),
                chat.CountPromptTokensRequest(spec=spec),
            ):
                counted = await stub.CountPromptTokens(request, metadata=metadata)
                assert counted.prompt_token_count == 2095
                assert counted.source == usage_pb2.USAGE_SOURCE_PROVIDER
            stand.script = [json_answer({}, 500)]
            counted = await stub.CountPromptTokens(request, metadata=metadata)
            assert counted.source == usage_pb2.USAGE_SOURCE_COUNTED
            assert counted.notes[0].param == "prompt_token_count"
            for wrong in (
                chat.CountPromptTokensRequest(),
                chat.CountPromptTokensRequest(raw=chat.RawRequest(body=PROMPT)),
                chat.CountPromptTokensRequest(
                    raw=chat.RawRequest(api=raw.api, body=PROMPT, headers={"x-api-key": "a"})
                ),
                chat.CountPromptTokensRequest(raw=chat.RawRequest(api=raw.api, body=b"{")),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await stub.CountPromptTokens(wrong, metadata=metadata)
                assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
