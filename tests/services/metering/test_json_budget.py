"""The bound of the JSON of a request that is looked into for its tokens."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.admission.prompt_limit import media_bound
from services.domain.conversation import ContentPart, Message, OtherPart, TextPart
from services.domain.spec import ChatCompletionSpec
from services.metering.json_budget import VALUES_MAX, JsonBudget
from services.metering.tokens import estimate_prompt
from tests.services.routing.targets import target

FILE = "data:application/pdf;base64," + "A" * 60_000
VALUES = 10_000


def spec_of(count: int, part: Callable[[], ContentPart]) -> ChatCompletionSpec:
    """A conversation of so many messages with such a part, and one with a file."""
    file = TextPart(text="x", extra_json=b'{"file":"' + FILE.encode() + b'"}')
    parts = [*(part() for _ in range(count)), file]
    messages = [Message(role="user", content=[each]) for each in parts]
    return ChatCompletionSpec(model="public/m", messages=messages)


def many_values() -> TextPart:
    """A text with a member of many values."""
    return TextPart(text="x", extra_json=b'{"a":[' + b"0," * (VALUES - 10) + b"0]}")


def test_a_file_within_the_budget_is_found() -> None:
    """Its bytes are no text."""
    small = spec_of(0, many_values)
    assert estimate_prompt(small) < len(FILE) // 4


def test_json_beyond_the_budget_is_text() -> None:
    """However many small pieces it comes in: the estimate is higher, and never lower."""
    within = estimate_prompt(spec_of(VALUES_MAX // VALUES, many_values))
    beyond = estimate_prompt(spec_of(VALUES_MAX // VALUES + 1, many_values))

    assert beyond - within > VALUES
    full = spec_of(VALUES_MAX // VALUES + 3, lambda: OtherPart(json=b'{"type":"a","b":[0,0]}'))
    assert estimate_prompt(full) > 0


@pytest.mark.parametrize("json", [b"[" * 100, b"{" * 100, b"," * 100])
def test_each_value_is_taken(json: bytes) -> None:
    """The first of an array or object, and each after a comma."""
    budget = JsonBudget()
    taken = sum(budget.take(json) for _ in range(VALUES_MAX))
    assert taken == VALUES_MAX // 100


def test_parts_beyond_the_budget_are_media() -> None:
    """They are not looked into, so that each may be a document by address."""
    document = b'{"type":"document","source":{"type":"text","data":"x"},"a":[' + b"0," * VALUES
    parts: list[ContentPart] = [OtherPart(json=document + b"0]}") for _ in range(5)]
    messages = [Message(role="user", content=parts)]
    bound = media_bound(ChatCompletionSpec(model="public/m", messages=messages))

    assert bound([target("a")]) > 0
