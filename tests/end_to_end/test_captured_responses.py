"""Recorded answers of OpenAI's Responses through the canonical conversation, and out again.

The recordings are not part of the project: POMOGATOR_CAPTURES names the folder that holds them. The
same events come out in the same order. Not compared: IDs, padding, seals, members that newer
versions of the API have added, and what the request repeats. Items of other types, such as
searches, come last; reasoning of which an answer has neither text nor seal does not come at all.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.surfaces.openai_responses.reasoning_item import Shown
from gateway.surfaces.openai_responses.render import EventRenderer
from gateway.surfaces.openai_responses.render_whole import render_response
from gateway.surfaces.openai_responses.response_object import AnswerForm
from services.domain.completion import Completion
from services.domain.events import Started
from services.domain.usage import Usage
from services.providers.openai_responses.response import ResponsesDecoder
from tests.services.providers.openai_responses.test_captured_answers import (
    Case,
    body,
    cases,
    read_stream,
)
from tests.stand.response_events import read_response_events

FORM = AnswerForm(shown=Shown(text=True, seals=True), logprobs=True)
STARTED = Started(completion_id="chatcmpl-1", model="m", create_time_s=1)
OWN = ("message", "reasoning", "function_call", "custom_tool_call")
"""Types of items that have a form of their own in the canonical conversation."""

NOT_COMPARED = frozenset(
    {"id", "item_id", "response_id", "obfuscation", "sequence_number", "encrypted_content"}
    | {"output_index", "status"}
)


def plain(value: Any) -> Any:
    """Return a value without the members that are not compared, and without empty lists."""
    if isinstance(value, dict):
        return {
            name: plain(each)
            for name, each in value.items()
            if name not in NOT_COMPARED and each not in ([], None)
        }
    return [plain(each) for each in value] if isinstance(value, list) else value


def is_shown(item: Any) -> bool:
    """Whether an item of an answer says anything."""
    seal = item.get("encrypted_content")
    return item["type"] != "reasoning" or bool(item["summary"] or item.get("content") or seal)


def output_of(response: Any) -> list[Any]:
    """The items of a response: those of other types last."""
    items = [item for item in response["output"] if is_shown(item)]
    return [plain(item) for item in sorted(items, key=lambda item: item["type"] not in OWN)]


def events_of(events: list[Any]) -> list[Any]:
    """The events of items that are shown, and have a type of their own."""
    output = events[-1]["response"]["output"]
    kept = [item["type"] in OWN and is_shown(item) for item in output]
    found = [event for event in events if "output_index" in event and kept[event["output_index"]]]
    for event in found:
        if event["type"] == "response.function_call_arguments.done":
            event.pop("name", None)
    return [plain(event) for event in found]


@pytest.mark.parametrize("case", cases(streamed=False))
def test_a_whole_answer_is_the_providers(case: Case) -> None:
    """Its output, its usage and its status are equal."""
    data = body(case)
    recorded = json.loads(data)
    if recorded["status"] not in ("completed", "incomplete"):
        pytest.skip("the recorded answer is not complete")
    answer = ResponsesDecoder("m", details=True).whole(data)
    completion = Completion(
        completion_id="chatcmpl-1",
        model="m",
        create_time_s=1,
        choices=answer.choices,
        usage=answer.usage or Usage(),
        service_tier=answer.service_tier,
        extra_json=answer.extra_json,
    )

    response = json.loads(render_response(completion, FORM))

    assert output_of(response) == output_of(recorded)
    assert response["status"] == recorded["status"]
    for name, count in (recorded["usage"] or {}).items():
        assert response["usage"][name] == count or isinstance(count, dict)


@pytest.mark.parametrize("case", cases(streamed=True))
def test_the_events_of_a_stream_are_the_providers(case: Case) -> None:
    """They come in the same order."""
    data = body(case)
    frames = [line[6:] for line in data.split(b"\n") if line.startswith(b"data: {")]
    recorded = [json.loads(frame) for frame in frames]
    assert "output" in recorded[-1]["response"]
    events = read_stream(data, "whole")
    renderer = EventRenderer(FORM)

    rendered = renderer.render([STARTED, *events])

    made = read_response_events(rendered.decode())
    assert events_of(made) == events_of(recorded)
    assert output_of(made[-1]["response"]) == output_of(recorded[-1]["response"])
    assert made[-1]["type"] == recorded[-1]["type"]
