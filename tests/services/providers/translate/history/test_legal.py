"""Encoded conversations, for a model of each family of the capability table.

Checkers know the vendors' rules from their documents and error messages, and not from the table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capabilities import shipped_families
from services.domain.conversation import Message, ReasoningPart, TextPart, ToolCall
from services.domain.spec import ChatCompletionSpec, Tool
from services.providers.base import Notes
from services.providers.registry import DIALECTS
from tests.services.providers.targets import target_of

Json = dict[str, Any]

CHARACTERS = {"[": "5", "?": "1", "*": "x"}


def name_of(pattern: str) -> str:
    """Name that a pattern of the capability table matches."""
    return re.sub(r"\[[^]]*\]|[?*]", lambda found: CHARACTERS[found[0][0]], pattern)


RULED = [
    *("mistral-large-2512", "magistral-small", "gpt-4o", "gpt-5.6-terra", "sonar-pro"),
    *("gemma-3-27b-it", "qwen3.8-27b", "deepseek-v4-pro", "kimi-k2.6", "kimi-k3"),
    *("claude-sonnet-4-5", "claude-opus-4-8"),
]
"""Models of vendors with rules of their own."""

MODELS = sorted({name_of(pattern) for row in shipped_families() for pattern in row.match})

IDS = st.sampled_from(
    ["0", "a.b", "a_b", "call_1", "functions.look:0", "toolu_" + "7" * 50, "x" * 41, "abc123XYZ"]
)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """Conversation that OpenAI's API accepts, apart from its IDs. Each text occurs once."""
    texts = iter(range(999))

    def parts() -> list[Any]:
        return [TextPart(text=f"t{next(texts)}.")]

    found: list[Message] = []
    for kind in draw(st.lists(st.sampled_from("suuaacc"), min_size=1, max_size=8)):
        if kind == "s":
            found.append(Message(role="system", content=parts()))
        elif kind == "u":
            found.append(Message(role="user", content=parts()))
        else:
            thought = [ReasoningPart(text="hm")] if draw(st.booleans()) else []
            ids = draw(st.lists(IDS, min_size=1, max_size=3)) if kind == "c" else []
            calls = [
                ToolCall(id=call_id, name="look", arguments=f'{{"n":"t{next(texts)}."}}')
                for call_id in ids
            ]
            found.append(Message(role="assistant", content=[*thought, *parts()], tool_calls=calls))
            found += [Message(role="tool", tool_call_id=one, content=parts()) for one in ids]
    return [*found, Message(role="user", content=parts())] if found[-1].role != "tool" else found


def texts_in(value: object) -> list[str]:
    """Texts of the conversation, in order."""
    return re.findall(r"t\d+\.", json.dumps(value))


def answered(messages: list[Message]) -> list[tuple[str, str]]:
    """Text of each call and of the result that answers it, in the order of the results.

    Results of calls with one ID come in the order of the calls.
    """
    pairs: list[tuple[str, str]] = []
    waiting: list[ToolCall] = []
    for message in messages:
        if message.tool_calls:
            waiting = [*message.tool_calls]
        if message.role == "tool":
            call = next(one for one in waiting if one.id == message.tool_call_id)
            waiting.remove(call)
            pairs.append((texts_in(call.arguments)[0], texts_in(str(message.content))[0]))
    return pairs


def openai_pairs(body: Json) -> Iterator[tuple[str, str]]:
    """Pairs of calls and results as the provider understands them."""
    calls: list[Json] = []
    for message in body["messages"]:
        calls = message.get("tool_calls", calls)
        if message["role"] == "tool":
            call = next(one for one in calls if one["id"] == message["tool_call_id"])
            calls = [one for one in calls if one is not call]
            yield texts_in(call)[0], texts_in(message)[0]


def anthropic_pairs(body: Json) -> Iterator[tuple[str, str]]:
    """Pairs of calls and results: the latter follow in the next turn, and there are no others."""
    turns = body["messages"]
    for turn, following in zip(turns, [*turns[1:], {"content": []}], strict=True):
        uses = {one["id"]: one for one in turn["content"] if one["type"] == "tool_use"}
        results = [one for one in following["content"] if one["type"] == "tool_result"]
        assert sorted(uses) == sorted(one["tool_use_id"] for one in results)
        assert following["content"][: len(results)] == results
        for one in results:
            yield texts_in(uses[one["tool_use_id"]])[0], texts_in(one)[0]


def responses_pairs(body: Json) -> Iterator[tuple[str, str]]:
    """Pairs of calls and results among the items of OpenAI's Responses."""
    calls: list[Json] = []
    for before, item in pairwise([{}, *body["input"]]):
        if item["type"] == "function_call":
            calls = [*calls, item] if before.get("type") == item["type"] else [item]
        if item["type"] == "function_call_output":
            call = next(one for one in calls if one["call_id"] == item["call_id"])
            calls = [one for one in calls if one is not call]
            yield texts_in(call)[0], texts_in(item)[0]


