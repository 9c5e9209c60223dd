"""Requests of OpenAI's Responses pass to its channels as they are, and so do the answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as pb_grpc

from services.config import BillingConfig, ChannelConfig
from tests.stand.billing_stand import COST_NANO, MODEL, NANO, PRICE, BillingStand, billing_stand
from tests.stand.billing_stand import chunks as openai_chunks
from tests.stand.gateway import TRANSPORTS, Transport, running
from tests.stand.messages_stand import broken, streamed
from tests.stand.messages_stand import document as script_of
from tests.stand.responses_stand import (
    BEGIN,
    DOCUMENT,
    DOCUMENT_WITH_SEARCH,
    END,
    ERROR,
    HEAD,
    PIECE,
    PING,
    RESPONSES,
    SEARCHED,
    STREAM,
    UPSTREAM_MODEL,
    ask,
    failed,
    frame,
    head_of,
    request_body,
    told,
)
from tests.stand.upstream import SSE_HEAD, STALL, FakeUpstream, chunk, json_answer, stream

FORMS = (False, True)
SECRET = "Incorrect API key provided: sk-proj-abcdefghijklmnop0123456789."
ODD = '"reasoning" :{"effort":"low"},"client_metadata":{"a":"b"},"future":{"model":"x"},'
SEARCH = '"tools":[{"type":"web_search"}],'
SEARCH_NANO = 10_000_000
MESSAGE: Mapping[str, Any] = {"role": "user", "content": "Hello"}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("streams", FORMS)
async def test_bytes_pass_both_ways(tmp_path: Path, transport: Transport, streams: bool) -> None:
    """Only the model's name changes. Unknown members, spacing, items, events and IDs stay."""
    async with billing_stand(tmp_path, transport=transport, channel=RESPONSES) as stand:
        stand.script = streamed(STREAM) if streams else script_of(DOCUMENT)
        body = request_body(stream=streams, more=ODD)
        body = body.replace(b'"none"}', b'"none"}, {"type":"newly_made"}')
        status, answered, received = await ask(stand, stand.gateway.key, body)

        (sent,) = stand.upstream.requests
        assert status == 200
        assert sent.path.endswith("/responses")
        assert sent.body == body.replace(f'"{MODEL}"'.encode(), f'"{UPSTREAM_MODEL}"'.encode())
        assert received == told(STREAM if streams else DOCUMENT)
        assert "x-pomogator-notes" not in answered


@pytest.mark.parametrize("streams", FORMS)
async def test_the_charge_is_exact(tmp_path: Path, streams: bool) -> None:
    """It is that of the translated answer, with any limit in the request."""
    limit = b'"max_output_tokens":20,'
    credit = 10 * NANO  # For an answer without a limit.
    for number, (passes, body) in enumerate(
        (
            ("harmless", request_body(stream=streams)),
            ("harmless", request_body(stream=streams).replace(limit, b"")),
            (False, request_body(stream=streams)),
        )
    ):
        channel = {**RESPONSES, "pass_through": passes}
        async with billing_stand(tmp_path / str(number), channel=channel) as stand:
            stand.script = streamed(STREAM) if streams else script_of(DOCUMENT)
            key = await stand.open(credit_nano=credit)
            status, _, _ = await ask(stand, key, body)
            assert status == 200
            assert await stand.balance(key) == credit - COST_NANO
            sent = stand.upstream.requests[0].json()
            assert sent["max_output_tokens"] > 0
            assert ("none" in str(sent["input"])) == bool(passes)


@pytest.mark.parametrize("size", [1, 3, 50, 4_000])
async def test_the_slicing_of_a_stream_does_not_matter(tmp_path: Path, size: int) -> None:
    """Events leave whole, in any slicing, also with the line ends of Windows."""
    for number, whole in enumerate((STREAM, STREAM.replace(b"\n", b"\r\n"))):
        async with billing_stand(tmp_path / str(number), channel=RESPONSES) as stand:
            pieces = [whole[begin : begin + size] for begin in range(0, len(whole), size)]
            stand.script = streamed(*pieces, b"data: [DONE]\n\n")
            key = await stand.open()
            _, _, received = await ask(stand, key, request_body(stream=True))
            assert received == told(whole)
            assert await stand.balance(key) == NANO - COST_NANO


