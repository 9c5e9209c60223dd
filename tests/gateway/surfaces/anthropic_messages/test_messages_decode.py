"""Requests in Anthropic's form, as the domain has them."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.surfaces.anthropic_messages.decode import decode
from gateway.surfaces.anthropic_messages.raw import decode_raw, decode_raw_prompt
from services.common.json_values import VALUES_MAX
from services.domain.conversation import (
    FilePart,
    ImagePart,
    OtherPart,
    ReasoningPart,
    TextPart,
)
from services.domain.spec import ChatCompletionSpec, Thinking

Path: TypeAlias = tuple[str | int, ...]

CONFIG = EdgeConfig()
MARK = {"type": "ephemeral", "ttl": "1h"}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(32)).decode()
USER: Sequence[dict[str, Any]] = [
    {"type": "text", "text": "Look.", "cache_control": MARK},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
    {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
    {"type": "document", "source": {"type": "text", "data": "Tides"}, "title": "a.txt"},
    {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
    {
        "type": "document",
        "source": {"type": "content", "content": "Tides"},
        "citations": {"enabled": True},
    },
]
ASSISTANT: Sequence[dict[str, Any]] = [
    {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
    {"type": "redacted_thinking", "data": "c2VjcmV0"},
    {"type": "text", "text": "I call."},
    {"type": "tool_use", "id": "toolu_1", "name": "tide", "input": {"at": "noon"}},
]
RESULTS: Sequence[dict[str, Any]] = [
    {
        "type": "tool_result",
        "tool_use_id": "toolu_1",
        "content": [{"type": "text", "text": "High"}],
        "is_error": False,
        "cache_control": MARK,
    },
    {"type": "text", "text": "And now?"},
]
FULL: Mapping[str, Any] = {
    "model": "m",
    "max_tokens": 64,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": MARK}],
    "messages": [
        {"role": "user", "content": USER},
        {"role": "assistant", "content": ASSISTANT},
        {"role": "user", "content": RESULTS},
        {"role": "system", "content": "Be brief still."},
    ],
    "tools": [
        {"name": "tide", "description": "d", "input_schema": {"type": "object"}},
        {"type": "custom", "name": "moon", "input_schema": {"type": "object"}, "strict": True},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
    ],
    "tool_choice": {"type": "tool", "name": "tide", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 2000},
    "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {}}},
    "metadata": {"user_id": "u"},
    "stop_sequences": ["END"],
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 40,
    "service_tier": "auto",
    "stream": True,
    "cache_control": MARK,
}


def spec_of(**fields: Any) -> ChatCompletionSpec:
    """The spec of a request with these fields."""
    request = {"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": "Hi"}]}
    return decode(json.dumps(request | fields).encode(), CONFIG).spec


def refused(**fields: Any) -> ApiError:
    """The refusal of such a request."""
    with pytest.raises(ApiError) as raised:
        spec_of(**fields)
    assert raised.value.status == 400
    return raised.value


def test_every_field_of_a_request_is_decoded() -> None:
    """Each field and block is at its place."""
    request = decode(json.dumps(FULL).encode(), CONFIG)
    spec = request.spec
    mark = json.dumps(MARK).encode()

    assert request.stream
    assert [message.role for message in spec.messages] == [
        *("system", "user", "assistant", "tool", "user", "system")
    ]
    system, user, assistant, result, *_ = spec.messages
    assert system.content == [TextPart(text="Be brief.", cache_control_json=mark)]
    kinds = [type(part) for part in user.content]
    assert kinds == [TextPart, ImagePart, ImagePart, FilePart, FilePart, OtherPart]
    assert [type(part) for part in assistant.content] == [ReasoningPart, TextPart]
    assert json.loads(assistant.tool_calls[0].arguments) == {"at": "noon"}
    assert [item["format"] for item in json.loads(assistant.reasoning_details_json)] == [
        "anthropic-claude-v1"
    ] * 2
    assert (result.tool_call_id, result.cache_control_json) == ("toolu_1", mark)
    assert [tool.name for tool in spec.tools] == ["tide", "moon", "web_search"]
    assert (spec.tools[1].strict, bool(spec.tools[2].other_json)) == (True, True)
    assert spec.tool_choice is not None
    assert (spec.tool_choice.mode, spec.tool_choice.names) == ("named", ["tide"])
    assert spec.parallel_tool_calls is False
    assert spec.thinking == Thinking(mode="enabled", budget_tokens=2000, reasoning_details=True)
    assert spec.response_format is not None
    assert (spec.reasoning_effort, spec.response_format.type) == ("high", "json_schema")
    assert (spec.user, spec.stop, spec.top_k, spec.max_tokens) == ("u", ["END"], 40, 64)
    assert (spec.service_tier, spec.cache_control_json, spec.extra_json) == ("auto", mark, b"")


def test_the_result_of_a_failed_tool_is_marked() -> None:
    """The message has `is_error`."""
    block = {"type": "tool_result", "tool_use_id": "t", "content": "no", "is_error": True}
    (message,) = spec_of(messages=[{"role": "user", "content": [block]}]).messages
    assert (message.role, message.is_error, message.extra_json) == ("tool", True, b"")


def test_claude_codes_billing_line_is_no_instruction() -> None:
    """It differs between conversations. It has a note, and is not part of the prompt."""
    line = "x-anthropic-billing-header: cc_version=2.1.197; cc_entrypoint=cli;"
    blocks = [{"type": "text", "text": text} for text in (line, "Be brief.")]
    spec = spec_of(system=blocks)
    assert spec.messages[0].content == [TextPart(text="Be brief.")]
    assert json.loads(spec.extra_json) == {"anthropic_billing_header": line}


@pytest.mark.parametrize(
    "sealed",
    [
        b"",
        b"null",
        b"{}",
        b"[" * 20_000 + b"]" * 20_000,
        b"[" * 80 + b"]" * 80,
        b'[{"text":"\xff"}]',
        b'[{"text":"\\ud800"}]',
        b'[{"text":"a","text":"b"}]',
    ],
    ids=lambda sealed: repr(sealed[:20]),
)
def test_sealed_json_is_read_as_strictly_as_the_body(sealed: bytes) -> None:
    """A client may seal any JSON, and base64 hides it from the reader of the body."""
    data = f"pomogator.details.{base64.b64encode(sealed).decode()}"
    block = {"type": "redacted_thinking", "data": data}
    error = refused(messages=[{"role": "assistant", "content": [block]}])
    assert (error.status, error.param) == (400, "messages[0].content[0].data")


def test_omitted_reasoning_is_left_out() -> None:
    """`display: omitted` excludes the reasoning and its details."""
    thinking = spec_of(thinking={"type": "adaptive", "display": "omitted"}).thinking
    assert thinking == Thinking(mode="adaptive", excluded=True)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"messages": None}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"system": 1}, "system"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"thinking": {"type": "on"}}, "thinking.type"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        (
            {"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": ""}]}]},
            "messages[0].content[0]",
        ),
        (
            {"messages": [{"role": "assistant", "content": [RESULTS[0]]}]},
            "messages[0].content[0]",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{**ASSISTANT[3], "input": []}]}]},
            "messages[0].content[0].input",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{**USER[1], "source": {**USER[1]["source"], "data": "?"}}],
                    }
                ]
            },
            "messages[0].content[0].source.data",
        ),
    ],
)
def test_a_fault_names_its_field(fields: Mapping[str, Any], param: str) -> None:
    """The field at fault, by its path."""
    assert refused(**fields).param == param


def _objects(value: Any, path: Path = ()) -> Iterator[Path]:
    if isinstance(value, dict):
        yield path
        for name, inner in value.items():
            if name not in {"input_schema", "schema", "input", "cache_control"}:
                yield from _objects(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _objects(inner, (*path, index))


@pytest.mark.parametrize("path", list(_objects(FULL)), ids=str)
def test_an_unknown_member_is_kept(path: Path) -> None:
    """It may be at any depth. Encoders then send it, or note that they do not."""
    request: Any = copy.deepcopy(FULL)
    place = request
    for step in path:
        place = place[step]
    place["tide_table"] = "kept-7731"
    spec = decode(json.dumps(request).encode(), CONFIG).spec
    assert b"kept-7731" in msgspec.json.encode(_texts(spec))


def _texts(value: Any) -> Any:
    """A struct as JSON, with `…_json` as text."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, msgspec.Struct):
        return {name: _texts(each) for name, each in msgspec.structs.asdict(value).items()}
    return [_texts(each) for each in value] if isinstance(value, list) else value


SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4)
TYPES = st.sampled_from(
    ["text", "image", "document", "thinking", "redacted_thinking", "tool_use", "tool_result", "new"]
)
BLOCKS = st.dictionaries(
    st.sampled_from(["text", "thinking", "signature", "data", "id", "name", "input", "content"])
    | st.sampled_from(["source", "tool_use_id", "is_error", "cache_control", "citations", "x"]),
    SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=3), SCALARS),
)


@given(
    st.lists(st.tuples(TYPES, BLOCKS), max_size=4), st.sampled_from(["user", "assistant", "system"])
)
def test_any_blocks_are_decoded_or_refused(blocks: list[tuple[str, Any]], role: str) -> None:
    """No block causes an internal error."""
    content = [{**members, "type": kind} for kind, members in blocks]
    with suppress(ApiError):
        spec_of(messages=[{"role": role, "content": content}])


@pytest.mark.parametrize(
    "more",
    ['"messages":[' + "[]," * VALUES_MAX + "[]]", ",".join(f'"{n}":0' for n in range(VALUES_MAX))],
    ids=["values", "members"],
)
def test_a_body_of_many_values_is_refused_unread(more: str) -> None:
    """Objects of so many values would take a hundred times their bytes, and seconds."""
    body = f'{{"model": "m","max_tokens":5,"messages":[1],{more}}}'.encode()

    for decode_unread in (decode_raw, decode_raw_prompt):
        with pytest.raises(ApiError) as refused:
            decode_unread(body, CIMultiDict())
        assert refused.value.code == "json_too_many_values"
