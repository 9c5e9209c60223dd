from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capabilities import CapabilityOverrides
from services.domain.conversation import ImagePart
from services.errors import Failure
from services.providers.base import Notes
from services.providers.translate.images import InlineImage, LinkedImage, read
from tests.services.providers.targets import target_of

TARGET = target_of("claude-sonnet-4-5")
PNG = "iVBORw0KGgoA"


@pytest.mark.parametrize("claimed", ["image/jpeg", "application/octet-stream", ""])
def test_the_bytes_are_believed(claimed: str) -> None:
    """A wrong claim is corrected, for bytes and for base64 alike."""
    data = b"\x89PNG\r\n\x1a\n" + bytes(100)
    text = base64.b64encode(data).decode()
    expected = InlineImage(mime_type="image/png", base64=text.encode())
    assert read(ImagePart(data=data, mime_type=claimed), TARGET, Notes()) == expected
    assert read(ImagePart(base64=text, mime_type=claimed), TARGET, Notes()) == expected


def test_the_claim_is_believed_where_bytes_tell_nothing() -> None:
    """An unknown form has the media type that the caller gave."""
    found = read(
        ImagePart(data=b"<svg/>", mime_type="image/SVG+xml"), target_of("m", "openai"), Notes()
    )
    assert isinstance(found, InlineImage)
    assert found.mime_type == "image/svg+xml"


def test_links_are_passed_on() -> None:
    """A URL is the provider's to fetch; one that fetches nothing makes it an error."""
    image = ImagePart(uri="https://example.com/a.png")
    assert read(image, TARGET, Notes()) == LinkedImage(uri="https://example.com/a.png")
    with pytest.raises(Failure) as refused:
        read(
            image,
            target_of("m", "openai", overrides=CapabilityOverrides(image_uris=False)),
            Notes(),
        )
    assert refused.value.reason == "UNSUPPORTED_FEATURE"


@pytest.mark.parametrize(
    "image",
    [
        ImagePart(),
        ImagePart(base64="****", mime_type="image/png"),
        ImagePart(base64=PNG + "****", mime_type="image/png"),
        ImagePart(base64=PNG + '","a":"b', mime_type="image/png"),
        ImagePart(base64=PNG + "é", mime_type="image/png"),
        ImagePart(base64=PNG + "AA==" + "A" * 70_000, mime_type="image/png"),
        ImagePart(base64=PNG * 8192 + "AA*=", mime_type="image/png"),
        ImagePart(data=b"BM\x46\x00", mime_type="image/png"),
        ImagePart(data=b"", mime_type="image/tiff"),
    ],
)
def test_refuses(image: ImagePart) -> None:
    """No source, no base64, and a media type that is not accepted are invalid images."""
    with pytest.raises(Failure) as refused:
        read(image, TARGET, Notes(), accepts={"image/png"})
    assert (refused.value.param, refused.value.reason) == ("messages", "INVALID_IMAGE")


def test_base64_is_repaired() -> None:
    """Line breaks are removed, padding is added."""
    found = read(ImagePart(base64=PNG[:4] + "\r\n" + PNG[4:] + "-_A"), TARGET, Notes())
    assert found == InlineImage(mime_type="image/png", base64=PNG.encode() + b"+/A=")


@pytest.mark.parametrize(("model", "refuses"), [("gpt-4o", True), ("my-model", False)])
def test_types_that_a_model_is_known_to_refuse(model: str, *, refuses: bool) -> None:
    """Others are sent."""
    image = ImagePart(data=b"\0\0\0\x18ftypavif" + bytes(20))
    target = target_of(model, "openai")
    if refuses:
        with pytest.raises(Failure) as refused:
            read(image, target, Notes())
        assert refused.value.reason == "INVALID_IMAGE"
    else:
        found = read(image, target, Notes())
        assert isinstance(found, InlineImage)
        assert found.mime_type == "image/avif"


@pytest.mark.parametrize("size", [0, 1, 2, 3, 100, 49_150, 49_152, 49_153, 200_000])
def test_pictures_of_any_size_are_read(size: int) -> None:
    """What is looked at in pieces is one picture."""
    data = b"\x89PNG\r\n\x1a\n" + bytes(size)
    text = base64.b64encode(data)
    assert read(ImagePart(base64=text.decode()), TARGET, Notes()) == InlineImage(
        mime_type="image/png", base64=text
    )


@given(st.text())
def test_a_picture_is_a_json_string(prefix: str) -> None:
    """Whatever is in front of it."""
    image = InlineImage(mime_type="image/png", base64=PNG.encode())
    assert msgspec.json.decode(image.json(prefix)) == prefix + PNG


@pytest.mark.parametrize("uri", ["", "file:///etc/passwd", "FILE:/x", "ftp://a/b", "a.png"])
def test_links_lead_to_the_web(uri: str) -> None:
    """A server of models might read a file of its own machine and tell what it shows."""
    with pytest.raises(Failure) as refused:
        read(ImagePart(uri=uri), TARGET, Notes())
    assert refused.value.reason == "INVALID_IMAGE"
