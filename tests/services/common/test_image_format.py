from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.image_format import HEAD_BYTES, checked_head, decoded_bytes, media_type

HEADS = {
    b"\xff\xd8\xff\xe0\x00\x10JFIF": "image/jpeg",
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR": "image/png",
    b"GIF89a\x01\x00": "image/gif",
    b"GIF87a\x01\x00": "image/gif",
    b"GIF88a\x01\x00": "",
    b"RIFF\x24\x00\x00\x00WEBPVP8 ": "image/webp",
    b"RIFF\x24\x00\x00\x00WAVEfmt ": "",
    b"RIFX\x24\x00\x00\x00WEBPVP8 ": "",
    b"BM\x46\x00": "image/bmp",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
    b"\x00\x00\x00\x18ftypheic": "image/heic",
    b"\x00\x00\x00\x18ftypmif1": "image/heif",
    b"\x00\x00\x00\x18ftypavif": "image/avif",
    b"%PDF-1.7": "application/pdf",
    b"<svg>": "",
    b"": "",
}

PNG = b"iVBORw0KGgoA"


@pytest.mark.parametrize(("head", "name"), HEADS.items())
def test_the_first_bytes_tell_the_media_type(head: bytes, name: str) -> None:
    """Or nothing. No more than `HEAD_BYTES` are needed."""
    assert media_type(head) == media_type(head[:HEAD_BYTES]) == name


@pytest.mark.parametrize("size", [0, 1, 2, 3, 100, 49_140, 49_151, 49_152, 49_153, 200_000])
@pytest.mark.parametrize("head", [head for head, name in HEADS.items() if name])
def test_images_of_any_size_are_checked(head: bytes, size: int) -> None:
    """Also those that are decoded in several steps."""
    image = head + bytes(size)
    text = base64.b64encode(image)

    assert checked_head(text) == image[:HEAD_BYTES]
    assert 0 <= decoded_bytes(len(text)) - len(image) <= 2


@pytest.mark.parametrize("size", [12, 65_532, 65_536, 98_304])
@pytest.mark.parametrize(
    "end",
    [
        b"A",
        b"AA",
        b"AAA",
        b"AA=",
        b"A===",
        b"AA=A",
        b"AA==AAAA",
        b"AAA\n",
        b"AA A",
        b"A-_A",
        b"AA*=",
    ],
)
def test_other_text_is_not_base64(size: int, end: bytes) -> None:
    """No line ends, no spaces, not the alphabet for URLs, padding only at the end."""
    text = (PNG * (size // 12 + 1))[:size]

    with pytest.raises(ValueError, match=r".+"):
        checked_head(text + end)


@given(st.text("Az09+/=-_ \n", max_size=9), st.sampled_from([0, 65_532, 65_536]))
def test_base64_is_what_rfc_4648_says(end: str, before: int) -> None:
    """The alphabet of its section 4 in fours, with padding at the end, and nothing else."""
    text = "iVBORw0KGgoA" + "A" * before + end
    try:
        checked_head(text.encode())
        accepted = True
    except ValueError:
        accepted = False
    whole = r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
    assert accepted == (re.fullmatch(whole, text) is not None)
