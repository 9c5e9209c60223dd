"""Requests to OpenAI's Responses: items, tools and settings, and what has no form there."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from services.domain.conversation import (
    AudioPart,
    ContentPart,
    FilePart,
    ImagePart,
    Message,
    OtherPart,
    TextPart,
)
from services.domain.spec import ResponseFormat, Thinking
from services.errors import Failure
from tests.services.providers.anthropic.specs import assistant, call, result, system, user
from tests.services.providers.openai_responses.requests import sent, target

DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def test_messages_are_items() -> None:
    """Instructions are the developer's, calls and results stand apart from messages."""
    body, notes = sent(
        system("Be brief."),
        user("How warm is it?"),
        assistant("I look.", tool_calls=[call("c1", '{"city":"Bern"}')]),
        result("c1", "18 °C"),
    )

    assert body["input"] == [
        item("developer", "Be brief."),
        item("user", "How warm is it?"),
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
        },
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"city":"Bern"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "18 °C"},
    ]
    assert not notes


def item(role: str, text: str) -> dict[str, Any]:
    """Return a message with one text."""
    return {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}


def test_nothing_is_kept_at_the_provider() -> None:
    """Reasoning comes back sealed; a model without reasoning has none to seal."""
    body, _ = sent()
    assert body["store"] is False
    assert body["include"] == ["reasoning.encrypted_content"]

    body, _ = sent(to=target("gpt-4o"))
    assert body["store"] is False
    assert "include" not in body


def test_parts() -> None:
    """Pictures, files and sounds."""
    url = "data:application/pdf;base64,JVBERg=="
    content: list[ContentPart] = [
        TextPart(text="See:"),
        ImagePart(uri="https://a.example/a.png", detail="low"),
        ImagePart(data=DOT, mime_type="image/png"),
        FilePart(uri=url),
        FilePart(uri="https://a.example/a.pdf", filename="a.pdf"),
        FilePart(file_id="file-1"),
        AudioPart(base64="AAAA", format="wav"),
        OtherPart(json=b'{"type":"input_image","file_id":"file-2"}'),
    ]

    body, notes = sent(Message(role="user", content=content))

    assert body["input"][0]["content"] == [
        {"type": "input_text", "text": "See:"},
        {"type": "input_image", "image_url": "https://a.example/a.png", "detail": "low"},
        {
            "type": "input_image",
            "image_url": f"data:image/png;base64,{base64.b64encode(DOT).decode()}",
        },
        {"type": "input_file", "filename": "document.pdf", "file_data": url},
        {"type": "input_file", "file_url": "https://a.example/a.pdf", "filename": "a.pdf"},
        {"type": "input_file", "file_id": "file-1"},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "input_image", "file_id": "file-2"},
    ]
    assert not notes


def test_parts_without_a_form() -> None:
    """They are left out with a note, and refused in strict mode."""
    video = Message(role="user", content=[OtherPart(json=b'{"type":"video_url","video_url":{}}')])

    assert sent(video)[1] == {"messages[0].content[0]": "dropped"}
    with pytest.raises(Failure, match="not passed on"):
        sent(video, strict=True)


def test_text_settings() -> None:
    """Format and verbosity are members of `text`."""
    wanted = ResponseFormat(
        type="json_schema", name="a", description="A.", schema_json=b'{"type":"object"}'
    )

    body, _ = sent(response_format=wanted, verbosity="low")

    assert body["text"] == {
        "verbosity": "low",
        "format": {
            "type": "json_schema",
            "name": "a",
            "description": "A.",
            "schema": {"type": "object"},
            "strict": False,
        },
    }
    body, _ = sent(response_format=ResponseFormat(type="json_object"))
    assert body["text"] == {"format": {"type": "json_object"}}


