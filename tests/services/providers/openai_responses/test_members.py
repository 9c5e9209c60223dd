"""What answers of OpenAI's Responses have besides text, tool calls and reasoning."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from services.domain.events import (
    RefusalDelta,
)
from services.domain.spec import Tool
from services.providers.translate.tool_types import VERSION
from tests.services.providers.folds import assert_equal
from tests.services.providers.openai_responses.answers import (
    Json,
    added,
    completed,
    done,
    event,
    response,
    said,
    stream,
    whole,
)
from tests.services.providers.openai_responses.requests import sent, target


def test_refusals() -> None:
    """In a field of their own."""
    refusal = {"type": "refusal", "refusal": "I will not."}
    item = {"type": "message", "content": [refusal]}

    events = stream(
        [
            added({"type": "message", "content": []}),
            event("refusal.delta", content_index=0, delta="I will"),
            event("refusal.delta", content_index=0, delta=" not."),
            done(item),
            completed(item),
        ]
    )

    assert events[:2] == [RefusalDelta("I will"), RefusalDelta(" not.")]
    assert_equal(whole(response(item)), events)


def test_annotations_refer_to_the_whole_text() -> None:
    """Those of a later message are moved by the text before it; links have chat's form."""
    link: Json = {"type": "url_citation", "url": "https://a.example", "title": "A"}
    link |= {"start_index": 0, "end_index": 3}
    file: Json = {"type": "file_citation", "file_id": "file-1", "filename": "a.txt", "index": 2}
    second = said("Two.")
    second["content"][0]["annotations"] = [link, file]
    items = [said("One. "), second]

    events = stream(
        [
            done(items[0]),
            added({**second, "content": []}, 1),
            event("output_text.delta", 1, delta="Two."),
            event("output_text.annotation.added", 1, annotation=link, annotation_index=0),
            event("output_text.annotation.added", 1, annotation=file, annotation_index=1),
            completed(),
        ]
    )

    answer = whole(response(*items))
    assert json.loads(answer.choices[0].message.extra_json)["annotations"] == [
        {
            "type": "url_citation",
            "url_citation": {
                "url": "https://a.example",
                "title": "A",
                "start_index": 5,
                "end_index": 8,
            },
        },
        {"type": "file_citation", "file_id": "file-1", "filename": "a.txt", "index": 7},
    ]
    assert_equal(answer, events)


def test_log_probabilities() -> None:
    """With the bytes of each token, as chat completions have them."""
    top = [{"token": "Ho", "logprob": -2.0}]
    tokens = [
        {"token": "Hé", "logprob": -0.1, "top_logprobs": top},
        {"token": "!", "logprob": -0.2, "bytes": [33], "top_logprobs": []},
    ]
    item = said("Hé!")
    item["content"][0]["logprobs"] = tokens

    events = stream(
        [
            added(said("")),
            event("output_text.delta", delta="Hé", logprobs=tokens[:1]),
            event("output_text.delta", delta="!", logprobs=tokens[1:]),
            done(item),
            completed(item),
        ]
    )

    answer = whole(response(item))
    first, second = json.loads(answer.choices[0].logprobs_json)["content"]
    assert first["bytes"] == list("Hé".encode())
    assert first["top_logprobs"] == [{"bytes": [72, 111], **top[0]}]
    assert second == tokens[1]
    assert_equal(answer, events)


def test_other_items_and_members() -> None:
    """Searches and the like are parts of the content, unknown members are at their places."""
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    image = {"type": "image_generation_call", "id": "ig_1", "result": "AAAA"}
    item = said("So.", phase="final_answer", content_filter={"severity": "safe"})
    item["content"][0]["spans"] = [1, 2]
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
    items = [search, item, {**call, "namespace": "home"}, image]
    beside = {"content_filters": [{"blocked": False}], "billing": {"payer": "developer"}}

    answer = whole(response(*items, **beside, instructions="Echo", cost=0.1))

    message = answer.choices[0].message
    wrapper = "openai_responses_item"
    assert json.loads(message.extra_json) == {
        "phase": "final_answer",
        "content_filter": {"severity": "safe"},
        "content_parts": [
            {"type": wrapper, "item": search},
            {"type": "output_text", "spans": [1, 2]},
            {"type": wrapper, "item": image},
        ],
    }
    assert json.loads(message.tool_calls[0].extra_json) == {"namespace": "home"}
    assert json.loads(answer.extra_json) == {"content_filters": [{"blocked": False}]}
    begun = [added({**search, "status": "in_progress"}), done(search)]
    rest = [done(each, at + 1) for at, each in enumerate(items[1:])]
    assert_equal(answer, stream([*begun, *rest, completed(*items, **beside)]))


def test_calls_of_the_providers_tools_are_counted() -> None:
    """Of web searches those that search: what else they do costs nothing."""
    search: Json = {"type": "web_search_call", "id": "ws_1", "action": {"type": "search"}}
    opened = {**search, "id": "ws_2", "action": {"type": "open_page"}}
    image = {"type": "image_generation_call", "id": "ig_1", "result": "AAAA"}
    items = [search, opened, {**search, "id": "ws_3"}, image, said("So.")]

    answer = whole(response(*items))

    assert answer.usage is not None
    assert answer.usage.provider_tool_counts == {"web_search": 2, "image_generation": 1}
    events = [done(each, at) for at, each in enumerate(items)]
    assert_equal(answer, stream([*events, completed(*items)]))


@pytest.mark.parametrize(
    "kind",
    [
        "web_search",
        "web_search_preview_2025_03_11",
        "image_generation",
        "code_interpreter",
        "file_search",
        "shell",
    ],
)
def test_a_tool_that_may_be_charged_is_counted(kind: str) -> None:
    """One that a price lets pass for accounts that pay costs it."""
    name = VERSION.sub("", kind)
    priced = replace(
        target(pass_through=("harmless", "file_search")),
        sends_provider_tools=False,
        charged_tools={name},
    )
    tools = [Tool(name="", other_json=json.dumps({"type": kind}).encode())]
    body, _ = sent(tools=tools, to=priced)

    answer = whole(response({"type": f"{name}_call", "id": "call_1"}, said("So.")))

    assert answer.usage is not None
    assert "tools" in body
    assert answer.usage.provider_tool_counts == {name: 1}
