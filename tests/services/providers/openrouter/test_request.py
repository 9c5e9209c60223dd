"""Requests to OpenRouter: what they have beyond OpenAI's."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from services.capabilities import Capabilities, lookup
from services.config import ChannelConfig
from services.domain.conversation import Message, TextPart, ToolCall
from services.domain.error_reason import ErrorReason
from services.domain.spec import ChatCompletionSpec, Thinking, Tool
from services.errors import Failure
from services.providers.base import Notes, Target
from services.providers.openrouter import DIALECT
from services.providers.translate import reasoning_state

DETAILS: list[dict[str, object]] = [
    {"type": "reasoning.text", "text": "hm", "signature": "s", "format": None, "index": 0}
]


def target(capabilities: Capabilities | None = None) -> Target:
    """A channel of this dialect."""
    return Target(
        channel=ChannelConfig(name="c", dialect="openrouter"),
        model="vendor/upstream",
        public_model="vendor/public",
        capabilities=capabilities or lookup("vendor/upstream", None, "openrouter"),
    )


def encode(to: Target | None = None, **fields: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The body, and the parameters about which there are notes."""
    notes = Notes()
    hello = Message(role="user", content=[TextPart(text="hello")])
    spec = ChatCompletionSpec(**({"model": "m", "messages": [hello]} | fields))
    body: dict[str, Any] = json.loads(DIALECT.encode(spec, to or target(), notes).body)
    return body, {note.param: note.action for note in notes.all}


def test_asks_for_a_stream_with_its_price() -> None:
    """A plain request says nothing but what is needed, and asks for usage."""
    body, notes = encode()

    assert body == {
        "model": "vendor/upstream",
        "messages": [{"role": "user", "content": "hello"}],
        "usage": {"include": True},
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert not notes


def test_all_sampling_parameters() -> None:
    """OpenRouter takes every one of the contract."""
    wanted: dict[str, Any] = {
        "top_k": 5,
        "top_a": 0.25,
        "min_p": 0.5,
        "repetition_penalty": 1.5,
        "seed": 1,
    }
    body, notes = encode(**wanted)

    assert wanted.items() <= body.items()
    assert not notes


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"reasoning_effort": "high"}, {"effort": "high"}),
        ({"reasoning_effort": "none"}, {"enabled": False}),
        ({"thinking": Thinking(budget_tokens=2000)}, {"max_tokens": 2000}),
        ({"thinking": Thinking(mode="disabled")}, {"enabled": False}),
        ({"thinking": Thinking(excluded=True)}, {"exclude": True}),
        (
            {"thinking": Thinking(budget_tokens=2000, excluded=True)},
            {"max_tokens": 2000, "exclude": True},
        ),
    ],
)
def test_reasoning(wanted: dict[str, Any], expected: dict[str, Any]) -> None:
    """Reasoning is one object, and never `reasoning_effort` beside it."""
    body, _ = encode(**wanted)

    assert body["reasoning"] == expected
    assert not {"reasoning_effort", "thinking"} & body.keys()


def test_adaptive_models_are_switched_on() -> None:
    """A model that has no levels is just told to reason."""
    able = Capabilities(thinking="effort", efforts=())
    body, _ = encode(target(able), thinking=Thinking(mode="enabled"))

    assert body["reasoning"] == {"enabled": True}


def test_reasoning_comes_back_unchanged() -> None:
    """Details go back as they came, from the sealed state or as the caller sent them."""
    raw = msgspec.json.encode(DETAILS)
    state = reasoning_state.pack("openrouter", [reasoning_state.Details(msgspec.Raw(raw))])
    for fields in ({"reasoning_state": state}, {"reasoning_details_json": raw}):
        turn = Message(role="assistant", **fields)
        body, notes = encode(messages=[turn])
        assert body["messages"][0]["reasoning_details"] == DETAILS
        assert not notes


def test_details_have_to_be_json() -> None:
    """What callers send as details cannot break out of its place."""
    turn = Message(role="assistant", reasoning_details_json=b'[],"model":"x"')

    with pytest.raises(Failure) as refused:
        encode(messages=[turn])
    assert refused.value.reason == ErrorReason.INVALID_FIELD


def test_cache_marks() -> None:
    """Marks of what should be cached are passed on."""
    part = TextPart(text="long", cache_control_json=b'{"type":"ephemeral"}')
    body, notes = encode(messages=[Message(role="system", content=[part])])

    marked = {"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}}
    assert body["messages"] == [{"role": "system", "content": [marked]}]
    assert not notes


def test_cache_marks_of_messages_tools_and_requests() -> None:
    """A message's mark is on its last part. Calls have no form for one."""
    mark = b'{"type":"ephemeral"}'
    marked = {"cache_control": {"type": "ephemeral"}}
    call = ToolCall(id="c", name="f", cache_control_json=mark)
    body, notes = encode(
        messages=[
            Message(role="user", content=[TextPart(text="a")], cache_control_json=mark),
            Message(role="assistant", tool_calls=[call]),
            Message(
                role="tool",
                tool_call_id="c",
                content=[TextPart(text="r")],
                cache_control_json=mark,
            ),
        ],
        tools=[Tool(name="f", cache_control_json=mark)],
        cache_control_json=mark,
    )
    asked, called, answered = body["messages"]

    assert asked["content"] == [{"type": "text", "text": "a"} | marked]
    assert "cache_control" not in called["tool_calls"][0]
    assert answered["content"] == [{"type": "text", "text": "r"} | marked]
    assert body["tools"] == [{"type": "function", "function": {"name": "f"}} | marked]
    assert body["cache_control"] == marked["cache_control"]
    assert notes == {"cache_control": "dropped"}


def test_routes_are_not_for_callers() -> None:
    """Callers can choose neither other models nor other providers."""
    hostile = {"models": ["x"], "route": "fallback", "provider": {}, "plugins": [], "usage": {}}
    plain, _ = encode()
    body, notes = encode(extra_json=json.dumps(hostile | {"transforms": ["y"]}).encode())

    assert body == plain
    assert notes.keys() == {*hostile, "transforms"}


@pytest.mark.parametrize("details", [DETAILS, []])
def test_models_that_want_their_reasoning_back(details: list[dict[str, object]]) -> None:
    """After calls of a budget model, reasoning goes on only if what it thought comes back."""
    call = ToolCall(id="call_1", name="clock", arguments="{}")
    sealed = msgspec.json.encode(details) if details else b""
    asked = Message(role="assistant", tool_calls=[call], reasoning_details_json=sealed)
    said = Message(role="tool", tool_call_id="call_1", content=[TextPart(text="noon")])
    hello = Message(role="user", content=[TextPart(text="hello")])

    body, notes = encode(
        target(Capabilities(thinking="budget", reasoning_replay="signed")),
        messages=[hello, asked, said],
        thinking=Thinking(budget_tokens=2000),
        max_tokens=4000,
    )

    assert ("reasoning" in body) == bool(details)
    assert notes == ({} if details else {"thinking": "dropped"})
