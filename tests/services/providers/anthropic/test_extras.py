"""Members of Claude's answers that the contract has no fields for."""

from __future__ import annotations

import json
from typing import Any

from services.domain.events import ExtraDelta
from services.providers.anthropic.response import AnthropicDecoder
from services.providers.base import SseEvent
from tests.services.providers.folds import assert_equal

Json = dict[str, Any]

SEARCH: Json = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": "x"}}
RESULT: Json = {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"url": "u"}]}
WEB: Json = {"type": "web_search_result_location", "url": "u", "title": "T", "cited_text": "c"}
CODE: Json = {"type": "code_execution_20250825", "tool_id": "s"}
PAGE: Json = {"type": "page_location", "document_index": 0, "cited_text": "d"}
MESSAGE: Json = {
    "type": "message",
    "id": "m",
    "role": "assistant",
    "model": "claude",
    "content": [
        {"type": "text", "text": "Look:"},
        SEARCH,
        RESULT,
        {"type": "text", "text": "Grüße", "citations": [WEB, PAGE]},
        {"type": "tool_use", "id": "t", "name": "f", "input": {}, "caller": CODE},
    ],
    "stop_reason": "stop_sequence",
    "stop_sequence": "END",
    "container": {"id": "c"},
    "usage": {
        "input_tokens": 5,
        "output_tokens": 7,
        "inference_geo": "eu",
        "server_tool_use": {"web_search_requests": 1},
    },
}


def start(index: int, block: Json) -> Json:
    """A block begins."""
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, **members: Any) -> Json:
    """A block goes on."""
    piece = {"type": kind, **members}
    return {"type": "content_block_delta", "index": index, "delta": piece}


EVENTS: list[Json] = [
    {
        "type": "message_start",
        "message": {
            "type": "message",
            "id": "m",
            "usage": {"input_tokens": 5, "inference_geo": "eu"},
        },
    },
    start(0, {"type": "text", "text": ""}),
    delta(0, "text_delta", text="Look:"),
    {"type": "content_block_stop", "index": 0},
    start(1, SEARCH | {"input": {}}),
    delta(1, "input_json_delta", partial_json='{"q":'),
    delta(1, "input_json_delta", partial_json='"x"}'),
    {"type": "content_block_stop", "index": 1},
    start(2, RESULT),
    start(3, {"type": "text", "text": "", "citations": []}),
    delta(3, "citations_delta", citation=WEB),
    delta(3, "text_delta", text="Grü"),
    delta(3, "text_delta", text="ße"),
    delta(3, "citations_delta", citation=PAGE),
    {"type": "content_block_stop", "index": 3},
    start(4, MESSAGE["content"][4]),
    {"type": "content_block_stop", "index": 4},
    {
        "type": "message_delta",
        "delta": {
            "stop_reason": "stop_sequence",
            "stop_sequence": "END",
            "container": {"id": "c"},
        },
        "usage": {"output_tokens": 7, "server_tool_use": {"web_search_requests": 1}},
    },
    {"type": "message_stop"},
]


def test_they_arrive_whole_and_streamed() -> None:
    """Citations as annotations, other blocks as they are, and what is beside the content."""
    answer = AnthropicDecoder().whole(json.dumps(MESSAGE).encode())

    (choice,) = answer.choices
    assert json.loads(answer.extra_json) == {"container": {"id": "c"}}
    assert json.loads(choice.extra_json) == {"stop_sequence": "END"}
    cited = {"url": "u", "title": "T", "cited_text": "c", "start_index": 5, "end_index": 10}
    assert json.loads(choice.message.extra_json) == {
        "annotations": [{"type": "url_citation", "url_citation": cited}, PAGE],
        "content_parts": [SEARCH, RESULT],
    }
    (call,) = choice.message.tool_calls
    assert json.loads(call.extra_json) == {"caller": CODE}
    assert answer.usage is not None
    assert json.loads(answer.usage.extra_json) == {
        "inference_geo": "eu",
        "server_tool_use": {"web_search_requests": 1},
    }
    decoder = AnthropicDecoder()
    events = [SseEvent(event["type"], json.dumps(event).encode()) for event in EVENTS]
    assert_equal(
        answer, [one for event in events for one in decoder.feed(event)] + decoder.finish()
    )


def test_input_that_is_no_json_stays_a_text() -> None:
    """A block of the provider's own tool may be cut."""
    decoder = AnthropicDecoder()
    cut = [event for event in EVENTS if event.get("delta", {}).get("partial_json") != '"x"}']
    for event in cut:
        decoder.feed(SseEvent(event["type"], json.dumps(event).encode()))

    (extra,) = [event for event in decoder.finish() if isinstance(event, ExtraDelta)]
    assert json.loads(extra.extra_json)["content_parts"][0]["input"] == '{"q":'


def test_the_usual_caller_of_a_tool_is_not_said() -> None:
    """It is the model, so that callers need not send it back."""
    call = MESSAGE["content"][4] | {"caller": {"type": "direct"}}

    answer = AnthropicDecoder().whole(json.dumps(MESSAGE | {"content": [call]}).encode())

    (found,) = answer.choices[0].message.tool_calls
    assert not found.extra_json


def test_each_tool_call_has_an_id_of_its_own() -> None:
    """Servers with this API leave IDs out, or give two calls one."""
    calls: list[Json] = [
        {"type": "tool_use", "id": call_id, "name": name, "input": {}}
        for call_id, name in (("t", "f"), ("t", "g"), (None, "h"), ("u", "i"))
    ]
    message = MESSAGE | {"content": calls}
    events = [EVENTS[0]]
    for index, call in enumerate(calls):
        events += [start(index, call), {"type": "content_block_stop", "index": index}]

    answer = AnthropicDecoder().whole(json.dumps(message).encode())

    ids = [call.id for call in answer.choices[0].message.tool_calls]
    assert len(set(ids)) == len(ids)
    assert (ids[0], ids[3]) == ("t", "u")
    assert all(ids)
    end = [event for event in EVENTS if event["type"] in {"message_delta", "message_stop"}]
    decoder = AnthropicDecoder()
    parts = [SseEvent(event["type"], json.dumps(event).encode()) for event in (*events, *end)]
    streamed = [event for part in parts for event in decoder.feed(part)]
    assert_equal(answer, streamed + decoder.finish())
