"""Large images leave a body, and nothing else changes."""

from __future__ import annotations

import base64
import json

import pytest
from multidict import CIMultiDict

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.surfaces.openai_chat.decode import decode
from gateway.surfaces.openai_chat.image_extraction import (
    EXTRACTED_BYTES_MIN,
    MARKS_MAX,
    extract_images,
)
from services.domain.conversation import ImagePart

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\1" * EXTRACTED_BYTES_MIN).decode()
URL = f"data:image/png;base64,{PNG}"
CONFIG = EdgeConfig()
NO_HEADERS = CIMultiDict[str]()


def body(*urls: str, **fields: object) -> bytes:
    """A request with images at these URLs."""
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    messages = [{"role": "user", "content": parts}]
    return json.dumps({"model": "m", "messages": messages, **fields}).encode()


def test_large_images_are_extracted() -> None:
    """The rest is short, and has a stand-in for each."""
    rest, extracted = extract_images(body(URL, URL))
    assert len(rest) < 500
    assert list(extracted.values()) == [PNG.encode()] * 2
    assert all(stand_in.encode() in rest for stand_in in extracted)


@pytest.mark.parametrize(
    "plain",
    [
        body(),
        body("https://example.com/a.png"),
        body("data:image/png;base64,iVBORw0KGgo="),
        body(tools=[{"default": URL}]),
        b'";base64,',
        b'{"url":"data:;base64,' + b"A" * EXTRACTED_BYTES_MIN,
    ],
)
def test_other_bodies_stay_unchanged(plain: bytes) -> None:
    """Without a large image the same object is returned."""
    assert extract_images(plain)[0] is plain


def test_extracted_images_are_in_the_request() -> None:
    """The request is the same as without extraction, also where the URL is a plain string."""
    parts = [{"type": "image_url", "image_url": URL}, {"type": "text", "text": "a"}]
    messages = [{"role": "user", "content": parts}]
    spec = decode(
        json.dumps({"model": "m", "messages": messages}).encode(), NO_HEADERS, CONFIG
    ).spec
    assert spec.messages[0].content[0] == ImagePart(base64=PNG, mime_type="image/png")


def test_data_urls_in_other_fields_stay_unchanged() -> None:
    """An image beside them may be extracted."""
    spec = decode(body(URL, unknown={"url": URL}), NO_HEADERS, CONFIG).spec
    assert json.loads(spec.extra_json) == {"unknown": {"url": URL}}
    assert spec.messages[0].content[0] == ImagePart(base64=PNG, mime_type="image/png")


@pytest.mark.parametrize("fault", ['\\"', "{", "é", "*", "=A", "\n"])
def test_other_text_than_base64_is_refused(fault: str) -> None:
    """It could hide a quote or a bracket."""
    raw = body(URL).replace(PNG[-40:].encode(), fault.encode() + PNG[-40:].encode())
    with pytest.raises(ApiError) as caught:
        decode(raw, NO_HEADERS, CONFIG)
    assert caught.value.status == 400


def test_line_breaks_are_removed() -> None:
    """Those that JSON escapes, in an image that is large enough to be extracted."""
    broken = body(URL).replace(PNG[-40:].encode(), b"\\r\\n" + PNG[-40:].encode())
    assert decode(broken, NO_HEADERS, CONFIG) == decode(body(URL), NO_HEADERS, CONFIG)


def test_duplicate_keys_are_refused() -> None:
    """Two images under one key are two stand-ins under one key."""
    twice = body(URL).replace(b'{"url"', f'{{"url": "{URL}", "url"'.encode())
    with pytest.raises(ApiError, match="twice"):
        decode(twice, NO_HEADERS, CONFIG)


def test_the_search_for_images_is_bounded() -> None:
    """After a thousand places without a large image, the rest of the body stays unchanged."""
    small = "".join(f'{{"url":"data:image/png;base64,{"A" * 8}"}},' for _ in range(MARKS_MAX))
    raw = f'[{small}{{"url":"{URL}"}}]'.encode()

    assert extract_images(raw) == (raw, {})
    assert extract_images(raw.replace(b'{"url":"data:image/png;base64,AAAAAAAA"},', b"", 1))[1]
