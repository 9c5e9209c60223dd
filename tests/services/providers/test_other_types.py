"""Parts, tools, formats and efforts of types that the contract does not know, in each dialect."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from services.config import Quirks
from services.domain.conversation import Message, OtherPart, TextPart
from services.domain.error_reason import ErrorReason
from services.domain.spec import ChatCompletionSpec, ResponseFormat, Thinking, Tool, ToolChoice
from services.errors import Failure
from services.providers.base import Notes
from services.providers.registry import DIALECTS
from tests.services.providers.planted_specs import MODELS
from tests.services.providers.targets import target_of, told

COMPATIBLE = ["openai", "openrouter"]
VIDEO = {"type": "video_url", "video_url": {"url": "https://a.example/v.mp4"}}
GRAMMAR = {"type": "grammar", "grammar": "root ::= x"}
SEARCHES: dict[str, dict[str, Any]] = {
    "anthropic": {"type": "web_search_20250305", "name": "web_search", "max_uses": 5},
    "openrouter": {"type": "openrouter:web_search", "parameters": {"max_results": 3}},
    "nobody": {"type": "live_search", "sources": ["x"]},
}
MARK = b'{"type":"ephemeral"}'


def encode(
    dialect: str,
    pass_through: Any = "harmless",
    *,
    strict: bool = False,
    pays: bool = False,
    **fields: Any,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the body, and the notes."""
    notes = Notes(strict=strict)
    messages = [Message(role="user", content=[TextPart(text="a")])]
    spec = ChatCompletionSpec(**({"model": "m", "messages": messages} | fields))
    target = target_of(MODELS[dialect], dialect)
    channel = msgspec.structs.replace(target.channel, pass_through=pass_through)
    target = replace(target, channel=channel, sends_provider_tools=not pays)
    body = DIALECTS[dialect].encode(spec, target, notes).body
    return json.loads(body), told(notes)


def refused(dialect: str, **fields: Any) -> Failure:
    """Return the refusal."""
    with pytest.raises(Failure) as found:
        encode(dialect, **fields)
    return found.value


def user(*content: Any) -> list[Message]:
    """Return a conversation of one message."""
    return [Message(role="user", content=list(content))]


def other(value: object, **fields: Any) -> OtherPart:
    """Return a part of another type."""
    return OtherPart(json=json.dumps(value).encode(), **fields)


def tool(value: object, **fields: Any) -> Tool:
    """Return a tool of another type."""
    return Tool(**({"name": "", "other_json": json.dumps(value).encode()} | fields))


@pytest.mark.parametrize("dialect", COMPATIBLE)
def test_parts_reach_compatible_channels(dialect: str) -> None:
    """As they are, in their place."""
    body, notes = encode(dialect, messages=user(TextPart(text="a"), other(VIDEO)))

    assert body["messages"][0]["content"] == [{"type": "text", "text": "a"}, VIDEO]
    assert not notes


def test_parts_are_refused_where_they_have_no_form() -> None:
    """A part is never left out. Blocks of the dialect itself go as they are."""
    error = refused("anthropic", messages=user(other(VIDEO)))
    assert (error.reason, error.param) == (ErrorReason.UNSUPPORTED_FEATURE, "messages")

    block: dict[str, Any] = {"type": "document", "source": {"type": "text", "data": "a"}}
    body, _ = encode("anthropic", messages=user(other(block, cache_control_json=MARK)))
    marked = block | {"cache_control": {"type": "ephemeral"}}
    assert body["messages"][0]["content"] == [marked]


@pytest.mark.parametrize("dialect", COMPATIBLE)
def test_formats_reach_compatible_channels(dialect: str) -> None:
    """As they are."""
    form = ResponseFormat(type="", other_json=json.dumps(GRAMMAR).encode())
    body, notes = encode(dialect, response_format=form)

    assert (body["response_format"], notes) == (GRAMMAR, {})
    assert refused("anthropic", response_format=form).param == "response_format"


def test_efforts_reach_compatible_channels() -> None:
    """In the provider's word; a model that does not reason has none."""
    assert encode("openai", other_reasoning_effort="default") == (
        encode("openai")[0] | {"reasoning_effort": "default"},
        {},
    )
    body, _ = encode("openrouter", other_reasoning_effort="default")
    assert body["reasoning"] == {"effort": "default"}
    assert refused("anthropic", other_reasoning_effort="x").param == "reasoning_effort"

    spec = ChatCompletionSpec(
        model="m", messages=user(TextPart(text="a")), other_reasoning_effort="default"
    )
    for target in (
        target_of("gpt-4o", "openai"),
        target_of("m", "openai", quirks=Quirks(drops=("reasoning_effort",))),
    ):
        notes = Notes()
        sent = json.loads(DIALECTS["openai"].encode(spec, target, notes).body)
        assert "reasoning_effort" not in sent
        assert told(notes) == {"reasoning_effort": "dropped"}


@pytest.mark.parametrize("dialect", sorted(MODELS))
@pytest.mark.parametrize("owner", SEARCHES)
def test_tools_go_to_the_dialect_that_knows_them(dialect: str, owner: str) -> None:
    """Others leave them out with a note, and number those that follow from their own place."""
    follower = Tool(name="f", extra_json=b'{"x":1}')
    body, notes = encode(dialect, tools=[tool(SEARCHES[owner]), follower])

    if dialect == owner:
        assert body["tools"][0] == SEARCHES[owner]
        assert "tools[0]" not in notes
    else:
        assert len(body["tools"]) == 1
        assert notes["tools[0]"] == "dropped"
    with pytest.raises(Failure):
        encode(dialect, strict=True, tools=[tool(SEARCHES[owner]), follower])


