"""How much of a request there is to read."""

from __future__ import annotations

from typing import Any

import pytest

from services.domain.conversation import (
    AudioPart,
    ContentPart,
    FilePart,
    ImagePart,
    Message,
    OtherPart,
    ReasoningPart,
    TextPart,
    ToolCall,
)
from services.domain.spec import ITEM_BYTES, ChatCompletionSpec, ResponseFormat, Tool, read_bytes

LARGE = 100_000
TEXT = "x" * LARGE
JSON = TEXT.encode()


def asking(*content: ContentPart, message: Message | None = None, **fields: Any) -> int:
    """The size of a request with this content, or with this message."""
    asked = message or Message(role="user", content=list(content))
    return read_bytes(ChatCompletionSpec(model="m", messages=[asked], **fields))


@pytest.mark.parametrize(
    "part",
    [
        TextPart(text=TEXT),
        ReasoningPart(text=TEXT),
        AudioPart(base64=TEXT),
        FilePart(uri=TEXT),
        OtherPart(json=JSON),
        TextPart(text="", extra_json=JSON),
        ImagePart(extra_json=JSON),
    ],
    ids=lambda part: type(part).__name__,
)
def test_parts_count(part: ContentPart) -> None:
    """With all that is read of them."""
    assert LARGE <= asking(part) < LARGE + 10 * ITEM_BYTES


def test_base64_of_images_does_not_count() -> None:
    """It is passed on as it is."""
    assert asking(ImagePart(base64=TEXT)) < 10 * ITEM_BYTES


@pytest.mark.parametrize(
    "message",
    [
        Message(role="assistant", tool_calls=[ToolCall(id="c", name="f", arguments=TEXT)]),
        Message(role="assistant", reasoning_state=TEXT),
        Message(role="assistant", reasoning_details_json=JSON),
        Message(role="assistant", refusal=TEXT),
        Message(role="assistant", extra_json=JSON),
    ],
)
def test_members_of_messages_count(message: Message) -> None:
    """Those that are texts or JSON."""
    assert LARGE <= asking(message=message) < LARGE + 10 * ITEM_BYTES


@pytest.mark.parametrize(
    "fields",
    [
        {"extra_json": JSON},
        {"tools": [Tool(name="f", parameters_json=JSON)]},
        {"tools": [Tool(name="f", other_json=JSON)]},
        {"tools": [Tool(name="f", description=TEXT)]},
        {"response_format": ResponseFormat(type="json_schema", schema_json=JSON)},
    ],
)
def test_fields_count(fields: dict[str, Any]) -> None:
    """Those that are texts or JSON."""
    assert LARGE <= asking(TextPart(text="x"), **fields) < LARGE + 10 * ITEM_BYTES


def test_many_small_things_count() -> None:
    """Each as a text of some bytes."""
    assert asking(*[TextPart(text="")] * 1000) >= 1000 * ITEM_BYTES
