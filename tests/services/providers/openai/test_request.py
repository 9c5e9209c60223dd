"""Requests to OpenAI-compatible providers: what is sent, and what is said about it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.capabilities import Capabilities, lookup
from services.config import ChannelConfig, Quirks
from services.domain.conversation import (
    AudioPart,
    ContentPart,
    FilePart,
    ImagePart,
    Message,
    ReasoningPart,
    Role,
    TextPart,
    ToolCall,
)
from services.domain.error_reason import ErrorReason
from services.domain.spec import (
    ChatCompletionSpec,
    ResponseFormat,
    Thinking,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from services.errors import Failure
from services.providers.base import Notes, Target
from services.providers.openai import DIALECT
from services.providers.openai.pass_through import NAMED_ONLY, NEVER
from services.providers.openai.request import UNSTREAMED
from services.providers.translate import reasoning_state
from tests.services.providers.targets import target_of, told

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB"


def target(capabilities: Capabilities | None = None, **channel: Any) -> Target:
    """A channel of this dialect, with a model of which nothing is known."""
    return Target(
        channel=ChannelConfig(name="c", dialect="openai", **channel),
        model="upstream-name",
        public_model="vendor/public-name",
        capabilities=capabilities or Capabilities(),
    )


def message(*parts: ContentPart | str, role: Role = "user", **fields: Any) -> Any:
    """A message with these parts."""
    pieces = [TextPart(text=part) if isinstance(part, str) else part for part in parts]
    return Message(role=role, content=pieces, **fields)


def spec(**fields: Any) -> ChatCompletionSpec:
    """A request that says hello."""
    return ChatCompletionSpec(**({"model": "m", "messages": [message("hello")]} | fields))


def encode(
    wanted: ChatCompletionSpec, to: Target | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """The body, and the parameters about which there are notes."""
    notes = Notes()
    request = DIALECT.encode(wanted, to or target(), notes)
    assert request.path == "/chat/completions"
    body: dict[str, Any] = json.loads(request.body)
    assert request.streamed == body["stream"]
    return body, {note.param: note.action for note in notes.all}


def sent(wanted: Message, to: Target | None = None) -> dict[str, Any]:
    """One message as it is sent."""
    body, _ = encode(spec(messages=[wanted]), to)
    found: dict[str, Any] = body["messages"][0]
    return found


def test_says_only_what_was_said() -> None:
    """What the caller left out is left out: the provider's defaults stand."""
    body, notes = encode(spec())

    assert body == {
        "model": "upstream-name",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert not notes


PARAMETERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "max_tokens": ({"max_tokens": 50}, {"max_tokens": 50}),
    "temperature": ({"temperature": 0.0}, {"temperature": 0.0}),
    "top_p": ({"top_p": 0.5}, {"top_p": 0.5}),
    "top_k": ({"top_k": 5}, {"top_k": 5}),
    "min_p": ({"min_p": 0.1}, {"min_p": 0.1}),
    "frequency_penalty": ({"frequency_penalty": -1.5}, {"frequency_penalty": -1.5}),
    "presence_penalty": ({"presence_penalty": 1.5}, {"presence_penalty": 1.5}),
    "repetition_penalty": ({"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
    "seed": ({"seed": 0}, {"seed": 0}),
    "stop": ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
    "logit_bias": ({"logit_bias": {5: -100.0}}, {"logit_bias": {"5": -100.0}}),
    "n": ({"n": 2}, {"n": 2}),
    "logprobs": ({"logprobs": True, "top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
    "user": ({"user": "u"}, {"user": "u"}),
    "verbosity": ({"verbosity": "low"}, {"verbosity": "low"}),
    "reasoning_effort": (
        {"reasoning_effort": "high"},
        {"reasoning_effort": "high"},
    ),
    "json_object": (
        {"response_format": ResponseFormat(type="json_object")},
        {"response_format": {"type": "json_object"}},
    ),
    "text": ({"response_format": ResponseFormat(type="text")}, {}),
    "json_schema": (
        {
            "response_format": ResponseFormat(
                type="json_schema",
                name="s",
                description="d",
                schema_json=b'{"type":"object"}',
                strict=True,
            )
        },
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": "s",
                    "description": "d",
                    "schema": {"type": "object"},
                    "strict": True,
                },
            }
        },
    ),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name: str) -> None:
    """Each parameter is sent in OpenAI's form to a model of which nothing is known."""
    given_fields, expected = PARAMETERS[name]
    plain, _ = encode(spec())
    body, notes = encode(spec(**given_fields))

    assert body == plain | expected
    assert not notes


FAMILIES = ["gpt-4o", "gpt-5.1", "o3", "some-model", "claude-sonnet-4-5"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["temperature", "top_k", "min_p", "seed", "stop", "logit_bias"])
def test_hints_are_sent_or_noted(family: str, name: str) -> None:
    """A hint that a model family lacks is dropped with a note, or refused in strict mode."""
    to = target(lookup(family, None, "openai"))
    wanted = spec(**PARAMETERS[name][0])
    body, notes = encode(wanted, to)

    assert (name in body) != (notes.get(name) == "dropped")
    if name in notes:
        with pytest.raises(Failure):
            DIALECT.encode(wanted, to, Notes(strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_limits_have_the_name_that_the_model_knows(family: str) -> None:
    """`max_tokens` goes by one name, never by two."""
    capabilities = lookup(family, None, "openai")
    body, _ = encode(spec(max_tokens=50), target(capabilities))

    names = {"max_tokens", "max_completion_tokens"} & body.keys()
    assert names == {capabilities.max_tokens_parameter}


def test_quirks() -> None:
    """A vendor's departures are data: what it drops, how it calls things, whether it counts."""
    quirks = Quirks(
        drops=("seed",), renames={"repetition_penalty": "repeat_penalty"}, stream_usage=False
    )
    body, notes = encode(spec(seed=1, repetition_penalty=1.5), target(quirks=quirks))

    assert "seed" not in body
    assert notes == {"seed": "dropped"}
    assert body["repeat_penalty"] == 1.5
    assert "stream_options" not in body


@pytest.mark.parametrize(
    ("switch", "wanted", "expected"),
    [
        ("thinking", {"mode": "enabled"}, {"thinking": {"type": "enabled"}}),
        ("thinking", {"mode": "disabled"}, {"thinking": {"type": "disabled"}}),
        ("enable_thinking", {"mode": "enabled"}, {"enable_thinking": True}),
        ("enable_thinking", {"mode": "disabled"}, {"enable_thinking": False}),
        ("none", {"mode": "enabled"}, {}),
    ],
)
def test_switches_of_reasoning(
    switch: Any, wanted: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Reasoning is switched by the parameter that the model's row names."""
    default: Any = "off" if wanted["mode"] == "enabled" else "on"
    able = Capabilities(
        thinking="effort", thinking_default=default, thinking_switch=switch, efforts=()
    )
    plain, _ = encode(spec(), target(able))
    body, _ = encode(spec(thinking=Thinking(**wanted)), target(able))

    assert body == plain | expected


@pytest.mark.parametrize("model", ["gpt-5.4", "gpt-5.5", "gpt-5.6-terra", "gpt-6.1-sol"])
def test_tools_come_with_effort_none(model: str) -> None:
    """Whatever the default of the model is: the API takes tools with no other effort."""
    to = target(lookup(model, None, "openai"))
    for asked in ({}, {"reasoning_effort": "none"}, {"reasoning_effort": "high"}):
        body, _ = encode(spec(tools=[FUNCTION], **asked), to)
        assert body["reasoning_effort"] == "none"
    assert "reasoning_effort" not in encode(spec(), to)[0]


def test_budgets() -> None:
    """A number of tokens to reason with is said where the model takes one."""
    for switch, expected in (
        ("reasoning_effort", {"thinking": {"type": "enabled", "budget_tokens": 2000}}),
        ("enable_thinking", {"enable_thinking": True, "thinking_budget": 2000}),
    ):
        able = Capabilities(thinking="budget", thinking_switch=switch)  # type: ignore[arg-type]
        body, _ = encode(spec(thinking=Thinking(budget_tokens=2000)), target(able))
        assert expected.items() <= body.items()


def test_roles() -> None:
    """The role `developer` is said as `system` to models that do not know it, with a note."""
    wanted = spec(messages=[message("a", role="developer")])
    body, notes = encode(wanted)
    kept, silent = encode(wanted, target(Capabilities(developer_role=True)))

    assert body["messages"][0]["role"] == "system"
    assert notes == {"messages": "mapped"}
    assert kept["messages"][0]["role"] == "developer"
    assert not silent


def test_pictures() -> None:
    """Pictures travel by URL or as data URLs; the text of a big one is not changed."""
    big = PNG + "A" * 100_000
    found = sent(
        message(
            "see",
            ImagePart(uri="https://a.example/b.png", detail="low"),
            ImagePart(base64=big, mime_type="image/jpeg"),
        )
    )

    assert found["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "https://a.example/b.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{big}"}},
    ]


def test_sound_and_documents() -> None:
    """Sound and documents have parts of their own."""
    found = sent(
        message(
            AudioPart(base64="AAAA", format="wav"),
            FilePart(file_id="file-1"),
            FilePart(uri="data:application/pdf;base64,AA==", filename="a"),
        )
    )

    assert found["content"] == [
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {
            "type": "file",
            "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a"},
        },
    ]


def test_a_turn_with_tools() -> None:
    """Calls and their results go back as they came, without the reasoning.

    A function without arguments has an empty object, as servers read JSON.
    """
    calls = [
        ToolCall(id="i", name="f", arguments='{"a":'),
        ToolCall(id="j", name="g", arguments="x", type="custom"),
        ToolCall(id="k", name="h"),
        ToolCall(id="l", name="g", type="custom"),
    ]
    reasoning = ReasoningPart(text="hm")
    turn = message(reasoning, role="assistant", tool_calls=calls)

    assert sent(turn) == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "i", "type": "function", "function": {"name": "f", "arguments": '{"a":'}},
            {"id": "j", "type": "custom", "custom": {"name": "g", "input": "x"}},
            {"id": "k", "type": "function", "function": {"name": "h", "arguments": "{}"}},
            {"id": "l", "type": "custom", "custom": {"name": "g", "input": ""}},
        ],
    }
    assert sent(message("r", role="tool", tool_call_id="i")) == {
        "role": "tool",
        "content": "r",
        "tool_call_id": "i",
    }


