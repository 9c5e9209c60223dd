from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.config import Quirks
from services.domain.conversation import ImagePart, Message, TextPart
from services.domain.spec import ChatCompletionSpec, ResponseFormat, Thinking, Tool
from services.errors import Failure
from services.providers.anthropic import DIALECT
from services.providers.anthropic.request import UNKNOWN_MAX
from services.providers.base import Notes
from tests.services.providers.anthropic.specs import assistant, call, result, sent, system, user
from tests.services.providers.targets import target_of

ALLOWED = {
    "model",
    "max_tokens",
    "messages",
    "system",
    "metadata",
    "service_tier",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "stop_sequences",
    "temperature",
    "top_p",
    "top_k",
    "stream",
}
BARE = {"model", "max_tokens", "messages", "stream"}
SCHEMA = b'{"type":"object","properties":{"a":{"type":"string"}},"additionalProperties":false}'

NONE = "claude-3-5-haiku-20241022"
BUDGET = "claude-sonnet-4-5-20250929"
BOTH = "claude-opus-4-6"
ADAPTIVE = "claude-opus-4-7"
ALWAYS = "claude-fable-5"
MODELS = (NONE, BUDGET, BOTH, ADAPTIVE, ALWAYS)

DROPPED: dict[str, Any] = {}
"""The parameter is not sent, with a note."""

# One row a parameter: what is given, then what is sent beyond the bare body to each of
# MODELS. A pair holds the action that the note tells, too.
SUMMARY = {"type": "adaptive", "display": "summarized"}
MATRIX: list[tuple[str, dict[str, Any], list[Any]]] = [
    ("temperature", {"temperature": 0.5}, [{"temperature": 0.5}] * 3 + [DROPPED] * 2),
    (
        "temperature",
        {"temperature": 1.5},
        [({"temperature": 1.0}, "clamped")] * 3 + [DROPPED] * 2,
    ),
    ("temperature", {"temperature": 1.0}, [{"temperature": 1.0}] * 3 + [({}, None)] * 2),
    ("top_p", {"top_p": 0.5}, [{"top_p": 0.5}] * 3 + [DROPPED] * 2),
    ("top_k", {"top_k": 5}, [{"top_k": 5}] * 3 + [DROPPED] * 2),
    ("frequency_penalty", {"frequency_penalty": 1.0}, [DROPPED] * 5),
    ("presence_penalty", {"presence_penalty": 1.0}, [DROPPED] * 5),
    ("seed", {"seed": 1}, [DROPPED] * 5),
    ("top_a", {"top_a": 0.5}, [DROPPED] * 5),
    ("min_p", {"min_p": 0.5}, [DROPPED] * 5),
    ("repetition_penalty", {"repetition_penalty": 1.5}, [DROPPED] * 5),
    ("logit_bias", {"logit_bias": {1: 1.0}}, [DROPPED] * 5),
    ("verbosity", {"verbosity": "low"}, [DROPPED] * 5),
    ("metadata", {"metadata": {"a": "b"}}, [DROPPED] * 5),
    ("n", {"n": 1}, [({}, None)] * 5),
    ("logprobs", {"logprobs": False}, [({}, None)] * 5),
    ("stop", {"stop": ["END"]}, [{"stop_sequences": ["END"]}] * 5),
    ("stop", {"stop": ["END", "\n"]}, [({"stop_sequences": ["END"]}, "dropped")] * 5),
    ("stop", {"stop": [" "]}, [DROPPED] * 5),
    ("user", {"user": "u-1"}, [{"metadata": {"user_id": "u-1"}}] * 5),
    ("user", {"user": "ann@example.com"}, [DROPPED] * 5),
    ("user", {"user": "ann.lee+ai@mail.example.co.uk"}, [DROPPED] * 5),
    ("user", {"user": "+1 (555) 010-9999"}, [DROPPED] * 5),
    ("user", {"user": "team@work"}, [{"metadata": {"user_id": "team@work"}}] * 5),
    ("service_tier", {"service_tier": "auto"}, [{"service_tier": "auto"}] * 5),
    (
        "service_tier",
        {"service_tier": "default"},
        [({"service_tier": "standard_only"}, "mapped")] * 5,
    ),
    ("service_tier", {"service_tier": "flex"}, [DROPPED] * 5),
    (
        "reasoning_effort",
        {"reasoning_effort": "high"},
        [
            DROPPED,
            ({"thinking": {"type": "enabled", "budget_tokens": 16_384}}, "mapped"),
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
            {"thinking": SUMMARY, "output_config": {"effort": "high"}},
            {"thinking": SUMMARY, "output_config": {"effort": "high"}},
        ],
    ),
    (
        "reasoning_effort",
        {"reasoning_effort": "none"},
        [
            ({}, None),
            {"thinking": {"type": "disabled"}},
            {"thinking": {"type": "disabled"}},
            {"thinking": {"type": "disabled"}},
            ({"thinking": SUMMARY, "output_config": {"effort": "low"}}, "clamped"),
        ],
    ),
    (
        "thinking",
        {"thinking": Thinking(mode="disabled")},
        [
            ({}, None),
            {"thinking": {"type": "disabled"}},
            {"thinking": {"type": "disabled"}},
            {"thinking": {"type": "disabled"}},
            ({"thinking": SUMMARY, "output_config": {"effort": "low"}}, "clamped"),
        ],
    ),
    (
        "thinking.budget_tokens",
        {"thinking": Thinking(budget_tokens=2000)},
        [
            ({}, "dropped"),
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            ({"thinking": SUMMARY, "output_config": {"effort": "low"}}, "mapped"),
            ({"thinking": SUMMARY, "output_config": {"effort": "low"}}, "mapped"),
        ],
    ),
]


