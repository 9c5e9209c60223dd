"""Compressed bodies."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.providers.http.decompressor import RATIO_MAX, READ_MAX, UNCHECKED_BYTES, Decompressor
from services.providers.http.errors import HttpError, HttpErrorKind

TEXT = "".join(f"data: {number}\n\n" for number in range(500)).encode()


def raw(data: bytes) -> bytes:
    """`deflate` without the zlib format's frame."""
    return zlib.compress(data)[2:-4]


CODINGS = {
    "gzip": (b"gzip", gzip.compress(TEXT)),
    "two streams": (b"X-GZip", gzip.compress(TEXT[:99]) + gzip.compress(TEXT[99:])),
    "zlib": (b"deflate", zlib.compress(TEXT)),
    "raw": (b"deflate ", raw(TEXT)),
}


def inflate(coding: bytes, *pieces: bytes) -> bytes:
    """The decompressed text of these pieces of a body."""
    inflater = Decompressor.of(coding)
    assert inflater is not None
    text = b""
    for piece in pieces:
        inflater.feed(piece)
        while data := inflater.take():
            assert len(data) <= READ_MAX
            text += data
    inflater.close()
    return text


@pytest.mark.parametrize("name", CODINGS)
@given(cuts=st.lists(st.integers(0, 2000), max_size=6))
def test_slices_do_not_matter(name: str, cuts: list[int]) -> None:
    """However the body arrives, the text is the same."""
    coding, body = CODINGS[name]
    ends = sorted(cuts)
    pieces = [body[a:b] for a, b in zip([0, *ends], [*ends, len(body)], strict=True)]

    assert inflate(coding, *pieces) == TEXT


def test_gives_what_is_there() -> None:
    """An event that the server has flushed does not wait for the next."""
    packer = zlib.compressobj(wbits=31)
    inflater = Decompressor.of(b"gzip")
    assert inflater is not None

    inflater.feed(packer.compress(b"data: 1\n\n") + packer.flush(zlib.Z_SYNC_FLUSH))

    assert inflater.take() == b"data: 1\n\n"


@pytest.mark.parametrize("coding", [b"", b"identity", b" Identity "])
def test_leaves_plain_bodies_alone(coding: bytes) -> None:
    """Nothing is done where nothing was compressed."""
    assert Decompressor.of(coding) is None


@pytest.mark.parametrize("coding", [b"br", b"zstd", b"compress", b"gzip, gzip", b"\xff"])
def test_refuses_unknown_codings(coding: bytes) -> None:
    """A coding that was not asked for and is not known is a bad response."""
    with pytest.raises(HttpError) as refused:
        Decompressor.of(coding)

    assert refused.value.kind is HttpErrorKind.BAD_RESPONSE


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"data: 1\n\n", id="not compressed"),
        pytest.param(gzip.compress(TEXT)[:-1], id="cut"),
        pytest.param(gzip.compress(TEXT)[:-8] + b"\0" * 8, id="wrong checksum"),
        pytest.param(gzip.compress(TEXT) + b"more", id="something behind"),
    ],
)
def test_refuses_what_is_broken(body: bytes) -> None:
    """Damage is an error, not an end."""
    with pytest.raises(HttpError) as refused:
        inflate(b"gzip", body)

    assert refused.value.kind is HttpErrorKind.BAD_RESPONSE


def test_an_empty_body_is_empty() -> None:
    """A header without a body is no damage."""
    assert inflate(b"gzip") == b""


def test_defuses_bombs() -> None:
    """A body that expands too much is refused before it fills the memory."""
    bomb = gzip.compress(b"\0" * 50_000_000)
    inflater = Decompressor.of(b"gzip")
    assert inflater is not None
    inflater.feed(bomb)
    size = 0

    with pytest.raises(HttpError) as refused:  # noqa: PT012 - how far it came is the point
        while data := inflater.take():
            size += len(data)

    assert refused.value.kind is HttpErrorKind.BAD_RESPONSE
    assert size <= UNCHECKED_BYTES + RATIO_MAX * len(bomb)
