from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pomogator.chat.v1 import chat_completion_service_pb2 as chat

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.surfaces.openai_chat.chat_request import ChatRequest
from gateway.surfaces.openai_chat.decode_fields import LOGIT_BIASES_MAX, METADATA_MAX, decode_fields
from gateway.surfaces.openai_chat.messages import MESSAGES_MAX
from gateway.surfaces.openai_chat.parts import PARTS_MAX
from services.common.contract.chat import fill_request, read_request
from services.domain.spec import ChatCompletionSpec, CompletionRequest, Thinking

BARE: Mapping[str, object] = {"model": "m", "messages": []}
CONFIG = EdgeConfig()
HELLO = {"role": "user", "content": "Hello"}
PART = {"type": "text", "text": "Hello"}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 25).decode()


def decoded(**fields: object) -> ChatRequest:
    """Decode a bare request with these fields."""
    return decode_fields(json.dumps({**BARE, **fields}).encode(), CONFIG)


def refused(**fields: object) -> ApiError:
    """Return the error of a bare request with these fields."""
    with pytest.raises(ApiError) as caught:
        decoded(**fields)
    assert caught.value.status == 400
    return caught.value


def test_a_bare_request_sets_nothing_else() -> None:
    """Fields that the client leaves to the provider stay unset."""
    request = decode_fields(b'{"model":"m","messages":[]}', CONFIG)
    assert request == ChatRequest(spec=ChatCompletionSpec(model="m"))


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_model_and_messages_are_required(missing: str) -> None:
    """The error names the missing one."""
    assert refused(**{missing: None}).param == missing


SCALARS: Mapping[str, tuple[object, tuple[object, ...]]] = {
    "temperature": (0.7, ("1", True, [], {})),
    "top_p": (1, ("1", True)),
    "frequency_penalty": (-2.0, ("1", False)),
    "presence_penalty": (2, ("1",)),
    "top_a": (0.5, ("1",)),
    "min_p": (0.5, ("1",)),
    "repetition_penalty": (1.1, ("1",)),
    "max_tokens": (1000, (1.5, "1", True, 2**31, -(2**31) - 1, 2**63)),
    "max_completion_tokens": (1000, (1.5, "1", True, 2**31)),
    "n": (2, (1.5, "1", True, 10**10)),
    "top_k": (40, (0.1, "1", 10**10)),
    "top_logprobs": (5, (0.1, "1", 10**10)),
    "seed": (2**63 - 1, (0.5, "1", 2**63, 2**64)),
    "logprobs": (True, (1, "true")),
    "parallel_tool_calls": (False, (0, "false")),
    "stream": (True, (1, "true")),
    "user": ("u", (1, [])),
    "safety_identifier": ("u", (1, [])),
    "service_tier": ("flex", (1,)),
    "prompt_cache_key": ("k", (1, {})),
    "verbosity": ("low", ("lots", 1)),
    "reasoning_effort": ("high", (1, [])),
    "stop": (["a"], (1, [1], {}, [*"abcde"])),
    "metadata": ({"a": "b"}, ({"a": 1}, [])),
    "logit_bias": ({"50256": -100}, ({"a": 1}, {"5": "x"}, [])),
    "response_format": ({"type": "json_object"}, ("json", {"type": 1}, {})),
    "tools": ([], ({}, [{"type": 1}], [{}], [1])),
    "tool_choice": ("auto", ("any", 1, {"type": "x"})),
    "thinking": ({"type": "adaptive"}, (True, {"type": 1}, {"budget_tokens": 0.5})),
    "reasoning": ({"effort": "low"}, (True, {"effort": 1}, {"enabled": 1})),
}


@pytest.mark.parametrize("name", SCALARS)
def test_each_field_is_decoded(name: str) -> None:
    """None is among the unknown fields."""
    assert decoded(**{name: SCALARS[name][0]}).spec.extra_json == b""


@pytest.mark.parametrize("name", SCALARS)
def test_null_means_absent(name: str) -> None:
    """OpenAI's API reads it so."""
    assert decoded(**{name: None}) == decoded()


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (_, bad) in SCALARS.items() for value in bad]
)
def test_a_wrong_shape_names_its_field(name: str, value: object) -> None:
    """`param` is the field, or the path to the fault in it."""
    param = refused(**{name: value}).param
    assert param is not None
    assert param.startswith(name)


def test_integers_may_have_a_point() -> None:
    """5.0 and 5 are the same in JSON."""
    assert decoded(max_tokens=5.0).spec.max_tokens == 5


def test_messages_use_the_terms_of_json() -> None:
    """The decoder's types are not shown."""
    assert refused(max_tokens="5").message.endswith("Expected number, got string.")


def test_a_number_beyond_a_double_is_refused() -> None:
    """1e999 would be infinite."""
    with pytest.raises(ApiError) as caught:
        decode_fields(b'{"model":"m","messages":[],"temperature":1e999}', CONFIG)
    assert caught.value.param == "temperature"


def test_a_stop_may_be_one_string() -> None:
    """A list of them is the other form."""
    assert decoded(stop="a").spec.stop == decoded(stop=["a"]).spec.stop == ["a"]