@pytest.mark.parametrize(
    ("param", "given_fields", "model", "expected"),
    [
        pytest.param(param, fields, model, cell, id=f"{number}-{param}-{model}")
        for number, (param, fields, cells) in enumerate(MATRIX)
        for model, cell in zip(MODELS, cells, strict=True)
    ],
)
def test_each_parameter_has_the_form_of_its_family(
    param: str, given_fields: dict[str, Any], model: str, expected: Any
) -> None:
    """A parameter that a family lacks has a note."""
    body, notes = sent(target=target_of(model), **given_fields)
    default = ({}, "dropped") if expected is DROPPED else (expected, None)
    wanted, action = expected if isinstance(expected, tuple) else default
    assert {key: value for key, value in body.items() if key not in BARE} == wanted
    if param == "thinking.budget_tokens" and action == "dropped":
        param = "thinking"  # All of it is left out, not only the number.
    assert notes == ({param: action} if action else {})
    assert set(body) <= ALLOWED


def test_only_required_members_are_sent_by_default() -> None:
    """A request without parameters has those that the API demands."""
    notes = Notes()
    spec = ChatCompletionSpec(model="m", messages=[user("Hi")])
    request = DIALECT.encode(spec, target_of("claude-sonnet-4-5"), notes)
    assert (request.path, request.streamed, notes.all) == ("/messages", True, [])
    assert request.headers == {"anthropic-version": "2023-06-01"}
    assert json.loads(request.body) == {
        "model": "claude-sonnet-4-5",
        "max_tokens": 32_000,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "stream": True,
    }


def test_the_version_is_the_channels() -> None:
    """A channel may ask for another version of the API."""
    target = target_of("claude-sonnet-4-5", quirks=Quirks(anthropic_version="2026-10-21"))
    spec = ChatCompletionSpec(model="m", messages=[user("Hi")])
    assert DIALECT.encode(spec, target, Notes()).headers == {"anthropic-version": "2026-10-21"}


def test_the_key_has_its_own_header() -> None:
    """It is `x-api-key`."""
    assert DIALECT.auth_headers("k") == {"x-api-key": "k"}


@pytest.mark.parametrize(
    ("model", "fields", "limit"),
    [
        ("claude-3-haiku-20240307", {}, 4096),
        ("claude-opus-4-1", {}, 32_000),
        ("claude-opus-4-7", {}, 32_000),
        ("some-imitation", {}, 4096),
        ("claude-sonnet-4-5", {"max_tokens": 7}, 7),
        ("claude-sonnet-4-5", {"max_tokens": 100_000}, 64_000),
        ("claude-sonnet-4-5", {"thinking": Thinking(budget_tokens=32_000)}, 36_096),
        ("claude-opus-4-1", {"thinking": Thinking(budget_tokens=31_999)}, 32_000),
        ("some-imitation", {"thinking": Thinking(budget_tokens=5000)}, 9096),
    ],
)
def test_a_limit_is_always_sent(model: str, fields: dict[str, Any], limit: int) -> None:
    """It is the caller's, else the model's default, with the tokens for reasoning."""
    body, _ = sent(target=target_of(model), **fields)
    assert body["max_tokens"] == limit
    assert body.get("thinking", {}).get("budget_tokens", 0) < limit


def test_reasoning_drops_parameters_that_the_api_refuses_with_it() -> None:
    """A `-thinking` name sends neither temperature nor top_k. Both have notes."""
    target = target_of("claude-sonnet-4-5", thinking_by_name=True)
    body, notes = sent(target=target, temperature=0.7, top_k=3, top_p=0.99)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 8192}
    assert (body.get("temperature"), body.get("top_k"), body["top_p"]) == (None, None, 0.99)
    assert notes == {"temperature": "dropped", "top_k": "dropped"}