def test_earlier_reasoning_on_request() -> None:
    """A channel whose provider wants reasoning back names the field for it."""
    reasoning = ReasoningPart(text="hm")
    turn = message(reasoning, "a", role="assistant")
    to = target(quirks=Quirks(renames={"reasoning": "reasoning_content"}))

    assert sent(turn, to) == {"role": "assistant", "content": "a", "reasoning_content": "hm"}


def test_fields_of_earlier_answers() -> None:
    """Sound goes back by its ID; annotations do not go back."""
    extra = b'{"audio":{"id":"a","data":"AAAA"},"annotations":[1],"model":"x"}'
    found = sent(message(role="assistant", extra_json=extra, refusal="no"))

    assert found == {"role": "assistant", "content": None, "refusal": "no", "audio": {"id": "a"}}


def test_reasoning_of_another_dialect_is_left_out_with_a_note() -> None:
    """A sealed state cannot be opened by another provider."""
    state = reasoning_state.pack("anthropic", [])
    wanted = spec(messages=[message("a", role="assistant", reasoning_state=state)])
    body, notes = encode(wanted)

    assert body["messages"] == [{"role": "assistant", "content": "a"}]
    assert notes == {"messages": "dropped"}


FUNCTION = Tool(name="f", description="d", parameters_json=b'{"type":"object"}', strict=True)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (ToolChoice(mode="auto"), "auto"),
        (ToolChoice(mode="none"), "none"),
        (ToolChoice(mode="required"), "required"),
        (
            ToolChoice(mode="named", names=["f"]),
            {"type": "function", "function": {"name": "f"}},
        ),
        (
            ToolChoice(mode="named", names=["f"], type="custom"),
            {"type": "custom", "custom": {"name": "f"}},
        ),
        (
            ToolChoice(mode="required", names=["f"]),
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "f"}}],
                },
            },
        ),
    ],
)
def test_tools(choice: ToolChoice, expected: object) -> None:
    """Tools and their choice have OpenAI's form."""
    custom = Tool(name="g", type="custom", parameters_json=b'{"type":"text"}')
    body, _ = encode(spec(tools=[FUNCTION, custom], tool_choice=choice, parallel_tool_calls=False))

    assert body["tool_choice"] == expected
    assert body["parallel_tool_calls"] is False
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
    assert body["tools"] == [
        {"type": "function", "function": function},
        {"type": "custom", "custom": {"name": "g", "format": {"type": "text"}}},
    ]


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("auto", {"tools": "dropped"}),
        ("none", {"tools": "dropped"}),
        (
            "required",
            {"tools": "dropped", "tool_choice": "dropped"},
        ),
    ],
)
def test_tools_that_a_model_does_not_see(mode: ToolChoiceMode, told: dict[str, str]) -> None:
    """They are not sent, and there is a note; a strict request is refused."""
    wanted = spec(tools=[FUNCTION], tool_choice=ToolChoice(mode=mode))
    blind = target(Capabilities(rejects=frozenset({"tools"})))
    body, notes = encode(wanted, blind)

    assert (body.keys() & {"tools", "tool_choice"}, notes) == (set(), told)
    with pytest.raises(Failure) as refused:
        DIALECT.encode(wanted, blind, Notes(strict=True))
    assert refused.value.reason == ErrorReason.UNSUPPORTED_FEATURE