@pytest.mark.parametrize(("pass_through", "sent"), [(True, True), (False, False), (["x"], False)])
def test_tools_that_no_dialect_knows_pass_by_name(pass_through: Any, *, sent: bool) -> None:
    """To channels that pass everything, or name their type."""
    listed = tuple(pass_through) if isinstance(pass_through, list) else pass_through
    body, _ = encode("openai", listed, tools=[tool(SEARCHES["nobody"])])
    assert ("tools" in body) == sent
    body, _ = encode("openai", ("live_search",), tools=[tool(SEARCHES["nobody"])])
    assert body["tools"] == [SEARCHES["nobody"]]
    body, notes = encode("anthropic", False, tools=[tool(SEARCHES["anthropic"])])
    assert ("tools" in body, notes) == (False, {"tools[0]": "dropped"})


CLIENT_RUN = {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"}


@pytest.mark.parametrize("owner", SEARCHES)
@pytest.mark.parametrize("listed", [True, False])
def test_tools_that_are_billed_besides_tokens_need_money_without_a_limit(
    owner: str, *, listed: bool
) -> None:
    """Nor does the channel's list send them; a server of one's own bills nothing."""
    search = SEARCHES[owner]
    dialect = owner if owner in MODELS else "openai"
    allowed: Any = ("harmless", search["type"]) if listed else "harmless"
    body, notes = encode(dialect, allowed, pays=True, tools=[tool(search), tool(CLIENT_RUN)])

    assert body.get("tools", []) == ([CLIENT_RUN] if dialect == "anthropic" else [])
    assert notes["tools[0]"] == "dropped"
    assert encode(dialect, True, pays=True, tools=[tool(search)])[0]["tools"] == [search]
    with pytest.raises(Failure):
        encode(dialect, allowed, pays=True, strict=True, tools=[tool(search)])


@pytest.mark.parametrize("name", ["web_search_options", "webSearchOptions", "WEB-SEARCH-OPTIONS"])
def test_searches_by_a_field_need_money_without_a_limit_too(name: str) -> None:
    """What the provider keeps costs nothing, and goes where the channel's list names it."""
    extra = json.dumps({name: {}, "store": True}).encode()
    allowed = ("harmless", "store", "web_search_options")
    body, notes = encode("openai", allowed, pays=True, extra_json=extra)

    assert (body["store"], name in body) == (True, False)
    assert notes


def test_the_choice_of_a_tool_goes_with_it() -> None:
    """A provider would refuse a choice among nothing. A call that is demanded is not to be had."""
    offered = [tool({"type": "x", "name": "s"}, name="s")]
    choice = ToolChoice(mode="auto", names=["s"])
    body, notes = encode("openai", tools=offered, tool_choice=choice)
    assert body.keys() & {"tools", "tool_choice"} == set()
    assert notes == {"tools[0]": "dropped", "tool_choice": "dropped"}
    required = ToolChoice(mode="required")
    assert refused("openai", tools=offered, tool_choice=required).param == "tool_choice"
    for tools in (offered, [*offered, Tool(name="f")]):
        forced = ToolChoice(mode="named", names=["s"])
        assert refused("openai", tools=tools, tool_choice=forced).param == "tool_choice"


def test_tools_keep_their_marks() -> None:
    """At their end."""
    marked = tool(SEARCHES["anthropic"], cache_control_json=MARK)
    body, _ = encode("anthropic", tools=[marked])
    assert body["tools"] == [SEARCHES["anthropic"] | {"cache_control": {"type": "ephemeral"}}]


@pytest.mark.parametrize(
    "data", [b"[]", b"{}", b'{"type":1}', b'{"type":"x"},', b'{"type":"\xff"}']
)
@pytest.mark.parametrize("dialect", sorted(MODELS))
def test_they_are_objects_with_a_type(dialect: str, data: bytes) -> None:
    """Other JSON is an invalid field."""
    assert refused(dialect, messages=user(OtherPart(json=data))).param == "messages"
    assert refused(dialect, tools=[Tool(name="", other_json=data)]).param == "tools"


def test_modes_of_reasoning_reach_compatible_channels() -> None:
    """In the provider's word, where nothing else says how to reason."""
    auto = Thinking(extra_json=b'{"type":"auto"}')
    body, notes = encode("openai", thinking=auto)
    assert (body["thinking"], notes) == ({"type": "auto"}, {})
    assert refused("anthropic", thinking=auto).param == "thinking.type"

    assert encode("openai", False, thinking=auto)[1] == {"thinking.type": "dropped"}
    assert (
        encode("openai", thinking=auto, reasoning_effort="low")[0]["thinking"] == body["thinking"]
    )
    spec = ChatCompletionSpec(model="m", messages=user(TextPart(text="a")), thinking=auto)
    notes_of_model = Notes()
    DIALECTS["openai"].encode(spec, target_of("gpt-4o", "openai"), notes_of_model)
    assert told(notes_of_model) == {"thinking.type": "dropped"}


def test_part_of_another_type_with_a_text_keeps_its_type() -> None:
    """Only a part of the type `text` becomes a string."""
    part = OtherPart(json=b'{"type":"document_text","text":"a"}')
    spec = ChatCompletionSpec(model="m", messages=user(part))
    body = DIALECTS["openai"].encode(spec, target_of("some-model", "openai"), Notes()).body

    (message,) = json.loads(body)["messages"]
    assert message["content"] == [{"type": "document_text", "text": "a"}]
