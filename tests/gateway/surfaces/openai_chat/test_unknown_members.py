"""Members that no field has are kept, in every object of a request."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.surfaces.openai_chat.decode_fields import decode_fields
from services.domain.spec import ChatCompletionSpec
from tests.stand.planted_requests import objects

Path: TypeAlias = tuple[str | int, ...]

CONFIG = EdgeConfig()
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
TOOL = {"type": "function", "function": FUNCTION}
CUSTOM = {"type": "custom", "custom": {"name": "g", "format": {"type": "text"}}}
SCHEMA = {"name": "s", "schema": {"type": "object"}, "strict": True}
MARK = {"type": "ephemeral"}
PARTS = [
    {"type": "text", "text": "a", "cache_control": MARK},
    {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
    {"type": "image_url", "image_url": "https://example.org/a.png"},
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    {"type": "file", "file": {"file_id": "file-1", "filename": "a.pdf"}},
    {"type": "refusal", "refusal": "no", "cache_control": MARK},
    {"type": "thinking", "thinking": "t"},
]
CALLS: Sequence[dict[str, object]] = [
    {"id": "1", "type": "function", "index": 0, "function": {"name": "f", "arguments": "{}"}},
    {"id": "2", "type": "custom", "custom": {"name": "g", "input": "x"}},
]
NEW: Mapping[str, Any] = {
    "model": "m",
    "stream": True,
    "stream_options": {"include_usage": True},
    "usage": {"include": True},
    "messages": [
        {"role": "user", "content": PARTS},
        {"role": "assistant", "content": None, "tool_calls": CALLS},
        {"role": "tool", "tool_call_id": "1", "content": "1"},
    ],
    "tools": [TOOL, CUSTOM],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": SCHEMA},
    "thinking": {"type": "enabled", "budget_tokens": 2000},
}
OLD: Mapping[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
    ],
    "functions": [FUNCTION],
    "function_call": {"name": "f"},
    "response_format": {"type": "json_object"},
    "reasoning": {"effort": "low", "enabled": True},
}
ALLOWED: Mapping[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hello"}],
    "tools": [TOOL, CUSTOM],
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {
            "mode": "auto",
            "tools": [
                {"type": "function", "function": {"name": "f"}},
                {"type": "custom", "custom": {"name": "g"}},
            ],
        },
    },
}
FREE = frozenset({"parameters", "format", "schema", "cache_control"})
"""Members whose value may be any JSON, and is kept as it is."""


PLACES = [
    pytest.param(request, path, id=".".join(map(str, path)) or "request")
    for request in (NEW, OLD, ALLOWED)
    for path in objects(request, FREE)
]


def planted(request: Mapping[str, Any], path: Path, member: object) -> ChatCompletionSpec:
    """Decode a request with the member `planted` in the object at `path`."""
    changed = copy.deepcopy(dict(request))
    at: Any = changed
    for step in path:
        at = at[step]
    at["planted"] = member
    return decode_fields(json.dumps(changed).encode(), CONFIG).spec


def found(value: Any) -> Sequence[Any]:
    """Return the values of all members `planted`, at any depth."""
    if isinstance(value, dict):
        own = [value["planted"]] if "planted" in value else []
        return own + [each for inner in value.values() for each in found(inner)]
    return [each for inner in value for each in found(inner)] if isinstance(value, list) else []


def opened(value: Any) -> Any:
    """Return a spec as plain objects, with the JSON of `extra_json` read, or left out."""
    if isinstance(value, msgspec.Struct):
        return opened(msgspec.structs.asdict(value))
    if isinstance(value, list):
        return [opened(each) for each in value]
    if not isinstance(value, dict):
        return value
    read = {name: opened(each) for name, each in value.items() if name != "extra_json"}
    extra = value.get("extra_json")
    return read | {"extra": json.loads(extra)} if extra else read


def plain(spec: ChatCompletionSpec) -> Any:
    """Return a spec as plain objects, bytes as they are."""
    return opened(spec)


def without_extra(value: Any) -> Any:
    """Return plain objects without unknown members."""
    if isinstance(value, list):
        return [without_extra(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {name: without_extra(each) for name, each in value.items() if name != "extra"}


@pytest.mark.parametrize(("request_", "path"), PLACES)
def test_a_member_is_kept_in_every_object(request_: Mapping[str, Any], path: Path) -> None:
    """It is kept once, and nothing else of the request changes."""
    spec = planted(request_, path, {"a": [1.5, None]})
    assert found(plain(spec)) == [{"a": [1.5, None]}]
    expected = decode_fields(json.dumps(request_).encode(), CONFIG).spec
    assert without_extra(plain(spec)) == without_extra(plain(expected))


@pytest.mark.parametrize(("request_", "path"), PLACES)
def test_null_means_absent_in_every_object(request_: Mapping[str, Any], path: Path) -> None:
    """It means absent at the top of the request, too."""
    assert (
        planted(request_, path, None) == decode_fields(json.dumps(request_).encode(), CONFIG).spec
    )


JSON = st.recursive(
    st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=5),
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(st.text(max_size=5).filter("planted".__ne__), values, max_size=3)
    ),
    max_leaves=6,
)


@given(st.sampled_from([place.values for place in PLACES]), JSON)
def test_any_value_is_kept(place: Sequence[Any], member: object) -> None:
    """It may be any JSON."""
    request_, path = place
    assert found(plain(planted(request_, path, member))) == [member]


def test_unknown_members_stand_at_their_places() -> None:
    """The form is OpenAI's, without the members that fields have."""
    body = {
        "model": "m",
        "messages": [
            {
                "role": "assistant",
                "prefix": True,
                "content": [
                    {
                        "type": "image_url",
                        "min_pixels": 3136,
                        "image_url": {"url": "https://example.org/a.png", "fps": 1.50},
                    }
                ],
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {"name": "f", "arguments": "{}", "x": 1},
                        "extra_content": {"google": {"thought_signature": "s"}},
                    }
                ],
            }
        ],
        "tools": [{**TOOL, "cache_control": MARK}],
        "response_format": {"type": "json_object", "schema": {"type": "object"}},
    }
    spec = decode_fields(json.dumps(body).encode(), CONFIG).spec
    (message,) = spec.messages
    assert message.extra_json == b'{"prefix":true}'
    assert message.content[0].extra_json == b'{"min_pixels":3136,"image_url":{"fps":1.5}}'
    assert message.tool_calls[0].extra_json == b'{"function":{"x":1}}'
    assert json.loads(message.tool_calls[0].extra_content_json) == {
        "google": {"thought_signature": "s"}
    }
    assert spec.tools[0].extra_json == b""
    assert json.loads(spec.tools[0].cache_control_json) == MARK
    assert spec.response_format is not None
    assert json.loads(spec.response_format.extra_json) == {"schema": {"type": "object"}}