@pytest.mark.parametrize(
    ("capabilities", "wanted", "param"),
    [
        (Capabilities(n=False), {"n": 2}, "n"),
        (Capabilities(logprobs=False), {"logprobs": True}, "logprobs"),
        (Capabilities(tools=False), {"tools": [FUNCTION]}, "tools"),
        (
            Capabilities(forced_tool_choice=False),
            {
                "tools": [FUNCTION],
                "tool_choice": ToolChoice(mode="required"),
            },
            "tool_choice",
        ),
        (Capabilities(structured_output=False), PARAMETERS["json_schema"][0], "response_format"),
        (
            Capabilities(images="no"),
            {"messages": [message(ImagePart(uri="https://a/b"))]},
            "messages",
        ),
    ],
)
def test_what_programs_rely_on_is_refused(
    capabilities: Capabilities, wanted: dict[str, Any], param: str
) -> None:
    """What a model lacks and a program relies on is refused, never left out."""
    with pytest.raises(Failure) as refused:
        encode(spec(**wanted), target(capabilities))
    assert refused.value.reason == ErrorReason.UNSUPPORTED_FEATURE
    assert refused.value.param == param


@pytest.mark.parametrize(
    "wanted",
    [
        {"tools": [Tool(name="f", parameters_json=b'{},"model":"x"')]},
        {"tools": [Tool(name="f", parameters_json=b"{")]},
        {"extra_json": b"[1]"},
        {"extra_json": b'{"a":1}]'},
        {"extra_json": b'{"a":"\xff"}'},
        {"messages": [message("a", extra_json=b'"x"')]},
    ],
)
def test_free_json_cannot_break_out(wanted: dict[str, Any]) -> None:
    """What is put into the body as it is, is one JSON value and no more."""
    with pytest.raises(Failure) as refused:
        encode(spec(**wanted))
    assert refused.value.reason == ErrorReason.INVALID_FIELD


