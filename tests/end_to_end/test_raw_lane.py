"""Requests of Anthropic's clients pass to its channels as they are, and so do the answers."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pomogator.accounts.v1 import key_service_pb2 as keys_pb

from services.config import BillingConfig, ChannelConfig, Secret
from tests.stand.billing_stand import COST_NANO, MODEL, NANO, PRICE, billing_stand
from tests.stand.billing_stand import chunks as openai_chunks
from tests.stand.gateway import TRANSPORTS, Transport, running
from tests.stand.messages_stand import (
    ANTHROPIC,
    BEGIN,
    DOCUMENT,
    END,
    OVERLOADED,
    PIECE,
    PING,
    START,
    STREAM,
    UPSTREAM_MODEL,
    ask,
    broken,
    document,
    request_body,
    streamed,
    told,
)
from tests.stand.upstream import SSE_HEAD, STALL, FakeUpstream, chunk, json_answer, stream

FORMS = (False, True)
BETAS = "claude-code-20250219, context-management-2025-06-27"
ODD = '"stop_sequences" :["a"],"temperature":1.0,'


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("streams", FORMS)
async def test_bytes_pass_both_ways(tmp_path: Path, transport: Transport, streams: bool) -> None:
    """Only the name of the model changes, neither spacing nor events. The charge is exact."""
    async with billing_stand(tmp_path, transport=transport, channel=ANTHROPIC) as stand:
        stand.script = streamed(STREAM) if streams else document()
        key = await stand.open()
        body = request_body(stream=streams, more=ODD)
        headers = {"anthropic_version": "2024-01-01", "anthropic_beta": BETAS}
        status, answered, received = await ask(stand, key, body, **headers)

        (sent,) = stand.upstream.requests
        assert status == 200
        assert sent.body == body.replace(f'"{MODEL}"'.encode(), f'"{UPSTREAM_MODEL}"'.encode())
        assert sent.headers["anthropic-version"] == "2024-01-01"
        assert sent.headers["anthropic-beta"] == BETAS
        assert received == told(STREAM if streams else DOCUMENT)
        assert "x-pomogator-notes" not in answered
        assert await stand.balance(key) == NANO - COST_NANO


@pytest.mark.parametrize("size", [1, 3, 50, 4_000])
async def test_the_slicing_of_a_stream_does_not_matter(tmp_path: Path, size: int) -> None:
    """Events leave whole, in any slicing, also with the line ends of Windows."""
    for number, whole in enumerate((STREAM, STREAM.replace(b"\n", b"\r\n"))):
        async with billing_stand(tmp_path / str(number), channel=ANTHROPIC) as stand:
            pieces = [whole[begin : begin + size] for begin in range(0, len(whole), size)]
            stand.script = streamed(*pieces)
            key = await stand.open()
            _, _, received = await ask(stand, key, request_body(stream=True))
            assert received == told(whole)
            assert await stand.balance(key) == NANO - COST_NANO


async def test_events_leave_when_they_arrive(tmp_path: Path) -> None:
    """A piece of text does not wait for the next one."""
    goes_on = asyncio.Event()
    async with billing_stand(tmp_path, channel=ANTHROPIC) as stand:
        stand.script = [SSE_HEAD, chunk(START + BEGIN + PIECE), goes_on, *streamed(END)[1:]]
        key = await stand.open()
        url, headers = f"{stand.gateway.base_url}/messages", {"x-api-key": key}
        body = json.loads(request_body(stream=True))
        async with stand.gateway.http.post(url, json=body, headers=headers) as response:
            received = b""
            while PIECE not in received:
                received += await response.content.readany()
            goes_on.set()
            received += await response.content.read()
        assert received == told(START + BEGIN + PIECE + END)


async def test_another_name_of_the_model_in_the_answer_passes(tmp_path: Path) -> None:
    """The request's name is the provider's."""
    async with FakeUpstream() as upstream:
        upstream.play(document())
        channel = ChannelConfig(
            name="house", dialect="anthropic", base_url=upstream.url, models={"claude": "claude"}
        )
        async with running(tmp_path, channel) as gateway:
            body = {"model": "claude", "max_tokens": 5, "messages": []}
            async with gateway.http.post(f"{gateway.base_url}/messages", json=body) as answer:
                assert await answer.read() == DOCUMENT


async def test_an_error_within_a_stream_reaches_the_client_once(tmp_path: Path) -> None:
    """It is as the provider sent it. Text that was passed on is charged."""
    async with billing_stand(tmp_path, channel=ANTHROPIC) as stand:
        stand.script = streamed(START + BEGIN + PIECE, OVERLOADED)
        key = await stand.open()
        _, _, received = await ask(stand, key, request_body(stream=True))
        assert received == told(START + BEGIN + PIECE + OVERLOADED)
        assert 0 < NANO - await stand.balance(key) < COST_NANO


async def test_a_cut_stream_ends_with_an_error(tmp_path: Path) -> None:
    """The error has the form of the API, and follows whole events."""
    async with billing_stand(tmp_path, channel=ANTHROPIC) as stand:
        stand.script = broken(START + BEGIN + PIECE + PIECE[:20])
        key = await stand.open()
        _, _, received = await ask(stand, key, request_body(stream=True))
        passed, _, error = received.partition(b"event: error\n")
        assert passed == told(START + BEGIN + PIECE)
        assert json.loads(error.removeprefix(b"data: "))["error"]["type"] == "api_error"
        assert 0 < NANO - await stand.balance(key) < COST_NANO


@pytest.mark.parametrize("streams", FORMS)
@pytest.mark.parametrize(
    ("theirs", "kind", "status", "told_kind"),
    [
        (400, "invalid_request_error", 400, "invalid_request_error"),
        (401, "authentication_error", 502, "api_error"),
        (413, "request_too_large", 413, "request_too_large"),
        (429, "rate_limit_error", 429, "rate_limit_error"),
        (500, "api_error", 502, "api_error"),
        (529, "overloaded_error", 529, "overloaded_error"),
    ],
)
async def test_a_refusal_has_the_status_and_type_of_the_table(
    tmp_path: Path, streams: bool, theirs: int, kind: str, status: int, told_kind: str
) -> None:
    """It costs nothing."""
    async with billing_stand(tmp_path, channel=ANTHROPIC) as stand:
        error = {"type": "error", "error": {"type": kind, "message": "Out of the ordinary."}}
        stand.script = [json_answer(error, theirs)]
        key = await stand.open()
        answered, _, body = await ask(stand, key, request_body(stream=streams))
        assert (answered, json.loads(body)["error"]["type"]) == (status, told_kind)
        assert await stand.balance(key) == NANO


@pytest.mark.parametrize("begins", ["status", "start"])
@pytest.mark.parametrize("streams", FORMS)
async def test_another_dialect_takes_over(tmp_path: Path, streams: bool, begins: str) -> None:
    """Before the first content the request is translated, and its answer has the API's form."""
    first: Any = [json_answer({"error": {"message": "Busy"}}, 529)]
    if streams and begins == "start":
        first = streamed(START[: START.index(PING)] + PING, OVERLOADED)
    async with FakeUpstream() as theirs, FakeUpstream() as others:
        theirs.play(first)
        message = {"role": "assistant", "content": "Hi!"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
        whole = json_answer({"id": "c", "choices": [choice], "usage": usage})
        others.play([stream(openai_chunks(usage)) if streams else whole])
        channels = [
            ChannelConfig(
                name=name,
                dialect=name,
                base_url=upstream.url,
                models={MODEL: UPSTREAM_MODEL},
                priority=priority,
            )
            for priority, (name, upstream) in enumerate([("anthropic", theirs), ("openai", others)])
        ]
        async with running(tmp_path, *channels) as gateway:
            body = json.loads(request_body(stream=streams, more='"system":"Be brief.",'))
            async with gateway.http.post(f"{gateway.base_url}/messages", json=body) as answer:
                received = await answer.read()
        assert answer.status == 200
        assert b"Hi" in received
        assert f'"model":"{MODEL}"'.encode() in received
        roles = [sent["role"] for sent in others.requests[0].json()["messages"]]
        assert roles == ["system", "user"]
        assert len(theirs.requests) == 1


async def test_a_fault_that_only_the_translation_sees(tmp_path: Path) -> None:
    """A request for another dialect is refused with the path of what is wrong in it."""
    async with FakeUpstream() as upstream:
        channel = ChannelConfig(
            name="o", dialect="openai", base_url=upstream.url, models={MODEL: "m"}
        )
        async with running(tmp_path, channel) as gateway:
            body = {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": 5}]}
            async with gateway.http.post(f"{gateway.base_url}/messages", json=body) as answer:
                error = (await answer.json())["error"]
        assert (answer.status, error["type"]) == (400, "invalid_request_error")
        assert "messages" in error["message"]
        assert upstream.requests == []


COSTLY = {
    "tools": '"tools":[{"type":"web_search_20250305","name":"web_search"}],',
    "twice": '"tools":[{"type":"custom","name":"a","type":"web_search_20250305"}],',
    "speed": '"speed":"fast",',
    "container": '"container":{"skills":[]},',
    "mcp_servers": '"mcp_servers":[{"type":"url","url":"https://example.com","name":"x"}],',
    "context_management": '"context_management":{"edits":[{"type":"compact_20260112"}]},',
    "context_twice": '"context_management":{"edits":[{"type":"compact_20260112"}],"edits":[]},',
    "edit_twice": '"context_management":{"edits":[{"type":"compact_1","type":"clear_1"}]},',
}
"""Members that cost more than tokens, or change their price."""


@pytest.mark.parametrize("name", COSTLY)
async def test_costly_members_are_not_sent_for_limited_accounts(tmp_path: Path, name: str) -> None:
    """The request is translated with a note, or refused. Unlimited accounts may send them."""
    async with billing_stand(tmp_path, channel=ANTHROPIC) as stand:
        stand.script = document()
        key = await stand.open()
        body = request_body(stream=False, more=COSTLY[name])
        status, headers, _ = await ask(stand, key, body)
        assert status == 400 or name in headers["x-pomogator-notes"]
        assert all(name not in request.json() for request in stand.upstream.requests)
        before = len(stand.upstream.requests)
        await ask(stand, stand.gateway.key, body)
        assert stand.upstream.requests[before].body.count(COSTLY[name].encode()) == 1


async def test_the_limit_of_limited_accounts_is_clamped(tmp_path: Path) -> None:
    """The model's longest answer is the most. A note says so."""
    async with billing_stand(tmp_path, channel=ANTHROPIC) as stand:
        stand.script = document()
        key = await stand.open(credit_nano=2 * NANO)
        body = request_body(stream=False).replace(b":20,", b":200000,")
        _, headers, _ = await ask(stand, key, body)
        assert '"param":"max_tokens","action":"clamped"' in headers["x-pomogator-notes"]
        assert stand.upstream.requests[0].json()["max_tokens"] == 64_000
        await ask(stand, stand.gateway.key, body)
        assert stand.upstream.requests[1].json()["max_tokens"] == 200_000


async def test_costly_betas_of_limited_accounts_are_not_sent(tmp_path: Path) -> None:
    """They may change the price of a token, and have a note."""
    async with billing_stand(tmp_path, channel=ANTHROPIC) as stand:
        stand.script = document()
        key = await stand.open()
        _, headers, _ = await ask(
            stand, key, request_body(stream=False), anthropic_beta="context-1m-2025-08-07"
        )
        assert "betas" in headers["x-pomogator-notes"]
        assert "anthropic-beta" not in stand.upstream.requests[0].headers


async def test_a_channel_that_passes_nothing_unknown_gets_translated_requests(
    tmp_path: Path,
) -> None:
    """`pass_through = false` switches the lane off."""
    async with billing_stand(tmp_path, channel={**ANTHROPIC, "pass_through": False}) as stand:
        stand.script = document()
        await ask(stand, stand.gateway.key, request_body(stream=False, more=ODD))
        assert stand.upstream.requests[0].json()["messages"] == [
            {"role": "user", "content": [{"type": "text", "text": "Hello"}]}
        ]


@pytest.mark.parametrize("streams", FORMS)
async def test_an_answer_without_usage_is_counted(tmp_path: Path, streams: bool) -> None:
    """The translated answer costs the same."""
    bare = STREAM.replace(b'"input_tokens":7', b'"input_tokens":0')
    bare = bare.replace(b'"cache_read_input_tokens":4', b'"cache_read_input_tokens":0')
    bare = bare.replace(b'"output_tokens":5', b'"output_tokens":0')
    bare = bare.replace(b'"output_tokens":1', b'"output_tokens":0')
    whole = DOCUMENT.replace(b'"input_tokens":7,"cache_read_input_tokens":4,"output_tokens":5', b"")
    charges = set()
    for passes in ("harmless", False):
        channel = {**ANTHROPIC, "pass_through": passes}
        async with billing_stand(tmp_path / str(passes), channel=channel) as stand:
            stand.script = streamed(bare) if streams else document(whole)
            key = await stand.open()
            await ask(stand, key, request_body(stream=streams))
            charges.add(NANO - await stand.balance(key))
    (charge,) = charges
    assert charge > 1_000_000


async def test_a_client_that_leaves_pays_for_what_was_passed_on(tmp_path: Path) -> None:
    """The provider's answer is cancelled."""
    async with billing_stand(tmp_path, channel=ANTHROPIC) as stand:
        stand.script = [SSE_HEAD, chunk(START + BEGIN + PIECE), STALL]
        key = await stand.open()
        await _leave(stand, key)
        await (await stand.upstream.request()).left.wait()
        assert (await stand.ended(1))["settled"] == 1
        assert 0 < NANO - await stand.balance(key) < COST_NANO


async def test_an_answer_is_drained(tmp_path: Path) -> None:
    """The provider bills it to its end, and the caller pays the reported usage."""
    goes_on = asyncio.Event()
    price = {**PRICE, "billed_to_end": True}
    async with billing_stand(tmp_path, channel=ANTHROPIC, price=price) as stand:
        stand.script = [SSE_HEAD, chunk(START + BEGIN + PIECE), goes_on, *streamed(END)[1:]]
        key = await stand.open()
        await _leave(stand, key)
        goes_on.set()
        await stand.ended(1)
        assert await stand.balance(key) == NANO - COST_NANO


async def test_a_revoked_key_ends_its_stream(tmp_path: Path) -> None:
    """The error has the form of the API."""
    async with billing_stand(tmp_path, channel=ANTHROPIC) as stand:
        stand.script = [SSE_HEAD, chunk(START + BEGIN + PIECE), STALL]
        await stand.open()
        made = await stand.make_key()
        asking = asyncio.create_task(ask(stand, made.secret, request_body(stream=True)))
        await stand.upstream.request()
        await asyncio.sleep(0)
        await stand.keys.RevokeKey(keys_pb.RevokeKeyRequest(key_id=made.key.key_id))
        status, _, received = await asking
        assert b"revoked" in received
        assert status in {200, 401}


async def test_an_exhausted_balance_ends_a_stream(tmp_path: Path) -> None:
    """An answer that is longer than its limit stops where the money does."""
    async with billing_stand(tmp_path, channel=ANTHROPIC) as stand:
        stand.script = [SSE_HEAD, chunk(START + BEGIN), *[chunk(PIECE * 400)] * 40, STALL]
        key = await stand.open(credit_nano=3_000_000)
        _, _, received = await ask(stand, key, request_body(stream=True))
        assert b'"billing_error"' in received
        assert await stand.balance(key) <= 0


async def test_a_repeated_call_gets_the_same_bytes(tmp_path: Path) -> None:
    """The other form of the answer has the same content. There is one charge."""
    async with billing_stand(tmp_path, channel=ANTHROPIC) as stand:
        stand.script = streamed(STREAM)
        key = await stand.open()
        named = {"idempotency_key": "once"}
        _, _, first = await ask(stand, key, request_body(stream=True), **named)
        _, headers, second = await ask(stand, key, request_body(stream=True), **named)
        assert first == second == told(STREAM)
        assert headers["idempotency-replayed"] == "true"
        _, _, whole = await ask(stand, key, request_body(stream=False), **named)
        message = json.loads(whole)
        assert message["content"][-1]["text"] == "GrüßGrüß"
        assert message["stop_reason"] == "end_turn"
        assert len(stand.upstream.requests) == 1
        assert await stand.balance(key) == NANO - COST_NANO


async def test_a_repeated_document_becomes_a_stream(tmp_path: Path) -> None:
    """A repeat with `stream` of a call without it gets events."""
    async with billing_stand(tmp_path, channel=ANTHROPIC) as stand:
        stand.script = document()
        key = await stand.open()
        named = {"idempotency_key": "once"}
        _, _, first = await ask(stand, key, request_body(stream=False), **named)
        _, _, again = await ask(stand, key, request_body(stream=False), **named)
        assert first == again == told(DOCUMENT)
        _, _, events = await ask(stand, key, request_body(stream=True), **named)
        assert "Grüß".encode() in events
        assert b'"type":"message_stop"' in events
        assert len(stand.upstream.requests) == 1


async def test_the_key_of_the_provider_is_the_channels(tmp_path: Path) -> None:
    """The caller's key is not sent."""
    async with FakeUpstream() as upstream:
        upstream.play(document())
        channel = ChannelConfig(
            name="house",
            dialect="anthropic",
            base_url=upstream.url,
            models={MODEL: UPSTREAM_MODEL},
            key=Secret("sk-theirs"),
        )
        async with running(tmp_path, channel) as gateway:
            url, body = f"{gateway.base_url}/messages", json.loads(request_body(stream=False))
            async with gateway.http.post(url, json=body) as answer:
                assert answer.status == 200
        assert upstream.requests[0].headers["x-api-key"] == "sk-theirs"
        assert gateway.key not in str(upstream.requests[0].headers)


async def test_tools_of_the_provider_where_they_are_free(tmp_path: Path) -> None:
    """`billing.provider_tools = "free"` lets them pass for all accounts."""
    billing = BillingConfig(unpriced="free", provider_tools="free")
    async with billing_stand(tmp_path, channel=ANTHROPIC, billing=billing) as stand:
        stand.script = document()
        key = await stand.open()
        body = request_body(stream=False, more=COSTLY["tools"])
        await ask(stand, key, body)
        assert stand.upstream.requests[0].json()["tools"][0]["name"] == "web_search"


SEARCHED = DOCUMENT.replace(
    b'"output_tokens":5', b'"output_tokens":5,"server_tool_use":{"web_search_requests":2}'
)
SEARCH_NANO = 10_000_000


@pytest.mark.parametrize("passes", ["harmless", False])
async def test_searches_are_charged(tmp_path: Path, passes: Any) -> None:
    """`billing.provider_tools = "charge"`: tools with a price pass, and cost what it says."""
    billing = BillingConfig(unpriced="free", provider_tools="charge")
    channel = {**ANTHROPIC, "pass_through": passes}
    async with billing_stand(tmp_path, channel=channel, billing=billing) as stand:
        stand.script = document(SEARCHED)
        key = await stand.open()
        body = request_body(stream=False, more=COSTLY["tools"])
        status, headers, _ = await ask(stand, key, body)
        assert status == 200
        charged = await stand.balance(key)
        if passes:
            assert stand.upstream.requests[0].json()["tools"][0]["name"] == "web_search"
            assert "x-pomogator-notes" not in headers
        assert charged == NANO - COST_NANO - 2 * SEARCH_NANO
        code = '"tools":[{"type":"code_execution_20250825","name":"code_execution"}],'
        _, headers, _ = await ask(stand, key, request_body(stream=False, more=code))
        assert "tools" in headers["x-pomogator-notes"]


async def test_searches_without_a_charge(tmp_path: Path) -> None:
    """`billing.provider_tools = "free"` charges tokens alone."""
    billing = BillingConfig(unpriced="free", provider_tools="free")
    async with billing_stand(tmp_path, channel=ANTHROPIC, billing=billing) as stand:
        stand.script = document(SEARCHED)
        key = await stand.open()
        await ask(stand, key, request_body(stream=False, more=COSTLY["tools"]))
        assert await stand.balance(key) == NANO - COST_NANO


async def test_cache_writes_have_rows_by_their_time(tmp_path: Path) -> None:
    """Of five minutes and of an hour, as the provider reports them."""
    rates = {
        "cache_write_usd_per_mtok": Decimal("3.75"),
        "cache_write_1h_usd_per_mtok": Decimal(6),
    }
    written = (
        b'"cache_creation_input_tokens":30,"cache_creation":{"ephemeral_5m_input_tokens":10,'
        b'"ephemeral_1h_input_tokens":20},"output_tokens":5'
    )
    async with billing_stand(tmp_path, channel=ANTHROPIC, price={**PRICE, **rates}) as stand:
        stand.script = document(DOCUMENT.replace(b'"output_tokens":5', written))
        key = await stand.open()
        await ask(stand, key, request_body(stream=False))
        cost = COST_NANO + 10 * 3_750 + 20 * 6_000
        assert await stand.balance(key) == NANO - cost


async def _leave(stand: Any, key: str) -> None:
    """Leave a stream once it has said something."""
    url, headers = f"{stand.gateway.base_url}/messages", {"x-api-key": key}
    body = json.loads(request_body(stream=True))
    async with stand.gateway.http.post(url, json=body, headers=headers) as response:
        received = b""
        while PIECE not in received:
            received += await response.content.readany()
        response.close()