def test_reasoning() -> None:
    """A summary is asked for where the caller wants to see the reasoning."""
    assert sent(reasoning_effort="high")[0]["reasoning"] == {"effort": "high"}
    assert sent(reasoning_effort="none")[0]["reasoning"] == {"effort": "none"}
    assert "reasoning" not in sent()[0]
    shown = sent(thinking=Thinking(mode="enabled"), reasoning_effort="low")[0]["reasoning"]
    assert shown == {"effort": "low", "summary": "auto"}
    detailed = Thinking(summary="detailed", extra_json=b'{"context":"all_turns"}')
    assert sent(thinking=detailed)[0]["reasoning"] == {
        "context": "all_turns",
        "summary": "detailed",
    }
    hidden = sent(thinking=Thinking(mode="enabled", excluded=True))[0]["reasoning"]
    assert hidden == {"effort": "medium"}
    by_name = replace(target(), thinking_by_name=True)
    assert sent(to=by_name)[0]["reasoning"] == {"summary": "auto"}


def test_the_least_output_limit() -> None:
    """Lower ones are raised, with a note."""
    body, notes = sent(max_tokens=5)
    assert (body["max_output_tokens"], notes) == (16, {"max_tokens": "clamped"})
    body, notes = sent(max_tokens=17)
    assert (body["max_output_tokens"], notes) == (17, {})


def test_log_probabilities() -> None:
    """Where the model has them."""
    body, notes = sent(logprobs=True, top_logprobs=3, to=target("gpt-4o"))

    assert body["top_logprobs"] == 3
    assert body["include"] == ["message.output_text.logprobs"]
    assert "logprobs" not in body
    assert not notes


def test_parameters_without_a_form() -> None:
    """They are left out with a note each; several choices are refused."""
    fields: dict[str, Any] = {
        "seed": 1,
        "stop": ["END"],
        "frequency_penalty": 0.5,
        "presence_penalty": 0.5,
        "logit_bias": {5: 1.0},
    }

    body, notes = sent(**fields, to=target("gpt-4o"))

    assert not body.keys() & fields.keys()
    assert notes == dict.fromkeys(fields, "dropped")
    for name, value in fields.items():
        with pytest.raises(Failure):
            sent(strict=True, to=target("gpt-4o"), **{name: value})
    with pytest.raises(Failure, match="`n`"):
        sent(n=2)


def test_users_and_labels() -> None:
    """A long user's ID has the older field, and labels need the channel's word."""
    assert sent(user="u-1")[0]["safety_identifier"] == "u-1"
    assert sent(user="u" * 65)[0]["user"] == "u" * 65
    both = sent(user="u-1", extra_json=b'{"safety_identifier":"s-1"}')[0]
    assert (both["user"], both["safety_identifier"]) == ("u-1", "s-1")
    assert sent(metadata={"a": "b"})[1] == {"metadata": "dropped"}
    named = target(pass_through=("harmless", "metadata", "service_tier"))
    body, notes = sent(metadata={"a": "b"}, service_tier="flex", to=named)
    assert (body["metadata"], body["service_tier"], notes) == ({"a": "b"}, "flex", {})


def test_fields_of_the_api_that_the_contract_does_not_have() -> None:
    """Harmless ones are sent; what is included joins what is included anyway."""
    sources = "web_search_call.action.sources"
    extra = {
        "include": [sources],
        "truncation": "auto",
        "max_tool_calls": 3,
        "background": True,
        "previous_response_id": "resp_1",
    }

    body, notes = sent(extra_json=json.dumps(extra).encode())

    assert body["include"] == ["reasoning.encrypted_content", sources]
    assert (body["truncation"], body["max_tool_calls"]) == ("auto", 3)
    assert notes == {"background": "dropped", "previous_response_id": "dropped"}
    held = sent(extra_json=b'{"truncation":"auto"}', to=target(pass_through=False))
    assert "truncation" not in held[0]
    assert held[1] == {"truncation": "dropped"}


def test_marks_and_names_have_no_form() -> None:
    """A mark of what is cached, and the name of a participant."""
    marked = Message(
        role="user",
        name="ann",
        content=[TextPart(text="Hi", cache_control_json=b'{"type":"ephemeral"}')],
    )

    assert sent(marked)[1] == {"cache_control": "dropped", "messages[0].name": "dropped"}
