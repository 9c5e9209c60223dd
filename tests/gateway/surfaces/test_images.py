from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ApiError
from gateway.surfaces.images import ImageReader

HEADS = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff\xe0",
    "image/gif": b"GIF89a",
    "image/webp": b"RIFF\x10\0\0\0WEBPVP8 ",
}


def data_url(image_bytes: bytes, declared: str = "image/png") -> str:
    """Return an image as a client sends it."""
    return f"data:{declared};base64,{base64.b64encode(image_bytes).decode()}"


def reader(bytes_max: int = 1024) -> ImageReader:
    """Return a reader of two images with a kilobyte together."""
    return ImageReader(images_max=2, bytes_max=bytes_max)


@pytest.mark.parametrize(("mime_type", "head"), HEADS.items())
@pytest.mark.parametrize("length", [20, 21, 22])
def test_the_media_type_comes_from_the_bytes(mime_type: str, head: bytes, length: int) -> None:
    """The declared type does not matter. The base64 stays unchanged."""
    image_bytes = head.ljust(length, b"\0")
    image = reader().read("p", data_url(image_bytes, "image/bmp"))
    assert image.mime_type == mime_type
    assert image.base64 == base64.b64encode(image_bytes).decode()


@pytest.mark.parametrize("length", [49_151, 49_152, 49_153, 200_000])
def test_a_large_image_is_read(length: int) -> None:
    """It is checked in pieces, and passed on whole."""
    image_bytes = HEADS["image/png"].ljust(length, b"\0")
    image = reader(250_000).read("p", data_url(image_bytes))
    assert (image.mime_type, image.base64) == ("image/png", base64.b64encode(image_bytes).decode())


@given(st.text("Az09+/=-_ \n", max_size=9), st.sampled_from([0, 65_532, 65_536]))
def test_base64_is_repaired(end: str, before: int) -> None:
    """White space, missing padding and the alphabet for URLs. The result is that of RFC 4648."""
    text = "iVBORw0KGgoA" + "A" * before + end
    plain = re.sub(r"\s", "", text).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        found = reader(100_000).read("p", f"data:image/png;base64,{text}").base64
    except ApiError:
        assert "=" in plain or len(plain) % 4 == 1
        return
    assert found == plain + "=" * (-len(plain) % 4)
    assert base64.b64decode(found, validate=True).startswith(HEADS["image/png"])


@pytest.mark.parametrize("brand", ["avif", "avis", "heic", "mif1"])
def test_newer_types_are_read(brand: str) -> None:
    """The service knows which models take them."""
    image = reader().read("p", data_url(b"\0\0\0\x18ftyp" + brand.encode() + bytes(20)))
    assert image.mime_type in {"image/avif", "image/heic", "image/heif"}
    assert reader().read("p", data_url(b"BM" + bytes(20))).mime_type == "image/bmp"


def test_a_url_is_passed_on() -> None:
    """The edge fetches nothing."""
    assert reader().read("p", "https://example.com/a.jpg").uri == "https://example.com/a.jpg"


@pytest.mark.parametrize(
    "url",
    [
        "data:",
        "data:image/png,abc",
        "data:image/png;base64,",
        "data:image/png;base64,AAA",
        "data:image/png;base64,A===",
        "data:image/png;base64,AA=A",
        "data:image/png;base64,AA A",
        "data:image/png;base64,iVBORw0KGgoAAA==AAAA",
        "data:image/png;base64," + "iVBORw0KGgoA" * 5461 + "AA==" + "A" * 80,
        "data:image/png;base64," + "iVBORw0KGgoA" * 8192 + "AA*=",
        "data:image/png;base64," + ",,,," * 100,
        "data:image/png;base64,ééééé",
        data_url(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
        data_url(b"<html>", "text/html"),
    ],
)
def test_other_data_is_refused(url: str) -> None:
    """The error names the field."""
    with pytest.raises(ApiError) as caught:
        reader(100_000).read("p", url)
    assert (caught.value.status, caught.value.code, caught.value.param) == (
        400,
        "invalid_image",
        "p",
    )


def test_the_number_of_images_is_limited() -> None:
    """The third of two is refused."""
    images = reader()
    for _ in range(2):
        images.read("p", "https://example.com/a.jpg")
    with pytest.raises(ApiError) as caught:
        images.read("p", "https://example.com/a.jpg")
    assert caught.value.code == "invalid_image"


def test_the_size_of_all_images_is_limited() -> None:
    """By the length of their base64."""
    images = reader()
    image_bytes = data_url(HEADS["image/png"].ljust(900, b"\0"))
    images.read("p", image_bytes)
    with pytest.raises(ApiError) as caught:
        images.read("p", image_bytes)
    assert caught.value.status == 413