def test_two_names_of_one_field_must_agree() -> None:
    """Both may be given: some clients do so."""
    assert decoded(max_tokens=5, max_completion_tokens=5).spec.max_tokens == 5
    assert refused(max_tokens=5, max_completion_tokens=6).param == "max_tokens"
    assert decoded(user="u", safety_identifier="u").spec.user == "u"
    assert refused(user="u", safety_identifier="v").param == "user"


def test_stream_options_need_a_stream() -> None:
    """OpenAI refuses them otherwise."""
    assert refused(stream_options={"include_usage": True}).param == "stream_options"
    assert decoded(stream=True, stream_options={"include_usage": True}).include_usage
    assert not decoded(stream=True, stream_options={}).include_usage


def test_unknown_fields_are_kept_unchanged() -> None:
    """Each digit stays. Channels decide whether they are sent."""
    body = b'{"model":"m","messages":[],"x":[1.10,1e5],"y":{"z":12345678901234567890},"w":null}'
    assert (
        decode_fields(body, CONFIG).spec.extra_json
        == b'{"x":[1.10,1e5],"y":{"z":12345678901234567890}}'
    )


def test_known_fields_are_not_among_the_unknown() -> None:
    """No field is sent twice."""
    full = {name: value for name, (value, _) in SCALARS.items() if name != "reasoning"}
    assert decoded(**full, api_base="x").spec.extra_json == b'{"api_base":"x"}'


def test_reasoning_has_three_vocabularies() -> None:
    """OpenRouter's has the same meaning as the other two, and asks for its form of the answer."""
    by_effort = decoded(reasoning={"effort": "high"}).spec
    assert by_effort.reasoning_effort == "high"
    assert by_effort.thinking == Thinking(reasoning_details=True)
    by_budget = decoded(reasoning={"enabled": True, "max_tokens": 2000}).spec
    assert by_budget.thinking == Thinking(
        mode="enabled", budget_tokens=2000, reasoning_details=True
    )
    assert decoded(include_reasoning=True).spec.thinking == Thinking(reasoning_details=True)
    assert decoded(include_reasoning=False).spec.thinking == Thinking(excluded=True)
    assert decoded(reasoning={"exclude": True}).spec.thinking == Thinking(excluded=True)


def test_reasoning_must_not_contradict_itself() -> None:
    """The same value twice is accepted."""
    assert refused(reasoning={"effort": "low"}, reasoning_effort="high").param == "reasoning_effort"
    assert refused(reasoning={}, thinking={"type": "enabled"}).param == "reasoning"
    same = decoded(reasoning={"effort": "low"}, reasoning_effort="low")
    assert same.spec.reasoning_effort == "low"


def test_functions_are_tools() -> None:
    """All fields of 2023 are read."""
    old = decoded(functions=[{"name": "f", "parameters": {}}], function_call={"name": "f"})
    new = decoded(
        tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        tool_choice={"type": "function", "function": {"name": "f"}},
        parallel_tool_calls=False,
    )
    assert old.spec == new.spec
    both_ways = decoded(functions=[{"name": "f"}], parallel_tool_calls=True)
    assert not both_ways.spec.parallel_tool_calls
    assert old.functions
    assert not new.functions
    both = refused(functions=[], tools=[{"type": "function", "function": {"name": "f"}}])
    assert both.param == "functions"


def test_members_of_extra_body_are_fields() -> None:
    """Known and unknown members are fields, and `null` is absent."""
    sent = {"temperature": 0.5, "seed": None, "stream": True, "thinking": {"type": "enabled"}}
    nested = decoded(extra_body={**sent, "min_tokens": 3}, temperature=0.5)

    assert nested == decoded(**sent, min_tokens=3)
    assert nested.spec.extra_json == b'{"min_tokens":3}'


def test_extra_body_is_checked_like_the_body() -> None:
    """Errors of what is in it name the field, and one that differs from the body's its path."""
    assert refused(extra_body={"temperature": "hot"}).param == "temperature"
    assert refused(extra_body={"model": "other"}).param == "extra_body.model"
    assert refused(extra_body={"messages": [1]}).param == "extra_body.messages"


@pytest.mark.parametrize("value", [{"google": {"cached_content": "x"}}, "text", 5, [1], True])
def test_other_extra_body_stays_an_unknown_field(value: object) -> None:
    """Google's own member, and any other value than an object, stay."""
    assert json.loads(decoded(extra_body=value).spec.extra_json) == {"extra_body": value}


def test_extra_body_in_extra_body_stays() -> None:
    """One level is read, nothing is lost."""
    inner = {"extra_body": {"seed": 1}, "google": {"a": 1}, "seed": 2}
    spec = decoded(extra_body=inner).spec

    assert (spec.seed, json.loads(spec.extra_json)) == (
        2,
        {"extra_body": {"extra_body": {"seed": 1}, "google": {"a": 1}}},
    )
    assert not decoded(extra_body={}).spec.extra_json


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(), values, max_size=4),
    max_leaves=12,
)
FIELDS = st.dictionaries(
    st.sampled_from(["model", "messages", "stream_options", "functions", *SCALARS]), JSON
)
PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "input_audio", "file", "refusal", "thinking"])},
    optional={
        "text": JSON,
        "image_url": JSON | st.just(f"data:image/png;base64,{PNG}"),
        "file": JSON,
        "input_audio": JSON,
        "cache_control": JSON,
        "thinking": JSON,
    },
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool", "x"]) | JSON},
        optional={
            "content": JSON | st.lists(PARTS, max_size=3),
            "tool_calls": JSON,
            "reasoning_details": JSON,
            "function_call": JSON,
        },
    ),
    max_size=3,
)