def test_members_of_another_type_are_kept() -> None:
    """A schema may be beside `json_object`, or a function beside a custom tool."""
    fields = {
        "messages": [{"role": "assistant", "tool_calls": [{**CALLS[1], **CALLS[0]}]}],
        "response_format": {"type": "json_object", "json_schema": SCHEMA},
    }
    spec = decode_fields(json.dumps({"model": "m", **fields}).encode(), CONFIG).spec
    (call,) = spec.messages[0].tool_calls
    assert json.loads(call.extra_json) == {"function": {"name": "f", "arguments": "{}"}}
    assert spec.response_format is not None
    assert json.loads(spec.response_format.extra_json) == {"json_schema": SCHEMA}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{**TOOL, "x": 1, "function": {"name": 5, "y": 1}}]}, "tools[0].function.name"),
        ({"tools": [{"type": 5, "x": 1}]}, "tools[0].type"),
        ({"messages": [{"x": 1}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "x": 1}]}]},
         "messages[0].content[0]"),
        ({"thinking": {"x": 1, "budget_tokens": "a"}}, "thinking.budget_tokens"),
    ],
)  # fmt: skip
def test_a_fault_beside_an_unknown_member_is_named(fields: dict[str, Any], param: str) -> None:
    """The unknown member is never the fault."""
    body = {"model": "m", "messages": [], **fields}
    with pytest.raises(ApiError) as refused:
        decode_fields(json.dumps(body).encode(), CONFIG)
    assert refused.value.param == param
    assert "unknown" not in refused.value.message


def test_an_escaped_type_is_understood() -> None:
    """Unknown members beside it change nothing."""
    tool = b'{"type":"f\\u0075nction","function":{"name":"f"},"x":1.50}'
    (read,) = decode_fields(b'{"model":"m","messages":[],"tools":[%b]}' % tool, CONFIG).spec.tools
    assert (read.name, read.extra_json) == ("f", b'{"x":1.50}')
