"""Reasoning of earlier turns: sent back, or the model does not reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.config import Quirks
from services.domain.conversation import Message, ReasoningPart, TextPart
from services.domain.spec import ChatCompletionSpec, Thinking, Tool, ToolChoice
from services.errors import Failure
from services.providers.base import Notes
from services.providers.registry import DIALECTS
from services.providers.translate.reasoning_state import Thought, pack
from tests.services.providers.anthropic.specs import assistant, call, result, user
from tests.services.providers.targets import target_of, told

DETAILS = json.dumps([{"type": "reasoning.text", "text": "hm"}]).encode()
OFF = {"thinking": {"type": "disabled"}}


def thought(text: str, **fields: Any) -> Message:
    """Message of an assistant that has reasoned."""
    return Message(
        role="assistant", content=[ReasoningPart(text="hm"), TextPart(text=text)], **fields
    )


def loop(caller: Message) -> list[Message]:
    """Conversation that ends with the result of a call of `caller`."""
    return [user("x"), assistant("a"), user("y"), caller, result("c", "r")]


CALLS: dict[str, Any] = {"tool_calls": [call("c")]}
FORGETFUL = loop(assistant(**CALLS))
WHOLE = loop(thought("", **CALLS))


def encode(
    model: str,
    messages: list[Message],
    dialect: str = "openai",
    *,
    strict: bool = False,
    quirks: Quirks | None = None,
    **fields: Any,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the body, and the notes."""
    notes = Notes(strict=strict)
    spec = ChatCompletionSpec(model="m", messages=messages, **fields)
    request = DIALECTS[dialect].encode(spec, target_of(model, dialect, quirks=quirks), notes)
    return json.loads(request.body), told(notes)


@pytest.mark.parametrize(
    ("dialect", "model", "field"),
    [
        ("openai", "deepseek-v4-pro", "reasoning_content"),
        ("openai", "deepseek-v3.2", "reasoning_content"),
        ("openai", "kimi-k2.6", "reasoning_content"),
        ("openai", "kimi-k3", "reasoning_content"),
        ("openai", "glm-5.2", "reasoning_content"),
        ("openrouter", "deepseek/deepseek-v4-pro", "reasoning"),
        ("openrouter", "moonshotai/kimi-k2.6", "reasoning"),
        ("openrouter", "qwen/qwen3.8-flash", "reasoning"),
        ("openrouter", "some/model", "reasoning"),
    ],
)
def test_text_goes_back(dialect: str, model: str, field: str) -> None:
    """In the provider's field, without a note, and reasoning goes on."""
    body, notes = encode(model, WHOLE, dialect)
    assert body["messages"][3][field] == "hm"
    assert not {"thinking", "reasoning"} & body.keys()
    assert not notes


def test_details_go_back_alone() -> None:
    """The text beside them is the same once more."""
    turn = thought("", reasoning_details_json=DETAILS, **CALLS)
    body, notes = encode("deepseek/deepseek-v4-pro", loop(turn), "openrouter")
    assert body["messages"][3]["reasoning_details"] == json.loads(DETAILS)
    assert "reasoning" not in body["messages"][3]
    assert not notes


@pytest.mark.parametrize(
    ("dialect", "model"),
    [("openai", "gpt-4o"), ("openai", "some-model"), ("anthropic", "claude-sonnet-4-5")],
)
def test_text_that_the_provider_does_not_take(dialect: str, model: str) -> None:
    """It is left out with a note. Clients may send answers back as they came, also strictly."""
    talk = [user("x"), thought("a"), user("y")]
    body, notes = encode(model, talk, dialect, strict=True)
    assert "hm" not in json.dumps(body)
    assert notes == {"reasoning_content": "mapped"}


def test_a_channel_names_the_field() -> None:
    """A quirk sends reasoning to a model of which nothing is known, or by another name."""
    quirks = Quirks(renames={"reasoning": "thoughts"})
    for model in ("some-model", "deepseek-v4-pro"):
        body, notes = encode(model, WHOLE, quirks=quirks)
        assert body["messages"][3]["thoughts"] == "hm"
        assert not notes


