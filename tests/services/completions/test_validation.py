"""Validation: ranges and forms of a request, one rule each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import content_pb2 as content

from services.completions.validation import validate
from services.domain.error_reason import ErrorReason
from services.errors import Failure


def spec(**fields: object) -> pb.ChatCompletionSpec:
    """Return a valid request with these fields."""
    asked = pb.ChatCompletionSpec(model="m", messages=[user("hello")])
    asked.MergeFrom(pb.ChatCompletionSpec(**fields))  # type: ignore[arg-type]
    return asked


def user(text: str) -> content.Message:
    """Return a message of the user."""
    return content.Message(role=content.ROLE_USER, content=[content.ContentPart(text=text)])


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
        spec(stop=["a", "b"], logprobs=True, top_logprobs=20, thinking={"budget_tokens": 1024})
    )


def mutated(change: Callable[[pb.ChatCompletionSpec], object]) -> pb.ChatCompletionSpec:
    """Return a valid request after `change`."""
    asked = spec()
    change(asked)
    return asked


PICTURE = content.ContentPart(image=content.Image(base64="AAAA", mime_type="image/png"))
BIG_PICTURE = content.ContentPart(image=content.Image(base64="A" * 29_000_000))
NAMED = pb.TOOL_CHOICE_MODE_NAMED
SCHEMA = pb.RESPONSE_FORMAT_TYPE_JSON_SCHEMA


@pytest.mark.parametrize(
    ("param", "change"),
    [
        ("model", lambda s: s.ClearField("model")),
        ("model", lambda s: setattr(s, "model", "m" * 257)),
        ("messages", lambda s: s.ClearField("messages")),
        ("messages", lambda s: s.messages.extend([user("x")] * 2000)),
        ("messages[0].role", lambda s: s.messages[0].ClearField("role")),
        ("messages[0].content", lambda s: s.messages[0].ClearField("content")),
        ("messages[0].content", lambda s: s.messages[0].content.extend([PICTURE] * 256)),
        ("messages[0].content[1]", lambda s: s.messages[0].content.add()),
        ("messages[0].content[1]", lambda s: s.messages[0].content.add().image.SetInParent()),
        ("messages", lambda s: s.messages[0].content.extend([PICTURE] * 21)),
        ("messages", lambda s: s.messages[0].content.append(BIG_PICTURE)),
        ("messages[0].tool_call_id", lambda s: setattr(s.messages[0], "role", content.ROLE_TOOL)),
        ("stop", lambda s: s.stop.extend("abcde")),
        ("stop", lambda s: s.stop.append("")),
        ("top_logprobs", lambda s: setattr(s, "top_logprobs", 3)),
        ("logit_bias", lambda s: s.logit_bias.update({7: 101.0})),
        ("user", lambda s: setattr(s, "user", "u" * 513)),
        ("metadata", lambda s: s.metadata.update({str(n): "" for n in range(17)})),
        ("thinking.budget_tokens", lambda s: setattr(s.thinking, "budget_tokens", 1023)),
        ("thinking.budget_tokens", lambda s: setattr(s.thinking, "budget_tokens", 32_001)),
        ("tools[0].function.name", lambda s: s.tools.add(name="no spaces")),
        ("tools", lambda s: s.tools.extend([pb.Tool(name="t")] * 129)),
        ("tool_choice", lambda s: s.tool_choice.SetInParent()),
        ("tool_choice", lambda s: s.tool_choice.MergeFrom(pb.ToolChoice(mode=NAMED, names=["t"]))),
        ("tool_choice", lambda s: setattr(s.tool_choice, "mode", NAMED)),
        ("tool_choice", lambda s: setattr(s.tool_choice, "mode", pb.TOOL_CHOICE_MODE_REQUIRED)),
        ("response_format.type", lambda s: s.response_format.SetInParent()),
        ("response_format.json_schema.name", lambda s: setattr(s.response_format, "type", SCHEMA)),
    ],
)
def test_a_failure_names_the_field(
    param: str, change: Callable[[pb.ChatCompletionSpec], object]
) -> None:
    """Each rule refuses a request that breaks it."""
    with pytest.raises(Failure) as refused:
        validate(mutated(change))

    assert refused.value.param == param


def test_an_assistant_message_may_have_only_tool_calls() -> None:
    """Other messages need content."""
    asked = spec()
    turn = asked.messages.add(role=content.ROLE_ASSISTANT)
    turn.tool_calls.add(id="call-1", name="clock")

    validate(asked)


def test_tool_calls_need_id_and_name() -> None:
    """Both are required."""
    asked = spec()
    asked.messages.add(role=content.ROLE_ASSISTANT).tool_calls.add(id="call-1")

    with pytest.raises(Failure) as refused:
        validate(asked)

    assert refused.value.param == "messages[1].tool_calls[0]"
