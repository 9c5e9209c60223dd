from __future__ import annotations

import asyncio
import base64
import random
from importlib.util import find_spec

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.domain.conversation import AudioPart, FilePart, ImagePart, Message, TextPart, ToolCall
from services.domain.events import ReasoningDelta, TextDelta
from services.domain.plain_texts import plain_texts
from services.domain.spec import ChatCompletionSpec, ResponseFormat, Tool
from services.metering.prompt_contents import IMAGE_TOKENS
from services.metering.tokens import (
    PIECE_CHARS,
    TokenCounter,
    count_prompt,
    estimate_prompt,
    estimate_texts,
)
from services.metering.usage import UsageMeter

needs_vocabulary = pytest.mark.skipif(
    find_spec("quicktok") is None, reason="the extra `tokens` is not installed"
)

_random = random.Random(1)  # noqa: S311 - texts, not secrets

TEXTS = {
    "English": "The quick brown fox jumps over the lazy dog, and nobody minds. " * 20,
    "Russian": "Напиши, пожалуйста, функцию сортировки на Python и объясни её. " * 20,
    "Chinese": "请写一个排序函数，并解释它是如何工作的。谢谢你的帮助！" * 20,
    "code": "def sort(items: list[int]) -> list[int]:\n    return sorted(items, key=lambda x: -x)\n"
    * 9,
    "digits": "0123456789 3.14159 2718 " * 20,
    "table": "1,2,3,4;5,6,7,8\n" * 40,
    "JSON": '{"a":[1,2,{"b":null}],"c":"d"}' * 20,
    "emoji": "🙂🎉🚀" * 40,
    "base64": base64.b64encode(_random.randbytes(3000)).decode(),
    "letters": "".join(
        _random.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", k=3000)
    ),
    "Cherokee": "".join(map(chr, _random.choices(range(0x13A0, 0x13F4), k=1000))),
    "Tibetan": "".join(map(chr, _random.choices(range(0xF40, 0xF6C), k=1000))),
    "cuneiform": "".join(map(chr, _random.choices(range(0x12000, 0x12390), k=1000))),
}
"""Texts of words, and random ones, which take many tokens."""


def spec(*texts: str) -> ChatCompletionSpec:
    """Build a conversation of these messages."""
    return ChatCompletionSpec(
        model="vendor/m",
        messages=[Message(role="user", content=[TextPart(text=text)]) for text in texts],
    )


@pytest.fixture(scope="module")
def counter() -> TokenCounter:
    """Counter with its vocabulary."""
    counter = TokenCounter()
    assert asyncio.run(counter.load())
    return counter


@needs_vocabulary
def test_counts_by_the_vocabulary(counter: TokenCounter) -> None:
    """Words that o200k knows whole are one token each."""
    assert counter.name == "o200k_base"
    assert counter.count("hello world") == 2
    assert counter.count("") == 0


async def test_counts_by_size_without_a_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra `load` returns False, and four bytes are a token."""
    monkeypatch.setattr("services.metering.tokens.MODULE", "no_such_module")
    counter = TokenCounter()

    assert not await counter.load()

    assert counter.name == "estimate"
    assert counter.count("eight by") == 2
    assert counter.count("привет") == 3


@needs_vocabulary
@pytest.mark.parametrize("language", sorted(TEXTS))
def test_the_estimate_is_not_exceeded(counter: TokenCounter, language: str) -> None:
    """In every language a prompt has at most the estimated tokens."""
    conversation = spec(*[TEXTS[language]] * 3, "?")

    assert count_prompt(conversation, counter) <= estimate_prompt(conversation)


@given(st.lists(st.text(max_size=40), min_size=1, max_size=20))
def test_plain_request_has_the_estimate_of_its_texts(texts: list[str]) -> None:
    """Texts alone tell what the whole request does."""
    request = spec(*texts)

    assert plain_texts(request) == texts
    assert estimate_texts(texts) == estimate_prompt(request)


@needs_vocabulary
@given(st.lists(st.text(st.characters(codec="ascii"), min_size=0, max_size=40), max_size=300))
def test_pieces_count_like_the_whole_text(counter: TokenCounter, pieces: list[str]) -> None:
    """A text in pieces has the tokens of the whole text, plus a few at each split."""
    text = "".join(pieces)
    meter = UsageMeter(spec(), counter)
    for piece in pieces:
        meter.add([TextDelta(piece)])

    splits = len(text) // PIECE_CHARS
    assert abs(meter.tokens_so_far() - counter.count(text)) <= 4 * splits


@needs_vocabulary
def test_a_long_answer_takes_bounded_memory(counter: TokenCounter) -> None:
    """Only the last piece of an answer is buffered."""
    meter = UsageMeter(spec(), counter)
    for number in range(40_000):
        meter.add([ReasoningDelta(" word") if number % 2 else TextDelta(" word")])

    for count in (meter._text, meter._reasoning):
        assert sum(map(len, count.pieces)) < PIECE_CHARS
        assert count.total(counter) == 20_000


@needs_vocabulary
def test_a_long_answer_that_is_read_late_takes_bounded_memory(counter: TokenCounter) -> None:
    """Events that are passed on as they are count by their own size, and their texts apart."""
    meter = UsageMeter(spec(), counter)
    meter.unread = lambda: [TextDelta(" word" * 100)]
    for _ in range(1000):
        meter.tokens_so_far()

    assert meter.size == 0
    assert sum(map(len, meter._text.pieces)) < PIECE_CHARS


def test_an_image_counts_independently_of_its_size() -> None:
    """Base64 of an image is not text: a megabyte counts like a kilobyte."""
    sizes = [
        estimate_prompt(
            ChatCompletionSpec(
                model="vendor/m",
                messages=[
                    Message(
                        role="user",
                        content=[ImagePart(base64=base64.b64encode(bytes(size)).decode())],
                    )
                ],
            )
        )
        for size in (1_000, 1_000_000)
    ]

    assert IMAGE_TOKENS <= sizes[0] <= sizes[1] <= IMAGE_TOKENS + 20


def test_tools_and_schemas_count() -> None:
    """Tools, schemas and calls are part of the prompt."""
    counter = TokenCounter()
    plain = spec("hello")
    call = ToolCall(id="1", name="search", arguments='{"q":"cats"}')
    tool = Tool(name="search", description="Finds things", parameters_json=b'{"type":"object"}')
    rich = msgspec.structs.replace(
        plain,
        messages=[*plain.messages, Message(role="assistant", tool_calls=[call])],
        tools=[tool],
        response_format=ResponseFormat(
            type="json_schema", schema_json=b'{"type":"object","properties":{}}'
        ),
    )

    assert count_prompt(rich, counter) >= count_prompt(plain, counter) + 20
    assert estimate_prompt(rich) > estimate_prompt(plain) + 40


def test_files_and_audio_count_by_size() -> None:
    """Content that is passed by value is estimated from its size."""
    counter = TokenCounter()
    message = Message(
        role="user",
        content=[
            AudioPart(base64="A" * 4000, format="mp3"),
            FilePart(uri="data:application/pdf,%PDF" + "A" * 1975),
        ],
    )

    assert count_prompt(ChatCompletionSpec(model="m", messages=[message]), counter) == 10 + 2100 + 4