async def test_events_leave_when_they_arrive(tmp_path: Path) -> None:
    """A piece of text does not wait for the next one."""
    goes_on = asyncio.Event()
    async with billing_stand(tmp_path, channel=RESPONSES) as stand:
        stand.script = [SSE_HEAD, chunk(HEAD + BEGIN + PIECE), goes_on, *streamed(END)[1:]]
        received = await _read(stand, stand.gateway.key, PIECE, goes_on)
        assert received == told(HEAD + BEGIN + PIECE + END)


STORED = [
    ("", b'{"store":false,'),
    ('"store": true,', b'"store": false,'),
    ('"store":null,', b'"store":false,'),
]


@pytest.mark.parametrize(("stored", "sent"), STORED)
async def test_nothing_is_stored(tmp_path: Path, stored: str, sent: bytes) -> None:
    """The request says so, and clients that rely on stored items get the seals."""
    async with billing_stand(tmp_path, channel=RESPONSES) as stand:
        stand.script = script_of(DOCUMENT)
        body = request_body(stream=False, stored=stored, more='"include":["odd.part"],')
        _, headers, received = await ask(stand, stand.gateway.key, body)
        given = stand.upstream.requests[0]
        assert sent in given.body
        assert given.json()["include"] == ["odd.part", "reasoning.encrypted_content"]
        assert received == told(DOCUMENT)
        assert ("store" in headers.get("x-pomogator-notes", "")) == ("true" in stored)
        status, _, _ = await ask(stand, stand.gateway.key, body, x_pomogator_mode="strict")
        assert status == (400 if "true" in stored else 200)


SEAL = "pomogator.details." + "W10="
TRANSLATED: list[Any] = [
    {"input": [MESSAGE, {"type": "reasoning", "summary": [], "encrypted_content": SEAL}]},
    {"input": [MESSAGE, {"type": "reasoning", "id": "rs_1", "summary": []}]},
    {"input": [MESSAGE, {"type": "item_reference", "id": "rs_1"}]},
    {"max_output_tokens": 5},
    {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]},
    {"tools": [{"type": "mcp", "server_label": "a", "server_url": "https://a.example"}]},
    {"temperature": 0.5},
]
"""Members that the provider cannot read, or does not take."""
REFUSED: list[Any] = [
    {"previous_response_id": "resp_1"},
    {"conversation": "conv_1"},
    {"prompt": {"id": "pmpt_1"}},
    {"background": True},
    {"input": [{"type": "item_reference", "id": "msg_1"}]},
    {"max_output_tokens": 0},
    {"input": None},
    {"stream": "yes"},
]


@pytest.mark.parametrize("more", TRANSLATED)
async def test_a_request_that_the_provider_cannot_read_is_translated(
    tmp_path: Path, more: Any
) -> None:
    """It has seals of other providers, or items that are not kept."""
    async with billing_stand(tmp_path, channel=RESPONSES) as stand:
        stand.script = script_of(DOCUMENT)
        body = {"model": MODEL, "input": "Hello", "store": False, **more}
        status, _, received = await ask(stand, stand.gateway.key, json.dumps(body).encode())
        assert status == 200, received
        (sent,) = stand.upstream.requests
        assert SEAL not in str(sent.body)
        assert "file_search" not in str(sent.body)
        assert isinstance(sent.json()["input"], list)
        assert json.loads(received)["id"] != "resp_theirs"


@pytest.mark.parametrize("more", REFUSED)
async def test_a_request_that_relies_on_stored_items_is_refused(tmp_path: Path, more: Any) -> None:
    """No provider is called, for any account."""
    async with billing_stand(tmp_path, channel=RESPONSES) as stand:
        body = {"model": MODEL, "input": "Hello", **more}
        status, _, received = await ask(stand, stand.gateway.key, json.dumps(body).encode())
        assert status == 400
        assert json.loads(received)["error"]["param"]
        assert stand.upstream.requests == []


