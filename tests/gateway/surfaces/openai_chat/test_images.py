from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ApiError
from gateway.surfaces.openai_chat.images import ImageReader

HEADS = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff\xe0",
    "image/gif": b"GIF89a",
    "image/webp": b"RIFF\x10\0\0\0WEBPVP8 ",
}


def data_url(picture: bytes, declared: str = "image/png") -> str:
    """The picture as a client sends it."""
    return f"data:{declared};base64,{base64.b64encode(picture).decode()}"


def reader(bytes_max: int = 1024) -> ImageReader:
    """One that takes two pictures of a kilobyte together."""
    return ImageReader(images_max=2, bytes_max=bytes_max)


@pytest.mark.parametrize(("mime_type", "head"), HEADS.items())
@pytest.mark.parametrize("length", [20, 21, 22])
def test_the_media_type_is_what_the_bytes_say(mime_type: str, head: bytes, length: int) -> None:
    """Whatever the client declared; the text is passed on as it came."""
    picture = head.ljust(length, b"\0")
    image = reader().read("p", data_url(picture, "image/bmp"))
    assert image.mime_type == mime_type
    assert image.base64 == base64.b64encode(picture).decode()


@pytest.mark.parametrize("length", [49_151, 49_152, 49_153, 200_000])
def test_a_large_picture_is_read(length: int) -> None:
    """What is looked at in pieces is passed on whole."""
    picture = HEADS["image/png"].ljust(length, b"\0")
    image = reader(250_000).read("p", data_url(picture))
    assert (image.mime_type, image.base64) == ("image/png", base64.b64encode(picture).decode())


@given(st.text("Az09+/=-_ \n", max_size=9), st.sampled_from([0, 65_532, 65_536]))
def test_base64_is_what_rfc_4648_says(end: str, before: int) -> None:
    """The alphabet of its section 4 in fours, with padding at the end, and nothing else."""
    text = "iVBORw0KGgoA" + "A" * before + end
    try:
        accepted = reader(100_000).read("p", f"data:image/png;base64,{text}").base64 == text
    except ApiError:
        accepted = False
    whole = r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
    assert accepted == (re.fullmatch(whole, text) is not None)


def test_a_url_is_passed_on() -> None:
    """Nothing is fetched here."""
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
        "data:image/png;base64,iVBORw0KGgoA\nAAA",
        "data:image/png;base64," + "iVBORw0KGgoA" * 5461 + "AA==" + "A" * 80,
        "data:image/png;base64," + "iVBORw0KGgoA" * 8192 + "AA*=",
        "data:image/png;base64,AAAA" + "-_" * 20,
        "data:image/png;base64," + ",,,," * 100,
        "data:image/png;base64,ééééé",
        data_url(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
        data_url(b"<html>", "text/html"),
    ],
)
def test_what_is_no_picture_is_refused(url: str) -> None:
    """With the field's name."""
    with pytest.raises(ApiError) as caught:
        reader(100_000).read("p", url)
    assert (caught.value.status, caught.value.code, caught.value.param) == (
        400,
        "invalid_image",
        "p",
    )


def test_pictures_are_counted() -> None:
    """The third of two is one too many."""
    images = reader()
    for _ in range(2):
        images.read("p", "https://example.com/a.jpg")
    with pytest.raises(ApiError) as caught:
        images.read("p", "https://example.com/a.jpg")
    assert caught.value.code == "invalid_image"


def test_their_size_is_counted_together() -> None:
    """Before anything is decoded."""
    images = reader()
    picture = data_url(HEADS["image/png"].ljust(900, b"\0"))
    images.read("p", picture)
    with pytest.raises(ApiError) as caught:
        images.read("p", picture)
    assert caught.value.status == 413