@pytest.mark.parametrize(
    ("dialect", "model", "off"),
    [
        ("openai", "deepseek-v4-pro", OFF),
        ("openai", "kimi-k2.5", OFF),
        ("openai", "kimi-k2.6", OFF),
        ("openrouter", "deepseek/deepseek-v4-flash", {"reasoning": {"enabled": False}}),
        ("openrouter", "moonshotai/kimi-k2.6", {"reasoning": {"enabled": False}}),
        ("anthropic", "kimi-k2.6", OFF),
    ],
)
def test_forgotten_reasoning_switches_it_off(dialect: str, model: str, off: dict[str, Any]) -> None:
    """Wherever the call stands. There is a note; a strict request is refused."""
    body, notes = encode(model, FORGETFUL, dialect)
    assert off.items() <= body.items()
    assert notes["thinking"] == "dropped"
    with pytest.raises(Failure) as refused:
        encode(model, FORGETFUL, dialect, strict=True)
    assert refused.value.param == "thinking"
    body, notes = encode(model, [*FORGETFUL, assistant("b"), user("z")], dialect)
    assert off.items() <= body.items()

    asked: dict[str, Any] = {"reasoning_effort": "high"}
    body, notes = encode(model, FORGETFUL, dialect, **asked)
    assert off.items() <= body.items()
    assert notes["reasoning_effort"] == "dropped"
    body, notes = encode(model, FORGETFUL, dialect, strict=True, reasoning_effort="none")
    assert off.items() <= body.items()
    assert "thinking" not in notes


def test_models_that_are_off_stay_off() -> None:
    """Nothing is said where the request does not ask for reasoning."""
    assert encode("deepseek-v3.2", FORGETFUL)[1] == {}
    body, notes = encode("deepseek-v3.2", FORGETFUL, thinking=Thinking(mode="enabled"))
    assert ("thinking" in body, notes) == (False, {"thinking": "dropped"})


@pytest.mark.parametrize("empty", [ReasoningPart(text=""), TextPart(text="b")])
@pytest.mark.parametrize("model", ["deepseek-v4-pro", "kimi-k2.6"])
def test_empty_reasoning_is_reasoning(model: str, empty: ReasoningPart | TextPart) -> None:
    """Models may call a tool without a thought. Turns without calls get the field, too."""
    caller = Message(role="assistant", content=[ReasoningPart(text=""), TextPart(text="")], **CALLS)
    talk = [*loop(caller), Message(role="assistant", content=[empty]), user("z")]
    body, notes = encode(model, talk, strict=True)
    said = [message for message in body["messages"] if message["role"] == "assistant"]
    assert [message["reasoning_content"] for message in said] == ["", "", ""]
    assert "thinking" not in body
    assert not notes
    body, _ = encode(model, [user("x"), assistant("a"), user("y")])
    assert "reasoning_content" not in body["messages"][1]


@pytest.mark.parametrize("model", ["kimi-k3", "kimi-k2-thinking", "kimi-k2.7-code"])
def test_models_that_always_reason_get_an_empty_text(model: str) -> None:
    """They cannot be switched off, and refuse a call without the field."""
    body, notes = encode(model, FORGETFUL, strict=True)
    said = [message for message in body["messages"] if message["role"] == "assistant"]
    assert [message["reasoning_content"] for message in said] == ["", ""]
    assert notes == {"reasoning_content": "mapped"}


@pytest.mark.parametrize("dialect", ["anthropic", "openrouter"])
@pytest.mark.parametrize("model", ["claude-sonnet-4.5", "claude-opus-4.6"])
def test_budgets_of_claude_need_signed_reasoning(dialect: str, model: str) -> None:
    """Of the turn that made the last calls, and only where a number of tokens is sent."""
    budget: dict[str, Any] = {"thinking": Thinking(budget_tokens=2000), "max_tokens": 4000}
    model = model.replace(".", "-") if dialect == "anthropic" else f"anthropic/{model}"
    state = pack("anthropic", [Thought(text="hm", signature="s")])
    signed = [{"type": "reasoning.text", "signature": "s", "format": "anthropic-claude-v1"}]
    field: dict[str, Any] = (
        {"reasoning_state": state}
        if dialect == "anthropic"
        else {"reasoning_details_json": json.dumps(signed).encode()}
    )
    sealed = assistant(**CALLS, **field)
    for talk, reasons in (
        (FORGETFUL, False),
        (loop(sealed), True),
        ([user("x"), sealed, result("c"), assistant(**CALLS), result("c")], False),
        ([user("x"), assistant(**CALLS), result("c"), sealed, result("c")], True),
        ([user("x"), sealed, assistant(tool_calls=[call("d")]), result("d")], True),
        ([user("x"), assistant(**CALLS), result("c"), assistant("a"), user("y")], True),
        ([user("x"), assistant(**CALLS), result("c"), user("y")], False),
    ):
        body, notes = encode(model, talk, dialect, **budget)
        assert ("2000" in json.dumps(body)) is reasons
        assert ("thinking" in notes) is not reasons


@pytest.mark.parametrize("model", ["deepseek-v4-pro", "kimi-k2.6"])
def test_forced_calls_switch_reasoning_off(model: str) -> None:
    """Both vendors refuse them while the model reasons."""
    forced: dict[str, Any] = {
        "tools": [Tool(name="look")],
        "tool_choice": ToolChoice(mode="required"),
    }
    body, notes = encode(model, [user("x")], strict=True, **forced)
    assert body["thinking"] == {"type": "disabled"}
    assert body["tool_choice"] == "required"
    assert notes == {"thinking": "mapped"}