def check_anthropic(body: Json) -> None:
    """Check the rules of the Messages API."""
    turns = body["messages"]
    ids = [one["id"] for turn in turns for one in turn["content"] if one["type"] == "tool_use"]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", one) for one in ids)
    assert turns[0]["role"] == "user"
    for turn, following in pairwise(turns):
        assert turn["role"] != following["role"]
        assert following["role"] != "system" or turn["role"] == "user"


def check_mistral(messages: list[Json]) -> None:
    """Check the rules of Mistral's API."""
    ids = [call["id"] for message in messages for call in message.get("tool_calls", [])]
    assert all(re.fullmatch(r"[a-zA-Z0-9]{9}", one) for one in ids)
    roles = [message["role"] for message in messages]
    for before, after in pairwise(roles):
        assert (before, after) not in {
            ("assistant", "system"),
            ("tool", "system"),
            ("tool", "user"),
        }


def check_alternation(messages: list[Json]) -> None:
    """Check the rules of Perplexity's API and of Gemma's chat template."""
    roles = [message["role"] for message in messages]
    rest = roles[next(index for index, role in enumerate(roles) if role != "system") :]
    assert rest[0] == "user"
    assert "system" not in rest
    pairs = pairwise(rest)
    assert all(one != two or one == "tool" for one, two in pairs)


def check_openai_dialects(model: str, body: Json) -> None:
    """Check the rules of vendors with an OpenAI-compatible API."""
    model = model.replace(".", "-")
    messages = body["messages"]
    roles = [message["role"] for message in messages]
    if re.match(r"(mistral|ministral|codestral|devstral|pixtral|magistral|mixtral)-", model):
        check_mistral(messages)
    if re.match(r"(gpt-[3-9]|o[134]|chatgpt)", model):
        ids = [call["id"] for message in messages for call in message.get("tool_calls", [])]
        assert all(len(one) <= 40 for one in ids)
    if re.match(r"sonar|gemma-?[23]", model):
        check_alternation(messages)
    if re.match(r"qwen3-[5-9]-", model):
        assert "system" not in roles[1:]
    if re.match(r"deepseek-(v4|reasoner)|kimi-k(2-[5-9]|2-thinking|3)", model):
        off = body.get("thinking") == {"type": "disabled"}
        off = off or body.get("reasoning") == {"enabled": False}
        callers = [message for message in messages if message.get("tool_calls")]
        assert off or all({"reasoning_content", "reasoning"} & one.keys() for one in callers)


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
@given(st.sampled_from(RULED) | st.sampled_from(MODELS), conversations())
def test_conversations_are_legal_and_complete(
    dialect: str, model: str, messages: list[Message]
) -> None:
    """Each text is sent once, each result refers to its call, and the vendor's rules hold."""
    notes = Notes()
    target = target_of(model, dialect)
    tools = [Tool(name="look")] if target.capabilities.tools else []
    spec = ChatCompletionSpec(model="m", messages=messages, tools=tools)
    body = json.loads(DIALECTS[dialect].encode(spec, target, notes).body)

    sent = [*body.get("system", []), *body.get("messages", []), *body.get("input", [])]
    assert sorted(texts_in(sent)) == sorted(
        texts_in([str(one.content) + str(one.tool_calls) for one in messages])
    )
    if dialect == "anthropic":
        assert list(anthropic_pairs(body)) == answered(messages)
        check_anthropic(body)
    elif dialect == "openai-responses":
        assert list(responses_pairs(body)) == answered(messages)
    else:
        assert list(openai_pairs(body)) == answered(messages)
        check_openai_dialects(model, body)


@pytest.mark.parametrize("model", ["some-model", "llama-3.3-70b-instruct"])
def test_unknown_models_get_the_conversation_as_it_is(model: str) -> None:
    """Message for message, and ID for ID."""
    messages = [
        Message(role="assistant", content=[TextPart(text="a")]),
        Message(role="system", content=[TextPart(text="b")]),
        Message(role="assistant", tool_calls=[ToolCall(id="x" * 99, name="f", arguments="{}")]),
        Message(role="tool", tool_call_id="x" * 99, content=[TextPart(text="c")]),
        Message(role="user", content=[TextPart(text="d")]),
    ]
    notes = Notes(strict=True)
    spec = ChatCompletionSpec(model="m", messages=messages)
    body = json.loads(DIALECTS["openai"].encode(spec, target_of(model, "openai"), notes).body)
    assert [message["role"] for message in body["messages"]] == [one.role for one in messages]
    assert body["messages"][3]["tool_call_id"] == "x" * 99
    assert not notes.all