def test_excluded_reasoning_is_omitted() -> None:
    """The API is asked to omit it from the answer."""
    thinking = Thinking(mode="enabled", excluded=True)
    body, _ = sent(target=target_of("claude-opus-4-7"), thinking=thinking)
    assert body["thinking"] == {"type": "adaptive", "display": "omitted"}


@pytest.mark.parametrize("fields", [{"n": 2}, {"logprobs": True}, {"top_logprobs": 2}])
@pytest.mark.parametrize("model", MODELS)
def test_several_answers_and_log_probabilities_are_refused(
    model: str, fields: dict[str, Any]
) -> None:
    """For every model."""
    with pytest.raises(Failure) as refused:
        sent(target=target_of(model), **fields)
    assert refused.value.reason == "UNSUPPORTED_FEATURE"
    assert refused.value.param in fields


def test_a_schema_is_sent_in_the_field_of_the_api() -> None:
    """Beside the effort. Requests to older models are refused."""
    wanted = ResponseFormat(type="json_schema", schema_json=SCHEMA)
    effort = "low"
    target = target_of("claude-opus-4-7")
    body, notes = sent(target=target, response_format=wanted, reasoning_effort=effort)
    form = {"type": "json_schema", "schema": json.loads(SCHEMA)}
    assert (body["output_config"], notes) == ({"effort": "low", "format": form}, {})
    with pytest.raises(Failure) as refused:
        sent(target=target_of("claude-3-5-haiku-latest"), response_format=wanted)
    assert refused.value.param == "response_format"


def test_json_object_becomes_an_instruction() -> None:
    """The API lacks it. There is a note."""
    wanted = ResponseFormat(type="json_object")
    body, notes = sent(system("Be kind."), user("Hi"), response_format=wanted)
    own, hint = body["system"]
    assert own["text"] == "Be kind."
    assert "JSON object" in hint["text"]
    assert notes == {"response_format": "mapped"}


def test_unknown_fields_are_not_sent() -> None:
    """Each has a note."""
    extra = b'{"mcp_servers":[],"container":"c"}'
    body, notes = sent(extra_json=extra)
    assert set(body) == BARE
    assert notes == {"mcp_servers": "dropped", "container": "dropped"}


def test_notes_are_bounded() -> None:
    """The number of notes about unknown fields is limited."""
    extra = json.dumps({f"field_{number}": 1 for number in range(5000)}).encode()
    body, notes = sent(extra_json=extra)
    assert (set(body), len(notes)) == (BARE, UNKNOWN_MAX + 1)
    assert notes["extra_json"] == "dropped"


def test_a_prefilled_answer_is_sent_without_trailing_space() -> None:
    """Requests to models without prefill are refused."""
    body, notes = sent(user("Hi"), assistant("Well, \n"))
    assert body["messages"][-1] == {
        "role": "assistant",
        "content": [{"type": "text", "text": "Well,"}],
    }
    assert notes == {"messages": "mapped"}
    body, notes = sent(
        user("Hi"), assistant("Well,"), target=target_of("claude-haiku-4-5", thinking_by_name=True)
    )
    assert ("thinking" in body, notes) == (False, {"thinking": "dropped"})
    with pytest.raises(Failure) as refused:
        sent(user("Hi"), assistant("Well,"), target=target_of("claude-opus-4-6"))
    assert refused.value.reason == "UNSUPPORTED_FEATURE"


@pytest.mark.parametrize("mark", ["prefix", "partial"])
@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-opus-4-1"])
def test_mark_of_prefill_is_honoured(mark: str, model: str) -> None:
    """The API does anyway what the mark asks for: there is no note, also in strict mode."""
    first = msgspec.structs.replace(assistant("Yes."), extra_json=b'{"%b":false}' % mark.encode())
    marked = msgspec.structs.replace(assistant("Well,"), extra_json=b'{"%b":true}' % mark.encode())
    talk = (user("Hi"), first, user("So?"), marked)

    body, notes = sent(*talk, target=target_of(model), strict=True)

    assert (body["messages"][-1]["content"], notes) == ([{"type": "text", "text": "Well,"}], {})


@pytest.mark.parametrize("mark", [b'{"prefix":false}', b'{"prefix":"yes"}', b'{"prefix":1,"x":2}'])
def test_other_mark_of_prefill_is_noted(mark: bytes) -> None:
    """The API takes the last message as the beginning, whatever its mark says."""
    marked = msgspec.structs.replace(assistant("Well,"), extra_json=mark)

    assert sent(user("Hi"), marked)[1]["messages[1].prefix"] == "dropped"


@pytest.mark.parametrize("index", [0, 1])
def test_mark_of_prefill_elsewhere_is_noted(index: int) -> None:
    """An answer goes on from the last message only, and from none of the user's."""
    talk = [user("Hi"), assistant("Well,"), user("So?")]
    talk[index] = msgspec.structs.replace(talk[index], extra_json=b'{"prefix":true}')

    assert sent(*talk)[1] == {f"messages[{index}].prefix": "dropped"}


