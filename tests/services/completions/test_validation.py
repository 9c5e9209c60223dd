"""Validation: ranges and forms of a request, one rule each."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from msgspec.structs import replace

from services.completions.validation import validate
from services.domain.conversation import ContentPart, ImagePart, Message, TextPart, ToolCall
from services.domain.error_reason import ErrorReason
from services.domain.plain_texts import PLAIN_PARAMETERS, plain_texts
from services.domain.spec import (
    ChatCompletionSpec,
    ParameterPolicy,
    ResponseFormat,
    Thinking,
    Tool,
    ToolChoice,
)
from services.errors import Failure


def spec(**fields: Any) -> ChatCompletionSpec:
    """Return a valid request with these fields."""
    return ChatCompletionSpec(**({"model": "m", "messages": [user("hello")]} | fields))


def user(text: str) -> Message:
    """Return a message of the user."""
    return Message(role="user", content=[TextPart(text=text)])


@pytest.mark.parametrize(
    ("field", "inside", "outside"),
    [
        ("max_tokens", [1, 2**31 - 1], [0, -1]),
        ("temperature", [0, 2], [-0.1, 2.1, float("nan"), float("inf")]),
        ("top_p", [0, 1], [-0.1, 1.1]),
        ("frequency_penalty", [-2, 2], [-2.1, 2.1]),
        ("presence_penalty", [-2, 2], [-2.1, 2.1]),
        ("n", [1, 128], [0, 129]),
        ("top_k", [0, 1000], [-1]),
        ("top_a", [0, 1], [-0.1, 1.1]),
        ("min_p", [0, 1], [-0.1, 1.1]),
        ("repetition_penalty", [0, 2], [-0.1, 2.1]),
        ("seed", [-(2**63), 2**63 - 1], []),
    ],
)
def test_numbers_have_ranges(field: str, inside: list[float], outside: list[float]) -> None:
    """The ends of a range are valid; values beyond are refused with the field's name."""
    for value in inside:
        validate(spec(**{field: value}))
    for value in outside:
        with pytest.raises(Failure) as refused:
            validate(spec(**{field: value}))
        assert refused.value.param == field
        assert refused.value.reason == ErrorReason.INVALID_FIELD


def test_a_valid_request_passes() -> None:
    """Without a failure."""
    validate(
        spec(stop=["a", "b"], logprobs=True, top_logprobs=20, thinking=Thinking(budget_tokens=1024))
    )


def message(**fields: Any) -> dict[str, Any]:
    """Return fields of a request whose only message differs in these from the user's."""
    return {"messages": [replace(user("hello"), **fields)]}


def parts(*more: ContentPart) -> dict[str, Any]:
    """Return fields of a request whose only message has a text and these parts."""
    return message(content=[TextPart(text="hello"), *more])


def called(*calls: ToolCall, role: Any = "assistant") -> dict[str, Any]:
    """Return fields of a request whose second message called these tools."""
    return {
        "messages": [
            user("hello"),
            Message(role=role, content=[TextPart(text="a")], tool_calls=[*calls]),
        ]
    }


PICTURE = ImagePart(base64="AAAA", mime_type="image/png")
BIG_PICTURE = ImagePart(base64="A" * 29_000_000)
TOOL = Tool(name="t")


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("model", {"model": ""}),
        ("model", {"model": "m" * 257}),
        ("messages", {"messages": []}),
        ("messages", {"messages": [user("x")] * 2001}),
        ("messages[0].role", message(role="")),
        ("messages[0].content", message(content=[])),
        ("messages[0].content", parts(*[PICTURE] * 256)),
        ("messages[0].content[1]", parts(ImagePart())),
        ("messages", parts(*[PICTURE] * 21)),
        ("messages", parts(BIG_PICTURE)),
        ("messages[0].tool_call_id", message(role="tool")),
        ("stop", {"stop": ["a"] * 65}),
        ("stop", {"stop": [""]}),
        ("top_logprobs", {"top_logprobs": 3}),
        ("logit_bias", {"logit_bias": {7: 101.0}}),
        ("user", {"user": "u" * 513}),
        ("prompt_cache_key", {"prompt_cache_key": "k" * 513}),
        ("metadata", {"metadata": {str(n): "" for n in range(17)}}),
        ("thinking.budget_tokens", {"thinking": Thinking(budget_tokens=1023)}),
        ("thinking.budget_tokens", {"thinking": Thinking(budget_tokens=32_001)}),
        ("tools[0].function.name", {"tools": [Tool(name="no spaces")]}),
        ("tools", {"tools": [TOOL] * 129}),
        ("tool_choice.mode", {"tool_choice": ToolChoice(mode="")}),
        ("tool_choice", {"tool_choice": ToolChoice(mode="named", names=["t"])}),
        ("tool_choice", {"tool_choice": ToolChoice(mode="named")}),
        ("tool_choice", {"tool_choice": ToolChoice(mode="required")}),
        ("tool_choice", {"tool_choice": ToolChoice(mode="auto", other_json=b'{"type":"a"}')}),
        ("response_format.type", {"response_format": ResponseFormat(type="")}),
        (
            "response_format.json_schema.name",
            {"response_format": ResponseFormat(type="json_schema")},
        ),
    ],
)
def test_a_failure_names_the_field(param: str, fields: dict[str, Any]) -> None:
    """Each rule refuses a request that breaks it."""
    with pytest.raises(Failure) as refused:
        validate(spec(**fields))

    assert refused.value.param == param
    name = param.rpartition(".")[2].partition("[")[0]
    assert name in refused.value.message  # All that most SDKs show of an error.


