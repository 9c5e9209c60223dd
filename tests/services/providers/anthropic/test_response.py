from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.domain.events import ChoiceFinished, FinishReason
from services.domain.usage import Usage
from services.errors import UpstreamError
from services.providers.anthropic.response import AnthropicDecoder
from services.providers.base import Notes, SseEvent
from services.providers.translate.reasoning_state import Redacted, SealedCall, Text, Thought, unpack
from tests.services.providers.anthropic.answers import Answer, ending, gathered, streamed

PING: dict[str, Any] = {"type": "ping"}
STOP: dict[str, Any] = {"type": "message_stop"}


def started(message_id: str = "msg_1", **usage: Any) -> dict[str, Any]:
    """A message begins."""
    counted = usage or {"input_tokens": 10, "output_tokens": 1}
    return {"type": "message_start", "message": {"id": message_id, "usage": counted}}


def begun(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    """A block begins."""
    block = {"type": kind, **fields}
    return {"type": "content_block_start", "index": index, "content_block": block}


def more(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    """More of a block."""
    delta = {"type": kind, **fields}
    return {"type": "content_block_delta", "index": index, "delta": delta}


def ended(index: int) -> dict[str, Any]:
    """A block ends."""
    return {"type": "content_block_stop", "index": index}


def said(index: int, text: str) -> list[dict[str, Any]]:
    """A block of text."""
    return [begun(index, "text", text=""), more(index, "text_delta", text=text), ended(index)]


def closing(reason: str | None = "end_turn", **fields: Any) -> dict[str, Any]:
    """The message is about to end."""
    usage = fields.pop("usage", {"output_tokens": 5})
    return {"type": "message_delta", "delta": {"stop_reason": reason, **fields}, "usage": usage}


def wire(*events: dict[str, Any], named: bool = True) -> bytes:
    """The events as the API frames them, padded as it pads them."""
    name = "event: {}\n" if named else ""
    return "".join(
        name.format(event["type"]) + f"data: {json.dumps(event, ensure_ascii=False)[:-1]}  }}\n\n"
        for event in events
    ).encode()


def decoded(*events: dict[str, Any], named: bool = True) -> Answer:
    """The answer that these events make."""
    decoder, body = AnthropicDecoder(), wire(*events, named=named)
    return gathered(streamed(body, decoder, iter([len(body)])) + decoder.finish())


def usage_of(answer: Answer) -> Usage:
    """The usage at the end."""
    _, finished = ending(answer)
    assert finished.usage is not None
    return finished.usage


TALK = [
    started(input_tokens=10, cache_read_input_tokens=3, output_tokens=1),
    begun(0, "thinking", thinking="", signature=""),
    PING,
    more(0, "thinking_delta", thinking=""),
    more(0, "thinking_delta", thinking="Häm"),
    more(0, "thinking_delta", thinking="…"),
    more(0, "signature_delta", signature="sig"),
    ended(0),
    begun(1, "redacted_thinking", data="ciphertext"),
    ended(1),
    *said(2, "Ich sehe 🐙 nach."),
    begun(3, "tool_use", id="a", name="look", input={}),
    more(3, "input_json_delta", partial_json=""),
    more(3, "input_json_delta", partial_json='{"city": '),
    more(3, "input_json_delta", partial_json='"Žilina"}'),
    ended(3),
    begun(4, "tool_use", id="b", name="wait", input={}),
    more(4, "input_json_delta", partial_json=""),
    ended(4),
    closing("tool_use", usage={"output_tokens": 50}),
    STOP,
]


def test_text_reasoning_and_calls_come_in_their_order() -> None:
    """The sealed reasoning comes once, before the end."""
    answer = decoded(*TALK)
    assert (answer.text, answer.reasoning) == ("Ich sehe 🐙 nach.", "Häm…")
    assert answer.calls == [
        {"id": "a", "name": "look", "arguments": '{"city": "Žilina"}'},
        {"id": "b", "name": "wait", "arguments": "{}"},
    ]
    (state,) = answer.states
    assert list(unpack(state, "anthropic", Notes())) == [
        Thought(text="Häm…", signature="sig"),
        Redacted(data="ciphertext"),
        Text(length=16),
        SealedCall(id="a"),
        SealedCall(id="b"),
    ]
    last, _ = ending(answer)
    assert last == ChoiceFinished(finish_reason="tool_calls", native_finish_reason="tool_use")
    assert usage_of(answer) == Usage(
        prompt_token_count=13,
        completion_token_count=50,
        total_token_count=63,
        cache_read_token_count=3,
        source="provider",
    )


@given(st.lists(st.integers(1, 60), min_size=1), st.booleans())
def test_the_events_do_not_depend_on_the_slicing(sizes: list[int], named: bool) -> None:
    """Nor on names of events."""
    body = wire(*TALK, named=named)
    whole, pieces = AnthropicDecoder(), AnthropicDecoder()
    expected = streamed(body, whole, iter([len(body)])) + whole.finish()
    rest = [*sizes, *[sizes[-1]] * (len(body) // sizes[-1] + 1)]
    assert streamed(body, pieces, iter(rest)) + pieces.finish() == expected


def test_a_document_equals_its_stream() -> None:
    """It is the fold of the stream."""
    document = {
        "type": "message",
        "content": [
            {"type": "thinking", "thinking": "Häm…", "signature": "sig"},
            {"type": "redacted_thinking", "data": "ciphertext"},
            {"type": "text", "text": "Ich sehe 🐙 nach."},
            {"type": "tool_use", "id": "a", "name": "look", "input": {"city": "Žilina"}},
            {"type": "tool_use", "id": "b", "name": "wait", "input": {}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 10, "cache_read_input_tokens": 3, "output_tokens": 50},
    }
    body = b"\n \n" + json.dumps(document, ensure_ascii=False).encode()
    assert gathered(AnthropicDecoder().whole(body).events()) == decoded(*TALK)


def test_the_explanation_of_a_refusal_is_its_text() -> None:
    """The finish reason is that of a content filter."""
    details = {"type": "refusal", "explanation": "That is dangerous."}
    answer = decoded(started(), closing("refusal", stop_details=details), STOP)
    assert answer.refusal == "That is dangerous."


@pytest.mark.parametrize(
    "noise",
    [
        [PING],
        [{"type": "new_event", "delta": 7, "index": 1}],
        [begun(9, "mcp_tool_use", id="s", name="web_search", input={})],
        [
            begun(9, "mcp_tool_use", id="s", name="web_search", input={}),
            more(9, "input_json_delta", partial_json='{"q":1}'),
            ended(9),
        ],
        [begun(9, "web_search_tool_result", content=[{"text": 1}], text=[1]), ended(9)],
        [begun(9, "compaction", content="x"), more(9, "compaction_delta", content="y")],
        [more(0, "citations_delta", citation={"cited_text": "x"})],
        [more(0, "new_delta", text={"not": "text"})],
        [more(7, "new_delta", text="of no block")],
    ],
)
def test_unknown_events_change_nothing(noise: list[dict[str, Any]]) -> None:
    """Nor do pings and tools that the provider runs."""
    start, *rest = said(0, "Hi")
    plain = decoded(started(), start, *rest, closing(), STOP)
    answer = decoded(started(), start, *noise, *rest, closing(), STOP)
    answer.extras.clear()
    assert answer == plain


def test_arguments_without_a_call_are_an_error() -> None:
    """Without them the answer would be incomplete."""
    stray = more(7, "input_json_delta", partial_json="{}")
    with pytest.raises(UpstreamError) as failed:
        decoded(started(), *said(0, "Hi"), stray, closing(), STOP)
    assert failed.value.reason == "UPSTREAM_BAD_RESPONSE"


@pytest.mark.parametrize("index", [-1, 0, 7])
def test_a_delta_without_the_start_of_its_block(index: int) -> None:
    """Text and reasoning need no start of a block, at any index, also after a block has ended."""
    before = said(0, "Hi") if index == 0 else []
    answer = decoded(
        started(),
        *before,
        more(index, "thinking_delta", thinking="Hm"),
        ended(index),
        *(more(index, "text_delta", text=text) for text in ("Hello", " there", "", "!")),
        closing(),
        STOP,
    )
    assert answer.reasoning == "Hm"
    assert answer.text == ("HiHello there!" if before else "Hello there!")


def test_usage_is_replaced_never_added() -> None:
    """Later figures count. Missing, null and all-zero ones change nothing."""
    start = started(input_tokens=7, cache_creation_input_tokens=5, output_tokens=3)
    final = {"input_tokens": 0, "cache_creation_input_tokens": None, "output_tokens": 9}
    usage = usage_of(decoded(start, closing(usage=final), STOP))
    assert (usage.prompt_token_count, usage.completion_token_count) == (12, 9)
    final = {"input_tokens": 8, "output_tokens": 9}
    usage = usage_of(decoded(start, closing(usage=final), STOP))
    assert (usage.prompt_token_count, usage.cache_write_token_count) == (13, 5)


def test_details_of_the_usage_are_read() -> None:
    """Cache writes for an hour, reasoning, and iterations of other models."""
    report = {
        "input_tokens": 2,
        "cache_creation_input_tokens": 30,
        "cache_read_input_tokens": 100,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
        "output_tokens": 40,
        "output_tokens_details": {"thinking_tokens": 15},
        "service_tier": "standard",
        "iterations": [
            {"type": "message", "input_tokens": 2, "output_tokens": 40},
            {"type": "compaction", "input_tokens": 500, "output_tokens": 60},
        ],
    }
    answer = decoded(started(), closing(usage=report), STOP)
    assert usage_of(answer) == Usage(
        prompt_token_count=632,
        completion_token_count=100,
        total_token_count=732,
        thinking_token_count=15,
        cache_read_token_count=100,
        cache_write_token_count=30,
        cache_write_1h_token_count=20,
        source="provider",
    )
    _, finished = ending(answer)
    assert finished.service_tier == "default"


@pytest.mark.parametrize("cut", range(1, len(TALK) - 1))
def test_a_cut_stream_is_an_error(cut: int) -> None:
    """Wherever it ends before its finish reason. Its usage is known."""
    decoder, body = AnthropicDecoder(), wire(*TALK[:cut])
    streamed(body, decoder, iter([len(body)]))
    assert not decoder.done
    with pytest.raises(UpstreamError) as failed:
        decoder.finish()
    assert failed.value.reason == "UPSTREAM_DISCONNECTED"
    assert decoder.usage is not None
    assert decoder.usage.prompt_token_count == 13


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("overloaded_error", "UPSTREAM_OVERLOADED"),
        ("rate_limit_error", "UPSTREAM_RATE_LIMITED"),
        ("api_error", "UPSTREAM_ERROR"),
    ],
)
def test_an_error_in_a_stream_has_its_own_reason(kind: str, reason: str) -> None:
    """Wherever in the stream it comes."""
    failure = {"type": "error", "error": {"type": kind, "message": "No."}, "request_id": "r"}
    for events in ([failure], [started(), *said(0, "Hi")[:2], failure]):
        decoder, body = AnthropicDecoder(), wire(*events)
        with pytest.raises(UpstreamError) as failed:
            streamed(body, decoder, iter([len(body)]))
        assert failed.value.reason == reason
    with pytest.raises(UpstreamError) as failed:
        AnthropicDecoder().whole(json.dumps(failure).encode())
    assert failed.value.reason == reason


@pytest.mark.parametrize(
    ("events", "native", "tokens"),
    [
        pytest.param([STOP], "", 1, id="no message_delta"),
        pytest.param([STOP, closing("max_tokens")], "max_tokens", 5, id="message_delta after it"),
        pytest.param([closing("max_tokens")], "max_tokens", 5, id="no message_stop"),
        pytest.param([closing(None), STOP], "", 5, id="no reason"),
        pytest.param([closing("max_tokens"), closing(None), STOP], "max_tokens", 5, id="null last"),
        pytest.param([closing("x"), closing("max_tokens"), STOP], "max_tokens", 5, id="two"),
        pytest.param([STOP, *said(0, "late"), STOP], "", 1, id="text after it"),
    ],
)
def test_endings_in_another_order(events: list[Any], native: str, tokens: int) -> None:
    """`message_stop` or a finish reason ends the answer, which then has a finish reason."""
    answer = decoded(started(), *said(0, "Hi"), *events)

    reason: FinishReason = "length" if native else "stop"
    assert answer.text == "Hi"
    last, _ = ending(answer)
    assert last == ChoiceFinished(finish_reason=reason, native_finish_reason=native)
    assert usage_of(answer).completion_token_count == tokens


def test_blocks_without_an_end() -> None:
    """They end with the message, or where another block begins at their place."""
    answer = decoded(
        started(),
        begun(0, "tool_use", id="a", name="look", input={"city": "Rome"}),
        begun(0, "tool_use", id="b", name="wait", input={}),
        more(0, "input_json_delta", partial_json='{"s": 1}'),
        begun(1, "tool_use", id="c", name="go", input={}),
        closing("tool_use"),
        STOP,
    )

    arguments = [json.loads(call["arguments"]) for call in answer.calls]
    assert arguments == [{"city": "Rome"}, {"s": 1}, {}]


@pytest.mark.parametrize(
    ("given", "arguments"),
    [('{"city": "Rome"}', '{"city": "Rome"}'), ("", "{}"), (None, "{}"), ({"a": 1}, '{"a": 1}')],
)
def test_arguments_at_the_start_of_a_call(given: object, arguments: str) -> None:
    """Some servers have them as a string, or as null."""
    call = {"type": "tool_use", "id": "a", "name": "look", "input": given}
    body = {"type": "message", "content": [call], "stop_reason": "tool_use"}
    start = {"type": "content_block_start", "index": 0, "content_block": call}

    (streamed_call,) = decoded(started(), start, ended(0), closing("tool_use"), STOP).calls
    (whole_call,) = gathered(AnthropicDecoder().whole(json.dumps(body).encode()).events()).calls
    assert streamed_call == whole_call == {"id": "a", "name": "look", "arguments": arguments}


@pytest.mark.parametrize(
    "error",
    [
        {"code": 500, "msg": "Too long", "success": False},
        {"code": "InvalidParameter", "message": "Too long", "request_id": "r"},
        {"detail": "Too long"},
        {"error_code": 9, "error_msg": "Too long"},
    ],
)
def test_errors_in_other_forms(error: dict[str, Any]) -> None:
    """Servers with the API of Anthropic send errors of their own, with status 200."""
    data = json.dumps(error).encode()
    for name in ("", "error"):
        decoder = AnthropicDecoder()
        with pytest.raises(UpstreamError, match="Too long"):
            decoder.feed(SseEvent(name, data))
    with pytest.raises(UpstreamError, match="Too long"):
        AnthropicDecoder().whole(data)


def test_a_repeated_beginning_is_ignored() -> None:
    """Another answer in the middle of one is an error."""
    once = decoded(started(), *said(0, "Hi"), closing(), STOP)
    assert decoded(started(), started(), *said(0, "Hi"), closing(), STOP) == once
    assert decoded(started("msg_0"), started(), *said(0, "Hi"), closing(), STOP) == once
    with pytest.raises(UpstreamError) as failed:
        decoded(started(), *said(0, "Hi"), started("msg_2"), *said(0, "Ho"), closing(), STOP)
    assert failed.value.reason == "UPSTREAM_BAD_RESPONSE"


def test_events_after_the_end_are_ignored() -> None:
    """Proxies append some."""
    late = [*said(0, "late"), {"type": "error", "error": {"type": "api_error"}}]
    once = decoded(started(), *said(0, "Hi"), closing(), STOP)
    assert decoded(started(), *said(0, "Hi"), closing(), STOP, *late) == once


@pytest.mark.parametrize("name", ["", "message"])
@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b'{"type":"content_block_delta","delta":{"type":"text_delta","text":1}}',
        b'{"type":"content_block_delta","delta":{"type":"text_delta","text":"\xff"}}',
        b'{"type":"message_delta","delta":[]}',
        b'{"type":"message_delta","usage":{"output_tokens":"many"}}',
        b'{"type":"message_start","message":' + b"[" * 100_000,
    ],
)
def test_unreadable_events_are_a_bad_response(name: str, data: bytes) -> None:
    """With and without the name of the event."""
    with pytest.raises(UpstreamError) as failed:
        AnthropicDecoder().feed(SseEvent(name, data))
    assert failed.value.reason == "UPSTREAM_BAD_RESPONSE"


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"delta":{"type":"text_delta","text":1}}'])
def test_unreadable_deltas_are_a_bad_response(data: bytes) -> None:
    """On the fast path of deltas, too."""
    with pytest.raises(UpstreamError) as failed:
        AnthropicDecoder().feed(SseEvent("content_block_delta", data))
    assert failed.value.reason == "UPSTREAM_BAD_RESPONSE"


@pytest.mark.parametrize("body", [b"", b"null", b"<html>", b"{}", b'{"content":null}', b"[1]"])
def test_documents_that_are_no_message_are_a_bad_response(body: bytes) -> None:
    """Their status of 200 does not matter."""
    with pytest.raises(UpstreamError) as failed:
        AnthropicDecoder().whole(body)
    assert failed.value.reason == "UPSTREAM_BAD_RESPONSE"


def test_done_of_a_proxy_is_ignored() -> None:
    """Only `message_stop` ends the answer."""
    decoder = AnthropicDecoder()
    assert decoder.feed(SseEvent("", b"[DONE]")) == []
    assert not decoder.done
