from __future__ import annotations

import base64

import pytest

from gateway.errors import ApiError
from gateway.images import ImageReader

HEADS = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff\xe0",
    "image/gif": b"GIF89a",
    "image/webp": b"RIFF\x10\0\0\0WEBPVP8 ",
}


def data_url(picture: bytes, declared: str = "image/png") -> str:
    """The picture as a client sends it."""
    return f"data:{declared};base64,{base64.b64encode(picture).decode()}"


def reader() -> ImageReader:
    """One that takes two pictures of a kilobyte together."""
    return ImageReader(images_max=2, bytes_max=1024)


@pytest.mark.parametrize(("mime_type", "head"), HEADS.items())
@pytest.mark.parametrize("length", [20, 21, 22])
def test_the_media_type_is_what_the_bytes_say(mime_type: str, head: bytes, length: int) -> None:
    """Whatever the client declared; the text is passed on as it came."""
    picture = head.ljust(length, b"\0")
    image = reader().read("p", data_url(picture, "image/bmp"))
    assert image.mime_type == mime_type
    assert image.base64 == base64.b64encode(picture).decode()


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
        reader().read("p", url)
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
