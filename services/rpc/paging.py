"""Page sizes and page tokens of lists (https://google.aip.dev/158).

A token is a position in a list, enciphered. The cipher's key is public: it only keeps callers from
relying on the content, and from taking the token of one list for another.
"""

from __future__ import annotations

import binascii
import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, TypeVar

import msgspec
from google.protobuf.message import Message

from services.common.json_errors import NOT_JSON
from services.errors import invalid

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1000
"""Larger sizes are lowered to this."""

Position = tuple[int, str]
"""Time and ID of the last item of a page. Every list is ordered by them."""

START: Position = (-1, "")

_Time = Annotated[int, msgspec.Meta(ge=-1, le=2**62)]
_Id = Annotated[str, msgspec.Meta(pattern=r"^[^\x00]*$", max_length=512)]
_DECODER: msgspec.json.Decoder[Position] = msgspec.json.Decoder(tuple[_Time, _Id])
"""Accepts only positions that the databases can store, since callers may forge tokens."""

_CHECK_BYTES = 8

PAGE_BYTES_MAX = 3 * 2**20
"""gRPC's stubs take messages of up to 4 MiB by default."""

FRAME_BYTES = 5
"""Most bytes of an item's tag and length in its list."""

T = TypeVar("T")
M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Page:
    """Page that a list request asks for."""

    size: int
    after: Position
    list_name: str
    """Name of the list, with what the request selects from it."""

    @classmethod
    def of(cls, page_size: int, page_token: str, *list_name: object) -> Page:
        """Return the page for a request's fields. Raise Failure INVALID_FIELD.

        `list_name` is what all requests for the pages of one list have in common: the method, and
        the fields that select items.
        """
        if page_size < 0:
            raise invalid("page_size", "page_size must not be negative")
        name = repr(list_name)
        after = START
        if page_token:
            try:
                after = _DECODER.decode(decipher(page_token, name))
            except (*NOT_JSON, ValueError) as error:
                message = "page_token is not the next_page_token of the same list"
                raise invalid("page_token", message) from error
        return cls(min(page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX), after, name)

    @property
    def limit(self) -> int:
        """Number of rows to read: one more than the page, to detect the last page."""
        return self.size + 1

    def cut(
        self, found: Sequence[T], messages: Iterable[M], position_of: Callable[[T], Position]
    ) -> tuple[Sequence[M], str]:
        """Return the messages of the page, and the token of the next one: empty on the last page.

        `messages` are those of the `limit` items that were found, in their order. A page ends
        before `size` where it would have more than `PAGE_BYTES_MAX`, but not before its first item.
        """
        shown: list[M] = []
        total_bytes = 0
        for message in islice(messages, self.size):
            total_bytes += message.ByteSize() + FRAME_BYTES
            if total_bytes > PAGE_BYTES_MAX and shown:
                break
            shown.append(message)
        if len(shown) == len(found):
            return shown, ""
        last = position_of(found[len(shown) - 1])
        return shown, encipher(msgspec.json.encode(last), self.list_name)


def encipher(text: bytes, list_name: str) -> str:
    """Return the token for a text."""
    check = _check(text, list_name)
    return urlsafe_b64encode(check + _mask(text, check)).decode().rstrip("=")


def decipher(token: str, list_name: str) -> bytes:
    """Return the text of a token of this list. Raise ValueError for any other."""
    try:
        data = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
    except binascii.Error as error:
        raise ValueError("not base64") from error
    check, masked = data[:_CHECK_BYTES], data[_CHECK_BYTES:]
    text = _mask(masked, check)
    if _check(text, list_name) != check:
        raise ValueError("another list's")
    return text


def _check(text: bytes, list_name: str) -> bytes:
    name = list_name.encode("utf-8", "surrogatepass")
    key = hashlib.blake2b(name, digest_size=32).digest()
    return hashlib.blake2b(text, digest_size=_CHECK_BYTES, key=key).digest()


def _mask(text: bytes, check: bytes) -> bytes:
    stream = hashlib.shake_128(check).digest(len(text))
    return bytes(one ^ other for one, other in zip(text, stream, strict=True))