async def test_a_failed_response_passes_once(tmp_path: Path) -> None:
    """It is as the provider sent it, after the events before it, which are charged."""
    async with billing_stand(tmp_path, channel=RESPONSES) as stand:
        stand.script = streamed(HEAD + BEGIN + PIECE, failed("insufficient_quota"))
        key = await stand.open()
        _, _, received = await ask(stand, key, request_body(stream=True))
        assert received == told(HEAD + BEGIN + PIECE + failed("insufficient_quota"))
        assert NANO - await stand.balance(key) > 0


@pytest.mark.parametrize(
    "ending",
    [ERROR, b"", failed("server_error", SECRET)],
)
async def test_a_broken_stream_ends_with_a_failed_response(tmp_path: Path, ending: bytes) -> None:
    """It is the provider's response, with the next number, after whole events."""
    async with billing_stand(tmp_path, channel=RESPONSES) as stand:
        stand.script = broken(HEAD + BEGIN + PIECE + (ending or PIECE[:20]))
        key = await stand.open()
        _, _, received = await ask(stand, key, request_body(stream=True))
        passed, _, last = received.partition(b"event: response.failed\n")
        assert passed == told(HEAD + BEGIN + PIECE)
        event = json.loads(last.removeprefix(b"data: "))
        assert event["sequence_number"] == 7
        response = event["response"]
        assert (response["id"], response["model"]) == ("resp_theirs", MODEL)
        refused = SECRET.encode() in ending  # The gateway's own key: nothing to repeat.
        code = "insufficient_quota" if refused else "server_error"
        assert (response["status"], response["error"]["code"]) == ("failed", code)
        assert b"sk-proj" not in received
        assert NANO - await stand.balance(key) > 0


async def test_text_before_an_event_that_cannot_be_read_is_passed_on(tmp_path: Path) -> None:
    """Both may come in one piece."""
    unreadable = frame('{"type":"response.output_item.done"}').replace(b"}", b"\xff}")
    async with billing_stand(tmp_path, channel=RESPONSES) as stand:
        stand.script = streamed(HEAD + BEGIN + PIECE + unreadable)
        key = await stand.open()
        _, _, received = await ask(stand, key, request_body(stream=True))
        passed, _, last = received.partition(b"event: response.failed\n")
        assert passed == told(HEAD + BEGIN + PIECE)
        assert b'"server_error"' in last
        assert NANO - await stand.balance(key) > 0


@pytest.mark.parametrize("begins", ["status", "head", "failed"])
@pytest.mark.parametrize("streams", FORMS)
async def test_another_dialect_takes_over(tmp_path: Path, streams: bool, begins: str) -> None:
    """Before the first item the request is translated, and its answer has the API's form."""
    first: Any = [json_answer({"error": {"message": "Busy"}}, 503)]
    if streams and begins != "status":
        first = streamed(HEAD + PING, ERROR if begins == "head" else failed("server_error"))
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
                models={MODEL: "m"},
                priority=priority,
            )
            for priority, (name, upstream) in enumerate(
                [("openai-responses", theirs), ("openai", others)]
            )
        ]
        async with running(tmp_path, *channels) as gateway:
            body: dict[str, Any] = {"model": MODEL, "input": [MESSAGE], "stream": streams}
            body |= {"instructions": "Be brief.", "metadata": {"a": "b"}}
            async with gateway.http.post(f"{gateway.base_url}/responses", json=body) as answer:
                received = await answer.read()
        assert answer.status == 200
        assert b"Hi" in received
        assert f'"model":"{MODEL}"'.encode() in received
        last = received.rpartition(b"data: ")[2]
        response = json.loads(last).get("response") or json.loads(last)
        assert response["metadata"] == {"a": "b"}
        assert [sent["role"] for sent in others.requests[0].json()["messages"]] == [
            "system",
            "user",
        ]
        assert len(theirs.requests) == 1


