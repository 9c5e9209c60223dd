"""Bound of a prompt's media, whose size is unknown before the call."""

from __future__ import annotations

import pytest

from services.admission.prompt_limit import media_bound
from services.domain.conversation import ContentPart, FilePart, ImagePart, Message, OtherPart
from services.domain.spec import ChatCompletionSpec
from tests.services.providers.targets import target_of

DOCUMENT_TOKENS = 1_000_000
"""Of the shipped table."""


def bound(*parts: ContentPart) -> int:
    """Return the bound for a message of these parts."""
    messages = [Message(role="user", content=list(parts))]
    return media_bound(ChatCompletionSpec(model="m", messages=messages))([target_of("m", "openai")])


@pytest.mark.parametrize(
    "part",
    [
        FilePart(uri="https://a.test/b.pdf"),
        FilePart(uri="DATA:application/pdf,x"),
        FilePart(file_id="file-1"),
        OtherPart(json=b'{"type":"video_url","video_url":{"url":"https://a.test/b.mp4"}}'),
        OtherPart(json=b'{"type":"video_url","video_url":{"url":"https:\\/\\/a.test\\/b.mp4"}}'),
        OtherPart(json=b'{"type":"video_url","video_url":{"url":"data:video/mp4;base64,AAAA"}}'),
        OtherPart(json=b'{"type":"document_url","document_url":"//a.test/b"}'),
        OtherPart(json=b'{"type":"document","source":{"type":"url","url":"https:\\u002f/a.test"}}'),
        OtherPart(json=b'{"type":"document","source":{"type":"file","\\u0066ile_id":"f"}}'),
        OtherPart(json=b'{"type":"document","source":{"content":[{"type":"\\u0069mage"}]}}'),
        OtherPart(json=b'{"type":"document",'),
        OtherPart(json=b"[]"),
        OtherPart(json=b'{"type":"document","x":[' + b"0," * 30_000 + b"0]}"),
    ],
)
def test_a_part_of_unknown_size_takes_the_most(part: ContentPart) -> None:
    """By an address or an ID, however it is written, or of a type that is not known."""
    assert DOCUMENT_TOKENS * 0.99 < bound(part) <= DOCUMENT_TOKENS
    assert bound(part, part) == 2 * bound(part)


@pytest.mark.parametrize(
    "part",
    [
        FilePart(uri="data:application/pdf;base64,AAAA"),
        OtherPart(json=b'{"type":"document","source":{"type":"text","data":"x"}}'),
        OtherPart(json=b'{"type":"document","source":{"type":"base64","data":"AAAA"}}'),
        OtherPart(json=b'{"type":"search_result","source":"https://a.test","content":[]}'),
    ],
)
def test_a_text_and_a_document_by_value_are_counted(part: ContentPart) -> None:
    """So that nothing is added. The address of a search's result is only shown."""
    assert bound(part) == 0


def test_an_image_takes_what_its_model_takes() -> None:
    """Beyond what an estimate has for it."""
    assert bound(ImagePart(uri="https://a.test/b.png")) == 16_384 - 2_000