@pytest.mark.parametrize(
    ("pass_through", "passed"),
    [
        (True, {"a", "b"}),
        ("harmless", set()),
        (False, set()),
        (("a",), {"a"}),
        (("a", "model", "seed"), {"a"}),
        (("harmless", "a"), {"a"}),
    ],
)
def test_unknown_fields(pass_through: Any, passed: set[str]) -> None:
    """Fields that we do not know travel as the channel says; what stays leaves a note."""
    extra = b'{"a":{"x":[1.50]},"b":2,"c":null,"model":"other"}'
    body, notes = encode(spec(extra_json=extra), target(pass_through=pass_through))

    assert body.keys() & {"a", "b", "c"} == passed
    assert body["model"] == "upstream-name"
    assert notes.keys() == {"a", "b", "model"} - passed


def spellings(name: str) -> set[str]:
    """The spellings of a field's name that some server takes for the same."""
    words = [word for word in name.split("_") if word]
    camel = words[0] + "".join(word.title() for word in words[1:]) if words else name
    return {name, name.upper(), name.title(), name.replace("_", "-"), camel, camel.title()}


@pytest.mark.parametrize("name", sorted(NEVER))
def test_fields_that_never_travel(name: str) -> None:
    """What changes model, price, storage or route stays here, however it is spelt."""
    plain, _ = encode(spec())
    for spelling in spellings(name):
        for pass_through in ("harmless", True, (name, spelling)):
            if spelling in NAMED_ONLY and isinstance(pass_through, tuple):
                continue
            extra = json.dumps({spelling: "hostile"}).encode()
            body, notes = encode(spec(extra_json=extra), target(pass_through=pass_through))
            assert body == plain
            assert notes