COSTLY = {
    "tools": SEARCH,
    "twice": '"tools":[{"type":"function","name":"a","type":"web_search"}],',
    "service_tier": '"service_tier":"priority",',
    "prompt_cache_retention": '"prompt_cache_retention":"24h",',
    "context_management": '"context_management":[{"type":"compaction"}],',
    "speed": '"speed":"fast",',
}
"""Members that cost more than tokens, change their price, or store something."""


@pytest.mark.parametrize("name", COSTLY)
async def test_costly_members_are_not_sent_for_limited_accounts(tmp_path: Path, name: str) -> None:
    """The request is translated with a note, or refused. Unlimited accounts may send them."""
    async with billing_stand(tmp_path, channel=RESPONSES) as stand:
        stand.script = script_of(DOCUMENT)
        key = await stand.open(credit_nano=10 * NANO)
        body = request_body(stream=False, more=COSTLY[name])
        status, headers, _ = await ask(stand, key, body)
        assert status == 400 or (name in headers["x-pomogator-notes"] and status == 200)
        assert all(name not in request.json() for request in stand.upstream.requests)
        before = len(stand.upstream.requests)
        status, _, _ = await ask(stand, stand.gateway.key, body)
        if name == "twice":
            assert status == 400
        else:
            assert COSTLY[name].encode() in stand.upstream.requests[before].body


@pytest.mark.parametrize("streams", FORMS)
@pytest.mark.parametrize("passes", ["harmless", ("web_search",)])
async def test_searches_are_charged(tmp_path: Path, passes: Any, streams: bool) -> None:
    """`billing.provider_tools = "charge"`: tools with a price pass, and cost what it says."""
    billing = BillingConfig(unpriced="free", provider_tools="charge")
    channel = {**RESPONSES, "pass_through": passes}
    price = {**PRICE, "provider_tools_usd": {"web_search": Decimal("0.01")}}
    async with billing_stand(tmp_path, channel=channel, billing=billing, price=price) as stand:
        stand.script = script_of(DOCUMENT_WITH_SEARCH)
        if streams:
            stand.script = streamed(HEAD + BEGIN + PIECE + SEARCHED)
        key = await stand.open(credit_nano=10 * NANO)
        status, headers, received = await ask(stand, key, request_body(stream=streams, more=SEARCH))
        assert status == 200
        assert stand.upstream.requests[0].json()["tools"] == [{"type": "web_search"}]
        assert "x-pomogator-notes" not in headers
        assert b'"web_search_call"' in received
        assert await stand.balance(key) == 10 * NANO - COST_NANO - SEARCH_NANO


async def test_a_client_that_leaves_pays_for_what_was_passed_on(tmp_path: Path) -> None:
    """The provider's answer is cancelled."""
    async with billing_stand(tmp_path, channel={**RESPONSES, "on_disconnect": "cancel"}) as stand:
        stand.script = [SSE_HEAD, chunk(HEAD + BEGIN + PIECE), STALL]
        key = await stand.open()
        await _read(stand, key, PIECE)
        await (await stand.upstream.request()).left.wait()
        assert (await stand.ended(1))["settled"] == 1
        assert NANO - await stand.balance(key) > 0


async def test_an_answer_is_drained(tmp_path: Path) -> None:
    """The provider bills it to its end, and the caller pays the reported usage."""
    goes_on = asyncio.Event()
    price = {**PRICE, "billed_to_end": True}
    async with billing_stand(tmp_path, channel=RESPONSES, price=price) as stand:
        stand.script = [SSE_HEAD, chunk(HEAD + BEGIN + PIECE), goes_on, *streamed(END)[1:]]
        key = await stand.open()
        await _read(stand, key, PIECE)
        goes_on.set()
        await stand.ended(1)
        assert await stand.balance(key) == NANO - COST_NANO