@given(
    st.binary()
    | FIELDS
    | st.builds(
        lambda fields, messages: {**fields, "messages": messages, "model": "m"}, FIELDS, MESSAGES
    )
)
def test_anything_is_a_request_or_refused(body: bytes | dict[str, object]) -> None:
    """The refusal is 4xx with a message. The contract can hold every request."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        spec = decode_fields(sent, CONFIG).spec
        message = fill_request(CompletionRequest(spec=spec), chat.CreateChatCompletionRequest())
        assert read_request(message).spec == spec
    except ApiError as error:
        assert 400 <= error.status < 500  # noqa: PT017 - it may be raised, or not


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("messages", {"messages": [HELLO] * (MESSAGES_MAX + 1)}),
        (
            "messages[0].content",
            {"messages": [{"role": "user", "content": [PART] * (PARTS_MAX + 1)}]},
        ),
        ("logit_bias", {"logit_bias": {str(number): 1 for number in range(LOGIT_BIASES_MAX + 1)}}),
        ("metadata", {"metadata": {str(number): "" for number in range(METADATA_MAX + 1)}}),
    ],
)
def test_long_lists_are_refused_by_name(param: str, fields: dict[str, object]) -> None:
    """The error has the limit."""
    body = {"model": "m", "messages": [HELLO], **fields}
    with pytest.raises(ApiError, match=f"{re.escape(param)}: Expected .* of length <= ") as refused:
        decode_fields(json.dumps(body).encode(), CONFIG)
    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize(
    ("fields", "mark", "extra"),
    [
        (
            {"tools": [{"type": "function", "function": {"name": "f"}, "cache_control": {}}]},
            "{}",
            "",
        ),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}, "cache_control": {}}]}, "{}", ""),
        ({"functions": [{"name": "f", "cache_control": {"t": 1}}]}, '{"t":1}', ""),
        (
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {"name": "f", "cache_control": {"t": 1}, "x": 2},
                        "cache_control": {"t": 3},
                    }
                ]
            },
            '{"t":3}',
            '{"function":{"x":2,"cache_control":{"t":1}}}',
        ),
    ],
)
def test_cache_marks_of_tools_are_read_at_both_places(
    fields: dict[str, Any], mark: str, extra: str
) -> None:
    """One may be beside the function or in it. A second one is an unknown member."""
    (tool,) = decoded(**fields).spec.tools

    assert json.loads(tool.cache_control_json) == json.loads(mark)
    assert (json.loads(tool.extra_json) if extra else tool.extra_json) == (
        json.loads(extra) if extra else b""
    )


def test_a_cache_mark_of_the_whole_prompt_has_a_field() -> None:
    """It is not among the unknown fields."""
    assert decoded(cache_control={"type": "ephemeral"}).spec.cache_control_json
    assert not decoded(cache_control=None).spec.cache_control_json


def test_words_of_one_provider_are_kept() -> None:
    """The contract does not have these efforts and formats."""
    form = {"type": "grammar", "grammar": "root ::= x", "y": {"z": 1.50}}
    spec = decoded(reasoning_effort="default", response_format=form).spec

    assert (spec.reasoning_effort, spec.other_reasoning_effort) == ("", "default")
    thinking = decoded(thinking={"type": "auto"}).spec.thinking
    assert thinking == Thinking(extra_json=b'{"type":"auto"}')
    assert decoded(reasoning={"effort": "default"}).spec.other_reasoning_effort == "default"
    assert decoded(reasoning_effort="high").spec.other_reasoning_effort == ""
    assert spec.response_format is not None
    assert spec.response_format.type == ""
    assert json.loads(spec.response_format.other_json) == form


def test_tools_of_other_types_are_kept() -> None:
    """Each is whole and at its place. A function may be without its type."""
    search = {"type": "web_search_20250305", "name": "web_search", "json": 1, "max_uses": 5}
    builtin = {"type": "builtin_function", "function": {"name": "$x"}, "cache_control": {"t": 1}}
    bare, searching, built = decoded(
        tools=[{"function": {"name": "f", "x": 1}, "y": 2}, search, builtin]
    ).spec.tools

    assert (bare.type, bare.name) == ("function", "f")
    assert json.loads(bare.extra_json) == {"function": {"x": 1}, "y": 2}
    assert (searching.name, json.loads(searching.other_json)) == ("web_search", search)
    assert json.loads(built.other_json) == {
        "type": "builtin_function",
        "function": {"name": "$x"},
    }
    assert (built.name, json.loads(built.cache_control_json)) == ("", {"t": 1})