@given(
    st.dictionaries(
        st.sampled_from([*sorted(NEVER), *ChatCompletionSpec.__struct_fields__])
        | st.text(max_size=8),
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
        max_size=6,
    )
)
def test_hostile_fields_change_nothing(extra: dict[str, object]) -> None:
    """Whatever fields are added, those that we set are what we set."""
    assume(UNSTREAMED.isdisjoint(extra))
    wanted = spec(max_tokens=50, temperature=0.5)
    plain, _ = encode(wanted)
    wanted = msgspec.structs.replace(wanted, extra_json=json.dumps(extra).encode())
    body, _ = encode(wanted)

    assert plain.items() <= body.items()
    body, _ = encode(wanted, target(pass_through=True))
    assert plain.items() <= body.items()
    added = body.keys() - plain.keys()
    assert all(extra[name] == body[name] for name in added)
    assert not {name.casefold() for name in added} & NEVER


def test_storage_and_searches_need_the_operators_word() -> None:
    """A channel to OpenAI itself names them, beside the table of harmless fields."""
    extra = {"store": True, "web_search_options": {"x": 1}, "stop_token_ids": [1], "secret": 2}
    wanted = spec(extra_json=json.dumps(extra).encode())
    for pass_through in ("harmless", True, ("harmless",)):
        body, notes = encode(wanted, target(pass_through=pass_through))
        assert body["stop_token_ids"] == [1]
        assert {"store", "web_search_options"} <= notes.keys() - body.keys()

    body, notes = encode(wanted, target(pass_through=("harmless", "store", "web_search_options")))
    assert (body["store"], body["web_search_options"]) == (True, {"x": 1})
    assert body["stop_token_ids"] == [1]
    assert notes == {"secret": "dropped"}


def test_tier_and_labels_need_the_operators_word() -> None:
    """What changes the price or is stored travels only where the channel names it."""
    wanted = spec(service_tier="flex", metadata={"a": "b"})
    held, notes = encode(wanted)
    body, silent = encode(wanted, target(pass_through=("service_tier", "metadata")))

    assert not {"service_tier", "metadata"} & held.keys()
    assert set(notes) == {"service_tier", "metadata"}
    assert (body["service_tier"], body["metadata"]) == ("flex", {"a": "b"})
    assert not silent


def test_answers_with_sound_are_not_streamed() -> None:
    """Providers encode sound in another way in streams."""
    wanted = spec(extra_json=b'{"modalities":["audio"],"audio":{"voice":"v"}}')
    body, _ = encode(wanted, target(pass_through=("modalities", "audio")))

    assert body["stream"] is False
    assert "stream_options" not in body


def test_keys_are_bearer_tokens() -> None:
    """Local servers need no key, and get no empty one."""
    assert DIALECT.auth_headers("k") == {"authorization": "Bearer k"}
    assert DIALECT.auth_headers("") == {}


@pytest.mark.parametrize(
    ("pass_through", "sent"),
    [
        ("harmless", {"include_obfuscation": False}),
        (True, {"include_obfuscation": False, "x": 1}),
        (False, {}),
        (("x",), {"x": 1}),
    ],
)
def test_unknown_members_of_stream_options(pass_through: Any, sent: dict[str, Any]) -> None:
    """They go with a stream as other members do. How usage is asked for stays ours."""
    extra = b'{"stream_options":{"include_obfuscation":false,"x":1,"include_usage":false}}'
    body, notes = encode(spec(extra_json=extra), target(pass_through=pass_through))
    assert body["stream_options"] == sent | {"include_usage": True}
    assert notes.keys() == {
        f"stream_options.{name}"
        for name in {"include_obfuscation", "x", "include_usage"} - sent.keys()
    }


def test_names_of_participants_are_left_out_where_they_are_refused() -> None:
    """Mistral takes names of tools alone. Others get all."""
    named = Message(role="user", name="bob", content=[TextPart(text="Hi")])
    called = ToolCall(id="abcdefghi", name="look")
    asked = Message(role="assistant", tool_calls=[called])
    answered = Message(
        role="tool", name="look", tool_call_id="abcdefghi", content=[TextPart(text="1")]
    )
    spec = ChatCompletionSpec(model="m", messages=[named, asked, answered])
    found = {}
    for model in ("mistral-large-2512", "gpt-4o"):
        notes = Notes()
        body = json.loads(DIALECT.encode(spec, target_of(model, "openai"), notes).body)
        found[model] = [each.get("name") for each in body["messages"]], told(notes)

    assert found == {
        "mistral-large-2512": ([None, None, "look"], {"messages": "dropped"}),
        "gpt-4o": (["bob", None, "look"], {}),
    }