async def test_an_exhausted_balance_ends_a_stream(tmp_path: Path) -> None:
    """An answer that is longer than its limit stops where the money does; clients see why."""
    goes_on = asyncio.Event()
    async with billing_stand(tmp_path, channel=RESPONSES) as stand:
        more = [chunk(PIECE * 400)] * 40
        stand.script = [SSE_HEAD, chunk(HEAD + BEGIN), goes_on, *more, STALL]
        key = await stand.open(credit_nano=3_000_000)
        received = await _read(stand, key, BEGIN, goes_on)
        last = json.loads(received.rpartition(b"data: ")[2])
        assert last["type"] == "response.failed"
        assert last["response"]["error"]["code"] == "insufficient_quota"
        assert await stand.balance(key) <= 0


async def test_a_repeated_call_gets_the_same_bytes(tmp_path: Path) -> None:
    """The other form of the answer has the same content. There is one charge."""
    async with billing_stand(tmp_path, channel=RESPONSES) as stand:
        stand.script = streamed(STREAM)
        key = await stand.open()
        named = {"idempotency_key": "once"}
        _, _, first = await ask(stand, key, request_body(stream=True), **named)
        _, headers, second = await ask(stand, key, request_body(stream=True), **named)
        assert first == second == told(STREAM)
        assert headers["idempotency-replayed"] == "true"
        _, _, whole = await ask(stand, key, request_body(stream=False), **named)
        response = json.loads(whole)
        texts = [item["content"][0]["text"] for item in response["output"] if "content" in item]
        assert texts == ["GrüßGrüß"]
        assert response["status"] == "completed"
        assert len(stand.upstream.requests) == 1
        assert await stand.balance(key) == NANO - COST_NANO


@pytest.mark.parametrize("streams", FORMS)
async def test_the_form_that_was_not_asked_for_is_translated(tmp_path: Path, streams: bool) -> None:
    """A document in place of a stream, and the reverse."""
    async with billing_stand(tmp_path, channel=RESPONSES) as stand:
        stand.script = script_of(DOCUMENT) if streams else streamed(STREAM)
        key = await stand.open()
        status, _, received = await ask(stand, key, request_body(stream=streams))
        assert status == 200
        assert "GrüßGrüß" in received.decode()
        assert (b"event: response.completed" in received) == streams
        assert await stand.balance(key) == NANO - COST_NANO


@pytest.mark.parametrize("more", ["", SEARCH])
async def test_a_channel_with_both_apis_gets_responses(tmp_path: Path, more: str) -> None:
    """Requests of Responses may have tools or none."""
    channel = {"dialect": "openai", "models": {MODEL: UPSTREAM_MODEL}}
    async with billing_stand(tmp_path, channel=channel) as stand:
        stand.script = script_of(DOCUMENT)
        body = request_body(stream=False, more=more)
        _, _, received = await ask(stand, stand.gateway.key, body)
        assert received == told(DOCUMENT)
        assert stand.upstream.requests[0].path.endswith("/responses")


async def test_a_raw_request_of_a_grpc_caller(tmp_path: Path) -> None:
    """The bytes of the provider, and the usage and cost beside them."""
    async with (
        billing_stand(tmp_path, channel=RESPONSES) as stand,
        stand.gateway.service.channel() as channel,
    ):
        stub = pb_grpc.ChatCompletionServiceStub(channel)
        metadata = (("authorization", f"Bearer {await stand.open()}"),)
        stand.script = script_of(DOCUMENT)
        raw = pb.RawRequest(api=pb.RAW_API_OPENAI_RESPONSES, body=request_body(stream=False))
        whole = await stub.CreateChatCompletion(
            pb.CreateChatCompletionRequest(raw=raw), metadata=metadata
        )
        assert whole.raw_body == told(DOCUMENT)
        assert whole.cost_nano_usd == COST_NANO


async def _read(
    stand: BillingStand, key: str, wanted: bytes, goes_on: asyncio.Event | None = None
) -> bytes:
    """Read a stream up to these bytes; to its end once `goes_on` is set, if it is given."""
    url, body = f"{stand.gateway.base_url}/responses", request_body(stream=True)
    async with stand.gateway.http.post(url, data=body, headers=head_of(key)) as response:
        assert response.status == 200
        received = b""
        while wanted not in received:
            received += await response.content.readany()
        if goes_on is None:
            response.close()
            return received
        goes_on.set()
        return received + await response.content.read()