def with_words(word: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return requests with `word` in each field of a closed set, and the field's path."""
    call = ToolCall(id="c", name="t", type=word)
    return [
        ("messages[0].role", message(role=word)),
        ("messages[0].content[1].image_url.detail", parts(replace(PICTURE, detail=word))),
        ("messages[1].tool_calls[0].type", called(call)),
        ("messages[1].tool_calls[0].type", called(call, role="user")),
        ("tools[1].type", {"tools": [TOOL, Tool(name="u", type=word)]}),
        ("tool_choice.mode", {"tools": [TOOL], "tool_choice": ToolChoice(mode=word)}),
        (
            "tool_choice.type",
            {"tools": [TOOL], "tool_choice": ToolChoice(mode="named", names=["t"], type=word)},
        ),
        ("response_format.type", {"response_format": ResponseFormat(type=word)}),
        ("reasoning_effort", {"reasoning_effort": word}),
        ("verbosity", {"verbosity": word}),
        ("thinking.type", {"thinking": Thinking(mode=word)}),
        ("reasoning.summary", {"thinking": Thinking(summary=word)}),
    ]


@pytest.mark.parametrize("word", ["42", "HIGH", "unspecified"])
@pytest.mark.parametrize("row", range(len(with_words(""))))
def test_unknown_words_are_refused(word: str, row: int) -> None:
    """A word outside of its set is never guessed; over gRPC a new number arrives as its digits."""
    param, fields = with_words(word)[row]
    with pytest.raises(Failure) as refused:
        validate(spec(**fields))

    assert (refused.value.param, refused.value.reason) == (param, ErrorReason.INVALID_FIELD)


def test_an_unknown_policy_is_refused() -> None:
    """Strictness is not dropped unseen."""
    for policy in get_args(ParameterPolicy):
        validate(spec(), policy)
    with pytest.raises(Failure) as refused:
        validate(spec(), "9")  # type: ignore[arg-type]  # what a newer stub may send

    assert (refused.value.param, refused.value.reason) == (
        "parameter_policy",
        ErrorReason.INVALID_FIELD,
    )


def test_every_closed_set_has_a_row() -> None:
    """Each field of a spec whose type is a set of words is in the table."""
    structs = (ChatCompletionSpec, Message, ImagePart, ToolCall, Tool, ToolChoice, ResponseFormat)
    closed = [
        (struct, name)
        for struct in (*structs, Thinking)
        for name, hint in get_type_hints(struct).items()
        if any(get_origin(kind) is Literal for kind in (hint, *get_args(hint)))
    ]

    assert len(closed) == len({param for param, _ in with_words("")})


def test_an_assistant_message_may_have_only_tool_calls() -> None:
    """Other messages need content."""
    turn = Message(role="assistant", tool_calls=[ToolCall(id="call-1", name="clock")])

    validate(spec(messages=[user("hello"), turn]))


def test_tool_calls_need_id_and_name() -> None:
    """Both are required."""
    turn = Message(role="assistant", tool_calls=[ToolCall(id="call-1", name="")])

    with pytest.raises(Failure) as refused:
        validate(spec(messages=[user("hello"), turn]))

    assert refused.value.param == "messages[1].tool_calls[0]"


def test_words_of_one_provider() -> None:
    """An effort, a format or a tool is given once: in a word, or in the provider's form."""
    form = ResponseFormat(type="", other_json=b'{"type":"grammar"}')
    validate(
        spec(
            other_reasoning_effort="default",
            response_format=form,
            tools=[Tool(name="", other_json=b'{"type":"x"}')],
        )
    )
    for fields, param in (
        ({"other_reasoning_effort": "default", "reasoning_effort": "low"}, "reasoning_effort"),
        ({"other_reasoning_effort": "x" * 65}, "reasoning_effort"),
        ({"response_format": replace(form, type="text")}, "response_format"),
        ({"tools": [Tool(name="a", other_json=b'{"type":"x"}')]}, "tools[0].name"),
        (
            {"tools": [Tool(name="", description="d", other_json=b'{"type":"x"}')]},
            "tools[0]",
        ),
        (
            {"tools": [Tool(name="$", other_json=b'{"type":"x","name":"$"}')]},
            "tools[0].function.name",
        ),
        ({"response_format": replace(form, name="a")}, "response_format"),
        (
            {"response_format": ResponseFormat(type="json_object", schema_json=b"{}")},
            "response_format",
        ),
        ({"tools": [Tool(name="")]}, "tools[0].function.name"),
    ):
        with pytest.raises(Failure) as refused:
            validate(spec(**fields))
        assert refused.value.param == param


def test_a_sessions_id_is_bounded() -> None:
    """A stub may send any; that of a longer one names the field."""
    validate(spec(), session_id="s" * 255)
    with pytest.raises(Failure) as refused:
        validate(spec(), session_id="s" * 256)

    assert refused.value.param == "session_id"


@pytest.mark.parametrize(
    "fields",
    [
        {"model": ""},
        {"messages": []},
        {"messages": [user("a")] * 2001},
        {"stop": [""]},
        {"stop": ["a"] * 65},
        {"user": "u" * 513},
        *({name: value} for name in PLAIN_PARAMETERS[:7] for value in (-3, 2**40, float("nan"))),
        {"temperature": 1, "user": "u" * 512, "stop": ["a"]},
    ],
)
def test_plain_request_keeps_the_rules_of_all_requests(fields: dict[str, Any]) -> None:
    """The rules that are left out for plain requests cannot be broken by one."""
    request = spec(**fields)
    failures: list[tuple[ErrorReason, str] | None] = []
    for plain in (False, True):
        try:
            validate(request, plain=plain)
        except Failure as failure:
            failures.append((failure.reason, failure.param))
        else:
            failures.append(None)

    assert plain_texts(request) is not None
    assert failures[0] == failures[1]
