"""Which requests are plain, and how large they are."""

from __future__ import annotations

import msgspec
import pytest

from services.domain.conversation import ImagePart, Message, TextPart, ToolCall
from services.domain.plain_texts import PLAIN_PARAMETERS, plain_texts
from services.domain.spec import (
    ChatCompletionSpec,
    ResponseFormat,
    TextCompletion,
    Thinking,
    Tool,
    ToolChoice,
)

TEXT = Message(role="user", content=[TextPart(text="héllo")])
PLAIN = ChatCompletionSpec(
    model="m",
    messages=[Message(role="system", content=[TextPart(text="")]), TEXT],
    max_tokens=1,
    temperature=0.0,
    top_p=0.5,
    top_k=0,
    min_p=0.1,
    frequency_penalty=1.0,
    presence_penalty=1.0,
    repetition_penalty=1.0,
    seed=0,
    stop=["a"],
    user="u",
)
OTHERS = {
    "Thinking | None": Thinking(),
    "ToolChoice | None": ToolChoice(mode="auto"),
    "ResponseFormat | None": ResponseFormat(type="text"),
    "TextCompletion | None": TextCompletion(),
    "list[Tool]": [Tool(name="f")],
    "list[ToolCall]": [ToolCall(id="c", name="f")],
    "list[str]": ["a"],
    "dict[Int32, float]": {1: 1.0},
    "dict[str, str]": {"a": "b"},
    "bytes": b"{}",
    "bool": True,
    "bool | None": False,
    "Int32 | None": 0,
    "float | None": 0.0,
}
"""A value of each type of field that says something. Others are words."""


def others(struct: type[msgspec.Struct], plain: set[str]) -> list[tuple[str, object]]:
    """Each field that a plain request has not set, and a value of it."""
    return [
        (name, OTHERS.get(str(struct.__annotations__[name]), "low"))
        for name in struct.__struct_fields__
        if name not in plain
    ]


def test_texts_of_a_plain_request_are_those_of_its_messages() -> None:
    """All parameters of a plain request may be set."""
    assert plain_texts(PLAIN) == ["", "héllo"]
    assert all(getattr(PLAIN, name) not in (None, "", []) for name in PLAIN_PARAMETERS)


@pytest.mark.parametrize(
    ("name", "value"),
    others(ChatCompletionSpec, {"model", "messages", "max_tokens", *PLAIN_PARAMETERS}),
)
def test_any_other_field_makes_a_request_not_plain(name: str, value: object) -> None:
    """A new field of the spec is among them."""
    assert plain_texts(msgspec.structs.replace(PLAIN, **{name: value})) is None


@pytest.mark.parametrize(("name", "value"), others(Message, {"role", "content"}))
def test_any_other_field_of_a_message_makes_a_request_not_plain(name: str, value: object) -> None:
    """A new field of messages is among them."""
    messages = [TEXT, msgspec.structs.replace(TEXT, **{name: value})]
    assert plain_texts(msgspec.structs.replace(PLAIN, messages=messages)) is None


@pytest.mark.parametrize(
    "message",
    [
        Message(role="user"),
        Message(role="tool", content=TEXT.content),
        Message(role="user", content=[*TEXT.content, *TEXT.content]),
        Message(role="user", content=[ImagePart(uri="https://a.example/b.png")]),
        Message(role="user", content=[TextPart(text="a", extra_json=b"{}")]),
        Message(role="user", content=[TextPart(text="a", cache_control_json=b"{}")]),
    ],
)
def test_a_message_with_anything_but_one_text_makes_a_request_not_plain(message: Message) -> None:
    """Other parts, several of them, marks and members take the encoder of all requests."""
    assert plain_texts(msgspec.structs.replace(PLAIN, messages=[TEXT, message])) is None