@pytest.mark.parametrize("model", ["claude-opus-4-6", "claude-sonnet-4-6", "claude-opus-5"])
def test_marked_prefill_is_refused_where_the_model_takes_none(model: str) -> None:
    """The call is refused, whether it is strict or not."""
    marked = msgspec.structs.replace(assistant("Well,"), extra_json=b'{"prefix":true}')
    for strict in (True, False):
        with pytest.raises(Failure) as refused:
            sent(user("Hi"), marked, target=target_of(model), strict=strict)
        assert (refused.value.reason, refused.value.param) == ("UNSUPPORTED_FEATURE", "messages")


def test_reasoning_is_off_where_calls_lack_their_sealed_reasoning() -> None:
    """On models whose API demands it with the calls."""
    talk = [user("Hi"), assistant(tool_calls=[call("c1")]), result("c1", "42")]
    effort = "low"
    body, notes = sent(*talk, reasoning_effort=effort, tools=[Tool(name="look")])
    assert ("thinking" in body, notes) == (False, {"reasoning_effort": "dropped"})
    target = target_of("claude-opus-4-7")
    body, notes = sent(*talk, reasoning_effort=effort, tools=[Tool(name="look")], target=target)
    assert (body["thinking"]["type"], notes) == ("adaptive", {})


JSON_BYTES = st.binary(max_size=40) | st.sampled_from(
    [b'{}, "model": "evil"', b'{"a":1}}', b'{"model":"evil","stream":false}', b"null", b"[]"]
)


@given(extra=JSON_BYTES, schema=JSON_BYTES, tool=JSON_BYTES, mark=JSON_BYTES, args=st.text())
def test_hostile_bytes_change_nothing(
    extra: bytes, schema: bytes, tool: bytes, mark: bytes, args: str
) -> None:
    """No bytes of a caller add a member to the body or change one."""
    spec = ChatCompletionSpec(
        model="m",
        messages=[
            Message(
                role="user",
                content=[TextPart(text="Hi", cache_control_json=mark)],
            ),
            assistant(tool_calls=[call("c", args)]),
            result("c", "x"),
        ],
        tools=[Tool(name="look", parameters_json=tool)],
        response_format=ResponseFormat(type="json_schema", schema_json=schema),
        extra_json=extra,
    )
    try:
        request = DIALECT.encode(spec, target_of("claude-sonnet-4-5"), Notes())
    except Failure:
        return
    body = json.loads(request.body)
    assert set(body) <= ALLOWED
    assert (body["model"], body["stream"]) == ("claude-sonnet-4-5", True)


@pytest.mark.parametrize(("own", "said"), [("", "An answer."), ("A thing.", "An answer. A thing.")])
def test_the_description_of_a_format_begins_that_of_its_schema(own: str, said: str) -> None:
    """The API has no other place for it."""
    schema = {"type": "object", "properties": {}} | ({"description": own} if own else {})
    form = ResponseFormat(
        type="json_schema",
        name="s",
        description="An answer.",
        schema_json=json.dumps(schema).encode(),
    )
    body, _ = sent(response_format=form)
    assert body["output_config"]["format"]["schema"]["description"] == said


def test_a_schema_beside_json_object_is_sent_as_json_schema() -> None:
    """For a model without schemas there is a note, and the usual instruction."""
    form = ResponseFormat(type="json_object", extra_json=b'{"schema":{"type":"object"},"x":1}')
    body, notes = sent(response_format=form)
    assert body["output_config"]["format"]["schema"]["type"] == "object"
    assert "system" not in body
    assert notes["response_format"] == "mapped"
    assert notes["response_format.x"] == "dropped"

    body, notes = sent(response_format=form, target=target_of("claude-3-5-haiku-latest"))
    assert "output_config" not in body
    assert notes["response_format.schema"] == "dropped"


def test_members_of_objects_that_are_sent_have_their_own_path() -> None:
    """The image, the tool and the schema are sent: the note is about the member within."""
    image = ImagePart(uri="https://a.example/a.png", extra_json=b'{"image_url":{"crop":1},"x":2}')
    tool = Tool(name="look", extra_json=b'{"function":{"returns":{}}}')
    form = ResponseFormat(
        type="json_schema",
        name="s",
        schema_json=b'{"type":"object","additionalProperties":false}',
        extra_json=b'{"json_schema":{"y":3}}',
    )
    shown = Message(role="user", content=[TextPart(text="a"), image])

    _, notes = sent(shown, tools=[tool], response_format=form)

    assert notes == {
        "messages[0].content[1].image_url.crop": "dropped",
        "messages[0].content[1].x": "dropped",
        "tools[0].function.returns": "dropped",
        "response_format.json_schema.y": "dropped",
    }
